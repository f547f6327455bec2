"""The physical limit: encoding and posting bodies that are ready, with nothing around it. Microseconds of processor time.

Runs in its own process, in the environment that has orjson.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from . import workloads
from .client import BATCH
from .ours import attributes, destinations
from .sink import Control

PLATFORMS = ("meta", "tiktok", "reddit", "ga4")
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer a"}
Post = Callable[[str, bytes], object]


def run(sink: str, _control: Control, tag: str, params: dict[str, Any]) -> dict[str, Any]:
    """Time each encoder and each client.

    Returns:
        `<platform>`: encoding and posting a body of 1,000 events, per event; `one`: posting a body of one event.
    """
    import orjson

    posts = clients(sink)
    found: dict[str, Any] = {}
    for platform in PLATFORMS[:3]:
        body = bodies(sink, platform, tag)
        encoded = as_json(body)
        path = f"/limit-{platform}/events"
        found[platform] = {
            "json": processor_time(lambda body=body: as_json(body), params["large"]) / BATCH,
            "orjson": processor_time(lambda body=body: orjson.dumps(body), params["large"]) / BATCH,
            **{
                name: processor_time(lambda post=post, path=path, encoded=encoded: post(path, encoded), params["large"])
                / BATCH
                for name, post in posts.items()
            },
            "bytes": len(encoded) / BATCH,
        }
    one = as_json(bodies(sink, "ga4", tag))
    found["one"] = {
        name: processor_time(lambda post=post: post("/limit-ga4/mp/collect", one), params["small"])
        for name, post in posts.items()
    }
    return found


def as_json(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def bodies(sink: str, platform: str, tag: str) -> Any:
    """What EventFlows would send to this platform: 1,000 different purchases in one body, or one for GA4."""
    import eventflows

    def body(order: workloads.Order) -> Any:
        return eventflows.render("purchase", attributes(order), providers=destinations(sink, [platform]))[0].body

    first, *others = (body(order) for order in islice(workloads.orders(tag), 1 if platform == "ga4" else BATCH))
    for other in others:
        events(first).extend(events(other))
    return first


def events(body: Any) -> list[Any]:
    """The list of events in a body of Meta's, TikTok's or Reddit's."""
    data = body["data"]
    found: list[Any] = data["events"] if isinstance(data, dict) else data
    return found


def clients(sink: str) -> dict[str, Post]:
    """Posting on one kept connection, and reading the answer."""
    import requests
    import urllib3

    session = requests.Session()
    pool = urllib3.PoolManager().connection_from_url(sink)
    connection = http.client.HTTPConnection(urlsplit(sink).netloc)

    def plain(path: str, body: bytes) -> object:
        connection.request("POST", path, body, HEADERS)
        return connection.getresponse().read()

    return {
        "requests": lambda path, body: session.post(sink + path, data=body, headers=HEADERS).content,
        "urllib3": lambda path, body: pool.urlopen("POST", path, body=body, headers=HEADERS).data,
        "http.client": plain,
    }


def processor_time(call: Callable[[], object], times: int) -> float:
    """Microseconds of one call."""
    call()
    before = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - before) * 1e6 / times

"""Click ids travel inward only: to the hosts that are allowed, whatever the client, and never to another."""

from __future__ import annotations

import asyncio
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
import requests
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider

import eventflows
from tests.test_visitor import FBC, Catcher, by_wsgi

CLICK = "conversion.click."


@pytest.fixture
def server() -> Iterator[tuple[int, list[str | None]]]:
    """A port, and the baggage headers of what arrived there."""
    arrived: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines = self.headers.get_all("baggage")
            assert lines is None or len(lines) == 1  # OpenTelemetry reads the first only
            arrived.append(lines[0] if lines else None)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing to say."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    yield running.server_address[1], arrived
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def traced() -> Iterator[None]:
    """An app whose outgoing requests carry OpenTelemetry's baggage, as its instrumentations write it."""
    trace.set_tracer_provider(TracerProvider())
    RequestsInstrumentor().instrument()
    yield
    RequestsInstrumentor().uninstrument()


def injected() -> dict[str, str]:
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def by_urllib(url: str) -> None:
    urllib.request.urlopen(urllib.request.Request(url, headers=injected())).close()  # noqa: S310


def by_requests(url: str) -> None:
    requests.get(url, timeout=5)


def by_httpx(url: str) -> None:
    httpx = pytest.importorskip("httpx")
    httpx.get(url, headers=injected(), trust_env="example" in url)


def by_async_httpx(url: str) -> None:
    httpx = pytest.importorskip("httpx")

    async def get() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.get(url, headers=injected())

    asyncio.run(get())


def by_aiohttp(url: str) -> None:
    aiohttp = pytest.importorskip("aiohttp")

    async def get() -> None:
        async with aiohttp.ClientSession() as client, client.get(url, headers=injected()):
            pass

    asyncio.run(get())


CLIENTS = [by_urllib, by_requests, by_httpx, by_async_httpx, by_aiohttp]


def members(header: str | None) -> dict[str, str]:
    pairs = (member.partition("=") for member in (header or "").split(",") if member)
    return {unquote(name): unquote(value) for name, _, value in pairs}


@pytest.mark.parametrize("client", CLIENTS[:3])
@pytest.mark.parametrize(("allowed", "host"), [("127.0.0.1", "ads.example"), ("orders.example", "orders.example")])
def test_through_a_proxy_the_host_behind_it_counts(
    client: Callable[[str], None], allowed: str, host: str, server: tuple[int, list[str | None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    port, arrived = server
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use
    eventflows.configure([Catcher()], visitor={"baggage": True, "baggage_hosts": [allowed]})
    by_wsgi(lambda: client(f"http://{host}/"))
    assert [bool(header) for header in arrived] == [host == allowed]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("other", [{}, {"tenant": "north"}], ids=["alone", "beside others"])
def test_only_allowed_hosts_get_the_click_ids(
    client: Callable[[str], None], other: dict[str, str], server: tuple[int, list[str | None]], traced: None
) -> None:
    """The app's own baggage goes on as before, to all."""
    port, arrived = server
    options = {"trusted_proxies": ["private"], "baggage": True, "baggage_hosts": ["localhost"]}
    eventflows.configure([Catcher()], visitor=options)

    def handler() -> None:
        carried = context.get_current()
        for name, value in {**other, CLICK + "gclid": "Cj0 abc"}.items():
            carried = baggage.set_baggage(name, value, carried)
        token = context.attach(carried)
        client(f"http://localhost:{port}/")
        client(f"http://127.0.0.1:{port}/")
        context.detach(token)

    by_wsgi(handler)
    inward, outward = map(members, arrived)
    assert inward[CLICK + "fbc"] == FBC
    assert {name: inward.get(name) for name in other} == other
    assert outward == other


def test_what_arrived_by_baggage_is_handed_on_inward_and_not_outward(
    server: tuple[int, list[str | None]], traced: None
) -> None:
    port, arrived = server
    eventflows.configure([Catcher()], visitor={"baggage": True, "baggage_hosts": [".localhost", "localhost"]})
    token = context.attach(propagate.extract({"baggage": "conversion.click.ttclid=E.C.P.1,fbclid=IwAR1,tenant=north"}))
    by_requests(f"http://localhost:{port}/")
    by_requests(f"http://127.0.0.1:{port}/")
    context.detach(token)
    assert [members(header) for header in arrived] == [
        {CLICK + "ttclid": "E.C.P.1", CLICK + "fbclid": "IwAR1", "tenant": "north"},
        {"tenant": "north"},
    ]


@pytest.mark.parametrize("client", CLIENTS)
def test_switched_off_nothing_is_added_and_nothing_is_taken(
    client: Callable[[str], None], server: tuple[int, list[str | None]], traced: None
) -> None:
    port, arrived = server
    eventflows.configure([Catcher()], visitor={"trusted_proxies": ["private"]})
    token = context.attach(baggage.set_baggage("tenant", "north"))
    by_wsgi(lambda: client(f"http://localhost:{port}/"))
    context.detach(token)
    assert [members(header) for header in arrived] == [{"tenant": "north"}]


def test_the_header_stays_small() -> None:
    """However long the click ids are."""
    from eventflows.baggage import _members

    with eventflows.visitor_context({CLICK + "fbclid": "x" * 4000, CLICK + "gclid": "y" * 4000}):
        assert len(_members()) < 4096

"""The floor: what nobody can do without, and nothing else."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .client import BATCH, Client
from .ours import attributes, page


def floor(sink: str, tuned: bool, *, orjson: bool = False) -> Client:
    """The same work without any safety: build the arguments, map them for Meta, hash, encode, and post 1,000 at a time."""
    del tuned
    import http.client
    from urllib.parse import urlsplit

    dumps: Callable[[Any], bytes] = lambda body: json.dumps(body, separators=(",", ":")).encode()  # noqa: E731
    if orjson:
        from orjson import dumps
    connection = http.client.HTTPConnection(urlsplit(sink).netloc)
    queue: deque[tuple[str, float, dict[str, Any]]] = deque()
    idle, work = threading.Event(), threading.Event()
    sha256 = hashlib.sha256

    def wire(name: str, at: float, values: dict[str, Any]) -> dict[str, Any]:
        email, phone = values.get("user.email"), values.get("user.phone")
        user: dict[str, Any] = {
            "client_ip_address": values["client.address"],
            "client_user_agent": values["user_agent.original"],
        }
        if email:
            user["em"] = [sha256(email.strip().lower().encode()).hexdigest()]
        if phone:
            user["ph"] = [sha256(phone.translate(_DIGITS_ONLY).encode()).hexdigest()]
        event: dict[str, Any] = {
            "event_name": name,
            "event_time": int(at),
            "event_id": values.get("order_id") or values.get("event_id"),
            "action_source": "website",
            "event_source_url": values["url.full"],
            "user_data": user,
        }
        if "value" in values:
            event["custom_data"] = {
                "value": values["value"],
                "currency": values["currency"],
                "order_id": values["order_id"],
                "content_type": "product",
                "contents": [
                    {"id": item["id"], "title": item["name"], "item_price": item["price"], "quantity": item["quantity"]}
                    for item in values["items"]
                ],
            }
        return event

    def send() -> None:
        while True:
            work.wait()
            while queue:
                idle.clear()
                batch = [wire(*queue.popleft()) for _ in range(min(len(queue), BATCH))]
                body = dumps({"data": batch})
                headers = {"Content-Type": "application/json", "Authorization": "Bearer a"}
                connection.request("POST", "/floor/v26.0/1234567890/events", body, headers)
                json.loads(connection.getresponse().read())
            work.clear()
            idle.set()

    threading.Thread(target=send, daemon=True).start()
    append, now = queue.append, time.time

    def record(name: str, values: dict[str, Any]) -> None:
        append((name, now(), values))
        if len(queue) >= BATCH and not work.is_set():
            work.set()

    def flush() -> None:
        while queue or not idle.is_set():
            work.set()
            idle.wait(0.01)

    idle.set()
    return Client(
        lambda order: record("Purchase", attributes(order)),
        lambda order: record("PageView", page(order)),
        flush,
        flush,
    )


_DIGITS_ONLY = {code: None for code in range(128) if not chr(code).isdigit()}

"""The app that the servers run. Each request records one conversion, and its answer says which process did it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from eventflows import running
from eventflows.visitor import ASGIMiddleware

from .recording import configure, record

if running.current() is None:  # else the server's own configuration has made it
    configure()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI."""
    if order := environ["PATH_INFO"].strip("/"):
        record(order)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def bare_asgi(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]) -> None:
    """ASGI, without lifespan, as Django is."""
    if scope["type"] != "http":
        raise ValueError(f"no {scope['type']} here")
    if order := scope["path"].strip("/"):
        record(order)
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


asgi = ASGIMiddleware(bare_asgi)

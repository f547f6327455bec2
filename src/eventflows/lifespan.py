"""The end of an ASGI server, which it tells the app of: the last moment to deliver, as uvicorn runs no exit handlers.

https://asgi.readthedocs.io/en/latest/specs/lifespan.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from . import lifecycle

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


async def answer_lifespan(app: ASGIApp, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Have the app answer, and deliver what is queued before the server hears that the app has ended.

    An app that knows no lifespan, such as Django's, says so by an exception; we answer in its place then.
    """
    spoken = False

    async def received() -> Message:
        nonlocal spoken
        spoken = True
        return await receive()

    async def sent(message: Message) -> None:
        nonlocal spoken
        spoken = True
        if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await _deliver()
        await send(message)

    try:
        await app(scope, received, sent)
    except Exception:
        if spoken:
            raise
    else:
        return
    while True:
        message = await receive()
        await sent({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _deliver() -> None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # a server that runs on something else
        lifecycle.flush()
    else:
        await loop.run_in_executor(None, lifecycle.flush)

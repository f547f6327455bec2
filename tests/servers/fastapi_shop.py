"""The shop in FastAPI, instrumented: no code of ours for the end of the server."""

from __future__ import annotations

import os

import eventflows

eventflows.EventFlowsInstrumentor().instrument()

from fastapi import FastAPI  # noqa: E402
from fastapi.responses import PlainTextResponse  # noqa: E402

from .recording import configure, record  # noqa: E402

configure()
app = FastAPI()


@app.get("/{order:path}", response_class=PlainTextResponse)
async def buy(order: str) -> str:
    if order:
        record(order)
    return str(os.getpid())

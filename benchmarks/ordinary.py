"""What an ordinary request pays, one that records no conversion: the Flask example, called in its own process without a server.

Microseconds of processor time without EventFlows and with it, in one process and in turns of some milliseconds, which are too
short for the machine to become slower or faster for one of them.
"""

from __future__ import annotations

import gc
import io
import statistics
import sys
import time
from typing import Any

from .app import OTHER, shop
from .sink import Control

TURNS = 40
REQUESTS = 25
BODY = OTHER.encode()
ENVIRON = {
    "REQUEST_METHOD": "POST",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/orders",
    "QUERY_STRING": "",
    "SERVER_NAME": "shop.example",
    "SERVER_PORT": "443",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "CONTENT_TYPE": "application/json",
    "CONTENT_LENGTH": str(len(BODY)),
    "HTTP_HOST": "shop.example",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "HTTP_ACCEPT_LANGUAGE": "sv-SE,sv;q=0.9",
    "HTTP_COOKIE": "_fbp=fb.1.1795430000000.1098115397; _ga=GA1.1.1836402915.1795431201; session=abc",
    "HTTP_X_FORWARDED_FOR": "203.0.113.9",
    "HTTP_X_FORWARDED_PROTO": "https",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}


def run(_sink: str, _control: Control, _tag: str, params: dict[str, Any]) -> dict[str, Any]:
    """The medians of each block of turns."""
    from flask import Flask
    from opentelemetry import trace
    from opentelemetry.sdk.trace import Tracer, TracerProvider

    import eventflows
    from eventflows import ConsoleProvider, EventFlowsInstrumentor

    class Untouched(Flask):
        """Keeps what the instrumentor will replace."""

        __call__ = Flask.__call__

    class UntouchedTracer(Tracer):
        start_span = Tracer.start_span

    class UntouchedProvider(TracerProvider):
        def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
            tracer = super().get_tracer(*args, **kwargs)
            tracer.__class__ = UntouchedTracer
            return tracer

    traces = TracerProvider()
    trace.set_tracer_provider(traces)
    eventflows.configure([ConsoleProvider()], visitor={"trusted_proxies": ["loopback"]}, commit="span_ok")
    apps = {"without": shop(UntouchedProvider()), "with": shop(traces)}
    apps["without"].__class__ = Untouched
    EventFlowsInstrumentor().instrument()
    for app in apps.values():
        _answer(app, 500)
    gc.collect()
    gc.freeze()
    return {"blocks": [{"the Flask example": _block(apps)} for _ in range(params["blocks"])]}


def _block(apps: dict[str, Any]) -> dict[str, float]:
    turns: dict[str, list[float]] = {when: [] for when in apps}
    for number in range(TURNS):
        for when in apps if number % 2 == 0 else reversed(apps):
            _answer(apps[when], 2)
            turns[when].append(_answer(apps[when], REQUESTS))
    found = {when: statistics.median(times) for when, times in turns.items()}
    added = statistics.median(one - other for one, other in zip(turns["with"], turns["without"], strict=True))
    return {**found, "added": added}


def _answer(app: Any, requests: int) -> float:
    before = time.process_time()
    for _ in range(requests):
        body = app({**ENVIRON, "wsgi.input": io.BytesIO(BODY)}, lambda *_: None)
        list(body)
        body.close()
    return (time.process_time() - before) / requests * 1e6

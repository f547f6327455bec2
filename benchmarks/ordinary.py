"""What an ordinary request pays, one that records no conversion: the Flask example, called in its own process without a server.

Microseconds of processor time without EventFlows and with it, alternately in one process; the least of the rounds.
"""

from __future__ import annotations

import gc
import io
import sys
import time
from typing import Any

from .app import OTHER, shop
from .sink import Control

ROUNDS = 15
REQUESTS = 500
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


def run(_sink: str, _control: Control, _tag: str, _params: dict[str, Any]) -> dict[str, Any]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    import eventflows
    from eventflows import ConsoleProvider, EventFlowsInstrumentor

    traces = TracerProvider()
    trace.set_tracer_provider(traces)
    eventflows.configure([ConsoleProvider()], visitor={"trusted_proxies": ["loopback"]}, commit="span_ok")
    apps = {"without": shop(TracerProvider()), "with": shop(traces)}
    found: dict[str, float] = {}
    for number in range(ROUNDS):
        for when in apps if number % 2 == 0 else reversed(apps):
            if when == "with":
                EventFlowsInstrumentor().instrument()
            _answer(apps[when], REQUESTS // 5)
            gc.collect()
            found[when] = min(_answer(apps[when], REQUESTS), found.get(when, float("inf")))
            EventFlowsInstrumentor().uninstrument()
    return {"the Flask example": found}


def _answer(app: Any, requests: int) -> float:
    before = time.process_time()
    for _ in range(requests):
        body = app({**ENVIRON, "wsgi.input": io.BytesIO(BODY)}, lambda *_: None)
        list(body)
        body.close()
    return (time.process_time() - before) / requests * 1e6

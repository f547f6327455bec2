"""Switched on without a change to the app: web frameworks keep the visitor, Celery carries it, `uninstrument` restores all."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import wrapt
from opentelemetry import context, trace
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

import eventflows
from eventflows import EventFlowsInstrumentor
from eventflows.conversion import Conversion
from tests.conftest import environment
from tests.test_visitor import CUSTOMER, Catcher, environ, scope

ADDRESS = CUSTOMER["client.address"]


@pytest.fixture
def caught() -> Iterator[list[Conversion]]:
    """What reaches the provider of an instrumented app whose sampler drops every span."""
    Catcher.caught = []
    trace.set_tracer_provider(TracerProvider(sampler=ALWAYS_OFF))
    eventflows.configure([Catcher()], visitor={"trusted_proxies": ["private"]}, commit="span_ok")
    EventFlowsInstrumentor().instrument()
    yield Catcher.caught
    EventFlowsInstrumentor().uninstrument()


def purchase(order: str) -> None:
    eventflows.get_tracer("app").add_event("Purchase", {"order_id": order})


def settled() -> dict[str, int]:
    assert eventflows.force_flush(5_000)
    pipeline = eventflows.running.current()
    assert pipeline is not None
    return dict(pipeline.stats()["console"].filtered)


def flask_app() -> Any:
    from flask import Flask
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    app = Flask("shop")
    FlaskInstrumentor().instrument_app(app)

    @app.post("/orders")
    def order() -> str:
        purchase("1")
        return "ok"

    @app.post("/fails")
    def fails() -> str:
        purchase("2")
        raise ValueError("rolled back")

    return app


def starlette_app() -> Any:
    from fastapi import FastAPI
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    app = FastAPI()
    FastAPIInstrumentor().instrument_app(app)

    @app.post("/orders")
    async def order() -> str:
        await asyncio.sleep(0)
        purchase("1")
        return "ok"

    @app.post("/fails")
    def fails() -> str:  # in a thread of the framework's pool
        purchase("2")
        raise ValueError("rolled back")

    return app


def call_wsgi(app: Any, path: str) -> str:
    started: list[str] = []
    body = app(
        environ(PATH_INFO=path, **{"wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr}),
        lambda s, *_: started.append(s),
    )
    list(body)
    if close := getattr(body, "close", None):
        close()
    return started[0]


def call_asgi(app: Any, path: str) -> None:
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if not messages:
            await asyncio.sleep(60)  # no disconnect before the answer
        return messages.pop()

    async def send(_message: Any) -> None:
        """The server."""

    request = scope(path=path, raw_path=path.encode(), http_version="1.1", root_path="")
    asyncio.run(app(request, receive, send))


def test_flask_needs_no_code(caught: list[Conversion]) -> None:
    app = flask_app()
    assert call_wsgi(app, "/orders").startswith("200")
    assert call_wsgi(app, "/fails").startswith("500")
    assert settled() == {"span failed": 1}
    (conversion,) = caught
    assert (conversion.order_id, conversion.request.client_address) == ("1", ADDRESS)
    assert conversion.clicks["fbp"] == CUSTOMER["conversion.click.fbp"]


def test_fastapi_needs_no_code(caught: list[Conversion]) -> None:
    app = starlette_app()
    call_asgi(app, "/orders")
    with pytest.raises(ValueError, match="rolled back"):
        call_asgi(app, "/fails")
    assert settled() == {"span failed": 1}
    (conversion,) = caught
    assert (conversion.order_id, conversion.request.client_address) == ("1", ADDRESS)
    assert conversion.request.url == "https://shop.example/orders?ttclid=E.C.P.abc"


DJANGO = """
import asyncio, json, sys
import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.instrumentation.django import DjangoInstrumentor
import eventflows
from tests.test_frameworks import call_asgi, call_wsgi, purchase
from tests.test_visitor import Catcher

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x", DEBUG=False, LOGGING_CONFIG=None)
trace.set_tracer_provider(TracerProvider(sampler=ALWAYS_OFF))
pipeline = eventflows.configure([Catcher()], visitor={"trusted_proxies": ["private"]}, commit="span_ok")
eventflows.EventFlowsInstrumentor().instrument()
DjangoInstrumentor().instrument()
django.setup()

def orders(request):
    purchase(sys.argv[1] + "-1")
    return HttpResponse("ok")

def fails(request):
    purchase(sys.argv[1] + "-2")
    raise ValueError("rolled back")

urlpatterns = [path("orders", orders), path("fails", fails)]
if sys.argv[1] == "wsgi":
    from django.core.wsgi import get_wsgi_application
    app, call = get_wsgi_application(), call_wsgi
else:
    from django.core.asgi import get_asgi_application
    app, call = get_asgi_application(), call_asgi
call(app, "/orders")
call(app, "/fails")
assert eventflows.force_flush(5000)
print("RESULT", json.dumps([[c.order_id, c.request.client_address, c.clicks.get("fbp")] for c in Catcher.caught]),
      json.dumps(dict(pipeline.stats()["console"].filtered)))
"""


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_django_needs_no_code(interface: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DJANGO, interface],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    orders = [[f"{interface}-1", ADDRESS, CUSTOMER["conversion.click.fbp"]]]
    assert result == f"RESULT {json.dumps(orders)} {json.dumps({'span failed': 1})}", done.stderr


def test_a_server_still_sees_an_asgi_application() -> None:
    """Servers ask whether the application is a coroutine function; a wrapped one must still be."""
    pytest.importorskip("uvicorn")
    from starlette.applications import Starlette
    from uvicorn.config import Config

    EventFlowsInstrumentor().instrument()
    try:
        config = Config(Starlette())
        config.load()
        assert config.interface == "asgi3"
    finally:
        EventFlowsInstrumentor().uninstrument()


def test_threads_that_carry_opentelemetrys_context_keep_the_visitor(caught: list[Conversion]) -> None:
    """By OpenTelemetry's own instrumentation of threads, from a Flask request."""
    from flask import Flask
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    app = Flask("shop")
    FlaskInstrumentor().instrument_app(app)

    @app.post("/orders")
    def order() -> str:
        thread = threading.Thread(target=purchase, args=("1",))
        thread.start()
        thread.join()
        return "ok"

    ThreadingInstrumentor().instrument()
    try:
        call_wsgi(app, "/orders")
    finally:
        ThreadingInstrumentor().uninstrument()
    settled()
    assert [conversion.request.client_address for conversion in caught] == [ADDRESS]


CELERY = """
import sys
from celery import Celery
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.instrumentation.celery import CeleryInstrumentor
import eventflows
from eventflows import ConsoleProvider

trace.set_tracer_provider(TracerProvider(sampler=ALWAYS_OFF))
eventflows.configure([ConsoleProvider()], visitor={"trusted_proxies": ["private"]}, commit="span_ok")
eventflows.EventFlowsInstrumentor().instrument()
if TRACED:
    CeleryInstrumentor().instrument()
app = Celery("shop", broker="memory://", backend="cache+memory://")
app.conf.task_always_eager = EAGER

@app.task(bind=True, max_retries=1)
def charge(self, order, fails=False):
    eventflows.get_tracer("worker").add_event("Purchase", {"order_id": order})
    if fails == "retry" and not self.request.retries:
        raise self.retry(countdown=0)
    if fails is True:
        raise ValueError("declined")

def main():
    from tests.test_visitor import by_wsgi
    def handler():
        charge.delay("1")
        charge.delay("2", fails=True)
        charge.delay("3", fails="retry")
        token = context.attach(baggage.set_baggage("fbclid", "of-the-request"))
        with eventflows.visitor_context(None):
            charge.delay("5")
        context.detach(token)
    by_wsgi(handler)
    charge.delay("4")

if EAGER:
    main()
else:
    from celery.contrib.testing.worker import start_worker
    with start_worker(app, perform_ping_check=False, pool="solo", loglevel="CRITICAL"):
        main()
        import time
        pipeline = eventflows.running.current()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            stats = pipeline.stats()["console"]
            if stats.captured >= 6 and not stats.pending:
                break
            time.sleep(0.05)
eventflows.force_flush(5000)
pipeline = eventflows.running.current()
print("FILTERED", dict(pipeline.stats()["console"].filtered))
"""


@pytest.mark.parametrize("eager", [False, True], ids=["worker", "eager"])
@pytest.mark.parametrize("traced", [True, False], ids=["traced", "untraced"])
def test_celery_carries_the_visitor_and_a_failed_task_reports_nothing(eager: bool, traced: bool) -> None:
    """Also a retried task, once; a task that no request started has no visitor, and one for a visitor of whom nothing is known
    takes nothing from the request."""
    program = f"EAGER, TRACED = {eager}, {traced}\n{CELERY}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=90, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    events = {e["order_id"]: e for line in lines if line.startswith("{") for e in [json.loads(line)]}
    assert sorted(events) == ["1", "3", "4", "5"], done.stdout + done.stderr
    assert [events[order].get("request", {}).get("client_address") for order in ("1", "3", "4")] == [
        ADDRESS,
        ADDRESS,
        None,
    ]
    assert "clicks" in events["1"]
    assert "clicks" not in events["5"]
    assert lines[-1] == "FILTERED {'span failed': 2}"


def test_uninstrument_restores_everything() -> None:
    import http.client

    from celery import signals
    from flask import Flask
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.trace import Span, Tracer
    from starlette.applications import Starlette

    places: list[tuple[Any, str]] = [
        (Span, "add_event"), (trace.NonRecordingSpan, "add_event"), (Tracer, "start_span"), (Flask, "__call__"),
        (Starlette, "__call__"), (LoggerProvider, "add_log_record_processor"), (TracerProvider, "add_span_processor"),
        (W3CBaggagePropagator, "inject"), (http.client.HTTPConnection, "putheader"),
    ]  # fmt: skip
    before = [vars(owner)[name] for owner, name in places]
    receivers = len(signals.task_prerun.receivers)
    eventflows.configure([Catcher()], visitor={"baggage": True, "baggage_hosts": ["localhost"]})
    EventFlowsInstrumentor().instrument()
    EventFlowsInstrumentor().instrument()
    assert not [name for (owner, name), old in zip(places, before, strict=True) if vars(owner)[name] is old]
    assert hasattr(trace.get_tracer("app"), "add_event")
    EventFlowsInstrumentor().uninstrument()
    eventflows.shutdown(1_000)
    assert [vars(owner)[name] for owner, name in places] == before
    assert len(signals.task_prerun.receivers) == receivers
    assert not hasattr(trace.get_tracer("app"), "add_event")


def test_uninstrument_leaves_the_wrappers_of_others_in_place() -> None:
    """Somebody who wrapped the same function later still has it wrapped, and ours in it does nothing any more."""
    from opentelemetry.sdk.trace import Span

    calls: list[str] = []
    original = vars(Span)["add_event"]
    eventflows.configure([Catcher()])
    Catcher.caught = []
    EventFlowsInstrumentor().instrument()
    ours = vars(Span)["add_event"]

    def theirs(self: Any, name: str, *args: Any, **kwargs: Any) -> None:
        calls.append(name)
        ours.__get__(self, Span)(name, *args, **kwargs)

    Span.add_event = theirs  # type: ignore[method-assign]
    try:
        EventFlowsInstrumentor().uninstrument()
        trace.set_tracer_provider(TracerProvider())
        with trace.get_tracer("app").start_as_current_span("x") as span:
            span.add_event("Purchase", {"user.email": "zoe@example.com"})
        assert calls == ["Purchase"]
        assert dict(span.events[0].attributes) == {"user.email": "zoe@example.com"}  # type: ignore[attr-defined]
    finally:
        Span.add_event = original  # type: ignore[method-assign]


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
def test_spans_start_as_the_sdk_has_it(sampler: Any, caught: list[Conversion]) -> None:
    """Whatever is given, by position or by name, also what only a later SDK knows, and through the wrapper of another."""
    theirs = vars(Tracer)["start_span"]
    seen: list[tuple[Any, dict[str, Any]]] = []

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        seen.append((instance, kwargs))
        return wrapped(*args, **{name: value for name, value in kwargs.items() if name != "colour"})

    EventFlowsInstrumentor().uninstrument()
    try:
        Tracer.start_span = wrapt.FunctionWrapper(theirs, wrapper)  # type: ignore[method-assign]
        EventFlowsInstrumentor().instrument()
        ours = vars(Tracer)["start_span"]
        seen.clear()  # the self-test
        tracer: Any = TracerProvider(sampler=sampler).get_tracer("app")
        server, link = trace.SpanKind.SERVER, trace.Link(tracer.start_span("before").get_span_context())
        given = ("order", None, server, {"http.method": "POST"}, [link], 5, False, False)
        names = list(inspect.signature(theirs).parameters)[1:]
        spans = [tracer.start_span(*given), tracer.start_span(**dict(zip(names, given, strict=True)), colour="red")]
    finally:
        EventFlowsInstrumentor().uninstrument()
        Tracer.start_span = theirs  # type: ignore[method-assign]
    assert list(inspect.signature(ours, follow_wrapped=False).parameters)[1:-1] == names
    assert [instance for instance, _ in seen] == [tracer] * 3
    assert seen[-1][1] == {"colour": "red"}
    for span in spans if sampler is ALWAYS_ON else ():
        assert (span.name, span.kind, dict(span.attributes)) == ("order", server, {"http.method": "POST"})
        assert (span.start_time, span.links[0].context) == (5, link.context)
        assert (span._record_exception, span._set_status_on_exception) == (False, False)


def test_the_context_that_is_current_stays_so(caught: list[Conversion]) -> None:
    """A request leaves nothing behind in the thread that answered it."""
    before = context.get_current()
    call_wsgi(flask_app(), "/orders")
    assert context.get_current() == before
    assert eventflows.visitor_snapshot() == {}

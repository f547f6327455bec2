"""What a conversion takes from the request, the spans and the baggage around it, and what it must not take."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry._logs import get_logger
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import SpanKind

import eventflows
from eventflows import EventFlowsInstrumentor, log, visitor
from eventflows.context import around
from eventflows.conversion import Conversion
from eventflows.providers.console import ConsoleProvider
from eventflows.told import Told
from eventflows.visitor import ASGIMiddleware, WSGIMiddleware

FBP = "fb.1.1795430000000.1098115397"
FBC = "fb.1.1795430000000.IwAR2F4-dbP0l7Mn1IawQQGCINEz7PYXQvwjNwB_qa2ofrHyiLjcbCRxTDMgk"
COOKIES = f"_fbp={FBP}; _fbc={FBC}; _ga=GA1.1.1836402915.1795431201; _ga_123=GS1.1.1795431201.1.1.1795431300.0.0.0; x=y"
CUSTOMER = {
    "client.address": "203.0.113.9",
    "user_agent.original": "Mozilla/5.0 (X11)",
    "url.full": "https://shop.example/orders?ttclid=E.C.P.abc",
    "http.request.header.referer": "https://shop.example/cart",
    "browser.language": "sv-SE",
    "http.request.header.sec-gpc": True,
    "conversion.click.fbp": FBP,
    "conversion.click.fbc": FBC,
    "conversion.click.ga_client_id": "GA1.1.1836402915.1795431201",
    "conversion.click.ga_session_id.123": "1795431201",
    "conversion.click.ttclid": "E.C.P.abc",
}
"""What is known of the customer whose request `environ` and `scope` are."""


def environ(**changes: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST",
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "10.0.0.7",
        "SERVER_NAME": "app",
        "SERVER_PORT": "8000",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/orders",
        "QUERY_STRING": "ttclid=E.C.P.abc",
        "HTTP_HOST": "shop.example",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11)",
        "HTTP_REFERER": "https://shop.example/cart",
        "HTTP_ACCEPT_LANGUAGE": "sv-SE,sv;q=0.9",
        "HTTP_SEC_GPC": "1",
        "HTTP_COOKIE": COOKIES,
        "HTTP_X_FORWARDED_FOR": "192.0.2.66, 203.0.113.9, 10.0.0.3",
        "HTTP_X_FORWARDED_PROTO": "https",
        **changes,
    }


def scope(**changes: Any) -> dict[str, Any]:
    headers = {k[5:].lower().replace("_", "-"): v for k, v in environ().items() if k.startswith("HTTP_")}
    return {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/orders",
        "raw_path": b"/orders",
        "query_string": b"ttclid=E.C.P.abc",
        "client": ("10.0.0.7", 4711),
        "server": ("app", 8000),
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        **changes,
    }


def by_wsgi(
    handler: Callable[[], Any], request: dict[str, Any] | None = None, status: str = "200 OK", **settings: Any
) -> None:
    def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        handler()
        start_response(status, [])
        return [b"ok"]

    list(WSGIMiddleware(app, **settings)(request or environ(), lambda *_: None))


def by_asgi(
    handler: Callable[[], Any], request: dict[str, Any] | None = None, status: int = 200, **settings: Any
) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        handler()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def nothing(*_: Any) -> Any:
        return {}

    asyncio.run(ASGIMiddleware(app, **settings)(request or scope(), nothing, nothing))


PROXIES = {"trusted_proxies": ["private"]}


@pytest.mark.parametrize("way", [by_wsgi, by_asgi])
def test_the_request_is_read_once_and_whole(way: Any) -> None:
    """Cookies, click ids, address behind the proxies, URL as the visitor sees it, user agent, referrer, language, Sec-GPC."""
    found: list[dict[str, Any]] = []
    way(lambda: found.append(eventflows.visitor_snapshot()), **PROXIES)
    assert found == [CUSTOMER]
    assert eventflows.visitor_snapshot() == {}


@pytest.mark.parametrize("way", [by_wsgi, by_asgi])
def test_what_middleware_further_in_makes_of_the_request_changes_nothing(way: Any) -> None:
    """Such as one that puts the client in the place of the proxy; the visitor is read after that, and as it came."""
    found: list[dict[str, Any]] = []
    request = environ() if way is by_wsgi else scope()

    def handler() -> None:
        request.update(REMOTE_ADDR="192.0.2.66", QUERY_STRING="ttclid=other", HTTP_USER_AGENT="other")
        for header in (b"cookie", b"_fbp=other"), (b"x-forwarded-for", b"192.0.2.66"), (b"user-agent", b"other"):
            request.get("headers", []).append(header)
        request.update(client=("192.0.2.66", 1), query_string=b"ttclid=other", headers=[])
        found.append(eventflows.visitor_snapshot())

    way(handler, request, **PROXIES)
    assert found == [CUSTOMER]


@pytest.mark.parametrize("way", [by_wsgi, by_asgi])
def test_what_waits_of_a_request_is_what_will_be_read(way: Any) -> None:
    """And not its sockets and streams, or what else the server has in there."""

    class Stream:
        pass

    request = environ() if way is by_wsgi else scope()
    stream = request["wsgi.input"] = Stream()
    gone, told = weakref.ref(stream), []
    way(lambda: told.append(around().told), request, **PROXIES)
    del request, stream
    assert gone() is None
    assert told[0].attributes == CUSTOMER


def test_a_streamed_body_is_the_request_until_it_is_closed() -> None:
    """Also where `wsgi.file_wrapper` is a function, as uWSGI has it; and a body may be closed twice."""
    found: list[Any] = []

    def app(_environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        found.append(eventflows.visitor_snapshot().get("client.address"))
        yield b"ok"
        found.append(eventflows.visitor_snapshot().get("client.address"))

    request = environ(**{"wsgi.file_wrapper": lambda *_: ()})
    body: Any = WSGIMiddleware(app, **PROXIES)(request, lambda *_: None)
    assert list(body) == [b"ok"]
    body.close()
    body.close()
    assert found == ["203.0.113.9", "203.0.113.9"]
    assert eventflows.visitor_snapshot() == {}


def test_the_address_is_never_what_the_client_says_of_itself() -> None:
    """Without trusted proxies the headers are not believed; behind an unknown proxy nobody's address is sent."""
    found: list[Any] = []

    def look() -> None:
        found.append(eventflows.visitor_snapshot().get("client.address"))

    by_wsgi(look, environ(REMOTE_ADDR="198.51.100.4"))
    by_wsgi(look, environ(REMOTE_ADDR="198.51.100.4"), **PROXIES)
    by_wsgi(look, environ())
    by_wsgi(look, environ(HTTP_X_FORWARDED_FOR="203.0.113.9, unknown, 10.0.0.3"), **PROXIES)
    assert found == ["198.51.100.4", "198.51.100.4", None, None]


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"HTTP_COOKIE": "_fbp=nonsense; _ga=GA1.1.1836402915.1795431201"}, "conversion.click.fbp"),
        ({"HTTP_COOKIE": "_fbc=fb.1"}, "conversion.click.fbc"),
        ({"HTTP_REFERER": "not a url"}, "http.request.header.referer"),
        ({"HTTP_ACCEPT_LANGUAGE": "*"}, "browser.language"),
        ({"HTTP_SEC_GPC": "0"}, "http.request.header.sec-gpc"),
        ({"REMOTE_ADDR": "garbage", "HTTP_X_FORWARDED_FOR": ""}, "client.address"),
        ({"QUERY_STRING": "ttclid=a%20b"}, "conversion.click.ttclid"),
    ],
)
def test_a_malformed_value_costs_its_own_field_only(changes: dict[str, Any], gone: str) -> None:
    found: list[dict[str, Any]] = []
    by_wsgi(lambda: found.append(eventflows.visitor_snapshot()), environ(**changes), **PROXIES)
    assert gone not in found[0]
    assert found[0]["user_agent.original"] == "Mozilla/5.0 (X11)"


# --- through the pipeline


class Catcher(ConsoleProvider):
    """Keeps what reaches the provider."""

    caught: ClassVar[list[Conversion]] = []

    def encode(self, conversion: Conversion) -> Any:
        self.caught.append(conversion)
        return super().encode(conversion)


@pytest.fixture
def caught() -> list[Conversion]:
    Catcher.caught = []
    return Catcher.caught


def start(sampler: Any = ALWAYS_ON, **options: Any) -> InMemorySpanExporter:
    spans = InMemorySpanExporter()
    traces = TracerProvider(sampler=sampler)
    traces.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(traces)
    eventflows.configure([Catcher()], **options)
    return spans


@pytest.fixture
def instrumented() -> Iterator[None]:
    yield
    EventFlowsInstrumentor().uninstrument()


def purchase(order: str = "1", **attributes: Any) -> None:
    eventflows.get_tracer("app").add_event("Purchase", {"order_id": order, **attributes})


def test_a_conversion_takes_what_it_does_not_carry_itself(caught: list[Conversion]) -> None:
    start(visitor=PROXIES)
    by_wsgi(lambda: purchase(url="https://shop.example/thanks"))
    assert eventflows.force_flush(5_000)
    request = caught[0].request
    assert (request.client_address, request.user_agent, request.url) == (
        "203.0.113.9", "Mozilla/5.0 (X11)", "https://shop.example/thanks",
    )  # fmt: skip
    assert caught[0].clicks["fbc"] == FBC


@pytest.mark.parametrize(
    "attributes",
    [
        {"conversion.action_source": "physical_store"},
        {"conversion.action_source": "phone_call"},
        {"user_agent": "Mozilla/5.0 (iPhone)"},
        {"ip_address": "198.51.100.77"},
    ],
)
def test_another_persons_request_is_not_taken(attributes: dict[str, Any], caught: list[Conversion]) -> None:
    """A clerk's browser, or a request that the event's own address or user agent contradicts."""
    start(visitor=PROXIES)
    by_wsgi(lambda: purchase(**attributes))
    assert eventflows.force_flush(5_000)
    assert caught[0].clicks == {}
    assert caught[0].request.referrer is None


def test_a_server_that_listens_on_both_families_writes_the_same_address_another_way(caught: list[Conversion]) -> None:
    start()
    request = environ(REMOTE_ADDR="::ffff:203.0.113.9", HTTP_X_FORWARDED_FOR="")
    by_wsgi(lambda: purchase(ip_address=request["REMOTE_ADDR"]), request)
    assert eventflows.force_flush(5_000)
    assert (caught[0].request.client_address, caught[0].clicks["fbc"]) == ("203.0.113.9", FBC)


def test_nothing_of_the_visitor_is_put_on_spans(caught: list[Conversion], instrumented: None) -> None:
    spans = start(visitor=PROXIES)
    EventFlowsInstrumentor().instrument()

    def handler() -> None:
        with trace.get_tracer("app").start_as_current_span("order") as span:
            span.add_event("Purchase", {"order_id": "1"})
            purchase("2")

    by_wsgi(handler)
    assert eventflows.force_flush(5_000)
    assert [conversion.request.client_address for conversion in caught] == ["203.0.113.9"] * 2
    written = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "Purchase" in written
    assert not [value for value in ("203.0.113.9", FBP, FBC, "Mozilla", "E.C.P.abc") if value in written]


SERVER_SPANS = [
    {  # the former conventions, as Flask's and Django's instrumentations write them
        "http.scheme": "https", "http.host": "shop.example", "http.target": "/orders?gclid=Cj0abc", "http.method": "POST",
        "http.user_agent": "Mozilla/5.0 (X11)", "net.peer.ip": "203.0.113.9",
        "http.request.header.referer": ("https://shop.example/cart",), "http.request.header.sec_gpc": ["1"],
    },
    {  # the stable ones
        "url.scheme": "https", "server.address": "shop.example", "server.port": 443, "url.path": "/orders",
        "url.query": "gclid=Cj0abc", "http.request.method": "POST", "user_agent.original": "Mozilla/5.0 (X11)",
        "client.address": "203.0.113.9", "http.request.header.referer": ["https://shop.example/cart"],
        "http.request.header.sec-gpc": ["1"],
    },
]  # fmt: skip


@pytest.mark.parametrize("attributes", SERVER_SPANS)
@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
def test_the_http_server_span_tells_of_the_request_sampled_or_not(
    attributes: dict[str, Any], sampler: Any, caught: list[Conversion], instrumented: None
) -> None:
    """By the old and the new attribute names, also for an event on a span far below it."""
    start(sampler)
    EventFlowsInstrumentor().instrument()
    tracer = trace.get_tracer("app")
    with (
        tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER, attributes=attributes),
        tracer.start_as_current_span("order"),
        tracer.start_as_current_span("db") as span,
    ):
        span.add_event("Purchase", {"order_id": "1"})
        get_logger("app").emit(event_name="Lead", attributes={"conversion.id": "2"})
        purchase("3")
    assert eventflows.force_flush(5_000)
    assert len(caught) == 3
    for conversion in caught:
        request = conversion.request
        assert (request.client_address, request.user_agent, request.url, request.referrer) == (
            "203.0.113.9", "Mozilla/5.0 (X11)", "https://shop.example/orders?gclid=Cj0abc", "https://shop.example/cart",
        )  # fmt: skip
        assert request.global_privacy_control is True
        assert conversion.clicks == {"gclid": "Cj0abc"}


def test_without_the_instrumentor_a_recorded_span_tells_it_when_it_ends(caught: list[Conversion]) -> None:
    start()
    tracer = trace.get_tracer("app")
    with (
        tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER, attributes=SERVER_SPANS[0]),
        tracer.start_as_current_span("order") as span,
    ):
        span.add_event("Purchase", {"order_id": "1"})
    assert eventflows.force_flush(5_000)
    assert caught[0].request.url == "https://shop.example/orders?gclid=Cj0abc"


class Unlike(Mapping[str, Any]):
    """Attributes of another make, which can be read and no more."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self._attributes = attributes

    def __getitem__(self, key: str) -> Any:
        return self._attributes[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._attributes)

    def __len__(self) -> int:
        return len(self._attributes)


@pytest.mark.parametrize("kind", [dict, Unlike, lambda attributes: MappingProxyType(Unlike(attributes))])
@pytest.mark.parametrize(
    ("attribute", "value"),
    [("session.id", "s1"), ("http.user_agent", "Mozilla/5.0"), ("url.full", "https://a.b/"), ("client.address", "::1")],
)
def test_any_span_tells_what_is_on_it(attribute: str, value: str, kind: Any) -> None:
    class Span(trace.NonRecordingSpan):
        attributes = kind({"order.id": "1", attribute: value})

    told = around(Span(trace.INVALID_SPAN_CONTEXT)).told.attributes
    assert list(told.values()) == [value]


def test_a_span_for_an_outgoing_request_tells_nothing_of_the_visitor(
    caught: list[Conversion], instrumented: None
) -> None:
    start()
    EventFlowsInstrumentor().instrument()
    attributes = {"url.full": "https://pay.example/charge", "user_agent.original": "python-requests"}
    with trace.get_tracer("app").start_as_current_span("POST", kind=SpanKind.CLIENT, attributes=attributes):
        purchase()
    assert eventflows.force_flush(5_000)
    assert (caught[0].request.url, caught[0].request.user_agent) == (None, None)


def test_a_proxys_address_on_the_server_span_is_not_the_visitors(caught: list[Conversion], instrumented: None) -> None:
    """With the proxies trusted, the forwarding header decides where it was captured; else there is no address."""
    start(visitor=PROXIES)
    EventFlowsInstrumentor().instrument()
    for headers in ({}, {"http.request.header.x_forwarded_for": ["203.0.113.9"]}):
        attributes = {"net.peer.ip": "10.0.0.7", "http.method": "POST", **headers}
        with trace.get_tracer("app").start_as_current_span("POST", kind=SpanKind.SERVER, attributes=attributes):
            purchase(order=str(len(headers)))
    assert eventflows.force_flush(5_000)
    assert [conversion.request.client_address for conversion in caught] == [None, "203.0.113.9"]


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
def test_what_cannot_be_read_of_a_span_costs_itself_only(
    sampler: Any, caught: list[Conversion], instrumented: None, caplog: pytest.LogCaptureFixture
) -> None:
    """And above all not what the visitor has told; the log says that it was so, and nothing of what was there."""
    start(sampler, visitor=PROXIES)
    EventFlowsInstrumentor().instrument()
    attributes = {
        "net.peer.ip": "10.0.0.7",
        "http.request.header.x-forwarded-for": (True,),
        "http.request.header.host": (False,),
        "server.address": "shop.example",
        "url.scheme": "https",
        "url.path": "/orders",
        "user_agent.original": "Mozilla/5.0 (X11)",
    }
    nobody = {key: value for key, value in environ().items() if key in ("REQUEST_METHOD", "PATH_INFO")}

    class Hostile(str):
        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = str.__hash__

    def handler() -> None:
        eventflows.visitor_update({"conversion.consent.ad_storage": "denied"})
        with trace.get_tracer("app").start_as_current_span("POST", kind=SpanKind.SERVER, attributes=attributes):
            purchase("1")
        attributes["user_agent.original"] = Hostile("x")
        token = context.attach(baggage.set_baggage(5, "x", context.Context()))  # type: ignore[arg-type]
        with trace.get_tracer("app").start_as_current_span("POST", kind=SpanKind.SERVER, attributes=attributes):
            purchase("2")
        context.detach(token)

    by_wsgi(handler, nobody)
    assert eventflows.force_flush(5_000)
    assert [c.consent.ad_storage for c in caught] == [False, False]
    request = caught[0].request
    assert (request.client_address, request.url) == (None, "https://shop.example/orders")
    assert request.user_agent == "Mozilla/5.0 (X11)"
    log.tell_held(all_of_them=True)  # a line of this kind may have been less than a minute ago
    assert "1 spans could not be read for their visitor (ValueError)" in caplog.text


@pytest.mark.parametrize("way", [by_wsgi, by_asgi, None])
def test_the_proxies_are_those_of_the_time_of_the_conversion(way: Any, caught: list[Conversion]) -> None:
    """It is read at the end, when the pipeline is not the running one any more."""
    start(visitor=PROXIES)
    if way is not None:
        way(purchase)
    else:
        attributes = {"net.peer.ip": "10.0.0.7", "http.request.header.x_forwarded_for": ["203.0.113.9"]}
        with trace.get_tracer("app").start_as_current_span("POST", kind=SpanKind.SERVER, attributes=attributes):
            purchase()
    assert eventflows.shutdown(5_000)
    assert caught[0].request.client_address == "203.0.113.9"


def test_a_proxys_address_is_not_the_visitors_when_the_span_has_ended_either(caught: list[Conversion]) -> None:
    """Also on a server span within another span, which instrumentations call internal."""
    start(visitor=PROXIES)
    attributes = {"client.address": "10.0.0.7", "http.method": "POST"}
    with trace.get_tracer("app").start_as_current_span("POST", attributes=attributes) as span:
        span.add_event("Purchase", {"order_id": "1"})
    assert eventflows.force_flush(5_000)
    assert caught[0].request.client_address is None


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
@pytest.mark.parametrize("way", [by_wsgi, by_asgi])
@pytest.mark.parametrize("recorded", ["nothing", "a conversion", "a late conversion"])
def test_a_request_that_is_over_needs_no_garbage_collector(
    way: Any, sampler: Any, recorded: str, caught: list[Conversion], instrumented: None
) -> None:
    """What refers to itself in a circle stays in memory until a collection, and makes them frequent."""
    start(sampler, visitor=PROXIES)
    EventFlowsInstrumentor().instrument()
    spans: list[weakref.ref[trace.Span]] = []

    def handler() -> None:
        tracer = trace.get_tracer("app")
        with tracer.start_as_current_span("POST", kind=SpanKind.SERVER) as span, tracer.start_as_current_span("order"):
            spans.append(weakref.ref(span))
            if recorded == "a conversion":
                purchase()
        if recorded == "a late conversion":
            with trace.use_span(span):
                purchase()

    gc.disable()
    try:
        way(handler)
        assert [span() for span in spans] == [None]
    finally:
        gc.enable()
    assert eventflows.force_flush(5_000)
    assert len(caught) == (recorded != "nothing")


def test_click_ids_in_the_baggage_are_taken(caught: list[Conversion]) -> None:
    start()
    carried = baggage.set_baggage("conversion.click.fbclid", "IwAR1", baggage.set_baggage("customer", "zoe"))
    token = context.attach(carried)
    purchase()
    context.detach(token)
    assert eventflows.force_flush(5_000)
    assert (caught[0].clicks, caught[0].properties) == ({"fbclid": "IwAR1"}, {})


# --- later and elsewhere


def test_a_snapshot_is_json_and_restores_the_visitor(caught: list[Conversion], instrumented: None) -> None:
    """In a payment webhook: everything is the customer's, nothing the payment provider's."""
    start(visitor=PROXIES)
    EventFlowsInstrumentor().instrument()
    stored: list[str] = []
    by_wsgi(lambda: stored.append(json.dumps(eventflows.visitor_snapshot())))
    webhook = environ(
        HTTP_USER_AGENT="Stripe/1.0",
        HTTP_X_FORWARDED_FOR="198.51.100.200",
        PATH_INFO="/webhook",
        QUERY_STRING="",
        HTTP_COOKIE="",
    )

    def handler() -> None:
        attributes = {"http.user_agent": "Stripe/1.0", "http.method": "POST", "net.peer.ip": "198.51.100.200"}
        with trace.get_tracer("app").start_as_current_span("POST", kind=SpanKind.SERVER, attributes=attributes) as span:
            with eventflows.visitor_context(json.loads(stored[0])):
                span.add_event("Purchase", {"order_id": "1"})
                purchase("2")
            with eventflows.visitor_context(
                {"client.address": "192.0.2.8", "user.email": "a@b.example", "x": object()}
            ):
                purchase("3")
            with eventflows.visitor_context(None):
                purchase("4")
            purchase("5")

    by_wsgi(handler, webhook)
    assert eventflows.force_flush(5_000)
    agents = [(c.request.client_address, c.request.user_agent) for c in caught]
    customer = ("203.0.113.9", "Mozilla/5.0 (X11)")
    assert agents == [customer, customer, ("192.0.2.8", None), (None, None), ("198.51.100.200", "Stripe/1.0")]
    assert [c.clicks.get("fbc") for c in caught] == [FBC, FBC, None, None, None]
    assert caught[2].user.sealed == {}


def test_what_ends_later_is_not_given_to_a_restored_visitors_conversion(caught: list[Conversion]) -> None:
    """Without the instrumentor a span's events are read when it ends; whose they were is not known by then."""
    start(visitor=PROXIES)

    def handler() -> None:
        with (
            trace.get_tracer("app").start_as_current_span("webhook") as span,
            eventflows.visitor_context({"client.address": "192.0.2.8"}),
        ):
            span.add_event("Purchase", {"order_id": "1"})

    by_wsgi(handler)
    assert eventflows.force_flush(5_000)
    assert caught[0].request.client_address is None


def test_a_thread_that_carries_the_context_keeps_the_visitor(caught: list[Conversion], instrumented: None) -> None:
    """OpenTelemetry's context alone is enough, also when the framework's instrumentation began with an empty one."""
    start(ALWAYS_OFF, visitor=PROXIES)
    EventFlowsInstrumentor().instrument()

    def elsewhere(carried: context.Context, order: str) -> None:
        def work() -> None:
            token = context.attach(carried)
            eventflows.visitor_update({"session.id": order, "conversion.consent.ad_storage": "denied"})
            purchase(order)
            context.detach(token)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    def handler() -> None:
        token = context.attach(context.Context())  # what extracting a request without `traceparent` gives
        with trace.get_tracer("app").start_as_current_span("POST", kind=SpanKind.SERVER):
            elsewhere(context.get_current(), "1")
        with eventflows.visitor_context({"client.address": "192.0.2.8"}):
            elsewhere(context.get_current(), "2")
        context.detach(token)

    by_wsgi(handler)
    assert eventflows.force_flush(5_000)
    assert [c.request.client_address for c in caught] == ["203.0.113.9", "192.0.2.8"]
    assert [c.request.session_id for c in caught] == ["1", "2"]
    assert [c.consent.ad_storage for c in caught] == [False, False]


def test_what_two_threads_learn_at_once_counts_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(told: Told, more: Mapping[str, Any]) -> Told:
        found = and_more(told, more)
        time.sleep(0.05)
        return found

    def handler() -> None:
        told = ({"conversion.consent.ad_storage": "denied"}, {"conversion.consent.ad_user_data": "denied"})
        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(eventflows.visitor_update, one))
            for one in told
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.update(eventflows.visitor_snapshot())

    found: dict[str, Any] = {}
    and_more = Told.and_more
    monkeypatch.setattr(Told, "and_more", slowly)
    by_wsgi(handler)
    assert (found["conversion.consent.ad_storage"], found["conversion.consent.ad_user_data"]) == (False, False)


def test_what_one_thread_learns_counts_while_another_records(
    caught: list[Conversion], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*args: Any) -> Any:
        time.sleep(delays.pop())
        return of_environ(*args)

    def handler() -> None:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(purchase, "1"))
        thread.start()
        time.sleep(0.05)
        eventflows.visitor_update({"conversion.consent.ad_storage": "denied"})
        thread.join()
        purchase("2")

    delays = [0.0, 0.2]
    of_environ = visitor.of_environ
    monkeypatch.setattr(visitor, "of_environ", slowly)
    start()
    by_wsgi(handler)
    assert eventflows.force_flush(5_000)
    assert [c.consent.ad_storage for c in caught if c.order_id == "2"] == [False]


def test_a_worker_that_the_first_request_started_works_for_the_others_too(
    caught: list[Conversion], instrumented: None
) -> None:
    """It has the context of that one for ever; what it works on brings the span that it belongs to."""
    start(ALWAYS_OFF)
    EventFlowsInstrumentor().instrument()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        nonlocal worker
        with trace.get_tracer("app").start_as_current_span("POST", kind=SpanKind.SERVER):
            if worker is None:
                worker = asyncio.ensure_future(work())
            await orders.put(context.get_current())
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def work() -> None:
        for number in range(2):
            token = context.attach(await orders.get())
            eventflows.visitor_update({"session.id": str(number)})
            purchase(str(number))
            context.detach(token)

    async def nothing(*_: Any) -> Any:
        return {}

    async def main() -> None:
        for address in ("192.0.2.1", "192.0.2.2"):
            task = ASGIMiddleware(app)(scope(client=(address, 1), headers=[]), nothing, nothing)
            await asyncio.get_running_loop().create_task(task)
            await asyncio.sleep(0.01)

    orders: asyncio.Queue[context.Context] = asyncio.Queue()
    worker: Any = None
    asyncio.run(main())
    assert eventflows.force_flush(5_000)
    assert [(c.request.client_address, c.request.session_id) for c in caught] == [
        ("192.0.2.1", "0"),
        ("192.0.2.2", "1"),
    ]


def test_what_the_app_learns_of_the_visitor_counts_from_then_on(caught: list[Conversion]) -> None:
    start(visitor=PROXIES)

    def handler() -> None:
        eventflows.visitor_update(
            {"conversion.consent.ad_storage": "denied", "user.id": "u1", "user.email": "a@b.example"}
        )
        purchase("1")
        purchase("2", **{"user.id": "u2"})

    by_asgi(handler)
    eventflows.visitor_update({"user.id": "nobody"})
    assert eventflows.force_flush(5_000)
    assert [c.user.user_id for c in caught] == [("u1",), ("u2",)]
    assert [c.consent.ad_storage for c in caught] == [False, False]
    assert "email.lower" not in caught[0].user.sealed


def test_click_ids_are_read_from_a_url_that_the_app_tells(caught: list[Conversion]) -> None:
    """As from the request's own: a single-page app tells the page that was landed on, and the request is one of its API."""
    landed = "https://shop.example/?gclid=g1&fbclid=f2&ttclid=t1&rdt_cid=r1"
    start()

    def handler() -> None:
        eventflows.visitor_update({"url.full": landed, "conversion.click.gclid": "g2"})
        purchase("1")
        eventflows.visitor_update({"url.full": "https://shop.example/thanks"})
        purchase("2")

    by_wsgi(handler, environ(QUERY_STRING="fbclid=f1"))
    with eventflows.visitor_context({"url.full": landed}):
        purchase("3")
    assert eventflows.force_flush(5_000)
    told, later, restored = (dict(c.clicks) for c in caught)
    assert {name: told[name] for name in ("gclid", "fbclid", "ttclid", "rdt_cid")} == {
        "gclid": "g2", "fbclid": "f2", "ttclid": "t1", "rdt_cid": "r1"
    }  # fmt: skip
    assert later == told
    assert restored == {"gclid": "g1", "fbclid": "f2", "ttclid": "t1", "rdt_cid": "r1"}


def test_what_was_told_first_counts_however_often_something_is_told(caught: list[Conversion]) -> None:
    """As on a WebSocket, or in a job that runs for days: nothing gathers, and a denial is never lost."""
    start()

    def handler() -> None:
        eventflows.visitor_update({"conversion.consent.ad_storage": "denied", "session.id": "0"})
        for number in range(3_000):
            eventflows.visitor_update({"session.id": str(number)})
        purchase("1")
        eventflows.visitor_snapshot()  # read by now
        eventflows.visitor_update({"conversion.consent.ad_storage": "granted"})
        purchase("2")

    by_wsgi(handler)
    assert eventflows.force_flush(5_000)
    assert [c.consent.ad_storage for c in caught] == [False, True]
    assert [c.request.session_id for c in caught] == ["2999", "2999"]
    assert [c.request.user_agent for c in caught] == ["Mozilla/5.0 (X11)"] * 2


def test_a_conversion_keeps_its_visitor_as_it_was_when_it_was_recorded(caught: list[Conversion]) -> None:
    """It is read later, on a thread of the pipeline; what is told meanwhile, of the visitor or on a span, is not for it."""
    start(visitor=PROXIES)
    EventFlowsInstrumentor().instrument()

    def handler() -> None:
        span = trace.get_current_span()
        span.set_attribute("session.id", "s1")
        purchase("1")
        eventflows.visitor_update({"user.id": "u1"})
        span.set_attribute("session.id", "s2")
        purchase("2")

    try:
        with trace.get_tracer("app").start_as_current_span("request", kind=SpanKind.SERVER):
            by_wsgi(handler)
        assert eventflows.force_flush(5_000)
    finally:
        EventFlowsInstrumentor().uninstrument()
    assert [(c.user.user_id, c.request.session_id) for c in caught] == [((), "s1"), (("u1",), "s2")]


@pytest.mark.parametrize("commit", ["immediate", "span_ok"])
def test_the_request_is_not_read_on_the_apps_thread(commit: str, caught: list[Conversion]) -> None:
    threads: list[str] = []

    class Seen(str):
        __slots__ = ()

        def split(self, *args: Any) -> list[str]:  # type: ignore[override]
            threads.append(threading.current_thread().name)
            return super().split(*args)

    start(visitor=PROXIES, commit=commit)
    by_wsgi(purchase, environ(HTTP_COOKIE=Seen(COOKIES)))
    for _ in range(500):
        if caught:
            break
        time.sleep(0.01)
    assert caught[0].clicks["fbp"] == FBP
    assert threads == ["EventFlows-intake"]


def test_a_log_record_tells_a_gateway_elsewhere_of_the_visitor_unless_it_must_not(caught: list[Conversion]) -> None:
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

    for omit in (False, True):
        records, logs = InMemoryLogRecordExporter(), LoggerProvider()
        logs.add_log_record_processor(SimpleLogRecordProcessor(records))
        set_logger_provider(logs)
        eventflows.configure([Catcher()], visitor=PROXIES, privacy={"omit_request": omit}, logger_provider=logs)
        events = logs.get_logger("app")
        by_wsgi(lambda events=events: events.emit(event_name="Purchase", attributes={"order_id": "1"}))
        eventflows.shutdown(5_000)
        attributes = dict(records.get_finished_logs()[0].log_record.attributes or {})
        assert (attributes.get("conversion.click.fbc"), attributes.get("client.address")) == (
            (None, None) if omit else (FBC, "203.0.113.9")
        )
        if not omit:
            (there,) = eventflows.render("Purchase", attributes, providers=[ConsoleProvider()])
            (event,) = there.body["events"]
            assert event["request"]["user_agent"] == "Mozilla/5.0 (X11)"
            assert event["clicks"]["ga_session_id.123"] == "1795431201"

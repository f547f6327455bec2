"""EventFlows in its various uses, and OpenTelemetry without it. Run in an environment of their own, hence the imports."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from .client import BATCH, QUEUE, TITLE, Client
from .workloads import Order


def attributes(order: Order) -> dict[str, Any]:
    return {
        "order_id": order.id,
        "value": order.value,
        "currency": order.currency,
        "user.email": order.email,
        "user.phone": order.phone,
        "client.address": order.address,
        "user_agent.original": order.user_agent,
        "url.full": order.url,
        "conversion.click.ga_client_id": f"{order.customer}.1795431201",
        "items": [
            {"id": line.id, "name": line.name, "price": line.price, "quantity": line.quantity} for line in order.items
        ],
    }


def page(order: Order) -> dict[str, Any]:
    return {
        "event_id": order.id,
        "client.address": order.address,
        "user_agent.original": order.user_agent,
        "url.full": order.url,
        "page_title": TITLE,
        "conversion.click.ga_client_id": f"{order.customer}.1795431201",
    }


def destinations(sink: str, names: list[str]) -> list[Any]:
    """Providers by their names: `meta`, `tiktok`, `reddit`, `ga4`, each also as a further account (`meta/2`)."""
    from eventflows import GA4Provider, MetaProvider, RedditProvider, TikTokProvider

    kinds: dict[str, Callable[..., Any]] = {
        "meta": lambda **more: MetaProvider(pixel_id="1234567890", access_token="a", **more),
        "tiktok": lambda **more: TikTokProvider(pixel_code="C1", access_token="a", **more),
        "reddit": lambda **more: RedditProvider(pixel_id="a2_1", access_token="a", **more),
        "ga4": lambda **more: GA4Provider(measurement_id="G-1", api_secret="a", **more),
    }
    return [kinds[name.partition("/")[0]](name=name, endpoint=f"{sink}/{name.replace('/', '-')}") for name in names]


def eventflows(
    sink: str,
    tuned: bool,
    *,
    providers: tuple[str, ...] = ("meta",),
    otlp: bool = False,
    instrumentor: bool = False,
    spans: bool = False,
    queue: dict[str, Any] | None = None,
) -> Client:
    """EventFlows.

    Args:
        otlp: Another exporter gets the log records too.
        instrumentor: The instrumentor is on, and events are recorded within a span.
        spans: Events are recorded with `span.add_event`, on that span.
        queue: Settings of `sending_queue`.
    """
    from opentelemetry import context, trace
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.trace import TracerProvider

    import eventflows

    logs, traces = LoggerProvider(), TracerProvider()
    if otlp:
        logs.add_log_record_processor(_log_batches(sink))
    set_logger_provider(logs)
    trace.set_tracer_provider(traces)
    sending_queue = {"queue_size": QUEUE} if tuned else {}
    eventflows.configure(destinations(sink, list(providers)), sending_queue={**sending_queue, **(queue or {})})
    if instrumentor or spans:
        eventflows.EventFlowsInstrumentor().instrument()
    tracer = eventflows.get_tracer("shop")
    add_event = tracer.add_event
    if instrumentor:
        context.attach(trace.set_span_in_context(tracer.start_span("request")))
    if spans:
        add_event = Spans(tracer).add_event

    def flush() -> None:
        if not eventflows.force_flush(120_000):
            raise RuntimeError("flush timed out")
        if otlp:
            logs.force_flush(60_000)

    return Client(
        lambda order: add_event("purchase", attributes(order)),
        lambda order: add_event("page_view", page(order)),
        flush,
        eventflows.shutdown,
        len(providers) + otlp,
    )


class Spans:
    """A span for every hundred events of a thread, since the SDK keeps 128 per span."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self._local = threading.local()
        self._open: list[Any] = []

    def add_event(self, name: str, values: dict[str, Any]) -> None:
        local = self._local
        span = getattr(local, "span", None)
        if span is None or local.left == 0 or not span.is_recording():
            if span is not None:
                span.end()
            local.span, local.left = span, _ = self._tracer.start_span("request"), 100
            self._open.append(span)
        span.add_event(name, values)
        local.left -= 1

    def end(self) -> None:
        """End the spans of all threads, which exports them."""
        for span in self._open:
            if span.is_recording():
                span.end()
        self._open.clear()


def _log_batches(sink: str, tuned: bool = True) -> Any:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    sizes = {"max_queue_size": QUEUE, "max_export_batch_size": BATCH} if tuned else {}
    return BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{sink}/v1/logs"), **sizes)


def otel_log(sink: str, tuned: bool) -> Client:
    from opentelemetry._logs import SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider

    provider = LoggerProvider()
    provider.add_log_record_processor(_log_batches(sink, tuned))
    emit = provider.get_logger("shop").emit

    def record(name: str, values: dict[str, Any]) -> None:
        emit(
            timestamp=time.time_ns(),
            severity_number=SeverityNumber.INFO,
            event_name=name,
            attributes=values,
        )

    return Client(
        lambda order: record("purchase", attributes(order)),
        lambda order: record("page_view", page(order)),
        lambda: provider.force_flush(120_000),
        provider.shutdown,
    )


def otel_span(sink: str, tuned: bool) -> Client:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    sizes = {"max_queue_size": QUEUE, "max_export_batch_size": 10} if tuned else {}
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{sink}/v1/traces"), **sizes))
    spans = Spans(provider.get_tracer("shop"))

    def purchase(order: Order) -> None:
        values = attributes(order)
        values["items"] = json.dumps(values["items"])  # a span event's attributes hold no lists of maps
        spans.add_event("purchase", values)

    def flush() -> None:
        spans.end()
        provider.force_flush(120_000)

    return Client(purchase, lambda order: spans.add_event("page_view", page(order)), flush, provider.shutdown)

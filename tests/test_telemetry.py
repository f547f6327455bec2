"""What the app's own dashboards see: metrics of every outcome, and a span for each request, without a payload or a person."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import eventflows
from eventflows import EventFlowsInstrumentor
from eventflows.sandbox import Sandbox
from tests.conftest import CANARIES, PERSON, four

from .test_pipeline import FAST, LEAD

Points = dict[str, dict[tuple[tuple[str, Any], ...], Any]]


@pytest.fixture
def reader() -> InMemoryMetricReader:
    found = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[found]))
    return found


def collected(reader: InMemoryMetricReader) -> Points:
    """Metric → attributes → value (of a histogram its count)."""
    found: Points = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = found.setdefault(metric.name, {})
                for point in metric.data.data_points:
                    key = tuple(sorted((point.attributes or {}).items()))
                    points[key] = getattr(point, "value", getattr(point, "count", None))
    return found


def value(points: Points, name: str, **attributes: Any) -> Any:
    """The sum over the points that have these attributes (`_` stands for a dot)."""
    wanted = {key.replace("__", "."): one for key, one in attributes.items()}
    return sum(
        one for key, one in points.get(name, {}).items() if all(dict(key).get(k) == v for k, v in wanted.items())
    )


def record(name: str = "Purchase", **attributes: Any) -> None:
    event = {
        **LEAD,
        **PERSON,
        "value": 5,
        "currency": "EUR",
        "conversion.click.fbp": "fb.1.1795430000000.1",
        **attributes,
    }
    eventflows.get_tracer("app").add_event(name, event)


def test_every_outcome_is_counted_by_provider_type_and_reason(sandbox: Sandbox, reader: InMemoryMetricReader) -> None:
    eventflows.configure(four(sandbox.url), retry_on_failure=FAST)
    sandbox.fault("meta", status=503, times=1)
    record()
    record("Purchase", currency="nonsense")
    record("Lead", **{"conversion.consent.ad_storage": "denied"})
    eventflows.get_tracer("app").add_event("Lead", LEAD, time.time_ns() - 8 * 86_400 * 10**9)
    assert eventflows.force_flush(10_000)
    points = collected(reader)
    meta = {"eventflows__provider": "meta"}
    assert value(points, "eventflows.captured", **meta) == 4
    assert value(points, "eventflows.captured", conversion__type="lead", **meta) == 2
    assert value(points, "eventflows.delivered", **meta) == 1
    assert value(points, "eventflows.refused", eventflows__reason="a purchase needs value and currency", **meta) == 1
    assert value(points, "eventflows.filtered", eventflows__reason="consent: ad_storage denied", **meta) == 1
    assert value(points, "eventflows.expired", conversion__type="lead", **meta) == 1
    assert value(points, "eventflows.attempts", **meta) == 2
    assert value(points, "eventflows.match_keys", eventflows__match_key="fbp", **meta) == 1
    assert value(points, "eventflows.match_keys", eventflows__match_key="email", **meta) >= 1
    assert value(points, "eventflows.queue.size", **meta) == 0
    assert value(points, "eventflows.queue.capacity", **meta) == 10_000
    assert value(points, "eventflows.delivery.age", **meta) == 1
    component = {"otel__component__type": "eventflows", "otel__component__name": "eventflows/meta"}
    assert value(points, "otel.sdk.exporter.log.exported", error__type=None, **component) == 1
    assert value(points, "otel.sdk.exporter.log.exported", error__type="rejected", **component) == 1
    assert value(points, "otel.sdk.exporter.operation.duration", http__response__status_code=200, **component) >= 1
    assert value(points, "otel.sdk.exporter.operation.duration", error__type="503", **component) == 1
    assert value(points, "otel.sdk.processor.log.queue.capacity", **component) == 10_000


def test_metrics_hold_no_id_and_no_person(sandbox: Sandbox, reader: InMemoryMetricReader) -> None:
    """Their number does not grow with the events."""
    eventflows.configure(four(sandbox.url))
    record(order_id="4711", **{"user.id": "u"})
    assert eventflows.force_flush(10_000)
    few = {name: len(points) for name, points in collected(reader).items()}
    for number in range(50):
        record(order_id=f"order-{number}", **{"user.id": f"u{number}"})
    assert eventflows.force_flush(10_000)
    points = collected(reader)
    assert {name: len(found) for name, found in points.items()} == few
    written = repr(points).lower()
    assert not [text for text in (*CANARIES, "4711", "order-", "abc") if text in written]


def test_the_journal_is_measured(sandbox: Sandbox, reader: InMemoryMetricReader, tmp_path: Path) -> None:
    eventflows.configure(four("http://127.0.0.1:9"), sending_queue={"storage": str(tmp_path)})
    record()
    points = collected(reader)
    assert value(points, "eventflows.journal.size") > 4096
    assert 0 < value(points, "eventflows.journal.oldest_age") < 60
    assert eventflows.shutdown(100) is False


def test_without_telemetry_and_without_a_meter_provider_nothing_is_missing(
    sandbox: Sandbox, reader: InMemoryMetricReader
) -> None:
    eventflows.configure(four(sandbox.url), telemetry=False)
    record()
    assert eventflows.force_flush(10_000)
    assert not [name for name in collected(reader) if name.startswith("eventflows.")]


@pytest.fixture
def spans() -> InMemorySpanExporter:
    found = InMemorySpanExporter()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(found))
    trace.set_tracer_provider(traces)
    return found


def test_each_request_is_a_span_linked_to_those_that_recorded_its_conversions(
    sandbox: Sandbox, spans: InMemorySpanExporter
) -> None:
    eventflows.configure(four(sandbox.url)[:1], retry_on_failure=FAST)
    sandbox.fault("meta", status=500, times=1)
    origins = []
    for order in ("1", "2"):
        with trace.get_tracer("app").start_as_current_span("order") as span:
            record(order_id=order)
            origins.append(span.get_span_context().span_id)
    assert eventflows.force_flush(10_000)
    failed, succeeded = (one for one in spans.get_finished_spans() if one.instrumentation_scope.name == "eventflows")
    for one in (failed, succeeded):
        assert (one.name, one.kind, one.parent) == ("POST meta", SpanKind.CLIENT, None)
        assert [link.context.span_id for link in one.links] == origins
        assert dict(one.attributes or {})["eventflows.batch.size"] == 2
    assert (failed.status.status_code, dict(failed.attributes or {})["eventflows.later"]) == (StatusCode.ERROR, 2)
    told = dict(succeeded.attributes or {})
    assert (told["eventflows.delivered"], told["http.response.status_code"], told["server.address"]) == (
        2,
        200,
        "127.0.0.1",
    )
    written = (failed.to_json() + succeeded.to_json()).lower()
    assert not [text for text in (*CANARIES, "abc", "purchase-1") if text in written]


def test_delivery_spans_are_not_sampled_in_nor_captured_again(sandbox: Sandbox) -> None:
    found = InMemorySpanExporter()
    traces = TracerProvider(sampler=ALWAYS_OFF)
    traces.add_span_processor(SimpleSpanProcessor(found))
    trace.set_tracer_provider(traces)
    pipeline = eventflows.configure(four(sandbox.url), commit="span_ok")
    EventFlowsInstrumentor().instrument()
    try:
        record()
        assert eventflows.force_flush(10_000)
    finally:
        EventFlowsInstrumentor().uninstrument()
    assert found.get_finished_spans() == ()
    assert {stats.captured for stats in pipeline.stats().values()} == {1}
    assert not [one for one in sandbox.requests if {"traceparent", "baggage"} & set(one["headers"])]

"""What the app's own dashboards see: metrics of every outcome, and a span for each request, without a payload or a person."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler, SamplingResult
from opentelemetry.semconv._incubating.metrics import otel_metrics as conventions
from opentelemetry.trace import SpanKind, StatusCode

import eventflows
from eventflows import ConsoleProvider, EventFlowsInstrumentor, GA4Provider, MetaProvider
from eventflows.context import scope_of
from eventflows.processor import EventFlowsSpanProcessor
from eventflows.providers.base import Outcome, Response, Sent, Status
from eventflows.providers.meta import VERSIONS
from eventflows.sandbox import Sandbox
from eventflows.sdk import span_processors
from eventflows.stats import MAX_REASONS, STATUSES
from eventflows.telemetry import Telemetry
from tests.conftest import CANARIES, PERSON, environment, four

from .test_pipeline import FAST, LEAD

Points = dict[str, dict[tuple[tuple[str, Any], ...], Any]]


@pytest.fixture
def reader() -> InMemoryMetricReader:
    found = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[found]))
    return found


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until it is, or fail."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def described(reader: InMemoryMetricReader, scope_name: str) -> dict[str, tuple[str, str, bool | None]]:
    """Metric of a scope → unit, kind, and of a sum whether it only grows."""
    data = reader.get_metrics_data()
    return {
        metric.name: (metric.unit, type(metric.data).__name__, getattr(metric.data, "is_monotonic", None))
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        if scope.scope.name == scope_name
        for metric in scope.metrics
    }


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


def test_what_finds_no_room_is_mapped_once_it_is_loaded_again(
    sandbox: Sandbox, reader: InMemoryMetricReader, tmp_path: Path
) -> None:
    queue = {"storage": str(tmp_path), "queue_size": 3, "flush_interval": "10m"}
    eventflows.configure(four(sandbox.url), sending_queue=queue)
    for together in (2, 3):  # of the latter there is room for one
        for _ in range(together):
            record()
        collected(reader)
    assert eventflows.force_flush(10_000)
    points = collected(reader)
    assert value(points, "eventflows.delivered", eventflows__provider="meta") == 5
    assert value(points, "eventflows.mapped", eventflows__provider="meta") == 5
    assert value(points, "eventflows.match_keys", eventflows__match_key="fbp", eventflows__provider="meta") == 5


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
    assert value(points, "eventflows.match_keys", eventflows__match_key="fbp", eventflows__provider="reddit") == 0
    assert value(points, "eventflows.mapped", **meta) == 1
    assert value(points, "eventflows.pending", **meta) == 0
    assert value(points, "eventflows.queue.size", **meta) == 0
    assert value(points, "eventflows.queue.capacity", **meta) == 10_000
    assert value(points, "eventflows.delivery.age", **meta) == 1
    component = {"otel__component__type": "eventflows", "otel__component__name": "eventflows/meta"}
    assert value(points, "otel.sdk.exporter.log.exported", error__type=None, **component) == 1
    assert value(points, "otel.sdk.exporter.log.exported", error__type="rejected", **component) == 1
    assert value(points, "otel.sdk.exporter.log.exported", error__type="expired", **component) == 1
    assert value(points, "otel.sdk.exporter.log.inflight", server__address="127.0.0.1", **component) == 0
    assert value(points, "otel.sdk.processor.log.processed", error__type=None, **component) == 3
    assert value(points, "otel.sdk.processor.log.queue.size", **component) == 0
    assert value(points, "otel.sdk.processor.log.queue.capacity", **component) == 10_000
    # An operation ends once, with its last request; each request is measured for itself.
    assert value(points, "otel.sdk.exporter.operation.duration", **component) == 1
    assert value(points, "otel.sdk.exporter.operation.duration", error__type=None, **component) == 1
    assert value(points, "eventflows.request.duration", error__type="503", **meta) == 1
    assert value(points, "eventflows.request.duration", http__response__status_code=200, **meta) == 1


def test_names_units_and_kinds_are_those_of_the_semantic_conventions(
    sandbox: Sandbox, reader: InMemoryMetricReader
) -> None:
    """As OpenTelemetry's own package makes them."""
    eventflows.configure(four(sandbox.url))
    record()
    assert eventflows.force_flush(10_000)
    ours = described(reader, "eventflows")
    theirs = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[theirs]).get_meter("theirs")
    checked = 0
    for name, kind in vars(conventions).items():
        if name.startswith("create_otel_sdk_"):
            instrument = kind(meter)
            instrument.record(1) if hasattr(instrument, "record") else instrument.add(1)
    for name, said in described(theirs, "theirs").items():
        if name in ours:
            assert (name, ours[name]) == (name, said)
            checked += 1
    # Of the queue's size the package makes no instrument, as it is observed.
    assert ours["otel.sdk.processor.log.queue.size"] == ("{log_record}", "Sum", False)
    assert checked == 6


def test_the_counters_stay_when_the_pipeline_is_shut_down(sandbox: Sandbox, reader: InMemoryMetricReader) -> None:
    """A script's MeterProvider collects last, after everything else was shut down; and a second pipeline counts on."""
    eventflows.configure(four(sandbox.url))
    record(order_id="1")
    assert eventflows.shutdown(10_000)
    assert value(collected(reader), "eventflows.delivered", eventflows__provider="meta") == 1
    assert value(collected(reader), "eventflows.queue.capacity", eventflows__provider="meta") == 0
    eventflows.configure(four(sandbox.url))
    record(order_id="2")
    assert eventflows.force_flush(10_000)
    assert value(collected(reader), "eventflows.delivered", eventflows__provider="meta") == 2
    assert value(collected(reader), "eventflows.queue.capacity", eventflows__provider="meta") == 10_000


def test_a_meter_provider_that_comes_later_is_found(sandbox: Sandbox) -> None:
    eventflows.configure(four(sandbox.url))
    record()
    found = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[found]))
    assert eventflows.force_flush(10_000)
    assert value(collected(found), "eventflows.delivered") == 4


def test_a_full_queue_is_told_as_the_sdks_own_processors_tell_it(
    sandbox: Sandbox, reader: InMemoryMetricReader
) -> None:
    sandbox.fault("meta", delay=0.5, times=1)
    eventflows.configure(four(sandbox.url)[:1], sending_queue={"queue_size": 2, "flush_interval": 10})
    for number in range(20):
        record(order_id=str(number))
    points = collected(reader)
    assert value(points, "eventflows.dropped", eventflows__reason="queue full") == 18
    assert value(points, "otel.sdk.processor.log.processed", error__type="queue_full") == 18
    assert value(points, "otel.sdk.exporter.log.exported", error__type="dropped") == 0
    assert value(points, "eventflows.queue.size") == 2
    assert value(points, "otel.sdk.processor.log.queue.size") + value(points, "otel.sdk.exporter.log.inflight") == 2
    assert eventflows.force_flush(10_000)


def test_a_pause_is_seen_while_it_lasts(
    sandbox: Sandbox, reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused credentials pause the lane; the gauge is 0 again once requests succeed."""
    monkeypatch.setattr("eventflows.retry.PAUSE_SECONDS", 0.5)
    sandbox.fault("meta", status=401, times=2)
    eventflows.configure(four(sandbox.url)[:1], retry_on_failure=FAST)
    record()
    until(lambda: value(collected(reader), "eventflows.paused", eventflows__pause="credentials") == 1)
    assert value(collected(reader), "eventflows.paused", eventflows__pause="outage") == 0
    until(lambda: value(collected(reader), "eventflows.delivered") == 1)
    points = collected(reader)
    assert value(points, "eventflows.paused", eventflows__pause="credentials") == 0
    assert value(points, "eventflows.queue.oldest_age") == 0


def test_the_age_of_what_waits_can_be_compared_with_what_the_platform_accepts(
    sandbox: Sandbox, reader: InMemoryMetricReader
) -> None:
    eventflows.configure(four("http://127.0.0.1:9")[:1], retry_on_failure={"initial_interval": "60s"})
    eventflows.get_tracer("app").add_event("Lead", {**LEAD, **PERSON}, time.time_ns() - 6 * 86_400 * 10**9)
    until(lambda: value(collected(reader), "eventflows.queue.oldest_age") > 0)
    points = collected(reader)
    assert 0.85 < value(points, "eventflows.queue.oldest_age") / value(points, "eventflows.accepted_age") < 0.87
    assert eventflows.shutdown(100) is False


def test_the_end_of_an_api_version_is_a_number_of_days(reader: InMemoryMetricReader) -> None:
    eventflows.configure([MetaProvider("1", "abc", api_version="v22.0"), *four("http://127.0.0.1:9")[1:]])
    ((key, days),) = collected(reader)["eventflows.api_version.remaining"].items()
    assert dict(key) == {"eventflows.provider": "meta", "eventflows.api_version": "v22.0"}
    assert days == (VERSIONS["v22.0"] - datetime.now(timezone.utc).date()).days  # type: ignore[operator]


def test_no_answer_of_a_platform_makes_endless_labels(sandbox: Sandbox, reader: InMemoryMetricReader) -> None:
    """Nor does an app that makes up click ids."""

    class Chatty(MetaProvider):
        def outcomes(self, response: Response, batch: Sequence[Sent]) -> list[Outcome]:
            return [Outcome(Status.REFUSED, f"{'x' * 1000} {id(one)}") for one in batch]

    class Talkative(MetaProvider):
        def outcomes(self, response: Response, batch: Sequence[Sent]) -> list[Outcome]:
            return [Outcome(Status.REFUSED, f"no good: {id(one)}") for one in batch]

    under = f"{sandbox.url}/meta"
    eventflows.configure([Chatty("1", "abc", endpoint=under), Talkative("2", "abc", name="meta/eu", endpoint=under)])
    for number in range(3 * MAX_REASONS):
        record("Lead", **{f"conversion.click.made_up_{number}": "abc.123"}, event_id=f"e{number}")
    assert eventflows.force_flush(20_000)
    points = collected(reader)
    reasons = {dict(key)["eventflows.reason"] for key in points["eventflows.refused"]}
    assert len(reasons) <= MAX_REASONS + 2
    assert max(map(len, reasons)) <= 200
    assert value(points, "eventflows.refused") == 2 * 3 * MAX_REASONS
    assert {dict(key)["eventflows.match_key"] for key in points["eventflows.match_keys"]} <= MetaProvider.MATCH_KEYS


def test_metrics_hold_no_id_and_no_person(sandbox: Sandbox, reader: InMemoryMetricReader) -> None:
    """Their number does not grow with the events. An id of digits alone might stand in a timestamp."""
    eventflows.configure(four(sandbox.url))
    record(order_id="order4711", **{"user.id": "u"})
    assert eventflows.force_flush(10_000)
    few = {name: len(points) for name, points in collected(reader).items()}
    for number in range(50):
        record(order_id=f"order-{number}", **{"user.id": f"u{number}"})
    assert eventflows.force_flush(10_000)
    points = collected(reader)
    assert {name: len(found) for name, found in points.items()} == few
    written = repr(points).lower()
    assert not [text for text in (*CANARIES, "order4711", "order-", "abc") if text in written]


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
    assert dict(failed.attributes or {})["error.type"] == "500"
    assert dict(succeeded.attributes or {})["http.request.resend_count"] == 1
    assert dict(succeeded.attributes or {})["url.full"] == f"{sandbox.url}/meta/v26.0/123/events"
    told = dict(succeeded.attributes or {})
    assert (told["eventflows.delivered"], told["http.response.status_code"], told["server.address"]) == (
        2,
        200,
        "127.0.0.1",
    )
    written = repr(
        [(one.name, dict(one.attributes or {}), one.status.description) for one in (failed, succeeded)]
    ).lower()
    assert not [text for text in (*CANARIES, "abc", "purchase-1") if text in written]


def test_a_delivery_span_lasts_from_the_request_to_its_answer(sandbox: Sandbox, spans: InMemorySpanExporter) -> None:
    sandbox.fault("meta", delay=0.1, times=1)
    eventflows.configure(four(sandbox.url)[:1])
    before = time.time_ns()
    record()
    assert eventflows.force_flush(10_000)
    (span,) = spans.get_finished_spans()
    assert before <= span.start_time <= span.end_time - 100_000_000 <= time.time_ns()


class Started(SpanProcessor):
    """Keeps the spans themselves, of which exporters get copies."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.spans.append(span)


def test_delivery_spans_are_not_followed_as_those_of_the_app_are(sandbox: Sandbox) -> None:
    """Nothing is recorded in them."""
    traces, started = TracerProvider(), Started()
    traces.add_span_processor(started)
    trace.set_tracer_provider(traces)
    eventflows.configure(four(sandbox.url)[:1])
    EventFlowsInstrumentor().instrument()
    try:
        with trace.get_tracer("app").start_as_current_span("order"):
            record()
        assert eventflows.force_flush(10_000)
    finally:
        EventFlowsInstrumentor().uninstrument()
    assert [(span.name, scope_of(span) is None) for span in started.spans] == [("order", False), ("POST meta", True)]


class Asked(Sampler):
    """Takes every span, and keeps their names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *_: Any, **__: Any) -> SamplingResult:
        self.names.append(name)
        return SamplingResult(Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "asked"


@pytest.mark.parametrize("heard", [True, False])
def test_delivery_spans_are_made_where_somebody_sees_them(heard: bool, sandbox: Sandbox) -> None:
    asked = Asked()
    traces = TracerProvider(sampler=asked)
    if heard:
        traces.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    trace.set_tracer_provider(traces)
    eventflows.configure(four(sandbox.url)[:1])
    EventFlowsInstrumentor().instrument()
    try:
        record()
        assert eventflows.force_flush(10_000)
    finally:
        EventFlowsInstrumentor().uninstrument()
    assert span_processors(traces, EventFlowsSpanProcessor)
    assert asked.names == (["POST meta"] if heard else [])


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


@pytest.mark.parametrize("sampled", [True, False])
def test_nobody_traces_our_requests_a_second_time(sampled: bool, sandbox: Sandbox) -> None:
    """With the instrumentations of requests and urllib3 there is one span for each request, or none where none is sampled."""
    found = InMemorySpanExporter()
    traces = TracerProvider(sampler=ALWAYS_ON if sampled else ALWAYS_OFF)
    traces.add_span_processor(SimpleSpanProcessor(found))
    trace.set_tracer_provider(traces)
    others = (RequestsInstrumentor(), URLLib3Instrumentor())
    for one in others:
        one.instrument()
    try:
        eventflows.configure(four(sandbox.url))
        record()
        assert eventflows.force_flush(10_000)
    finally:
        for one in others:
            one.uninstrument()
    names = sorted(span.name for span in found.get_finished_spans())
    assert names == (["POST ga4", "POST meta", "POST reddit", "POST tiktok"] if sampled else [])
    assert not [one for one in sandbox.requests if {"traceparent", "baggage"} & set(one["headers"])]


def test_the_secret_of_a_query_is_in_no_span(sandbox: Sandbox, spans: InMemorySpanExporter) -> None:
    eventflows.configure([GA4Provider("G-123", "sekret", endpoint=f"{sandbox.url}/ga4")])
    record()
    assert eventflows.force_flush(10_000)
    (span,) = spans.get_finished_spans()
    assert dict(span.attributes or {})["url.full"] == f"{sandbox.url}/ga4/mp/collect?measurement_id=G-123"
    assert "sekret" not in span.to_json()


def test_the_console_is_no_server(spans: InMemorySpanExporter, reader: InMemoryMetricReader) -> None:
    """It has no client span and no request's duration, but it is an exporter all the same."""
    eventflows.configure([ConsoleProvider()])
    record()
    assert eventflows.force_flush(10_000)
    assert spans.get_finished_spans() == ()
    points = collected(reader)
    assert "eventflows.request.duration" not in points
    assert value(points, "otel.sdk.exporter.log.exported", otel__component__name="eventflows/console") == 1


def test_a_lane_that_is_replaced_still_counts(sandbox: Sandbox, reader: InMemoryMetricReader) -> None:
    """Counters never go back, also where a pipeline gets other lanes, and what the old ones deliver later counts as well."""
    sandbox.fault("meta", delay=1.0)
    pipeline = eventflows.configure(four(sandbox.url)[:1])
    record(order_id="1")
    eventflows.force_flush(50)
    until(lambda: value(collected(reader), "eventflows.captured") == 1)
    old, pipeline._lanes = pipeline._lanes, []
    assert value(collected(reader), "eventflows.captured") == 1
    assert value(collected(reader), "eventflows.queue.capacity") == 0
    until(lambda: value(collected(reader), "eventflows.delivered") == 1)
    assert value(collected(reader), "eventflows.delivered") == 1
    pipeline._lanes = old


def test_one_collection_shows_one_moment(sandbox: Sandbox, reader: InMemoryMetricReader) -> None:
    """captured = pending + outcomes, per provider, in every collection while everything is moving."""
    eventflows.configure(four(sandbox.url), retry_on_failure=FAST, sending_queue={"flush_interval": "20ms"})
    looked = threading.Semaphore(0)

    def shop() -> None:
        for number in range(3000):
            if number % 500 == 499:
                looked.acquire()
            record("Purchase" if number % 7 else "Lead", order_id=str(number), currency="EUR" if number % 5 else "none")

    thread = threading.Thread(target=shop, daemon=True)
    thread.start()
    while thread.is_alive() or not eventflows.force_flush(1):
        points = collected(reader)
        for name in ("meta", "ga4", "tiktok", "reddit"):
            of = {"eventflows__provider": name}
            settled = sum(value(points, f"eventflows.{status}", **of) for status in STATUSES)
            assert value(points, "eventflows.captured", **of) == settled + value(points, "eventflows.pending", **of)
        looked.release()


def test_of_a_large_request_some_ages_are_enough(sandbox: Sandbox, reader: InMemoryMetricReader) -> None:
    eventflows.configure(four(sandbox.url)[3:], sending_queue={"flush_interval": "10s"})
    for number in range(700):
        record("Lead", event_id=f"e{number}")
    assert eventflows.force_flush(10_000)
    points = collected(reader)
    assert value(points, "eventflows.delivered") == 700
    assert 60 <= value(points, "eventflows.delivery.age") <= 100 * value(points, "eventflows.attempts")


def test_the_ages_are_there_once_a_flush_returns(
    sandbox: Sandbox, reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the last ones are missing where a process collects at its end."""
    pipeline = eventflows.configure(four(sandbox.url)[3:])
    pending = []
    deliver = Telemetry.delivered

    def delivered(self: Telemetry, *arguments: Any) -> None:
        pending.append(pipeline.stats()["reddit"].pending)
        deliver(self, *arguments)

    monkeypatch.setattr(Telemetry, "delivered", delivered)
    record("Lead")
    assert eventflows.force_flush(10_000)
    assert pending == [1]
    assert value(collected(reader), "eventflows.delivery.age") == 1


class Grumpy(SpanProcessor):
    """A span processor of the app that fails, wherever it is asked."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if span.instrumentation_scope.name == "eventflows":
            raise RuntimeError("no")

    def on_end(self, span: Any) -> None:
        raise RuntimeError("no")


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_span_processor_that_fails_costs_no_conversion(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    traces = TracerProvider()
    traces.add_span_processor(Grumpy())
    trace.set_tracer_provider(traces)
    pipeline = eventflows.configure(four(sandbox.url))
    for number in range(3):
        record(order_id=str(number))
        assert eventflows.force_flush(10_000)
    assert {stats.delivered for stats in pipeline.stats().values()} == {3}
    assert "could not be recorded (RuntimeError)" in caplog.text


FORKED = """
import os, sys
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
import eventflows
from eventflows import ConsoleProvider
from eventflows.metrics import _collections
eventflows.configure([ConsoleProvider()])
eventflows.get_tracer("app").add_event("Lead", {"user.email": "a@b.example"})
eventflows.force_flush()
_collections._lock.acquire()
if os.fork() == 0:
    names = {m.name for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics}
    print("eventflows.queue.capacity" in names, "eventflows.captured" in names, flush=True)
    os._exit(0)
os.wait()
_collections._lock.release()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_in_the_middle_of_a_collection_leaves_the_child_its_metrics() -> None:
    """It counts from zero."""
    argv = [sys.executable, "-c", FORKED]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert done.stdout.splitlines()[-1:] == ["True False"], done.stderr

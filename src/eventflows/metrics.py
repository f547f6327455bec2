"""The metrics of the process: the instruments, and how they are read from the lanes when a reader collects.

Names of `otel.*` follow the semantic conventions for SDK components, whose log records are conversions here
(https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/). No attribute holds an id, a payload or a person.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from . import measured
from .measured import Collections, Component, LaneNow
from .stats import AFTER_SHUTDOWN, QUEUE_FULL, Ledger
from .transport import VERSION

SCOPE = "eventflows"
AGE_BOUNDARIES = (0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 3 * 24 * 3600, 7 * 24 * 3600)
# Those that the conventions advise for `http.client.request.duration`.
REQUEST_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
OPERATION_BOUNDARIES = (*REQUEST_BOUNDARIES, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
PAUSES = ("credentials", "outage")
# Outcomes of what never left the queue, and the `error.type` that the SDK's processors give them.
_NOT_HANDED_OVER: Mapping[str, str] = {QUEUE_FULL: "queue_full", AFTER_SHUTDOWN: "already_shutdown"}
_OUTCOMES: Mapping[str, str] = {
    "delivered": "Conversions that the platform took",
    "filtered": "Conversions that the provider was not meant to get",
    "refused": "Conversions that the platform refuses for good",
    "expired": "Conversions that became older than the platform accepts",
    "dropped": "Conversions that were lost on the way",
}


Attributes = dict[str, str | int]
Told = Iterable[tuple[float, Attributes]]
"""Values, each with its attributes. No attributes come twice."""


# --- what the counters tell of a ledger


def _captured(component: Component, ledger: Ledger) -> Told:
    for kind, count in ledger.captured.items():
        yield count, {**component.ours, "conversion.type": kind}


def _outcomes(status: str) -> Callable[[Component, Ledger], Told]:
    def read(component: Component, ledger: Ledger) -> Told:
        for (found, reason, kind), count in ledger.outcomes.items():
            if found == status:
                because: Attributes = {"eventflows.reason": reason} if reason else {}
                yield count, {**component.ours, "conversion.type": kind, **because}

    return read


def _attempts(component: Component, ledger: Ledger) -> Told:
    yield ledger.attempts, component.ours


def _mapped(component: Component, ledger: Ledger) -> Told:
    yield ledger.mapped, component.ours


def _match_keys(component: Component, ledger: Ledger) -> Told:
    for key, count in ledger.match_keys.items():
        yield count, {**component.ours, "eventflows.match_key": key}


def _processed(component: Component, ledger: Ledger) -> Told:
    yield ledger.handed_over, component.processor
    for reason, error in _NOT_HANDED_OVER.items():
        if count := sum(n for (_, found, _), n in ledger.outcomes.items() if found == reason):
            yield count, {**component.processor, "error.type": error}


def _exported(component: Component, ledger: Ledger) -> Told:
    totals = Counter({"delivered": 0})
    for (status, reason, _), count in ledger.outcomes.items():
        if status != "filtered" and reason not in _NOT_HANDED_OVER:
            totals[status] += count
    yield totals.pop("delivered"), component.exporter
    for status, count in totals.items():
        yield count, {**component.exporter, "error.type": "rejected" if status == "refused" else status}


# --- what the gauges tell of a lane


def _pending(component: Component, lane: LaneNow) -> Told:
    yield lane.tally.pending, component.ours


def _queue_size(component: Component, lane: LaneNow) -> Told:
    yield lane.tally.in_memory, component.ours


def _queue_capacity(component: Component, lane: LaneNow) -> Told:
    yield lane.tally.capacity, component.ours


def _processor_queue_size(component: Component, lane: LaneNow) -> Told:
    tally = lane.tally
    yield tally.in_memory - tally.exporting, component.processor


def _processor_queue_capacity(component: Component, lane: LaneNow) -> Told:
    yield lane.tally.capacity, component.processor


def _inflight(component: Component, lane: LaneNow) -> Told:
    yield lane.tally.exporting, component.exporter


def _paused(component: Component, lane: LaneNow) -> Told:
    because = lane.tally.paused
    for reason in PAUSES:
        yield int(reason in because), {**component.ours, "eventflows.pause": reason}


def _oldest_age(component: Component, lane: LaneNow) -> Told:
    oldest = lane.oldest
    yield 0.0 if oldest is None else max(0.0, (time.time_ns() - oldest) / 1e9), component.ours


def _accepted_age(component: Component, lane: LaneNow) -> Told:
    if (limit := lane.provider.MAX_AGE_NS) is not None:
        yield limit / 1e9, component.ours


def _api_remaining(component: Component, lane: LaneNow) -> Told:
    api = lane.provider.api()
    if api.ends is not None:
        days = (api.ends - datetime.now(timezone.utc).date()).days
        yield days, {**component.ours, "eventflows.api_version": api.version}


class Instruments:
    """The instruments of the process."""

    def __init__(self) -> None:
        meter = metrics.get_meter(SCOPE, VERSION)
        counters: tuple[tuple[str, str, str, Callable[[Component, Ledger], Told]], ...] = (
            ("eventflows.captured", "{conversion}", "Conversions recorded", _captured),
            *((f"eventflows.{status}", "{conversion}", text, _outcomes(status)) for status, text in _OUTCOMES.items()),
            ("eventflows.attempts", "{request}", "Requests sent to the platform", _attempts),
            (
                "eventflows.mapped",
                "{conversion}",
                "Conversions mapped to the platform's form, each counted once",
                _mapped,
            ),
            (
                "eventflows.match_keys",
                "{conversion}",
                "Of the mapped, those with this to match a person by",
                _match_keys,
            ),
            ("otel.sdk.processor.log.processed", "{log_record}", "Conversions that left the queue", _processed),
            ("otel.sdk.exporter.log.exported", "{log_record}", "Conversions whose export has finished", _exported),
        )
        for name, unit, text, of_ledger in counters:
            meter.create_observable_counter(name, [_counter(of_ledger)], unit=unit, description=text)
        sums: tuple[tuple[str, str, str, Callable[[Component, LaneNow], Told]], ...] = (
            ("eventflows.pending", "{conversion}", "Conversions without an outcome, in memory or on disk", _pending),
            ("eventflows.queue.size", "{conversion}", "Conversions in memory without an outcome", _queue_size),
            ("eventflows.queue.capacity", "{conversion}", "Conversions that fit into memory", _queue_capacity),
            ("otel.sdk.processor.log.queue.size", "{log_record}", "Conversions in the queue", _processor_queue_size),
            (
                "otel.sdk.processor.log.queue.capacity",
                "{log_record}",
                "Conversions that fit",
                _processor_queue_capacity,
            ),
            ("otel.sdk.exporter.log.inflight", "{log_record}", "Conversions handed over, not exported yet", _inflight),
        )
        for name, unit, text, of_lane in sums:
            meter.create_observable_up_down_counter(name, [_of_lanes(of_lane)], unit=unit, description=text)
        gauges: tuple[tuple[str, str, str, Callable[[Component, LaneNow], Told]], ...] = (
            ("eventflows.paused", "", "1 where the lane does not send as usual, for this reason", _paused),
            ("eventflows.queue.oldest_age", "s", "Age of the oldest that waits for a request or a retry", _oldest_age),
            ("eventflows.accepted_age", "s", "How old a conversion the platform accepts", _accepted_age),
            ("eventflows.api_version.remaining", "d", "Days until the platform's API version ends", _api_remaining),
        )
        for name, unit, text, of_lane in gauges:
            meter.create_observable_gauge(name, [_of_lanes(of_lane)], unit=unit, description=text)
        meter.create_observable_up_down_counter(
            "eventflows.journal.size", [_journal_size], unit="By", description="Bytes of this process's journals"
        )
        meter.create_observable_gauge(
            "eventflows.journal.oldest_age", [_journal_age], unit="s", description="Age of the oldest that waits there"
        )
        self.age = meter.create_histogram(
            "eventflows.delivery.age",
            unit="s",
            description="From the conversion to its delivery",
            explicit_bucket_boundaries_advisory=AGE_BOUNDARIES,
        )
        self.request = meter.create_histogram(
            "eventflows.request.duration",
            unit="s",
            description="Duration of one request to the platform",
            explicit_bucket_boundaries_advisory=REQUEST_BOUNDARIES,
        )
        self.operation = meter.create_histogram(
            "otel.sdk.exporter.operation.duration",
            unit="s",
            description="From the first request with a batch to the end of its last one",
            explicit_bucket_boundaries_advisory=OPERATION_BOUNDARIES,
        )


Callback = Callable[[CallbackOptions], Iterable[Observation]]
_collections = Collections()


def _counter(read: Callable[[Component, Ledger], Told]) -> Callback:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        for component, ledger in _collections.moment(observe).ledgers.items():
            for value, attributes in read(component, ledger):
                yield Observation(value, attributes)

    return observe


def _of_lanes(read: Callable[[Component, LaneNow], Told]) -> Callback:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        for lane in _collections.moment(observe).lanes:
            for value, attributes in read(lane.component, lane):
                yield Observation(value, attributes)

    return observe


def _journal_size(_options: CallbackOptions) -> Iterable[Observation]:
    if known := _collections.moment(_journal_size).journals:
        yield Observation(sum(size for size, _ in known))


def _journal_age(_options: CallbackOptions) -> Iterable[Observation]:
    if known := _collections.moment(_journal_age).journals:
        yield Observation(max(age for _, age in known))


_existing: Instruments | None = None


def instruments() -> Instruments:
    """Those of the process, made with the first pipeline. OpenTelemetry's proxies find a MeterProvider that is set later."""
    global _existing
    if _existing is None:
        _existing = Instruments()
    return _existing


def forget() -> None:
    """Begin anew with the next pipeline, where a test has set another MeterProvider."""
    global _existing, _collections
    _existing, _collections = None, Collections()
    measured.forget()

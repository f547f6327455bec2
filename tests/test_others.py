"""Conversions by `tracer.add_event` beside other log exporters: what those get of them, and when."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord
from opentelemetry.sdk._logs._internal import ConcurrentMultiLogRecordProcessor
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    InMemoryLogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.trace import TracerProvider

import eventflows
from eventflows import intake
from eventflows.others import names_a_person, without_persons
from eventflows.pipeline import Pipeline
from eventflows.processor import EventFlowsLogRecordProcessor
from eventflows.sandbox import Sandbox
from eventflows.sdk import Listeners, listeners
from tests.conftest import CANARIES, PERSON, environment, four

PURCHASE: dict[str, Any] = {"value": 49.99, "currency": "USD", "items": [{"id": "11", "price": 49.99}], **PERSON}


def batches(records: InMemoryLogRecordExporter) -> BatchLogRecordProcessor:
    return BatchLogRecordProcessor(records, schedule_delay_millis=600_000)


class Custom(LogRecordProcessor):
    """A processor of the app's own, which may do anything with a record."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_emit(self, log_record: Any) -> None:
        self.seen.append((threading.current_thread(), log_record.log_record))

    def shutdown(self) -> None:
        """It holds nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class OwnBatches(BatchLogRecordProcessor):
    """Not the SDK's any more."""


def set_up(sandbox: Sandbox, *processors: LogRecordProcessor, **options: Any) -> tuple[LoggerProvider, Pipeline]:
    logs = LoggerProvider()
    for processor in processors:
        logs.add_log_record_processor(processor)
    set_logger_provider(logs)
    return logs, eventflows.configure(four(sandbox.url), **options)


@pytest.fixture
def slow_intake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread takes nothing by itself."""
    monkeypatch.setattr(intake, "GATHER_SECONDS", 600)


def names(records: InMemoryLogRecordExporter) -> list[str]:
    return [one.log_record.event_name or "" for one in records.get_finished_logs()]


def ids(found: Sequence[ReadableLogRecord]) -> list[Any]:
    """Their conversions' ids; nothing raw may be in them."""
    shown = "".join(one.to_json() for one in found).lower()
    assert not [canary for canary in CANARIES if canary in shown]
    return [(one.log_record.attributes or {})["conversion.id"] for one in found]


@pytest.mark.usefixtures("slow_intake")
@pytest.mark.parametrize("end", ["force_flush", "shutdown"])
@pytest.mark.parametrize("options", [{}, {"privacy": {"strict": True}}, {"storage": True}])
def test_a_batch_processor_gets_each_record_once_and_sealed_as_it_was_when_recorded(
    sandbox: Sandbox, tmp_path: Any, end: str, options: dict[str, Any]
) -> None:
    records, spans = InMemoryLogRecordExporter(), TracerProvider()
    if options.get("storage"):
        options = {"sending_queue": {"storage": str(tmp_path)}}
    logs, pipeline = set_up(sandbox, batch := batches(records), **options)
    tracer = eventflows.get_tracer("shop")
    given = {**PURCHASE, "items": [{"id": "11", "price": 49.99}]}
    before = time.time_ns()
    with spans.get_tracer("app").start_as_current_span("order") as span:
        tracer.add_event("Purchase", {**given, "order_id": "1"}, timestamp=1_795_455_900_123_456_789)
        tracer.add_event("Purchase", given | {"order_id": "2"})
        tracer.add_event("lamp.lit", {**PERSON, "order_id": "3"})
    after = time.time_ns()
    given["items"][0]["price"] = 0.0
    batch.force_flush()
    assert names(records) == []
    with spans.get_tracer("app").start_as_current_span("another"):
        getattr(logs, end)()
    found = records.get_finished_logs()
    assert names(records) == ["Purchase", "Purchase", "lamp.lit"]
    assert ids(found) == ["purchase-1", "purchase-2", "lamp.lit-3"]
    assert all("conversion.sealed.email.lower" in (one.log_record.attributes or {}) for one in found)
    here = span.get_span_context()
    for one in found:
        assert (one.log_record.trace_id, one.log_record.span_id) == (here.trace_id, here.span_id)
        assert one.log_record.trace_flags == here.trace_flags
        assert one.instrumentation_scope is not None
        assert one.instrumentation_scope.name == "shop"
        assert before <= (one.log_record.observed_timestamp or 0) <= after
        assert (one.log_record.attributes or {}).get("conversion.type") in ("purchase", "custom")
    assert found[0].log_record.timestamp == 1_795_455_900_123_456_789
    assert before <= (found[1].log_record.timestamp or 0) <= after
    assert "0.0" not in str((found[1].log_record.attributes or {})["items"])
    assert pipeline.force_flush(10_000) or end == "shutdown"
    assert len(sandbox.events("meta")) == 3
    assert sandbox.refused() == []


@pytest.mark.usefixtures("slow_intake")
def test_the_apps_thread_leaves_the_record_for_batches_to_the_intake(sandbox: Sandbox) -> None:
    records = InMemoryLogRecordExporter()
    batch = batches(records)
    logs, pipeline = set_up(sandbox, batch)
    eventflows.get_tracer("shop").add_event("Purchase", PURCHASE)
    batch.force_flush()
    assert names(records) == []
    assert logs.force_flush()
    assert names(records) == ["Purchase"]
    pipeline.force_flush(10_000)
    assert logs.force_flush()
    assert names(records) == ["Purchase"]


def test_a_batch_processor_needs_no_flush_to_get_its_record(sandbox: Sandbox) -> None:
    records = InMemoryLogRecordExporter()
    set_up(sandbox, BatchLogRecordProcessor(records, schedule_delay_millis=10))
    eventflows.get_tracer("shop").add_event("Purchase", PURCHASE)
    until = time.monotonic() + 10
    while not names(records) and time.monotonic() < until:
        time.sleep(0.01)
    assert names(records) == ["Purchase"]


@pytest.mark.usefixtures("slow_intake")
@pytest.mark.parametrize("beside", [None, batches, OwnBatches])
def test_whoever_takes_a_record_at_once_has_it_when_the_call_returns(sandbox: Sandbox, beside: Any) -> None:
    """Also where a batch processor is beside it."""
    records, custom = InMemoryLogRecordExporter(), Custom()
    others = [] if beside is None else [beside(InMemoryLogRecordExporter())]
    set_up(sandbox, SimpleLogRecordProcessor(records), custom, *others)
    eventflows.get_tracer("shop").add_event("Purchase", PURCHASE)
    assert names(records) == ["Purchase"]
    [(thread, record)] = custom.seen
    assert thread is threading.current_thread()
    assert not [canary for canary in CANARIES if canary in repr(dict(record.attributes)).lower()]


@pytest.mark.usefixtures("slow_intake")
def test_a_processor_that_comes_later_is_listened_to(sandbox: Sandbox) -> None:
    first, second = InMemoryLogRecordExporter(), InMemoryLogRecordExporter()
    logs, _ = set_up(sandbox)
    tracer = eventflows.get_tracer("shop")
    tracer.add_event("Lead", {**PERSON, "event_id": "1"})
    logs.add_log_record_processor(batches(first))
    tracer.add_event("Lead", {**PERSON, "event_id": "2"})
    assert logs.force_flush()
    logs.add_log_record_processor(SimpleLogRecordProcessor(second))
    tracer.add_event("Lead", {**PERSON, "event_id": "3"})
    assert ids(second.get_finished_logs()) == ["3"]
    assert logs.force_flush()
    assert ids(first.get_finished_logs()) == ["2", "3"]


@pytest.mark.usefixtures("slow_intake")
def test_what_waits_for_its_work_or_finds_no_room_is_shown_at_once(sandbox: Sandbox) -> None:
    records = InMemoryLogRecordExporter()
    batch = batches(records)
    logs, pipeline = set_up(sandbox, batch, sending_queue={"queue_size": 1})
    tracer = eventflows.get_tracer("shop")
    with trace.get_tracer("app").start_as_current_span("order"):
        tracer.add_event("Purchase", {**PURCHASE, "event_id": "waits", "conversion.commit": "span_ok"})
        assert pipeline.waiting == 1
        batch.force_flush()
        assert ids(records.get_finished_logs()) == ["waits"]
    tracer.add_event("Purchase", {**PURCHASE, "event_id": "too many"})
    batch.force_flush()
    assert ids(records.get_finished_logs()) == ["waits", "too many"]
    assert logs.force_flush()
    assert ids(records.get_finished_logs()) == ["waits", "too many"]
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered, sum(stats.dropped.values())) == (2, 1, 1)


@pytest.mark.usefixtures("slow_intake")
def test_a_shutdown_without_time_still_shows_what_it_gives_up(sandbox: Sandbox) -> None:
    records = InMemoryLogRecordExporter()
    logs, pipeline = set_up(sandbox, batches(records))
    tracer = eventflows.get_tracer("shop")
    for number in range(600):
        tracer.add_event("Lead", {**PERSON, "event_id": str(number)})
    eventflows.shutdown(0)
    tracer.add_event("Lead", {**PERSON, "event_id": "too late"})
    assert logs.force_flush()
    assert ids(records.get_finished_logs()) == [*(str(number) for number in range(600)), "too late"]
    stats = pipeline.stats()["meta"]
    assert stats.captured == stats.delivered + sum(stats.dropped.values()) == 601


@pytest.mark.usefixtures("slow_intake")
def test_after_the_pipelines_end_a_record_is_shown_at_once(sandbox: Sandbox) -> None:
    records = InMemoryLogRecordExporter()
    batch = batches(records)
    _, pipeline = set_up(sandbox, batch)
    assert pipeline.shutdown(5_000)
    eventflows.get_tracer("shop").add_event("Purchase", PURCHASE)
    batch.force_flush()
    assert len(ids(records.get_finished_logs())) == 1


@pytest.mark.usefixtures("slow_intake")
def test_a_conversion_that_came_before_is_shown_and_not_delivered_again(sandbox: Sandbox) -> None:
    records = InMemoryLogRecordExporter()
    logs, pipeline = set_up(sandbox, batches(records))
    for _ in range(3):
        eventflows.get_tracer("shop").add_event("Purchase", {**PURCHASE, "order_id": "1"})
    assert pipeline.duplicates == 2
    assert logs.force_flush()
    assert ids(records.get_finished_logs()) == ["purchase-1"] * 3
    assert len(sandbox.events("meta")) == 1


@pytest.mark.usefixtures("slow_intake")
def test_an_event_that_cannot_be_sealed_is_shown_to_nobody_and_costs_no_other(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = InMemoryLogRecordExporter()
    logs, pipeline = set_up(sandbox, batches(records))
    from eventflows import reader

    seal = reader.seal

    def sealed(event: Any, country: Any) -> Any:
        if event.id == "bad":
            raise ValueError("of no kind")
        return seal(event, country)

    monkeypatch.setattr(reader, "seal", sealed)
    for event_id in ("1", "bad", "2"):
        eventflows.get_tracer("shop").add_event("Purchase", {**PURCHASE, "event_id": event_id})
    assert logs.force_flush()
    assert ids(records.get_finished_logs()) == ["1", "2"]
    assert pipeline.left_out == {("event", "ValueError"): 1}
    assert len(sandbox.events("meta")) == 2


@pytest.mark.usefixtures("slow_intake")
def test_an_exporter_that_fails_costs_no_delivery(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    logs, pipeline = set_up(sandbox, batches(InMemoryLogRecordExporter()))

    def broken(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(BatchLogRecordProcessor, "on_emit", broken)
    for number in range(3):
        eventflows.get_tracer("shop").add_event("Purchase", {**PURCHASE, "event_id": str(number)})
    assert logs.force_flush()
    assert len(sandbox.events("meta")) == 3
    assert pipeline.stats()["meta"].delivered == 3


_EXIT = """
import sys
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter
import eventflows
from eventflows import ConsoleProvider

def provider():
    logs = LoggerProvider()
    logs.add_log_record_processor(BatchLogRecordProcessor(ConsoleLogRecordExporter(sys.stderr)))
    set_logger_provider(logs)
    return logs

logs = None if "late" in sys.argv else provider()
eventflows.configure([ConsoleProvider()], logger_provider=logs)
if "late" in sys.argv:
    eventflows.EventFlowsInstrumentor().instrument()
    # the first provider that `configure` made stays; another of the app's own is attached to
    from opentelemetry._logs import get_logger_provider
    get_logger_provider().add_log_record_processor(BatchLogRecordProcessor(ConsoleLogRecordExporter(sys.stderr)))
if "fork" in sys.argv:
    import os
    eventflows.get_tracer("shop").add_event("Lead", {"event_id": "parent", "user.email": "zoe.canary@example.com"})
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        sys.exit(0)
eventflows.get_tracer("shop").add_event("Lead", {"event_id": "last", "user.email": "zoe.canary@example.com"})
"""


FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.mark.parametrize(
    ("how", "expected"),
    [("early", ["last"]), ("late", ["last"]), pytest.param("fork", ["last", "parent"], marks=FORKS)],
)
def test_the_end_of_a_process_brings_the_last_record_to_both(how: str, expected: list[str]) -> None:
    """And a forked child shows its own, and not what its parent left."""
    done = subprocess.run(
        [sys.executable, "-c", _EXIT, how], capture_output=True, text=True, env=environment(), timeout=60, check=True
    )
    for event_id in ("last", "parent"):
        times = int(event_id in expected)
        assert done.stderr.count(f'"conversion.id": "{event_id}"') == times, done.stderr
        assert sum(f'"{event_id}"' in line or f" {event_id}" in line for line in done.stdout.splitlines()) == times, (
            done.stdout
        )
    assert "zoe.canary" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ((), Listeners.NOBODY),
        ((batches,), Listeners.BATCHES),
        ((batches, batches), Listeners.BATCHES),
        ((SimpleLogRecordProcessor,), Listeners.ANYBODY),
        ((batches, SimpleLogRecordProcessor), Listeners.ANYBODY),
        ((OwnBatches,), Listeners.ANYBODY),
    ],
)
def test_who_listens(sandbox: Sandbox, others: Any, expected: Listeners) -> None:
    logs, pipeline = set_up(sandbox, *(other(InMemoryLogRecordExporter()) for other in others))
    for _ in range(2):
        assert listeners(logs, EventFlowsLogRecordProcessor, pipeline) is expected


def test_processors_in_parallel_or_before_ours_may_be_anybody(sandbox: Sandbox) -> None:
    logs, pipeline = set_up(sandbox)
    parallel = LoggerProvider(shutdown_on_exit=False, multi_log_record_processor=ConcurrentMultiLogRecordProcessor())
    behind = LoggerProvider()
    for provider in (parallel, behind):
        for processor in (EventFlowsLogRecordProcessor(pipeline), batches(InMemoryLogRecordExporter())):
            provider.add_log_record_processor(processor)
    assert listeners(parallel, EventFlowsLogRecordProcessor, pipeline) is Listeners.ANYBODY
    assert listeners(behind, EventFlowsLogRecordProcessor, pipeline) is Listeners.BATCHES
    assert listeners(behind, EventFlowsLogRecordProcessor, object()) is Listeners.ANYBODY  # whom no flush of it reaches
    before = LoggerProvider()
    before.add_log_record_processor(batches(InMemoryLogRecordExporter()))
    before.add_log_record_processor(EventFlowsLogRecordProcessor(pipeline))
    assert listeners(before, EventFlowsLogRecordProcessor, pipeline) is Listeners.ANYBODY
    assert listeners(object(), EventFlowsLogRecordProcessor, pipeline) is Listeners.ANYBODY
    assert listeners(logs, EventFlowsLogRecordProcessor, pipeline) is Listeners.NOBODY


def test_a_conversion_that_was_not_captured_shows_nobody() -> None:
    """Whatever the reason was, there are no digests in the place of what is left out."""
    given = {
        "user.email": "zoe@example.com", "user.id": "u1", "First Name": "Zoe", "note": "for zoe@example.com",
        "notes": [{"to": "zoe%40example.com"}], "zoe@example.com": 1, "value": 5, "plan": "pro",
    }  # fmt: skip
    assert without_persons(given) == {"value": 5, "plan": "pro"}


@pytest.mark.parametrize(
    ("text", "attributes", "names"),
    [
        ("an order of zoe@example.com", {}, True),
        ({"to": "zoe%40example.com"}, {}, True),
        ("Zoe Lind has ordered", {"user.last_name": " lind"}, True),
        ("Zoe Lind has ordered", {"user.first_name": ["Ann", "Zoe"]}, True),
        ("an order of 5 EUR", {"user.last_name": "Zo", "user.email": "zoe@example.com"}, False),
    ],
)
def test_a_body_that_names_a_person_is_known(text: Any, attributes: dict[str, Any], names: bool) -> None:
    assert names_a_person(text, attributes) is names

"""Nobody but the platforms learns who it was: by every way in, all that others can see is searched for the raw values."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import get_logger, set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    ConsoleLogRecordExporter,
    InMemoryLogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

import eventflows
from eventflows import ConfigurationError, EventFlowsInstrumentor, semconv, wiring
from eventflows.capture import conversion_of
from eventflows.conversion import EventType
from eventflows.providers.console import ConsoleProvider
from eventflows.request import read_attributes
from eventflows.sandbox import Sandbox
from eventflows.sealing import event_of, record, seal
from eventflows.stored import dump
from eventflows.told import Told
from tests.conftest import CANARIES, PERSON, five, four

EVENT: dict[str, Any] = {
    "value": 49.99, "currency": "USD", "client.address": "198.51.100.24", "user_agent": "Mozilla/5.0",
    "url": "https://shop.example/thanks?mail=zoe.canary@example.com&x=1", "email": "zoe.canary@example.com",
    "note": "call zoe.canary@example.com", "browser.language": "zoe.canary@example.com",
    "user.gender": "f", "user.full_name": "Zoecanary Lundcanary", **PERSON,
}  # fmt: skip


class Everything:
    """What all the others in the app see: processors and exporters registered before us and after us, and every output."""

    def __init__(self) -> None:
        self.text = io.StringIO()
        self.log_exporters = [InMemoryLogRecordExporter() for _ in range(4)]
        self.span_exporters = [InMemorySpanExporter() for _ in range(4)]

    def before(self, logs: LoggerProvider, traces: TracerProvider) -> None:
        self._register(logs, traces, 0)

    def after(self, logs: LoggerProvider, traces: TracerProvider) -> None:
        self._register(logs, traces, 2)

    def _register(self, logs: LoggerProvider, traces: TracerProvider, first: int) -> None:
        witness = self

        class Logs(LogRecordProcessor):
            def on_emit(self, log_record: ReadWriteLogRecord) -> None:
                witness.text.write(repr(log_record) + repr(dict(log_record.log_record.attributes or {})))
                witness.text.write(repr(log_record.log_record.body))

            def shutdown(self) -> None:
                """It holds nothing."""

            def force_flush(self, timeout_millis: int = 30_000) -> bool:
                return True

        class Spans(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                witness.text.write(span.to_json() + repr(span) + repr([dict(e.attributes or {}) for e in span.events]))

        logs.add_log_record_processor(Logs())
        logs.add_log_record_processor(SimpleLogRecordProcessor(self.log_exporters[first]))
        logs.add_log_record_processor(BatchLogRecordProcessor(self.log_exporters[first + 1]))
        logs.add_log_record_processor(SimpleLogRecordProcessor(ConsoleLogRecordExporter(out=self.text)))
        traces.add_span_processor(Spans())
        traces.add_span_processor(SimpleSpanProcessor(self.span_exporters[first]))
        traces.add_span_processor(BatchSpanProcessor(self.span_exporters[first + 1]))
        traces.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=self.text)))

    def seen(self) -> str:
        logs = [r.to_json() for exporter in self.log_exporters for r in exporter.get_finished_logs()]
        spans = [s.to_json() for exporter in self.span_exporters for s in exporter.get_finished_spans()]
        return (self.text.getvalue() + "".join(logs) + "".join(spans)).lower()


def by_tracer() -> None:
    trace.get_tracer("app").add_event("Purchase", EVENT)  # type: ignore[attr-defined]


def by_own_tracer() -> None:
    with trace.get_tracer("app").start_as_current_span("order"):
        eventflows.get_tracer("app").add_event("Purchase", EVENT)


def by_log_record() -> None:
    get_logger("app").emit(event_name="Purchase", attributes=EVENT, body="bought by Zoe.Canary@example.com")


def by_log_record_with_a_map() -> None:
    get_logger("app").emit(event_name="Purchase", attributes=EVENT, body={"who": {"name": "Zoecanary"}})


def by_span_event() -> None:
    with trace.get_tracer("app").start_as_current_span("order") as span:
        span.add_event("Purchase", EVENT)


def by_span_event_by_keyword() -> None:
    with trace.get_tracer("app").start_as_current_span("order") as span:
        span.add_event(name="Order", attributes={**EVENT, "conversion.type": "purchase"})


def by_nonsense_on_a_span() -> None:
    with trace.get_tracer("app").start_as_current_span("order") as span:
        span.add_event("Purchase", {**EVENT, "user.email": ["Zoe.Canary@example.com", "nonsense zoecanary"]})


NAME = "Order of Zoe.Canary@example.com"


def by_name() -> None:
    eventflows.get_tracer("app").add_event(NAME, {**EVENT, "conversion.type": "purchase"})


def by_name_of_a_log_record() -> None:
    get_logger("app").emit(event_name=NAME, attributes={**EVENT, "conversion.type": "purchase"})


def by_name_of_a_span_event() -> None:
    with trace.get_tracer("app").start_as_current_span("order") as span:
        span.add_event(NAME, {**EVENT, "conversion.type": "purchase"})


def by_tracker() -> None:
    user = {
        "email": EVENT["user.email"],
        "phone": EVENT["user.phone"],
        "first_name": "Zoecanary",
        "date_of_birth": "1987-06-05",
    }
    assert eventflows.tracker.track(
        "Purchase", user_data={**user, "street": "Canarygatan 7"}, properties={"value": 5, "currency": "EUR"}
    )


def by_render() -> None:
    assert eventflows.render("Purchase", EVENT)
    sys.stdout.write(repr(eventflows.render("Purchase", EVENT)))


WAYS = [
    by_tracer, by_own_tracer, by_log_record, by_log_record_with_a_map, by_span_event, by_span_event_by_keyword,
    by_nonsense_on_a_span, by_name, by_name_of_a_log_record, by_name_of_a_span_event, by_tracker, by_render,
]  # fmt: skip


@pytest.fixture
def instrumentor() -> Iterator[EventFlowsInstrumentor]:
    yield EventFlowsInstrumentor()
    EventFlowsInstrumentor().uninstrument()


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
@pytest.mark.parametrize("way", WAYS)
def test_no_raw_value_is_seen_by_anyone(
    way: Callable[[], None],
    sampler: Any,
    sandbox: Sandbox,
    instrumentor: EventFlowsInstrumentor,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    everything, logs, traces = Everything(), LoggerProvider(), TracerProvider(sampler=sampler)
    set_logger_provider(logs)
    trace.set_tracer_provider(traces)
    everything.before(logs, traces)
    pipeline = eventflows.configure(five(sandbox.url), privacy={"strict": True})
    instrumentor.instrument()
    everything.after(logs, traces)
    way()
    assert eventflows.force_flush(10_000)
    logs.force_flush()
    traces.force_flush()
    if way is not by_render:
        assert pipeline.stats()["meta"].delivered == 1
        assert sandbox.refused() == []
    out = capsys.readouterr()
    seen = (
        everything.seen() + (out.out + out.err + caplog.text + repr(pipeline.stats()) + repr(pipeline.left_out)).lower()
    )
    assert "purchase" in seen
    assert not [canary for canary in CANARIES if canary in seen]


def end_by_eventflows(_logs: LoggerProvider, _traces: TracerProvider) -> None:
    eventflows.shutdown(5_000)


def end_by_the_pipeline(_logs: LoggerProvider, _traces: TracerProvider) -> None:
    eventflows.running.current().shutdown(5_000)  # type: ignore[union-attr]


def end_by_the_facade(_logs: LoggerProvider, _traces: TracerProvider) -> None:
    eventflows.tracker.shutdown(5_000)


@pytest.mark.parametrize("end", [end_by_eventflows, end_by_the_pipeline, end_by_the_facade])
@pytest.mark.parametrize("way", [way for way in WAYS if way not in (by_tracker, by_render)])
def test_nor_after_the_shutdown_where_it_is_dropped_and_counted(
    way: Callable[[], None],
    end: Callable[..., None],
    sandbox: Sandbox,
    instrumentor: EventFlowsInstrumentor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Until another pipeline takes over: the app goes on recording, and its other exporters go on as well."""
    everything, logs, traces = Everything(), LoggerProvider(), TracerProvider()
    set_logger_provider(logs)
    trace.set_tracer_provider(traces)
    everything.before(logs, traces)
    ended = eventflows.configure(five(sandbox.url))
    instrumentor.instrument()
    end(logs, traces)
    everything.after(logs, traces)
    way()
    logs.force_flush()
    traces.force_flush()
    assert ended.stats()["meta"].dropped == {"recorded after shutdown": 1}
    assert "recorded after the shutdown" in caplog.text
    next_one = eventflows.configure(five(sandbox.url))
    way()
    assert eventflows.force_flush(10_000)
    logs.force_flush()
    traces.force_flush()
    assert (ended.stats()["meta"].captured, next_one.stats()["meta"].delivered) == (1, 1)
    assert len(sandbox.events("meta")) == 1
    seen = everything.seen() + caplog.text.lower()
    assert "purchase" in seen
    assert not [canary for canary in CANARIES if canary in seen]


def test_a_provider_that_is_made_after_the_shutdown_is_sealed_as_well(instrumentor: EventFlowsInstrumentor) -> None:
    eventflows.configure([ConsoleProvider()])
    instrumentor.instrument()
    eventflows.shutdown(5_000)
    exporter, logs = InMemoryLogRecordExporter(), LoggerProvider()
    logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logs.get_logger("app").emit(event_name="Purchase", attributes=EVENT)
    (record,) = exporter.get_finished_logs()
    assert not [canary for canary in CANARIES if canary in record.to_json().lower()]


ATTRIBUTES = {
    *(name for name in vars(semconv).values() if isinstance(name, str) and "." in name.strip(".") and "/" not in name),
    *semconv.ALIASES, *(semconv.CONVERSION_CLICK + name for name in semconv.CLICK_IDS),
    *(semconv.CONVERSION_CONSENT + purpose for purpose in semconv.CONSENT_PURPOSES), semconv.PAGE_TITLE,
    semconv.SEALED + "email.lower", "note", "zoe.canary@example.com", "conversion.click.zoe.canary@example.com",
}  # fmt: skip
MAIL = "Zoe.Canary@example.com"


@pytest.mark.parametrize("attribute", sorted(ATTRIBUTES))
def test_no_attribute_carries_an_email_in_a_sealed_event(attribute: str) -> None:
    """Whichever it is, and however the address is wrapped; nor does its conversion, sealed or not."""
    texts = (
        MAIL,
        MAIL.replace("@", "%40"),
        MAIL.replace("@", "%2540"),
        f"de, {MAIL}",
        f"Bot/1.0 (+mailto:{MAIL})",
        f"https://a.example/{MAIL}?m={MAIL}",
    )
    items = [{"id": MAIL, "name": MAIL, MAIL: 1, "more": [{MAIL: MAIL}]}]
    values = [
        *("", None, 0, []),
        *texts,
        list(texts),
        {MAIL: MAIL},
        items,
        json.dumps(items),
        json.dumps(items).replace("@", "%40"),
    ]
    if attribute in ("conversion.items", "items", "contents", "products"):  # which are read as JSON
        values.append(json.dumps(items).replace("@", "\\u0040"))
    for value in values:
        raw = event_of(record("custom_event", {attribute: value, "conversion.id": "1"}, 1), EventType.CUSTOM)
        sealed = seal(raw)
        around = raw._replace(attributes={}, around=Told.of(read_attributes({attribute: value})))
        shown = (dump(sealed) + dump(seal(around))).decode() + repr(
            [conversion_of(one) for one in (raw, sealed, around)]
        )
        assert "canary" not in shown.lower().replace("left_out", ""), value


@pytest.mark.parametrize("declared", [{}, {"conversion.type": "lead"}])
def test_an_email_in_an_events_name_costs_the_name_and_not_the_event(
    declared: dict[str, str], sandbox: Sandbox, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """It has the name of its type, and this is told once."""
    pipeline = eventflows.configure(four(sandbox.url), sending_queue={"storage": str(tmp_path)})
    for number in range(3):
        event = {
            "user.email": MAIL,
            "order_id": number,
            "client.address": "198.51.100.24",
            "user_agent": "M",
            **declared,
        }
        eventflows.get_tracer("app").add_event(f"invited {MAIL}", event)
    assert eventflows.force_flush(10_000)
    assert {stats.delivered for stats in pipeline.stats().values()} == {3}
    sent = {entry["event"]["event_name"] for entry in sandbox.events("meta")}
    assert sent == {"Lead" if declared else "custom"}
    assert {entry["event"]["event_id"] for entry in sandbox.events("meta")} == {
        f"{'lead' if declared else 'custom'}-{n}" for n in range(3)
    }
    assert pipeline.left_out["event name", "holds an e-mail address: the event has that of its type"] == 3
    assert sum("event name" in line.getMessage() for line in caplog.records) == 1
    on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not [
        text for text in (caplog.text, on_disk.decode("latin-1"), str(sandbox.events())) if "canary" in text.lower()
    ]


def test_what_replaces_the_raw_values_builds_every_payload_elsewhere(
    sandbox: Sandbox, instrumentor: EventFlowsInstrumentor
) -> None:
    """From the sealed log record, and from the sealed span event, another process makes the same requests."""
    everything, logs, traces = Everything(), LoggerProvider(), TracerProvider()
    everything.before(logs, traces)
    trace.set_tracer_provider(traces)
    event = {**EVENT, "order_id": "1"}
    eventflows.configure(four(sandbox.url), logger_provider=logs, tracer_provider=traces)
    instrumentor.instrument()
    now = 1_795_500_000_000_000_000
    here = [one.body for one in eventflows.render("Purchase", event, providers=four(), timestamp=now, now=now)]
    logs.get_logger("app").emit(event_name="Purchase", attributes=event)
    with traces.get_tracer("app").start_as_current_span("order") as span:
        span.add_event("Purchase", event)
    instrumentor.uninstrument()
    eventflows.shutdown(5_000)
    (record,) = everything.log_exporters[0].get_finished_logs()
    (finished,) = (one for one in everything.span_exporters[0].get_finished_spans() if one.name == "order")
    for sealed in (record.log_record.attributes, finished.events[0].attributes):
        there = eventflows.render("Purchase", dict(sealed or {}), providers=four(), timestamp=now, now=now)
        assert [one.body for one in there] == here


@pytest.mark.parametrize("register", ["before", "after"])
def test_a_log_provider_made_later_is_sealed_as_well(register: str, instrumentor: EventFlowsInstrumentor) -> None:
    """The instrumentor is first in every provider's chain, also of one that is not the global one."""
    eventflows.configure([ConsoleProvider()])
    instrumentor.instrument()
    exporter, logs = InMemoryLogRecordExporter(), LoggerProvider()
    logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logs.get_logger("app").emit(event_name="Purchase", attributes=EVENT)
    (record,) = exporter.get_finished_logs()
    assert not [canary for canary in CANARIES if canary in record.to_json().lower()]


def test_a_record_that_is_no_conversion_is_left_alone(instrumentor: EventFlowsInstrumentor) -> None:
    exporter, logs = InMemoryLogRecordExporter(), LoggerProvider()
    logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    eventflows.configure([ConsoleProvider()], logger_provider=logs)
    instrumentor.instrument()
    logs.get_logger("app").emit(event_name="mail.sent", attributes={"user.email": "a@b.example"}, body="to a@b.example")
    logs.get_logger("app").emit(body="Purchase by a@b.example")
    first, second = (record.log_record for record in exporter.get_finished_logs())
    assert (dict(first.attributes or {}), first.body) == ({"user.email": "a@b.example"}, "to a@b.example")
    assert second.body == "Purchase by a@b.example"


# --- the self-test


def test_the_self_test_passes_and_delivers_nothing(instrumentor: EventFlowsInstrumentor, capsys: Any) -> None:
    pipeline = eventflows.configure([ConsoleProvider()], privacy={"strict": True})
    instrumentor.instrument()
    assert wiring.logs_are_sealed_first()
    assert wiring.span_events_are_sealed()
    assert eventflows.force_flush(5_000)
    assert pipeline.stats()["console"].captured == 0
    assert capsys.readouterr().out == ""


def never_first(provider: LoggerProvider, processor: LogRecordProcessor) -> bool:
    """An SDK that changed its insides, as far as `put_first` goes."""
    provider.add_log_record_processor(processor)
    return False


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("broken", ["put_first", "logs_are_sealed_first"])
def test_where_the_sdk_lets_nobody_be_first_it_says_so_and_strict_refuses_to_start(
    strict: bool, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wiring, broken, never_first if broken == "put_first" else lambda: False)
    if strict:
        with pytest.raises(ConfigurationError, match=r"privacy\.strict"):
            eventflows.configure([ConsoleProvider()], privacy={"strict": True})
        assert eventflows.running.current() is None
    else:
        eventflows.configure([ConsoleProvider()])
        assert "cannot keep personal data from others" in caplog.text


def test_the_instrumentor_refuses_as_well_and_restores_everything(
    instrumentor: EventFlowsInstrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    eventflows.configure([ConsoleProvider()], privacy={"strict": True})
    monkeypatch.setattr(wiring, "span_events_are_sealed", lambda: False)
    with pytest.raises(ConfigurationError, match=r"span\.add_event cannot be caught"):
        instrumentor.instrument()
    assert not hasattr(trace.get_tracer("app"), "add_event")


def test_the_start_refuses_as_well_where_the_instrumentor_was_there_before(
    instrumentor: EventFlowsInstrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrumentor.instrument()
    monkeypatch.setattr(wiring, "span_events_are_sealed", lambda: False)
    with pytest.raises(ConfigurationError, match=r"span\.add_event cannot be caught"):
        eventflows.configure([ConsoleProvider()], privacy={"strict": True})


def test_the_self_test_sees_an_sdk_that_does_not_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at what another processor really gets."""
    assert not wiring.span_events_are_sealed()  # the instrumentor is off
    assert wiring.logs_are_sealed_first()
    monkeypatch.setattr(wiring, "put_first", never_first)
    assert not wiring.logs_are_sealed_first()

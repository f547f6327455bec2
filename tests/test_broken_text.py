"""Half of a surrogate pair, as a cut text or a broken client brings it: it costs no exporter its batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

import eventflows
from eventflows import EventFlowsInstrumentor
from eventflows.providers.console import ConsoleProvider

HALF = "Malmö \ud800"
EVENT: dict[str, Any] = {
    "user.id": HALF, "user.city": HALF, "user_agent": HALF, "url": f"https://a.example/{HALF.replace(' ', '')}",
    "browser.language": HALF, "page_title": HALF, "search_term": HALF, "order_id": HALF, "note": HALF, "list": [HALF],
    HALF: "a name", "items": [{"id": "1", "name": HALF, HALF: 1}], "contents": f'[{{"name": "{HALF}"}}]',
    "conversion.click.gclid": "\ud800", "nested": {HALF: HALF},
}  # fmt: skip
NAME = f"Lamp {HALF}"


class Logs(LogRecordExporter):
    """Writes what OTLP's exporters write."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self.written.append(encode_logs(batch).SerializeToString())
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """It holds nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class Spans(SpanExporter):
    def __init__(self) -> None:
        self.written: list[bytes] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.written.append(encode_spans(spans).SerializeToString())
        return SpanExportResult.SUCCESS


@pytest.mark.parametrize("attribute", [*EVENT, "its name"])
def test_others_get_their_whole_batch(attribute: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of log records by each way, and of spans; and the event is in it."""
    logs, traces, log_exporter, span_exporter = LoggerProvider(), TracerProvider(), Logs(), Spans()
    eventflows.configure([ConsoleProvider()], logger_provider=logs, tracer_provider=traces)
    EventFlowsInstrumentor().instrument()
    logs.add_log_record_processor(BatchLogRecordProcessor(log_exporter))
    traces.add_span_processor(BatchSpanProcessor(span_exporter))
    name = NAME if attribute == "its name" else "Lead"
    event = {
        "conversion.type": "lead",
        "event_id": "the one",
        **({attribute: EVENT[attribute]} if name != NAME else {}),
    }
    try:
        tracer = eventflows.get_tracer("app", tracer_provider=traces)
        logs.get_logger("app").emit(event_name="other", attributes={"a": "neighbour"})
        logs.get_logger("app").emit(event_name=name, attributes=event)
        with tracer.start_as_current_span("order") as span:
            span.set_attribute("a", "neighbour")
            span.add_event(name, event)
        tracer.add_event(name, event)
        assert eventflows.force_flush(5_000)
        logs.force_flush()
        traces.force_flush()
    finally:
        EventFlowsInstrumentor().uninstrument()
    for written in (log_exporter.written, span_exporter.written):
        assert b"neighbour" in b"".join(written)
        assert b"the one" in b"".join(written)
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR], "an attribute is lost"

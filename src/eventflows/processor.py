"""The OpenTelemetry building blocks: processors and exporters that feed the pipeline.

A span event is caught only on a span that is recorded and sampled; for what survives sampling use `tracer.add_event`, log
records, or the instrumentor. Behind a batch processor an exporter sees a record after the others did: use the log processor to
keep raw personal data from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakSet

from opentelemetry.context import Context, create_key
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from . import config, lifecycle
from .context import around, around_ended, follow
from .log import Notices, logger
from .others import names_a_person
from .pipeline import Pipeline
from .running import current, shared
from .sdk import has_events
from .sealing import shown_event_name
from .spans import Scope, awaited, scope_of
from .telemetry import OF_DELIVERY, Indifferent

_MAX_RUNNING = 100_000
SECONDS_FOR_ONE_OF_SEVERAL = 5.0
"""The shutdown of one of several providers waits no longer for the platforms."""
_notices = Notices("capture")
_read: WeakSet[ReadableSpan] = WeakSet()
"""Spans whose events were taken: where they have no ids, an exporter beside a processor must not take them for others."""
OURS = create_key("eventflows-record")
"""Context key of records that carry a conversion which the pipeline has already."""


def _pipeline(pipeline: Pipeline | None, providers: Any, options: Mapping[str, Any]) -> Pipeline:
    """The given one; else one from the given settings; else the process's; else one from the environment."""
    if pipeline is not None:
        return pipeline
    before = current()
    if providers is not None or options:
        found = shared(config.settings(providers, **options))
    else:
        found = before or shared(config.from_environment(), config.resource_of_environment())
    if found is not before:  # how it is wired cannot be known yet; `configure` and the instrumentor tell more
        names = ", ".join(provider.name for provider in found.settings.providers)
        logger.info("EventFlows delivers conversions to: %s (%s)", names, found.mode or "environment not known yet")
    return found


def _record_log(pipeline: Pipeline, record: Any) -> Any:
    """The sealed event of a log record that is a conversion, or None."""
    if not record.event_name:
        return None
    time_unix_nano = record.timestamp or record.observed_timestamp
    return pipeline.record(
        record.event_name, record.attributes, time_unix_nano, surrounded=lambda: around(None, record.context)
    )


def _record_span(pipeline: Pipeline, span: ReadableSpan, scope: Scope | None = None) -> None:
    if span in _read:
        return
    _read.add(span)
    for event in span.events:
        pipeline.record(event.name, event.attributes, event.timestamp, surrounded=lambda: around_ended(span, scope))


class WayIn:
    """What feeds a pipeline from one of OpenTelemetry's providers.

    Attributes:
        pipeline: That which it feeds, and flushes with its provider. Once that is shut down what comes is sealed for others all
            the same, until the next takes its place.
    """

    pipeline: Pipeline

    def feed(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        pipeline.ways_in.add(self)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """The provider shuts down: with the last one, or at the end of the process, the pipeline does as well.

        Else what is queued is delivered while it goes on, so an outage is not waited for: that would come again with the next.
        """
        self.pipeline.ways_in.discard(self)
        if self.pipeline.ways_in and not lifecycle.is_exiting():
            self.pipeline.force_flush(min(timeout_millis, SECONDS_FOR_ONE_OF_SEVERAL * 1000))
        else:
            self.pipeline.shutdown(timeout_millis)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.pipeline.force_flush(timeout_millis)


class EventFlowsLogRecordProcessor(WayIn, LogRecordProcessor):
    """Captures conversions from log records and seals them for the processors after it. Register it first.

    Args:
        pipeline: From `eventflows.configure` or None for the process's own.
    """

    def __init__(self, pipeline: Pipeline | None = None) -> None:
        self.feed(_pipeline(pipeline, None, {}))

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        record = log_record.log_record
        if record.context is not None and OURS in record.context:
            return
        if not record.event_name or self.pipeline.reader.has(record.attributes):
            return
        event = _record_log(self.pipeline, record)
        shown = self.pipeline.reader.shown(record.event_name, record.attributes, event, on_record=True)
        if shown is None:
            return
        attributes: Any = record.attributes
        try:
            record.event_name = event.name if event is not None else shown_event_name(record.event_name)
            given = dict(attributes or {})
            for key in [key for key in attributes if key not in shown]:
                del attributes[key]
            attributes.update(shown)
            if record.body is not None and names_a_person(record.body, given):
                record.body = None
        except Exception:  # noqa: BLE001 reason: fail closed, and never into the app
            record.attributes = record.body = None

    def enabled(self, *, context: Context | None = None, **_: Any) -> bool:
        """Every record may be a conversion, except those we ask about ourselves."""
        return context is None or OURS not in context


class EventFlowsSpanProcessor(WayIn, Indifferent):
    """Captures conversions from the events of ended spans, and knows which request and which local root a span belongs to.

    Spans that a sampler dropped reach no processor; the instrumentor follows those.

    Attributes:
        events_are_caught: By the instrumentor, as they are added: none is left to find when a span ends.
    """

    events_are_caught = False

    def __init__(self, pipeline: Pipeline | None = None) -> None:
        self.feed(_pipeline(pipeline, None, {}))
        self._running: dict[int, Span] = {}
        """Spans whose events are to be found at their end, by their ids: what `on_end` gets is a copy."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if parent_context and OF_DELIVERY in parent_context:
            return
        try:
            follow(span, parent_context)
            if not self.events_are_caught:
                self._running[span.context.span_id] = span
                if len(self._running) > _MAX_RUNNING:  # spans that nobody ends must not fill the memory
                    self._running.pop(next(iter(self._running)), None)
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            _notices.warn(
                "follow",
                "{count} spans could not be followed (%s); their events go without the request",
                type(problem).__name__,
            )

    def on_end(self, span: ReadableSpan) -> None:
        live = self._running.pop(span.context.span_id, None) if self._running else None
        if (live is not None or not self.events_are_caught) and has_events(span):
            _record_span(self.pipeline, span, scope_of(live))
        if awaited and (scope := awaited.pop(span.context.span_id, None)) is not None:
            scope.end(span)


class EventFlowsLogRecordExporter(WayIn, LogRecordExporter):
    """The log exporter behind `OTEL_LOGS_EXPORTER=eventflows` and the declarative file.

    Args:
        pipeline: An existing one; the keyword settings are those of `eventflows.configure`.

    Raises:
        ConfigurationError: The settings, or without them the environment, are not usable.
    """

    def __init__(self, providers: Any = None, *, pipeline: Pipeline | None = None, **options: Any) -> None:
        self.feed(_pipeline(pipeline, providers, options))

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        for readable in batch:
            _record_log(self.pipeline, readable.log_record)
        return LogRecordExportResult.SUCCESS


class EventFlowsSpanExporter(WayIn, SpanExporter):
    """The span exporter behind `OTEL_TRACES_EXPORTER=eventflows`. Unsampled spans never reach an exporter.

    Args:
        pipeline: An existing one; the keyword settings are those of `eventflows.configure`.

    Raises:
        ConfigurationError: The settings, or without them the environment, are not usable.
    """

    def __init__(self, providers: Any = None, *, pipeline: Pipeline | None = None, **options: Any) -> None:
        self.feed(_pipeline(pipeline, providers, options))

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            _record_span(self.pipeline, span)
        return SpanExportResult.SUCCESS

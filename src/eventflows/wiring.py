"""Attaching the pipeline to OpenTelemetry's providers, and the test at start that sealing comes before everybody else."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from .config import Settings
from .errors import ConfigurationError
from .log import logger
from .pipeline import Pipeline
from .processor import EventFlowsLogRecordProcessor, EventFlowsSpanProcessor, WayIn
from .running import current, make_current, rehearsal
from .sdk import (
    exporters_of_logs,
    exporters_of_spans,
    log_processors,
    put_first,
    remove_log_processor,
    remove_span_processor,
    span_processors,
)

_EVENT = "Purchase"
_CANARY = "canary@eventflows.invalid"


def seal_logs(provider: LoggerProvider, pipeline: Pipeline) -> EventFlowsLogRecordProcessor | None:
    """Have the provider's records sealed before its other processors see them.

    Returns:
        The processor; None where the provider has one already.

    Raises:
        ConfigurationError: This cannot be, and `privacy.strict` is set.
    """
    there = log_processors(provider, EventFlowsLogRecordProcessor)
    _take_over([*(exporter for exporter, _ in exporters_of_logs(provider)), *there], pipeline)
    if there:
        return None
    processor = EventFlowsLogRecordProcessor(pipeline)
    if not put_first(provider, processor):
        remove_log_processor(provider, processor)
        _cannot_seal(
            pipeline, "this LoggerProvider lets no processor be first, so those before ours see raw personal data"
        )
        provider.add_log_record_processor(processor)
    return processor


def follow_spans(provider: TracerProvider, pipeline: Pipeline) -> EventFlowsSpanProcessor | None:
    """Have the provider's spans followed; None where they are already."""
    there = span_processors(provider, EventFlowsSpanProcessor)
    _take_over([*(exporter for exporter, _ in exporters_of_spans(provider)), *there], pipeline)
    if there:
        return None
    processor = EventFlowsSpanProcessor(pipeline)
    provider.add_span_processor(processor)
    return processor


def _take_over(ways_in: Iterable[object], pipeline: Pipeline) -> None:
    """What fed a pipeline that was shut down feeds this one from now on; exporters first, which get what processors took."""
    for one in ways_in:
        if isinstance(one, WayIn) and one.pipeline.is_shut_down:
            pipeline.reader.succeed(one.pipeline.reader)
            one.feed(pipeline)


def take_off(provider: LoggerProvider | TracerProvider, processor: WayIn) -> None:
    """Undo `seal_logs` or `follow_spans`."""
    if isinstance(processor, EventFlowsLogRecordProcessor) and isinstance(provider, LoggerProvider):
        remove_log_processor(provider, processor)
    elif isinstance(processor, EventFlowsSpanProcessor) and isinstance(provider, TracerProvider):
        remove_span_processor(provider, processor)
    processor.pipeline.ways_in.discard(processor)


def self_test(pipeline: Pipeline) -> None:
    """Look whether the installed SDK lets us seal first what comes by log records and, with the instrumentor on, by spans.

    Raises:
        ConfigurationError: It does not, and `privacy.strict` is set.
    """
    if EventFlowsSpanProcessor.events_are_caught and not span_events_are_sealed():
        _cannot_seal(pipeline, RAW_SPANS)
    if not logs_are_sealed_first():
        _cannot_seal(pipeline, RAW_LOGS)


def _cannot_seal(pipeline: Pipeline, problem: str) -> None:
    """Say so loudly; with `privacy.strict` stop.

    Raises:
        ConfigurationError: `privacy.strict` is set.
    """
    if pipeline.settings.privacy.strict:
        pipeline.shutdown(0)
        if current() is pipeline:
            make_current(None)
        raise ConfigurationError(f"privacy.strict: {problem}")
    logger.error("EventFlows cannot keep personal data from others: %s", problem)


class _Witness(LogRecordProcessor):
    """A processor that was there before ours, and remembers what it saw."""

    def __init__(self) -> None:
        self.seen = ""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        self.seen += repr(dict(log_record.log_record.attributes or {}))

    def shutdown(self) -> None:
        """It holds nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 reason: the SDK's signature
        return True


RAW_LOGS = "with this OpenTelemetry SDK a log processor that was registered before ours sees raw attributes"
RAW_SPANS = "with this OpenTelemetry SDK span.add_event cannot be caught"


def logs_are_sealed_first() -> bool:
    """Whether, with the installed SDK, a processor registered before ours sees a record sealed. It is not delivered."""
    with rehearsal(Settings(providers=())) as scratch:
        witness, provider = _Witness(), LoggerProvider(shutdown_on_exit=False)  # which would keep it
        provider.add_log_record_processor(witness)
        put_first(provider, EventFlowsLogRecordProcessor(scratch))
        provider.get_logger(__name__).emit(event_name=_EVENT, attributes={"user.email": _CANARY})
    return bool(witness.seen) and _CANARY not in witness.seen


def span_events_are_sealed() -> bool:
    """Whether, with the instrumentor on, a recorded span holds a conversion's event sealed. Nothing of this is delivered."""
    with rehearsal(Settings(providers=())):
        span = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False).get_tracer(__name__).start_span("self-test")
        span.add_event(_EVENT, {"user.email": _CANARY})
        seen = repr([dict(event.attributes or {}) for event in getattr(span, "events", ())])
    return "conversion.id" in seen and _CANARY not in seen

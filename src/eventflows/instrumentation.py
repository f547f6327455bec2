"""The tracer that has `add_event`, and the instrumentor that gives it to every tracer and watches `span.add_event`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import wrapt
from opentelemetry import trace
from opentelemetry._logs import Logger, SeverityNumber, get_logger_provider
from opentelemetry._logs import LoggerProvider as AnyLoggerProvider
from opentelemetry.context import get_current, set_value
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import Span as SdkSpan

from . import pipeline as pipelines
from .capture import sealed_attributes
from .log import logger
from .processor import OURS, EventFlowsLogRecordProcessor
from .sdk import put_first, remove_log_processor, wants_record

_SCOPE = "eventflows"


def add_event(
    name: str,
    attributes: Mapping[str, Any] | None = None,
    timestamp: int | None = None,
    *,
    scope: str = _SCOPE,
) -> None:
    """Record a conversion as a log-based event: straight to the pipeline, and as a sealed log record to whoever else listens.

    Args:
        name: The event's name; an unknown one is a custom conversion.
        attributes: Semantic attributes and custom properties. What identifies a person is hashed before anyone sees it.
        timestamp: Unix time in nanoseconds; None is now.
        scope: Name of the instrumentation scope of the log record.
    """
    pipeline = pipelines.required()
    if pipeline is None:
        return
    conversion = pipeline.record(name, attributes, timestamp, always=True)
    if conversion is None:
        return
    try:
        events = _logger(scope)
        context = set_value(OURS, True, get_current())
        if wants_record(events, name, context):
            events.emit(
                timestamp=conversion.time_unix_nano,
                context=context,
                severity_number=SeverityNumber.INFO,
                attributes=sealed_attributes(attributes or {}, conversion),
                event_name=name,
            )
    except Exception as problem:  # noqa: BLE001 reason: another exporter's failure must not reach the app
        logger.warning("the log record of a conversion was lost: %s", type(problem).__name__)


_loggers: dict[str, tuple[AnyLoggerProvider, Logger]] = {}


def _logger(scope: str) -> Logger:
    """The scope's logger, asked for once: `get_logger` takes a lock of the SDK that is not re-entrant, on which a conversion
    recorded in a signal handler would wait for ever."""
    provider = get_logger_provider()
    known = _loggers.get(scope)
    if known is None or known[0] is not provider:
        known = _loggers[scope] = (provider, provider.get_logger(scope))
    return known[1]


class EventFlowsTracer(wrapt.ObjectProxy):  # type: ignore[type-arg, misc, unused-ignore]  # generic only in wrapt 2
    """An OpenTelemetry tracer, whatever its kind, that also has `add_event`."""

    def __init__(self, tracer: trace.Tracer, scope: str) -> None:
        super().__init__(tracer)
        self._self_scope = scope

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """See `eventflows.instrumentation.add_event`."""
        add_event(name, attributes, timestamp, scope=self._self_scope)


def get_tracer(name: str, version: str | None = None, *args: Any, **kwargs: Any) -> EventFlowsTracer:
    """As `opentelemetry.trace.get_tracer`, with `add_event`."""
    return EventFlowsTracer(trace.get_tracer(name, version, *args, **kwargs), name)


def _tracer_add_event(
    _tracer: trace.Tracer, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
) -> None:
    """The method that every tracer gets from `EventFlowsInstrumentor`."""
    add_event(name, attributes, timestamp)


def _span_add_event(wrapped: Any, _span: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around `span.add_event`: a conversion goes to the pipeline whether or not the span is sampled, and is sealed on it."""
    pipeline = pipelines.current()
    if pipeline is None:
        return wrapped(*args, **kwargs)
    name, attributes, timestamp = _event(*args, **kwargs)
    if not isinstance(name, str):
        return wrapped(*args, **kwargs)
    conversion = pipeline.record(name, attributes, timestamp)
    shown = pipeline.shown(name, attributes, conversion)
    if shown is None:
        return wrapped(*args, **kwargs)
    return wrapped(name, shown, conversion.time_unix_nano if conversion is not None else timestamp)


def _event(name: Any = None, attributes: Any = None, timestamp: Any = None) -> tuple[Any, Any, Any]:
    return name, attributes, timestamp


class EventFlowsInstrumentor:
    """Gives every tracer `add_event`, and catches conversions in `span.add_event`, also on spans that sampling dropped.

    Has the methods of OpenTelemetry's `BaseInstrumentor` without requiring its package; `opentelemetry-instrument` finds
    it by its entry point. Until a pipeline is configured it changes nothing of what spans record.
    """

    _active: EventFlowsInstrumentor | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def instrument(self, **_: Any) -> None:
        """Switch it on, for tracers and spans that exist already as well. A second call does nothing."""
        cls = type(self)
        if cls._active is not None:
            return
        cls._active = self
        trace.Tracer.add_event = _tracer_add_event  # type: ignore[attr-defined]
        self._originals = [(owner, owner.__dict__["add_event"]) for owner in (SdkSpan, trace.NonRecordingSpan)]
        for owner, _original in self._originals:
            wrapt.wrap_function_wrapper(owner, "add_event", _span_add_event)
        self._processor: EventFlowsLogRecordProcessor | None = None
        provider, pipeline = get_logger_provider(), pipelines.current()
        if pipeline is not None and isinstance(provider, LoggerProvider):
            self._processor = EventFlowsLogRecordProcessor(pipeline)
            put_first(provider, self._processor)
            pipeline.attach(self._processor, partial(remove_log_processor, provider, self._processor))
        self._pipeline = pipeline

    def uninstrument(self, **_: Any) -> None:
        """Restore everything."""
        cls = type(self)
        active, cls._active = cls._active, None
        if active is None:
            return
        del trace.Tracer.add_event  # type: ignore[attr-defined]
        for owner, original in active._originals:
            setattr(owner, "add_event", original)  # noqa: B010 reason: a plain assignment to a method is a type error
        if active._pipeline is not None and active._processor is not None:
            active._pipeline.detach(active._processor)

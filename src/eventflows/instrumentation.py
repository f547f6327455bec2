"""The tracer that has `add_event`, and the instrumentor that gives it to every tracer and watches `span.add_event`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import wrapt
from opentelemetry import trace
from opentelemetry._logs import Logger, SeverityNumber, get_logger_provider
from opentelemetry._logs import LoggerProvider as AnyLoggerProvider
from opentelemetry.context import Context, get_current, set_value
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace import TracerProvider

from . import running, survey, wiring
from .context import around, follow_unsampled
from .frameworks import watch
from .log import Notices
from .patching import Patches
from .pipeline import Pipeline
from .processor import OURS, EventFlowsLogRecordProcessor, EventFlowsSpanProcessor, WayIn
from .running import ordinary
from .sdk import Listeners, listeners, wants_record
from .sealing import Event, shown_event_name
from .semconv import CONVERSION_TYPE

_SCOPE = "eventflows"
_NOBODY, _BATCHES = Listeners.NOBODY, Listeners.BATCHES  # before Python 3.12 they are slow to look up
_notices = Notices("capture")


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
    pipeline = running.required()
    if pipeline is None:
        return
    provider = get_logger_provider()
    who = listeners(provider, EventFlowsLogRecordProcessor, pipeline)
    if who is _NOBODY:
        pipeline.leave(name, attributes, timestamp)
        return
    tell = _LogRecord(pipeline, provider, scope, get_current(), time.time_ns()).emit
    if who is _BATCHES:
        pipeline.leave(name, attributes, timestamp, tell)
    elif (event := pipeline.record(name, attributes, timestamp, always=True)) is not None:
        pipeline.reader.tell(tell, event)


class _LogRecord(NamedTuple):
    """The log record of a conversion for whoever else listens: built when it is sealed, with what was current at the call."""

    pipeline: Pipeline
    provider: AnyLoggerProvider
    scope: str
    context: Context
    observed_timestamp: int

    def emit(self, event: Event) -> None:
        logger = _logger(self.provider, self.scope)
        context = set_value(OURS, True, self.context)
        if wants_record(logger, event.name, context):
            logger.emit(
                timestamp=event.time_unix_nano,
                observed_timestamp=self.observed_timestamp,
                context=context,
                severity_number=SeverityNumber.INFO,
                attributes=self.pipeline.reader.shown(event.name, None, event, on_record=True),
                event_name=event.name,
            )


_loggers: dict[str, tuple[AnyLoggerProvider, Logger]] = {}


def _logger(provider: AnyLoggerProvider, scope: str) -> Logger:
    """The scope's logger, asked for once: `get_logger` takes a lock of the SDK that is not re-entrant, on which a conversion
    recorded in a signal handler would wait for ever."""
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


def _adding(original: Callable[..., Any]) -> Callable[..., Any]:
    """In place of `span.add_event`: a conversion goes to the pipeline sampled or not, and is sealed on its span."""

    def add_event(span: Any, /, *args: Any, **kwargs: Any) -> Any:
        name = args[0] if args else kwargs.get("name")
        attributes = args[1] if len(args) > 1 else kwargs.get("attributes") if kwargs else None
        if type(name) is str and name in ordinary and (not attributes or CONVERSION_TYPE not in attributes):
            return original(span, *args, **kwargs)
        pipeline = running.latest()
        if pipeline is None or EventFlowsInstrumentor._active is None or not isinstance(name, str):
            return original(span, *args, **kwargs)
        try:
            if not pipeline.reader.is_conversion(name, attributes):
                running.remember_ordinary(name)
                return original(span, *args, **kwargs)
        except Exception:  # noqa: BLE001 reason: attributes of a strange kind are OpenTelemetry's business
            return original(span, *args, **kwargs)
        timestamp = args[2] if len(args) > 2 else kwargs.get("timestamp")
        event = pipeline.record(name, attributes, timestamp, surrounded=lambda: around(span))
        shown = pipeline.reader.shown(name, attributes, event)
        if event is None:
            return original(span, shown_event_name(name), shown, timestamp)
        return original(span, event.name, shown, event.time_unix_nano)

    return add_event


def _starting(original: Callable[..., Any]) -> Callable[..., Any]:
    """In place of the SDK's `start_span`: the spans that a sampler drops reach no processor, so they are followed here.

    Its parameters are named, as to pass on any there might be takes four times as long.
    """

    def start_span(
        tracer: Any,
        /,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Any = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        **more: Any,
    ) -> Any:
        start = partial(original, **more) if more else original  # what a later SDK may have
        span = start(
            tracer, name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception
        )
        if type(span) is trace.NonRecordingSpan and EventFlowsInstrumentor._active is not None:
            try:
                return follow_unsampled(span, context, kind, attributes, set_status_on_exception)
            except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
                _notices.warn("follow", "{count} unsampled spans could not be followed (%s)", type(problem).__name__)
        return span

    return start_span


@dataclass
class InstrumentorConfiguration:
    """The options under `instrumentation/development: python: eventflows:` of OpenTelemetry's declarative file.

    Attributes:
        frameworks: Keep the visitor in Flask, Django and Starlette (FastAPI), and carry it with Celery's tasks.
    """

    frameworks: bool = True


class EventFlowsInstrumentor:
    """Catches every conversion without a change to the app's code.

    * Every tracer has `add_event`, also those made before.
    * `span.add_event` of a conversion is caught on recorded, unsampled and dropped spans alike, and sealed on recorded ones.
    * Log records are sealed before any exporter sees them, also with providers that are set up later.
    * The visitor of each request is kept in Flask, Django and Starlette (FastAPI), and carried with Celery's tasks.

    Has the methods of OpenTelemetry's `BaseInstrumentor` without requiring its package; `opentelemetry-instrument` and the
    declarative file find it by its entry point. Until a pipeline is configured it changes nothing of what is recorded.
    """

    configuration = InstrumentorConfiguration
    _active: EventFlowsInstrumentor | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def instrument(self, *, frameworks: bool = True, **_: Any) -> None:
        """Switch it on, for tracers and spans that exist already as well. A second call does nothing.

        Args:
            frameworks: As in `InstrumentorConfiguration`.

        Raises:
            ConfigurationError: `privacy.strict` is set, and the installed OpenTelemetry does not let us seal first.
        """
        cls = EventFlowsInstrumentor
        if cls._active is not None:
            return
        cls._active = self
        self._attached: list[tuple[LoggerProvider | TracerProvider, WayIn]] = []
        self._patches = patches = Patches()
        trace.Tracer.add_event = _tracer_add_event  # type: ignore[attr-defined]  # OpenTelemetry's has none
        patches.substitute(SdkSpan, "add_event", _adding)
        patches.substitute(trace.NonRecordingSpan, "add_event", _adding)
        patches.substitute(SdkTracer, "start_span", _starting)
        EventFlowsSpanProcessor.events_are_caught = True
        patches.wrap(LoggerProvider, "add_log_record_processor", self._log_processor_added)
        patches.wrap(TracerProvider, "add_span_processor", self._span_processor_added)
        if frameworks:
            watch(patches)
        try:
            self._attach(get_logger_provider())
            self._attach(trace.get_tracer_provider())
            if (pipeline := running.current()) is not None:
                wiring.self_test(pipeline)
                survey.tell(pipeline)
        except BaseException:
            self.uninstrument()
            raise

    def uninstrument(self, **_: Any) -> None:
        """Restore everything."""
        cls = EventFlowsInstrumentor
        active, cls._active = cls._active, None
        if active is None:
            return
        EventFlowsSpanProcessor.events_are_caught = False
        del trace.Tracer.add_event  # type: ignore[attr-defined]  # as above
        active._patches.undo()
        for provider, processor in active._attached:
            wiring.take_off(provider, processor)

    def _attach(self, provider: object) -> None:
        """Be in the chain of a provider's processors, and of log processors the first."""
        pipeline = running.latest()
        if pipeline is None:
            return
        if isinstance(provider, LoggerProvider):
            if (sealing := wiring.seal_logs(provider, pipeline)) is not None:
                self._attached.append((provider, sealing))
        elif (
            isinstance(provider, TracerProvider) and (following := wiring.follow_spans(provider, pipeline)) is not None
        ):
            self._attached.append((provider, following))

    def _log_processor_added(self, wrapped: Any, provider: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        wrapped(*args, **kwargs)
        if not any(isinstance(one, EventFlowsLogRecordProcessor) for one in (*args, *kwargs.values())):
            self._attach(provider)

    def _span_processor_added(self, wrapped: Any, provider: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        wrapped(*args, **kwargs)
        if not any(isinstance(one, EventFlowsSpanProcessor) for one in (*args, *kwargs.values())):
            self._attach(provider)

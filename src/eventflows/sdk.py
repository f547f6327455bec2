"""Every private name of the OpenTelemetry SDK that we need, behind functions of our own.

`BatchProcessor` is private API: its constructor and its metrics object changed in 1.41, 1.42 and 1.45. The suite runs against
the oldest supported and the newest SDK.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, TypeVar

from opentelemetry._logs import Logger
from opentelemetry.context import (
    _SUPPRESS_HTTP_INSTRUMENTATION_KEY,
    _SUPPRESS_INSTRUMENTATION_KEY,
    Context,
    attach,
    detach,
)
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs._internal import SynchronousMultiLogRecordProcessor
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk._shared_internal import BatchProcessor
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

_L = TypeVar("_L", bound=LogRecordProcessor)
_S = TypeVar("_S", bound=SpanProcessor)


class _NoMetrics:
    """Takes every call that any version of the SDK makes; the lane counts outcomes itself."""

    def register_queue_size(self, *_: Any, **__: Any) -> None:
        """The lane reports its own queue."""

    def drop_items(self, *_: Any, **__: Any) -> None:
        """The lane never lets the queue overflow."""

    def finish_items(self, *_: Any, **__: Any) -> None:
        """Handing over to the exporter is no outcome."""


class _LaneExporter:
    """What the BatchProcessor calls with each batch."""

    def __init__(self, export: Callable[[list[Any]], None]) -> None:
        self.export = export

    def shutdown(self) -> None:
        """The lane closes its transport itself."""


class _ReentrantEvent(threading.Event):
    """An event that a signal handler may set while its own thread is setting it; the standard one would wait for itself."""

    def __init__(self) -> None:
        super().__init__()
        self._cond = threading.Condition(threading.RLock())


class Batcher(BatchProcessor):  # type: ignore[type-arg]  # generic at run time only since 1.35
    """The SDK's queue and background thread, with a flush that does not block and a fork that starts no thread.

    Args:
        export: Called on the background thread with each batch; must not raise.
        flush_interval: Seconds until a batch that is not full goes out.
    """

    def __init__(
        self, export: Callable[[list[Any]], None], *, name: str, batch_size: int, flush_interval: float
    ) -> None:
        self._flushing = False
        settings: dict[str, Any] = {
            "exporter": _LaneExporter(export),
            "schedule_delay_millis": flush_interval * 1000,
            "max_export_batch_size": batch_size,
            "export_timeout_millis": 30_000,
            "max_queue_size": sys.maxsize,  # the lane keeps to its own, which a reload may change
            "exporting": name,
        }
        if "metrics" in inspect.signature(BatchProcessor.__init__).parameters:
            settings["metrics"] = _NoMetrics()
        super().__init__(**settings)
        first, self._worker_awaken = self._worker_awaken, _ReentrantEvent()
        first.set()  # the thread may wait for the first one already

    def _should_export_batch(self, batch_strategy: Any, num_iterations: int) -> bool:
        if self._flushing and not self._shutdown_timeout_exceeded:
            if self._queue:
                return True
            self._flushing = False
        return bool(super()._should_export_batch(batch_strategy, num_iterations))

    def _at_fork_reinit(self) -> None:
        """The child makes a Batcher of its own when it has work; what is queued here is the parent's."""
        self._queue.clear()
        self._worker_awaken = _ReentrantEvent()

    def adjust(self, *, batch_size: int, flush_interval: float) -> None:
        """Change the settings."""
        self._max_export_batch_size, self._schedule_delay = batch_size, flush_interval

    def emit_all(self, items: Sequence[Any]) -> None:
        """Queue many at once."""
        self._queue.extendleft(items)
        if len(self._queue) >= self._max_export_batch_size and not self._worker_awaken.is_set():
            self._worker_awaken.set()

    def flush_soon(self) -> None:
        """Have the background thread export all that is queued, without waiting for it."""
        self._flushing = True
        self._worker_awaken.set()

    def close_soon(self) -> None:
        """Take no more, and have the background thread export what is queued and end, without waiting for it."""
        self._shutdown = True
        self._worker_awaken.set()

    def join(self, seconds: float) -> bool:
        """Wait for the end after `close_soon`; True where the thread has ended. Afterwards nothing more is exported."""
        self._worker_thread.join(max(0.0, seconds))
        self._shutdown_timeout_exceeded = True
        return not self._worker_thread.is_alive()


@contextmanager
def untraced() -> Iterator[None]:
    """Own requests inside are traced by nobody, and carry no trace context and no baggage."""
    token = attach(Context({_SUPPRESS_INSTRUMENTATION_KEY: True, _SUPPRESS_HTTP_INSTRUMENTATION_KEY: True}))
    try:
        yield
    finally:
        detach(token)


class InlineBatcher:
    """Stands in for the Batcher where no thread can start any more, as in Python 3.12's exit handlers.

    Exports on the thread that flushes or closes.
    """

    def __init__(self, export: Callable[[list[Any]], None]) -> None:
        self._export = export
        self._queue: list[Any] = []

    def adjust(self, *, batch_size: int, flush_interval: float) -> None:
        """It takes what there is, and has no thread that could wait."""

    def emit_all(self, items: Sequence[Any]) -> None:
        self._queue.extend(items)

    def flush_soon(self) -> None:
        batch, self._queue = self._queue, []
        if batch:
            self._export(batch)

    def close_soon(self) -> None:
        """`join` exports."""

    def join(self, seconds: float) -> bool:  # noqa: ARG002 reason: an export on this thread ends by the request's timeout
        self.flush_soon()
        return True


def start_batcher(
    export: Callable[[list[Any]], None], *, name: str, batch_size: int, flush_interval: float
) -> Batcher | InlineBatcher:
    """A running Batcher, or its stand-in while the interpreter shuts down."""
    try:
        return Batcher(export, name=name, batch_size=batch_size, flush_interval=flush_interval)
    except RuntimeError:  # can't start new thread
        return InlineBatcher(export)


def put_first(provider: LoggerProvider, processor: LogRecordProcessor) -> bool:
    """Register a log processor before all that the provider has, so that it sees each record first.

    Returns:
        False where this SDK does not allow it; the processor is then registered last.
    """
    provider.add_log_record_processor(processor)
    multi: Any = getattr(provider, "_multi_log_record_processor", None)
    chain: Sequence[LogRecordProcessor] | None = getattr(multi, "_log_record_processors", None)
    if not isinstance(chain, tuple) or processor not in chain:
        return False
    with multi._lock:
        others = tuple(other for other in multi._log_record_processors if other is not processor)
        multi._log_record_processors = (processor, *others)
    return True


def log_processors(provider: LoggerProvider, kind: type[_L]) -> list[_L]:
    """The provider's processors of this class."""
    multi: Any = getattr(provider, "_multi_log_record_processor", None)
    return [one for one in getattr(multi, "_log_record_processors", ()) if isinstance(one, kind)]


def span_processors(provider: TracerProvider, kind: type[_S]) -> list[_S]:
    """The provider's processors of this class."""
    multi: Any = getattr(provider, "_active_span_processor", None)
    return [one for one in getattr(multi, "_span_processors", ()) if isinstance(one, kind)]


def has_events(span: ReadableSpan) -> bool:
    """Whether a span has events; `span.events` makes a copy of them to tell."""
    return bool(getattr(span, "_events", True))


def remove_log_processor(provider: LoggerProvider, processor: LogRecordProcessor) -> None:
    """Undo `put_first`."""
    multi: Any = getattr(provider, "_multi_log_record_processor", None)
    if isinstance(getattr(multi, "_log_record_processors", None), tuple):
        with multi._lock:
            multi._log_record_processors = tuple(p for p in multi._log_record_processors if p is not processor)


def remove_span_processor(provider: TracerProvider, processor: SpanProcessor) -> None:
    """Undo `TracerProvider.add_span_processor`."""
    active = provider._active_span_processor
    with active._lock:
        active._span_processors = tuple(p for p in active._span_processors if p is not processor)


class Listeners(Enum):
    """Who gets the log records of a provider beside a processor of ours."""

    NOBODY = "nobody"
    BATCHES = "batches"  # the SDK's batch processors only, after ours: they queue a record, whoever brings it and when
    ANYBODY = "anybody"


_latest: tuple[object, object, Listeners] = (None, None, Listeners.ANYBODY)


def listeners(provider: object, ours: type[LogRecordProcessor], pipeline: object) -> Listeners:
    """Who listens to a provider's log records beside a processor of our class; anybody where this SDK does not tell.

    It is asked with every event, so the answer is kept for as long as the provider has the same tuple of processors.

    Args:
        pipeline: What will bring a record to batch processors: the processor must feed this one, or a flush of the provider
            would not reach it before them.
    """
    global _latest
    multi: Any = getattr(provider, "_multi_log_record_processor", None)
    chain: Any = getattr(multi, "_log_record_processors", None)
    judged, of, answer = _latest
    if chain is not judged or pipeline is not of:
        answer = _judge(multi, chain, ours, pipeline)
        if isinstance(chain, tuple):
            _latest = (chain, pipeline, answer)
    return answer


def _judge(multi: object, chain: Any, ours: type[LogRecordProcessor], pipeline: object) -> Listeners:
    if not chain or type(chain[0]) is not ours:
        return Listeners.ANYBODY
    if len(chain) == 1:
        return Listeners.NOBODY
    in_turn = type(multi) is SynchronousMultiLogRecordProcessor and getattr(chain[0], "pipeline", None) is pipeline
    batches = all(type(other) is BatchLogRecordProcessor for other in chain[1:])
    return Listeners.BATCHES if in_turn and batches else Listeners.ANYBODY


def only_span_processors(provider: object, kind: type[SpanProcessor]) -> bool:
    """Whether a provider has no span processors but of this class, so that nobody else sees a span; False where this SDK does
    not tell."""
    multi: Any = getattr(provider, "_active_span_processor", None)
    chain: Any = getattr(multi, "_span_processors", None)
    return isinstance(chain, tuple) and all(isinstance(one, kind) for one in chain)


def wants_record(logger: Logger, event_name: str, context: Context) -> bool:
    """Whether any log processor wants a record of this name; SDKs before 1.45 cannot tell, so always."""
    enabled = getattr(logger, "enabled", None)
    return bool(enabled(context=context, event_name=event_name)) if enabled is not None else True


def exporters_of_logs(provider: LoggerProvider) -> list[tuple[object, bool]]:
    """The exporters of a provider's log processors, and whether a batch processor is before each."""
    multi: Any = getattr(provider, "_multi_log_record_processor", None)
    return [found for one in getattr(multi, "_log_record_processors", ()) if (found := _exporter_of(one)) is not None]


def exporters_of_spans(provider: TracerProvider) -> list[tuple[object, bool]]:
    """The exporters of a provider's span processors, and whether a batch processor is before each."""
    multi: Any = getattr(provider, "_active_span_processor", None)
    return [found for one in getattr(multi, "_span_processors", ()) if (found := _exporter_of(one)) is not None]


def _exporter_of(processor: Any) -> tuple[object, bool] | None:
    batch = getattr(processor, "_batch_processor", None)
    exporter = getattr(batch or processor, "_exporter", None) or getattr(processor, "span_exporter", None)
    return None if exporter is None else (exporter, batch is not None)


def log_length_limit(provider: LoggerProvider) -> int | None:
    """The length at which this provider's records lose the rest of an attribute's value."""
    limits = getattr(provider, "_log_record_limits", None)
    if limits is None:  # an SDK whose providers have none of their own: the records go by the environment
        text = os.environ.get("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "").strip()
        return int(text) if text.isdigit() else None
    return _shortest(limits, "max_log_record_attribute_length", "max_attribute_length")


def span_length_limit(provider: TracerProvider) -> int | None:
    """The length at which this provider's spans, and their events, lose the rest of an attribute's value."""
    return _shortest(getattr(provider, "_span_limits", None), "max_attribute_length", "max_span_attribute_length")


def _shortest(limits: object, *names: str) -> int | None:
    known = (getattr(limits, name, None) for name in names)
    return min((length for length in known if isinstance(length, int)), default=None)

"""What one pipeline tells through the app's OpenTelemetry: how long things take, and a span for each request.

The counters are read by `metrics`. No span holds an id of a conversion, a payload or a person.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import islice
from typing import ParamSpec

from opentelemetry import trace
from opentelemetry.context import Context, create_key
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from .delivery import Batch, Verdict
from .log import Notices
from .mapping import Entry
from .measured import Measured, Source, component_of
from .metrics import SCOPE, Instruments, instruments
from .providers.base import Provider, Response
from .sdk import only_span_processors
from .transport import ERROR_TYPES, VERSION

_P = ParamSpec("_P")
_notices = Notices("telemetry")
_FAILED = "{count} metrics or spans could not be recorded (%s); conversions go on"
OF_DELIVERY = create_key("eventflows-delivery")
"""Context key of the spans of our own requests, in which nothing is recorded."""
_ROOT = Context({OF_DELIVERY: True})  # a root of its own: the app's sampler decides
MAX_LINKS = 128
MAX_AGES = 100
"""The ages of so many conversions of a request are recorded: to record one costs as much as to map and send one."""


def _never_raises(method: Callable[_P, None]) -> Callable[_P, None]:
    """What a span processor or a view of the app raises must cost neither a lane's thread nor an event its outcome."""

    @wraps(method)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception as problem:  # noqa: BLE001 reason: the app's own code runs below
            _notices.warn("telemetry", _FAILED, type(problem).__name__)

    return guarded


class Indifferent(SpanProcessor):
    """A span processor for which no spans of our own requests need to be made."""


class Telemetry:
    """What one pipeline tells.

    Args:
        lanes: Gives the lanes of the pipeline.
        journal: Gives the bytes on disk and the age in seconds of the oldest conversion there; None without storage.
    """

    def __init__(
        self, lanes: Callable[[], Sequence[Measured]], journal: Callable[[], tuple[int, float] | None]
    ) -> None:
        self._instruments = instruments()
        self._tracer = trace.get_tracer(SCOPE, VERSION)
        self._source = Source(lanes, journal)

    def ended(self) -> None:
        """The pipeline is shut down."""
        self._source.ended()

    @_never_raises
    def delivered(self, provider: Provider, entries: Sequence[Entry]) -> None:
        """These have just arrived, with one request."""
        now = time.time_ns()
        named = {"eventflows.provider": provider.name}
        for entry in entries[:: 1 + max(0, len(entries) - 1) // MAX_AGES]:
            self._instruments.age.record(max(0, now - entry.source.time_unix_nano) / 1e9, named)

    def sending(self, provider: Provider, batch: Batch, failures: int, began: float) -> Exchange:
        """A request goes out; the caller ends it with `answered`.

        Args:
            failures: How often this batch was sent before.
            began: When it was sent first, on the monotonic clock.
        """
        return Exchange(self._instruments, self._tracer, provider, batch, failures, began)


class Exchange:
    """One request to a platform, from its start to its answer."""

    def __init__(
        self,
        instruments: Instruments,
        tracer: trace.Tracer,
        provider: Provider,
        batch: Batch,
        failures: int,
        began: float,
    ) -> None:
        self._instruments = instruments
        self._tracer = tracer
        self._provider = provider
        self._component = component_of(provider)
        self._batch = batch
        self._failures = failures
        self._began = began
        self._started, self._started_at = time.monotonic(), time.time_ns()
        self._told: dict[str, str | int] = {}

    @_never_raises
    def answered(self, response: Response, verdict: Verdict) -> None:
        """What came back, and what it means."""
        error = _error_type(response, verdict)
        if response.status:
            self._told["http.response.status_code"] = response.status
        if error:
            self._told["error.type"] = error
        if self._component.address:  # the console has none
            self._instruments.request.record(time.monotonic() - self._started, {**self._component.ours, **self._told})
            if not only_span_processors(trace.get_tracer_provider(), Indifferent):
                self._tell_span(verdict, error)

    def _tell_span(self, verdict: Verdict, error: str) -> None:
        """The span, with all that there is to say: what came later the SDK would check and copy under a lock each time."""
        provider, entries = self._provider, self._batch.entries
        origins = dict.fromkeys(filter(None, (entry.source.origin for entry in entries)))
        linked = islice(origins, MAX_LINKS)
        attributes: dict[str, str | int] = {
            "http.request.method": provider.METHOD,
            "url.full": self._batch.request.url,  # which holds no secret
            **self._component.server,
            **self._component.ours,
            "eventflows.batch.size": len(entries),
            **self._told,
        }
        if self._failures:
            attributes["http.request.resend_count"] = self._failures
        attributes |= {f"eventflows.{name}": count for name, count in _counts(verdict).items() if count}
        span = self._tracer.start_span(
            f"{provider.METHOD} {provider.TYPE}",
            context=_ROOT,
            kind=SpanKind.CLIENT,
            links=[Link(SpanContext(*origin, is_remote=False, trace_flags=TraceFlags(1))) for origin in linked],
            attributes=attributes,
            start_time=self._started_at,
        )
        if error:
            span.set_status(Status(StatusCode.ERROR, verdict.reason or None))
        span.end()

    @_never_raises
    def over(self) -> None:
        """That was the last attempt with this batch."""
        self._instruments.operation.record(time.monotonic() - self._began, {**self._component.exporter, **self._told})


def _counts(verdict: Verdict) -> dict[str, int]:
    """What became of how many."""
    counts: dict[str, int] = {}
    for one in verdict.settled:
        counts[one.status] = counts.get(one.status, 0) + len(one.entries)
    counts["again"] = sum(map(len, verdict.again))
    counts["later"] = len(verdict.later) + len(verdict.paused)
    return counts


def _error_type(response: Response, verdict: Verdict) -> str:
    """The kind of failure, of which there are few; empty where every event of the batch was taken."""
    if not response.status:
        return ERROR_TYPES.get(response.error, "_OTHER")
    if response.status >= 400:
        return str(response.status)
    if verdict.paused:
        return "unauthorized"
    if verdict.later:
        return "unavailable"
    return "rejected" if verdict.again or any(one.status != "delivered" for one in verdict.settled) else ""

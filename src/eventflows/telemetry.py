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
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from .delivery import Verdict
from .log import Notices
from .mapping import Entry
from .measured import Component, Measured, Source, component_of
from .metrics import SCOPE, Instruments, instruments
from .providers.base import Provider, Request, Response
from .transport import ERROR_TYPES, VERSION

_P = ParamSpec("_P")
_notices = Notices("telemetry")
_FAILED = "{count} metrics or spans could not be recorded (%s); conversions go on"
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

    def sending(self, provider: Provider, batch: Sequence[Entry], failures: int, began: float) -> Exchange:
        """A request goes out; the caller ends it with `answered`.

        Args:
            failures: How often this batch was sent before.
            began: When it was sent first, on the monotonic clock.
        """
        component = component_of(provider)
        span: trace.Span = trace.INVALID_SPAN
        if component.address:  # the console has none
            try:
                span = self._start_span(provider, component, batch, failures)
            except Exception as problem:  # noqa: BLE001 reason: the app's own code runs below
                _notices.warn("telemetry", _FAILED, type(problem).__name__)
        return Exchange(self._instruments, component, span, began)

    def _start_span(
        self, provider: Provider, component: Component, batch: Sequence[Entry], failures: int
    ) -> trace.Span:
        origins = dict.fromkeys(filter(None, (entry.source.origin for entry in batch)))
        linked = islice(origins, MAX_LINKS)
        resent = {"http.request.resend_count": failures} if failures else {}
        return self._tracer.start_span(
            f"{provider.METHOD} {provider.TYPE}",
            context=Context(),  # a root of its own: the app's sampler decides
            kind=SpanKind.CLIENT,
            links=[Link(SpanContext(*origin, is_remote=False, trace_flags=TraceFlags(1))) for origin in linked],
            attributes={
                "http.request.method": provider.METHOD,
                **component.server,
                "eventflows.provider": provider.name,
                "eventflows.batch.size": len(batch),
                **resent,
            },
        )


class Exchange:
    """One request to a platform, from its start to its answer."""

    __slots__ = ("_began", "_component", "_instruments", "_span", "_started", "_told")

    def __init__(self, instruments: Instruments, component: Component, span: trace.Span, began: float) -> None:
        self._instruments = instruments
        self._component = component
        self._span = span
        self._began = began
        self._started = time.monotonic()
        self._told: dict[str, str | int] = {}

    @_never_raises
    def to(self, request: Request) -> None:
        """The request, whose URL and body hold no secret."""
        self._span.set_attribute("url.full", request.url)

    @_never_raises
    def answered(self, response: Response, verdict: Verdict) -> None:
        """What came back, and what it means."""
        error = _error_type(response, verdict)
        if response.status:
            self._told["http.response.status_code"] = response.status
        if error:
            self._told["error.type"] = error
        if self._component.address:
            self._instruments.request.record(time.monotonic() - self._started, {**self._component.ours, **self._told})
        if self._span.is_recording():
            counts: dict[str, int] = {}
            for one in verdict.settled:
                counts[one.status] = counts.get(one.status, 0) + 1
            counts["again"] = sum(map(len, verdict.again))
            counts["later"] = len(verdict.later) + len(verdict.paused)
            self._span.set_attributes({f"eventflows.{name}": count for name, count in counts.items() if count})
            self._span.set_attributes(self._told)
            if error:
                self._span.set_status(Status(StatusCode.ERROR, verdict.reason or None))
        self._span.end()

    @_never_raises
    def over(self) -> None:
        """That was the last attempt with this batch."""
        self._instruments.operation.record(time.monotonic() - self._began, {**self._component.exporter, **self._told})


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

"""Telemetry of our own, through the app's OpenTelemetry: metrics of what becomes of conversions, and a span for each request.

Names of `otel.*` follow the semantic conventions for SDK components
(https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/). Nothing here holds an id, a payload or a person.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import urlsplit
from weakref import WeakSet

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Observation
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from .conversion import Conversion
from .delivery import Item, Verdict
from .providers.base import Provider, Response
from .stats import STATUSES, Tally

SCOPE = "eventflows"
COMPONENT_TYPE = "eventflows"
MAX_LINKS = 128
AGE_BOUNDARIES = (0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 3 * 24 * 3600, 7 * 24 * 3600)
_DESCRIPTIONS: Mapping[str, str] = {
    "captured": "Conversions recorded",
    "delivered": "Conversions that the platform took",
    "filtered": "Conversions that the provider was not meant to get",
    "refused": "Conversions that the platform refuses for good",
    "expired": "Conversions that became older than the platform accepts",
    "dropped": "Conversions that were lost on the way",
}


class Telemetry:
    """What one pipeline tells.

    Args:
        tallies: Gives the numbers of each provider at this moment; an empty list once the pipeline is shut down.
        journal: Gives the bytes on disk and the age in seconds of the oldest conversion there; None without storage.
    """

    def __init__(self, tallies: Callable[[], Sequence[Tally]], journal: Callable[[], tuple[int, float] | None]) -> None:
        self.tallies = tallies
        self.journal = journal
        self._instruments = _instruments()
        _tellers.add(self)

    def delivered(self, provider: Provider, conversions: Iterable[Conversion]) -> None:
        """These have just arrived."""
        now = time.time_ns()
        named = {"eventflows.provider": provider.name}
        for conversion in conversions:
            self._instruments.age.record(max(0, now - conversion.time_unix_nano) / 1e9, named)

    def sending(self, provider: Provider, batch: Sequence[Item], url: str) -> Exchange:
        """A request goes out; the caller ends it with `answered`."""
        origins = dict.fromkeys(filter(None, (item.entry.conversion.origin for item in batch)))
        links = [Link(SpanContext(*origin, is_remote=False, trace_flags=TraceFlags(1))) for origin in origins]
        server = urlsplit(url)
        span = trace.get_tracer(SCOPE).start_span(
            f"POST {provider.TYPE}",
            context=Context(),
            kind=SpanKind.CLIENT,
            links=links[:MAX_LINKS],
            attributes={
                "http.request.method": provider.METHOD,
                "server.address": server.hostname or "",
                "server.port": server.port or (443 if server.scheme == "https" else 80),
                "eventflows.provider": provider.name,
                "eventflows.batch.size": len(batch),
            },
        )
        return Exchange(self._instruments.duration, provider, span, server.hostname or "")


_tellers: WeakSet[Telemetry] = WeakSet()
"""The pipelines of the process; a new one is told by the instruments that are there, which exist once."""


def _tallies() -> list[Tally]:
    return [tally for teller in list(_tellers) for tally in teller.tallies()]


def _journals() -> list[tuple[int, float]]:
    return [known for teller in list(_tellers) if (known := teller.journal()) is not None]


class Instruments:
    """The instruments of the process, and what is read when they are collected."""

    def __init__(self) -> None:
        meter = metrics.get_meter(SCOPE)
        for status in ("captured", *STATUSES):
            meter.create_observable_counter(
                f"eventflows.{status}", [self._observe(status)], unit="{conversion}", description=_DESCRIPTIONS[status]
            )
        meter.create_observable_counter(
            "eventflows.attempts", [self._attempts], unit="{request}", description="Requests sent to platforms"
        )
        meter.create_observable_counter(
            "eventflows.match_keys",
            [self._match_keys],
            unit="{conversion}",
            description="Conversions sent that had this key to match a person by",
        )
        gauges: tuple[tuple[str, str, Callable[[Tally], int], str], ...] = (
            ("eventflows.queue.size", "{conversion}", lambda tally: tally.pending, "Conversions without an outcome"),
            (
                "eventflows.queue.capacity",
                "{conversion}",
                lambda tally: tally.capacity,
                "Conversions that fit into memory",
            ),
        )
        for name, unit, read, description in gauges:
            meter.create_observable_gauge(name, [self._gauge(read, {})], unit=unit, description=description)
        for name, read in (
            ("otel.sdk.processor.log.queue.size", lambda tally: tally.in_memory),
            ("otel.sdk.processor.log.queue.capacity", lambda tally: tally.capacity),
            ("otel.sdk.exporter.log.inflight", lambda tally: tally.in_memory),
        ):
            meter.create_observable_up_down_counter(name, [self._gauge(read, None)], unit="{log_record}")
        meter.create_observable_counter("otel.sdk.exporter.log.exported", [self._exported], unit="{log_record}")
        meter.create_observable_gauge(
            "eventflows.journal.size",
            [self._journal_size],
            unit="By",
            description="Size of the journals of this process",
        )
        meter.create_observable_gauge(
            "eventflows.journal.oldest_age",
            [self._journal_age],
            unit="s",
            description="Age of the oldest that waits there",
        )
        self.age = meter.create_histogram(
            "eventflows.delivery.age",
            unit="s",
            description="From the conversion to its delivery",
            explicit_bucket_boundaries_advisory=AGE_BOUNDARIES,
        )
        self.duration = meter.create_histogram(
            "otel.sdk.exporter.operation.duration", unit="s", description="Duration of a request to a platform"
        )

    def _observe(self, status: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_options: CallbackOptions) -> Iterable[Observation]:
            for tally in _tallies():
                named = {"eventflows.provider": tally.provider}
                if status == "captured":
                    for event_type, count in tally.captured.items():
                        yield Observation(count, {**named, "conversion.type": event_type})
                    continue
                for (found, reason, event_type), count in tally.outcomes.items():
                    if found == status:
                        told = {"eventflows.reason": reason} if reason else {}
                        yield Observation(count, {**named, "conversion.type": event_type, **told})

        return read

    def _attempts(self, _options: CallbackOptions) -> Iterable[Observation]:
        for tally in _tallies():
            yield Observation(tally.attempts, {"eventflows.provider": tally.provider})

    def _match_keys(self, _options: CallbackOptions) -> Iterable[Observation]:
        for tally in _tallies():
            for key, count in tally.match_keys.items():
                yield Observation(count, {"eventflows.provider": tally.provider, "eventflows.match_key": key})

    def _gauge(
        self, read: Callable[[Tally], int], ours: Mapping[str, str] | None
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            for tally in _tallies():
                named = _component(tally.provider) if ours is None else {"eventflows.provider": tally.provider}
                yield Observation(read(tally), named)

        return observe

    def _exported(self, _options: CallbackOptions) -> Iterable[Observation]:
        for tally in _tallies():
            totals: dict[str, int] = {}
            for (status, _reason, _type), count in tally.outcomes.items():
                totals[status] = totals.get(status, 0) + count
            yield Observation(totals.get("delivered", 0), _component(tally.provider))
            for status in ("refused", "expired", "dropped"):
                if failed := totals.get(status):
                    error = "rejected" if status == "refused" else status
                    yield Observation(failed, {**_component(tally.provider), "error.type": error})

    def _journal_size(self, _options: CallbackOptions) -> Iterable[Observation]:
        if known := _journals():
            yield Observation(sum(size for size, _ in known))

    def _journal_age(self, _options: CallbackOptions) -> Iterable[Observation]:
        if known := _journals():
            yield Observation(max(age for _, age in known))


_existing: Instruments | None = None


def _instruments() -> Instruments:
    """Those of the process, made with the first pipeline. OpenTelemetry's proxies find a MeterProvider that is set later."""
    global _existing
    if _existing is None:
        _existing = Instruments()
    return _existing


def forget_instruments() -> None:
    """Make new ones with the next pipeline, where a test has set another MeterProvider."""
    global _existing
    _existing = None
    _tellers.clear()


class Exchange:
    """One request to a platform, from its start to its answer."""

    __slots__ = ("_duration", "_host", "_provider", "_span", "_started")

    def __init__(self, duration: Histogram, provider: Provider, span: trace.Span, host: str) -> None:
        self._duration = duration
        self._provider = provider
        self._span = span
        self._host = host
        self._started = time.perf_counter()

    def answered(self, response: Response, verdict: Verdict) -> None:
        """What came back, and what it means."""
        seconds = time.perf_counter() - self._started
        told: dict[str, str | int] = {**_component(self._provider.name), "server.address": self._host}
        if response.status:
            told["http.response.status_code"] = response.status
        failed = verdict.reason if verdict.later or verdict.paused else ""
        if failed or not response.status:
            told["error.type"] = str(response.status) if response.status else "no_answer"
        self._duration.record(seconds, told)
        if self._span.is_recording():
            counts: dict[str, int] = {}
            for one in verdict.settled:
                counts[one.status] = counts.get(one.status, 0) + 1
            counts["again"] = sum(map(len, verdict.again))
            counts["later"] = len(verdict.later) + len(verdict.paused)
            self._span.set_attributes({f"eventflows.{name}": count for name, count in counts.items() if count})
            if response.status:
                self._span.set_attribute("http.response.status_code", response.status)
            if failed:
                self._span.set_status(Status(StatusCode.ERROR, failed))
        self._span.end()


def _component(provider: str) -> dict[str, str]:
    return {"otel.component.type": COMPONENT_TYPE, "otel.component.name": f"{COMPONENT_TYPE}/{provider}"}

"""What the instrumentor adds to span events that are no conversions, and to starting spans, in microseconds.

Runs in its own process.
"""

from __future__ import annotations

import timeit
from typing import Any

from .sink import Control

ROUNDS = 7


def run(_sink: str, _control: Control, _tag: str, _params: dict[str, Any]) -> dict[str, Any]:
    """Microseconds of one call without and with the instrumentor, alternately; the least of the rounds."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

    import eventflows
    from eventflows import ConsoleProvider, EventFlowsInstrumentor

    eventflows.configure([ConsoleProvider()])
    found: dict[str, Any] = {}
    for title, sampler in (("recorded", ALWAYS_ON), ("unsampled", ALWAYS_OFF)):
        tracer = TracerProvider(sampler=sampler).get_tracer("benchmark")
        for _ in range(ROUNDS):
            _time(found, title, "without", tracer)
            EventFlowsInstrumentor().instrument()
            _time(found, title, "with", tracer)
            EventFlowsInstrumentor().uninstrument()
    return found


def _time(found: dict[str, Any], title: str, when: str, tracer: Any) -> None:
    span = tracer.start_span("request")
    calls = {
        'add_event("cache.miss")': lambda: span.add_event("cache.miss"),
        'add_event("cache.miss", {...})': lambda: span.add_event("cache.miss", {"key": "a"}),
        "start_span": lambda: tracer.start_span("query"),
    }
    for name, call in calls.items():
        took = timeit.timeit(call, number=2_000) / 2_000 * 1e6
        place = found.setdefault(f"{title} span, {name}", {})
        place[when] = min(took, place.get(when, took))

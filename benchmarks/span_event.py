"""What the instrumentor adds to `span.add_event("cache.miss")` and to `start_span`, in microseconds.

    python benchmarks/span_event.py

Medians over interleaved rounds, without and with the instrumentor, on recorded and on unsampled spans.
"""

from __future__ import annotations

import statistics
import timeit

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

import eventflows
from eventflows import ConsoleProvider, EventFlowsInstrumentor

ROUNDS = 15


def measure(sampler: Sampler) -> dict[str, float]:
    """Microseconds of one call each, median over several thousand calls."""
    tracer = TracerProvider(sampler=sampler).get_tracer("benchmark")
    span = tracer.start_span("request")
    calls = {
        'span.add_event("cache.miss")': (lambda: span.add_event("cache.miss"), 2000),
        'span.add_event("cache.miss", {...})': (lambda: span.add_event("cache.miss", {"key": "a"}), 2000),
        "tracer.start_span": (lambda: tracer.start_span("query"), 1000),
    }
    return {name: timeit.timeit(call, number=times) / times * 1e6 for name, (call, times) in calls.items()}


def main() -> None:
    eventflows.configure([ConsoleProvider()])
    for title, sampler in (("recorded", ALWAYS_ON), ("unsampled", ALWAYS_OFF)):
        plain, instrumented = [], []
        for _ in range(ROUNDS):
            plain.append(measure(sampler))
            EventFlowsInstrumentor().instrument()
            instrumented.append(measure(sampler))
            EventFlowsInstrumentor().uninstrument()
        print(f"{title + ' span':<40}{'without':>10}{'with':>10}{'adds':>10}")
        for name in plain[0]:
            before, after = (statistics.median(one[name] for one in rounds) for rounds in (plain, instrumented))
            print(f"  {name:<38}{before:>8.2f}µs{after:>8.2f}µs{after - before:>8.2f}µs")


if __name__ == "__main__":
    main()

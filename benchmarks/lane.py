"""What each step of a lane costs an event, in microseconds of processor time, one step after the other on one thread.

    python -m benchmarks.lane

For every provider that takes many events at once, with `orjson` and without. Best of several rounds over purchases that are
all different, in portions of a thousand as a lane takes them. Nothing is settled: the outcomes are only read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from eventflows import payload
from eventflows.capture import Rules, capture
from eventflows.conversion import Conversion, EventType
from eventflows.delivery import judge, requests_of
from eventflows.mapping import Entry, count_match_keys, encode, source_of
from eventflows.pools import TransportSettings
from eventflows.providers.base import Provider
from eventflows.routing import filtered
from eventflows.transport import HttpTransport

from . import workloads
from .ours import attributes, destinations
from .sink import Sink

EVENTS, PORTION, ROUNDS = 10_000, 1_000, 5
STEPS = ("route", "map", "write", "keys", "request", "send", "judge")


def conversions() -> list[Conversion]:
    orders = islice(workloads.orders("lane"), EVENTS)
    return [capture("Purchase", EventType.PURCHASE, attributes(one), time.time_ns(), Rules()) for one in orders]


def measure(provider: Provider, given: list[Conversion], transport: HttpTransport) -> list[float]:
    """One round: microseconds per event of each step."""
    spent = [0.0] * len(STEPS)

    def step(index: int, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        spent[index] += time.process_time() - started
        return result

    now = time.time_ns()
    for first in range(0, len(given), PORTION):
        portion = given[first : first + PORTION]
        step(0, lambda some=portion: [filtered(provider, one) for one in some])
        both = step(2, lambda some=portion: [encode(provider, one, now) for one in some])  # which maps as well
        step(1, lambda some=portion: [provider.encode(one) and None for one in some])
        entries = [made for made in both if isinstance(made, Entry)]
        step(3, lambda some=portion: count_match_keys([source_of(one).traits for one in some], provider.MATCH_KEYS))
        batches = step(4, lambda some=entries: requests_of(provider, some))
        answers = step(5, lambda some=batches: [transport.send(one.request, one.events) for one in some])
        pairs = list(zip(batches, answers, strict=True))
        verdicts = step(6, lambda some=pairs: [judge(provider, one.entries, answer) for one, answer in some])
        settled = [(entry, one.status) for verdict in verdicts for one in verdict.settled for entry in one.entries]
        assert len(settled) == len(portion)
        assert {status for _, status in settled} == {"delivered"}
    spent[2] -= spent[1]
    return [seconds / len(given) * 1e6 for seconds in spent]


def main() -> None:
    given = conversions()
    encoders = dict.fromkeys((payload.orjson, None))  # None alone where orjson is not installed
    print(f"{'':20}" + "".join(f"{name:>9}" for name in (*STEPS, "in all")))
    with Sink() as sink:
        for provider in destinations(sink.url, ["meta", "tiktok", "reddit"]):
            for orjson in encoders:
                payload.orjson = orjson
                transport = HttpTransport(TransportSettings())
                best = min((measure(provider, given, transport) for _ in range(ROUNDS)), key=sum)
                transport.close()
                name = f"{provider.name}, {'json' if orjson is None else 'orjson'}"
                print(f"{name:20}" + "".join(f"{value:9.2f}" for value in (*best, sum(best))))


if __name__ == "__main__":
    main()

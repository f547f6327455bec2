"""What each step on an event's way costs, in microseconds of processor time, one step after the other on one thread.

    python -m benchmarks.lane

For every provider that takes many events at once, with `orjson` and without. Best of several rounds over purchases that are
all different, in portions as the intake takes them; requests of as many as a lane's batch. Nothing is settled: the outcomes are
only read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

from eventflows import payload
from eventflows.capture import conversion_of
from eventflows.conversion import EventType
from eventflows.delivery import judge, requests_of
from eventflows.mapping import Entry, count_match_keys, encode, source_of
from eventflows.pools import TransportSettings
from eventflows.providers.base import Provider
from eventflows.routing import filtered
from eventflows.sealing import Recorded, event_of, record
from eventflows.transport import HttpTransport

from . import workloads
from .ours import attributes, destinations
from .sink import Sink

EVENTS, PORTION, BATCH, ROUNDS = 10_000, 32, 1_000, 5
STEPS = ("read", "keep", "route", "map", "write", "keys", "request", "send", "judge")


def recorded() -> list[Recorded]:
    orders = islice(workloads.orders("lane"), EVENTS)
    return [record("Purchase", attributes(one), time.time_ns()) for one in orders]


def measure(provider: Provider, given: list[Recorded], transport: HttpTransport) -> list[float]:
    """One round: microseconds per event of each step."""
    spent = dict.fromkeys(STEPS, 0.0)

    def step(name: str, work: Callable[..., Any], *each: Sequence[Any]) -> list[Any]:
        started = time.process_time()
        made = list(map(work, *each))
        spent[name] += time.process_time() - started
        return made

    now = time.time_ns()
    for first in range(0, len(given), BATCH):
        entries: list[Entry] = []
        for start in range(first, first + BATCH, PORTION):
            some = given[start : min(start + PORTION, first + BATCH)]
            conversions = step("read", lambda one: conversion_of(event_of(one, EventType.PURCHASE)), some)
            sources = step("keep", source_of, conversions)
            step("route", partial(filtered, provider), conversions)
            step("map", provider.encode, conversions)
            entries += step("write", lambda one, source: encode(provider, one, now, source), conversions, sources)
            step("keys", lambda some: count_match_keys([one.traits for one in some], provider.MATCH_KEYS), [sources])
        (batches,) = step("request", partial(requests_of, provider), [entries])
        answers = step("send", lambda one: transport.send(one.request, one.events), batches)
        verdicts = step("judge", lambda one, answer: judge(provider, one.entries, answer), batches, answers)
        settled = [(entry, one.status) for verdict in verdicts for one in verdict.settled for entry in one.entries]
        assert len(settled) == len(entries) == BATCH
        assert {status for _, status in settled} == {"delivered"}
    spent["write"] -= spent["map"]  # which `encode` does as well
    return [seconds / len(given) * 1e6 for seconds in spent.values()]


def main() -> None:
    given = recorded()
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

"""The parts of the benchmark: which measurements each makes, in how many rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .measure import Job, Samples, rounds
from .peers import PEERS
from .sink import Sink

CALLS = {"paced": 1_000, "burst": 5_000, "burst-8": 4_000, "paced-8": 1_000}
CALLS_QUICK = {"paced": 300, "burst": 2_000, "burst-8": 2_000}
DELIVERED = {"purchase": 10_000, "page_view": 5_000, "cdnow": 1}
DELIVERED_QUICK = {"purchase": 5_000, "page_view": 2_000}
PACE = 1_000
"""Calls per second of the paced phases, over all threads."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for.

    Attributes:
        only: The peers to measure; empty is all.
        repeats: Rounds, instead of each part's own number.
        cdnow: The path of another file of purchases.
    """

    quick: bool = False
    only: tuple[str, ...] = ()
    repeats: int = 0
    cdnow: str = ""

    def rounds(self, full: int, quick: int) -> int:
        return self.repeats or (quick if self.quick else full)

    def chosen(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if not self.only or name in self.only]


def calls(sink: Sink, options: Options, *, caller: bool = True, delivered: bool = True) -> Samples:
    """Every peer's calls and its cost per delivered event, in one process per peer and round."""
    counts: dict[str, int] = {}
    if caller:
        counts |= CALLS_QUICK if options.quick else CALLS
    if delivered:
        counts |= DELIVERED_QUICK if options.quick else DELIVERED
    jobs = []
    for name in options.chosen(list(PEERS)):
        peer = PEERS[name]
        mine = {
            phase: max(1, count // 10) if peer.blocks else count
            for phase, count in counts.items()
            if peer.calls or phase not in CALLS
        }
        params = {"counts": mine, "rate": PACE, "cdnow": options.cdnow}
        if mine:
            jobs.append(Job(name, "calls", peer.environment, name, params))
    return rounds(jobs, sink, options.rounds(5, 2), "calls")


Part = Callable[[Sink, Options], Any]
PARTS: dict[str, Part] = {}
"""In the order in which they run; `caller` and `delivered` are measured together where both are wanted."""


def environments_of(names: Sequence[str], options: Options) -> set[str]:
    """The virtual environments that these parts need."""
    needed = {"eventflows", "fast"}
    if {"caller", "delivered"} & set(names):
        needed = {PEERS[name].environment for name in options.chosen(list(PEERS))}
    return needed

"""The parts of the benchmark: which measurements each makes, in how many rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import app, instructions, outage, start
from .figures import Samples
from .measure import Job, rounds
from .peers import BASELINE, PEERS
from .sink import Sink

CALLS = {"paced": 1_000, "burst": 5_000, "burst-8": 4_000, "paced-8": 1_000}
CALLS_QUICK = {"paced": 300, "burst": 2_000, "burst-8": 2_000}
DELIVERED = {"purchase": 10_000, "page_view": 5_000, "cdnow": 1}
DELIVERED_QUICK = {"purchase": 5_000, "page_view": 2_000}
PACE = 1_000
"""Calls per second of the paced phases, over all threads."""
WAITING_RATE = 5_000
"""Events per second while a queue fills."""


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
    """Every peer's calls and its cost per delivered event, in one process per peer and round.

    A slow second of the machine is as long as a phase of calls, hence the further rounds of these.
    """
    called, arriving = (CALLS_QUICK, DELIVERED_QUICK) if options.quick else (CALLS, DELIVERED)
    all_of_it = (called if caller else {}) | (arriving if delivered else {})
    samples = rounds(_calls(all_of_it, options), sink, options.rounds(3, 1), "calls")
    if caller and not options.quick and not options.repeats:
        for name, more in rounds(_calls(called, options), sink, 2, "further rounds of calls").items():
            samples[name].extend(more)
    return samples


def _calls(counts: Mapping[str, int], options: Options) -> list[Job]:
    jobs = []
    for name in options.chosen(list(PEERS)):
        peer = PEERS[name]
        mine = {
            phase: max(1, count // 10) if peer.blocks else count
            for phase, count in counts.items()
            if peer.calls or phase not in CALLS
        }
        if mine:
            params = {"counts": mine, "rate": PACE, "cdnow": options.cdnow}
            jobs.append(Job(name, "calls", peer.environment, name, params))
    return jobs


def limits(sink: Sink, options: Options) -> Samples:
    """Bodies that are ready, posted by three clients."""
    sizes = {"large": 10, "small": 200} if options.quick else {"large": 40, "small": 1_000}
    return rounds([Job("limits", "limits", "fast", params=sizes)], sink, options.rounds(5, 1), "limits")


def providers(sink: Sink, options: Options) -> Samples:
    """One platform more at a time, up to ten accounts; all take batches."""
    names = [f"{kind}{account}" for account in ("", "/2", "/3", "/4") for kind in ("meta", "tiktok", "reddit")]
    counts = {"purchase": 4_000 if options.quick else 10_000}
    jobs = [
        Job(
            str(many),
            "calls",
            "eventflows",
            "eventflows",
            {"counts": counts, "rate": 0, "cdnow": "", "options": {"providers": names[:many]}},
        )
        for many in (1, 2, 3, 4, 10)
    ]
    return rounds(jobs, sink, options.rounds(3, 1), "providers")


def single(sink: Sink, options: Options) -> Samples:
    """GA4 takes one client per request: every event of another client, the CDNOW customers, and answers after 100 ms."""

    def job(name: str, phase: str, count: int, **mode: Any) -> Job:
        params = {"counts": {phase: count}, "rate": 0, "cdnow": options.cdnow, "options": {"providers": ["ga4"]}}
        return Job(name, "calls", "eventflows", "eventflows", params, mode)

    count = 1_000 if options.quick else 3_000
    jobs = [
        job("every event of another client", "purchase", count),
        job("CDNOW, whose customers come again", "cdnow", 1),
        job("every event of another client, answers after 100 ms", "purchase", 1_000, delay=0.1),
    ]
    return rounds(jobs, sink, options.rounds(3, 1), "single")


def growing(sink: Sink, options: Options) -> Samples:
    """Curves over the number of events, the length of the queue and the size of the journal."""

    def job(name: str, queue: dict[str, Any], mode: dict[str, Any] | None = None, **params: Any) -> Job:
        given = {"curve": name, "options": {"queue": queue}, **params}
        return Job(name, "growth", "eventflows", "eventflows", given, mode or {})

    size = 20_000 if options.quick else 100_000
    jobs = [
        job("events", {}, total=30_000 if options.quick else 1_000_000),
        job("queue", {"queue_size": size}, {"hold": True}, queue_size=size),
        job(
            "journal",
            {"storage": "{folder}", "queue_size": 10_000},
            bytes=2 * 10**7 if options.quick else 10**9,
            seconds=10 if options.quick else 120,
            sample=2_000 if options.quick else 10_000,
        ),
    ]
    return rounds(jobs, sink, options.repeats or 1, "growth")


def waiting(sink: Sink, options: Options) -> Samples:
    """Memory per event that waits, of those whose calls do not wait for the network."""
    names = (
        "eventflows",
        "eventflows-storage",
        BASELINE,
        "original",
        "posthog",
        "segment",
        "rudder",
        "snowplow",
        "amplitude",
    )
    count = 10_000 if options.quick else 30_000
    jobs = [
        Job(
            f"{name} {way}",
            "memory",
            PEERS[name].environment,
            name,
            {"count": count, "way": way, "rate": WAITING_RATE},
            {"hold": True},
        )
        for name in options.chosen(names)
        for way in (("paced",) if options.quick else ("paced", "burst", "traced"))
        if not options.quick or name.startswith(("eventflows", "otel"))
    ]
    return rounds(jobs, sink, options.rounds(1, 1), "memory")


def starting(_sink: Sink, options: Options) -> Samples:
    """Imports, and the way to the first event."""
    return start.measure(options.rounds(7, 2))


def load(sink: Sink, options: Options) -> Samples:
    """The Flask example under load."""
    return app.measure(sink, options.rounds(3, 1), 4 if options.quick else 8)


def ordinary(sink: Sink, options: Options) -> Samples:
    """What a request pays that records no conversion."""
    job = Job("ordinary", "ordinary", "eventflows", params={"blocks": 5 if options.quick else 10})
    found = rounds([job], sink, options.rounds(3, 1), "ordinary")["ordinary"]
    return {"ordinary": [block for one in found for block in one.get("blocks", [one])]}


def span_events(sink: Sink, options: Options) -> Samples:
    """What the instrumentor adds to spans that have nothing to do with conversions."""
    return rounds([Job("spans", "spans", "eventflows")], sink, options.rounds(3, 1), "spans")


Part = Callable[[Sink, Options], Any]
PARTS: dict[str, Part] = {
    "limits": limits,
    "providers": providers,
    "single": single,
    "memory": waiting,
    "start": starting,
    "app": load,
    "ordinary": ordinary,
    "spans": span_events,
    "growth": growing,
    "instructions": lambda _sink, options: instructions.count(options.chosen(instructions.SUBJECTS)),
    "outage": lambda _sink, options: outage.compare(options.chosen(outage.SUBJECTS)),
}
"""In the order in which they run, after the calls."""
LONG = frozenset({"instructions", "outage"})
"""Not in the quick run, unless asked for by name."""


def environments_of(names: Sequence[str], options: Options) -> set[str]:
    """The virtual environments that these parts need."""
    everybody = {"caller", "delivered", "memory", "outage"} & set(names)
    needed = {PEERS[name].environment for name in options.chosen(list(PEERS))} if everybody else set()
    if "start" in names:
        needed |= {one.environment for one in start.STARTS.values()}
    return needed | {"eventflows"} | ({"fast"} if "limits" in names else set())

"""What EventFlows means to cost, held against what was measured. Printed and written down, never asserted."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .figures import Samples, median, paired, values
from .peers import BASELINE, PEERS

OTHERS = tuple(
    name for name, peer in PEERS.items() if peer.calls and not name.startswith(("eventflows", "otel", "floor"))
)
"""The peers proper."""


@dataclass(frozen=True, slots=True)
class Budget:
    what: str
    measured: float
    allowed: float
    unit: str = "×"
    at_least: bool = False

    @property
    def kept(self) -> bool:
        return self.measured >= self.allowed if self.at_least else self.measured <= self.allowed


def best(samples: Samples, names: Sequence[str], *path: str) -> str | None:
    """Which of them has the smallest median there, of those whose events all arrived."""
    medians = {
        name: found
        for name in names
        if not any(one.get("error") or one.get("lost") or one.get("twice") for one in samples.get(name, []))
        and (found := median(samples.get(name, []), *path)) is not None
    }
    return min(medians, key=lambda name: medians[name]) if medians else None


def budgets(results: dict[str, Any]) -> list[Budget]:
    """Those that the measured parts can tell of."""
    found = [*_calls(results.get("calls", {})), *_parts(results)]
    return [budget for budget in found if budget.measured is not None]


def _calls(samples: Samples) -> Iterator[Budget]:
    def against(name: str, to: str | None, path: tuple[str, str], what: str, allowed: float) -> Iterator[Budget]:
        measured = paired(samples, name, to, *path) if to else None
        if measured is not None and to:
            yield Budget(f"{what} × {PEERS[to].title}", measured, allowed)

    for phase in ("paced", "burst", "paced-8", "burst-8"):
        peer = best(samples, OTHERS, phase, "p50")
        yield from against("eventflows", peer, (phase, "p50"), f"call, {phase}, p50:", 0.75)
        peer = best(samples, OTHERS, phase, "p99")
        yield from against("eventflows", peer, (phase, "p99"), f"call, {phase}, p99:", 1.0)
    for phase in ("paced", "burst"):
        yield from against("eventflows-otlp", BASELINE, (phase, "p50"), f"call beside OTLP, {phase}, p50:", 1.5)
        yield from against("eventflows-storage", BASELINE, (phase, "p50"), f"call with storage, {phase}, p50:", 2.5)
    peer = best(samples, OTHERS, "purchase", "cpu")
    yield from against("eventflows", peer, ("purchase", "cpu"), "CPU per delivered event:", 0.8)
    yield from against("eventflows", "floor", ("purchase", "cpu"), "CPU per delivered event:", 2.2)
    yield from against(
        "eventflows-orjson", "floor-orjson", ("purchase", "cpu"), "CPU per delivered event with orjson:", 2.2
    )


def _parts(results: dict[str, Any]) -> Iterator[Budget]:
    samples: Samples = results.get("providers", {})
    if (added := added_per_provider(results)) and (body := body_cost(results)):
        yield Budget("CPU that a further provider adds × encoding and posting its body", added / body, 1.5)
    if (ten := paired(samples, "10", "1", "purchase", "cpu")) is not None:
        yield Budget("CPU of 10 providers × one", ten, 10)
    samples = results.get("single", {})
    if (cpu := median(samples.get("every event of another client", []), "purchase", "cpu")) is not None:
        yield Budget("CPU of a request with one event", cpu, 350, "µs")
    slow = samples.get("every event of another client, answers after 100 ms", [])
    if (wall := median(slow, "purchase", "wall")) is not None:
        yield Budget("GA4 with answers after 100 ms", 1e6 / wall, 200, "events/s", at_least=True)
    samples = results.get("memory", {})
    for way, title in (("paced", "memory per waiting event"), ("burst", "the same after a burst")):
        if (used := median(samples.get(f"eventflows {way}", []), "bytes")) is not None:
            yield Budget(title, used / 1000, 1.5, "kB")
    samples = results.get("start", {})
    if (took := median(samples.get("import eventflows, beyond these", []), "ms")) is not None:
        yield Budget("import beyond opentelemetry.sdk and requests", took, 15, "ms")
    samples = results.get("app", {})
    for mix in dict.fromkeys(name.rpartition(", ")[0] for name in samples):
        ours, theirs = (list(values(samples[f"{mix}, {which} EventFlows"], "rate")) for which in ("with", "without"))
        lost = [(1 - one / other) * 100 for one, other in zip(ours, theirs, strict=False)]
        if lost:
            yield Budget(f"requests lost under load, {mix}", statistics.median(lost), 3, "%")
    samples = results.get("ordinary", {})
    more, without = (
        list(values(samples.get("ordinary", []), "the Flask example", which)) for which in ("added", "without")
    )
    added = [one / other * 100 for one, other in zip(more, without, strict=False)]
    if added:
        yield Budget("time that a request pays which records nothing", statistics.median(added), 3, "%")


def added_per_provider(results: dict[str, Any]) -> float | None:
    """Microseconds of processor time that TikTok and Reddit each add to Meta."""
    samples: Samples = results.get("providers", {})
    one, three = (median(samples.get(many, []), "purchase", "cpu") for many in ("1", "3"))
    return None if one is None or three is None else (three - one) / 2


def body_cost(results: dict[str, Any]) -> float | None:
    """Microseconds to encode (json) and post (requests) an event of TikTok's and Reddit's in a body of 1,000, on average."""
    ready = results.get("limits", {}).get("limits", [])
    parts = [median(ready, one, way) for one in ("tiktok", "reddit") for way in ("json", "requests")]
    return None if any(part is None for part in parts) else sum(part or 0 for part in parts) / 2

"""What an answer means for each event of a batch, and what is done next. Pure: sending and waiting are the outbox's.

answer ─ delivered ──────────────────────────── settled
       ├ refused, this event is why ─────────── settled
       ├ another event is why ──── the rest goes again at once
       ├ nobody says which ─────── halves go again at once
       ├ not now ───────────────── goes again later
       └ the credentials are why ─ the whole lane pauses, and no event is lost to it
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import payload
from .conversion import Conversion
from .journal import Journal
from .mapping import NotSent, Written, encode, expired
from .providers.base import DELIVERED, Outcome, Provider, Request, Response, Status
from .stats import ERASED


class Entry(NamedTuple):
    """A conversion on a provider's lane.

    Attributes:
        journal: The journal that holds it; None where it is in memory only.
        seq: Its number there.
    """

    conversion: Conversion
    journal: Journal | None = None
    seq: int = 0


class Item(NamedTuple):
    """An entry, and its event as the platform wants it."""

    entry: Entry
    written: Written


class Batch(NamedTuple):
    """A request and its events. What goes again after an answer goes in the same request, without being written anew."""

    request: Request
    items: Sequence[Item]

    def of(self, items: Sequence[Item]) -> Batch:
        """The same request with these of its events."""
        return Batch(self.request, items)

    @property
    def events(self) -> list[bytes]:
        return [item.written.content for item in self.items]

    def body(self) -> bytes:
        """The request's body, as it goes over the wire."""
        return payload.body(self.request.envelope, self.request.events_at, self.events)


class Settled(NamedTuple):
    """The outcome of one entry: `delivered`, `filtered`, `refused`, `expired` or `dropped`, and why."""

    entry: Entry
    status: str
    reason: str = ""


@dataclass(slots=True)
class Verdict:
    """What becomes of a batch after one answer; each of its items is in exactly one of the lists.

    Attributes:
        again: Batches to send at once: without the culprit, or halves of which one holds it.
        later: Not processed now; may work after a while.
        paused: Not processed because of the credentials or the account.
        reason: Why some go later or are paused.
    """

    settled: list[Settled] = field(default_factory=list)
    again: list[list[Item]] = field(default_factory=list)
    later: list[Item] = field(default_factory=list)
    paused: list[Item] = field(default_factory=list)
    reason: str = ""


def judge(provider: Provider, batch: Sequence[Item], response: Response) -> Verdict:
    """Read the platform's answer, and say what becomes of each item."""
    verdict = Verdict()
    outcomes = _outcomes(provider, response, batch)
    if outcomes.count(DELIVERED) == len(batch):  # the usual answer
        verdict.settled = [Settled(item.entry, "delivered") for item in batch]
        return verdict
    innocent: list[Item] = []
    suspects: list[Item] = []
    for item, outcome in zip(batch, outcomes, strict=True):
        if outcome.status is Status.DELIVERED:
            verdict.settled.append(Settled(item.entry, "delivered"))
        elif outcome.status is Status.REFUSED or (outcome.status is Status.SUSPECT and len(batch) == 1):
            verdict.settled.append(Settled(item.entry, "refused", outcome.reason))
        elif outcome.status is Status.RESEND:
            innocent.append(item)
        elif outcome.status is Status.SUSPECT:
            suspects.append(item)
        elif outcome.status is Status.UNAUTHORIZED:
            verdict.paused.append(item)
            verdict.reason = outcome.reason
        else:
            verdict.later.append(item)
            verdict.reason = outcome.reason
    middle = (len(suspects) + 1) // 2
    verdict.again = [part for part in (innocent, suspects[:middle], suspects[middle:]) if part]
    return verdict


def _outcomes(provider: Provider, response: Response, batch: Sequence[Item]) -> list[Outcome]:
    """The provider's reading of the answer; an answer that it cannot read must not cost the lane its thread."""
    if response.html and 200 <= response.status < 300:
        return [
            Outcome(Status.RETRY, f"a web page with HTTP {response.status} in place of the platform's answer")
        ] * len(batch)
    try:
        outcomes = provider.outcomes(response, [item.written for item in batch])
    except Exception as problem:  # noqa: BLE001 reason: answers come from outside, in any shape
        return [Outcome(Status.RETRY, f"unreadable answer ({type(problem).__name__})")] * len(batch)
    if len(outcomes) != len(batch):
        return [Outcome(Status.RETRY, "unreadable answer (wrong count)")] * len(batch)
    return outcomes


def prepare(
    provider: Provider,
    entries: Sequence[Entry],
    effective: Callable[[Conversion], Conversion],
    filtered: Callable[[Conversion], str | None],
    now: int,
) -> tuple[list[Item], list[Settled]]:
    """The entries as the platform wants them now, and the outcomes of those that need no request.

    Args:
        effective: The conversion with the choices of consent that hold now.
        filtered: Why the provider does not get it, if so.
    """
    items: list[Item] = []
    settled = [Settled(entry, "filtered", ERASED) for entry in erased(entries)]
    gone = {id(one.entry) for one in settled}
    for entry in entries:
        if id(entry) in gone:
            continue
        conversion = effective(entry.conversion)
        if (reason := filtered(conversion)) is not None:
            settled.append(Settled(entry, "filtered", reason))
            continue
        result = encode(provider, conversion, now)
        if isinstance(result, NotSent):
            settled.append(Settled(entry, result.status, result.reason))
        else:
            items.append(Item(entry, result))
    return items, settled


def requests_of(provider: Provider, items: Iterable[Item]) -> list[Batch]:
    """The items in requests: grouped by what the platform wants once per request, and cut to its limits."""
    groups: dict[bytes, list[Item]] = {}
    for item in items:
        envelope = item.written.envelope
        groups.setdefault(payload.encode(envelope) if envelope else b"", []).append(item)
    return [
        Batch(provider.request([item.written for item in batch]), batch)
        for group in groups.values()
        for batch in _cut(group, provider.MAX_BATCH, provider.MAX_BYTES)
    ]


def _cut(group: Sequence[Item], most: int, most_bytes: int) -> Iterator[Sequence[Item]]:
    start = size = 0
    for index, item in enumerate(group):
        length = len(item.written.content) + 1
        if index > start and (index - start >= most or size + length > most_bytes):
            yield group[start:index]
            start, size = index, 0
        size += length
    yield group[start:]


def outdated(provider: Provider, items: Sequence[Item], now: int) -> list[Settled]:
    """The outcomes of those that must not go again, because they were erased or have expired since they were written."""
    gone = {id(entry) for entry in erased([item.entry for item in items])}
    settled = []
    for entry, _ in items:
        if id(entry) in gone:
            settled.append(Settled(entry, "filtered", ERASED))
        elif (late := expired(provider, entry.conversion, now)) is not None:
            settled.append(Settled(entry, late.status, late.reason))
    return settled


def erased(entries: Sequence[Entry]) -> list[Entry]:
    """Those whose row in the journal is gone, because somebody had the person erased."""
    by_journal: dict[Journal, dict[int, Entry]] = {}
    for entry in entries:
        if entry.journal is not None:
            by_journal.setdefault(entry.journal, {})[entry.seq] = entry
    found: list[Entry] = []
    for journal, rows in by_journal.items():
        try:
            found.extend(rows[seq] for seq in journal.gone(list(rows)))
        except sqlite3.Error:
            continue  # it cannot be read; what is in memory goes on
    return found

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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import payload
from .consent import overruled
from .journal import Journal
from .mapping import Entry, too_old
from .model import LaneSettings
from .providers.base import DELIVERED, Outcome, Provider, Request, Response, Status
from .routing import needed_consent
from .stats import ERASED


class Batch(NamedTuple):
    """A request and its events. What goes again after an answer goes in the same request."""

    request: Request
    entries: Sequence[Entry]

    def of(self, entries: Sequence[Entry]) -> Batch:
        """The same request with these of its events."""
        return Batch(self.request, entries)

    @property
    def events(self) -> list[bytes]:
        return [entry.content for entry in self.entries]

    def body(self) -> bytes:
        """The request's body, as it goes over the wire."""
        return payload.body(self.request.envelope, self.request.events_at, self.events)


class Settled(NamedTuple):
    """Entries with the same outcome: `delivered`, `filtered`, `refused`, `expired` or `dropped`, and why."""

    entries: Sequence[Entry]
    status: str
    reason: str = ""


@dataclass(slots=True)
class Verdict:
    """What becomes of a batch after one answer; each of its entries is in exactly one of the lists.

    Attributes:
        again: Batches to send at once: without the culprit, or halves of which one holds it.
        later: Not processed now; may work after a while.
        paused: Not processed because of the credentials or the account.
        reason: Why some go later or are paused.
    """

    settled: list[Settled] = field(default_factory=list)
    again: list[list[Entry]] = field(default_factory=list)
    later: list[Entry] = field(default_factory=list)
    paused: list[Entry] = field(default_factory=list)
    reason: str = ""


def judge(provider: Provider, batch: Sequence[Entry], response: Response) -> Verdict:
    """Read the platform's answer, and say what becomes of each entry."""
    verdict = Verdict()
    outcomes = _outcomes(provider, response, batch)
    if outcomes.count(DELIVERED) == len(batch):  # the usual answer
        verdict.settled = [Settled(batch, "delivered")]
        return verdict
    innocent: list[Entry] = []
    suspects: list[Entry] = []
    settled: Outcomes = {}
    for entry, outcome in zip(batch, outcomes, strict=True):
        if outcome.status is Status.DELIVERED:
            settled.setdefault(("delivered", ""), []).append(entry)
        elif outcome.status is Status.REFUSED or (outcome.status is Status.SUSPECT and len(batch) == 1):
            settled.setdefault(("refused", outcome.reason), []).append(entry)
        elif outcome.status is Status.RESEND:
            innocent.append(entry)
        elif outcome.status is Status.SUSPECT:
            suspects.append(entry)
        elif outcome.status is Status.UNAUTHORIZED:
            verdict.paused.append(entry)
            verdict.reason = outcome.reason
        else:
            verdict.later.append(entry)
            verdict.reason = outcome.reason
    verdict.settled = _settled(settled)
    middle = (len(suspects) + 1) // 2
    verdict.again = [part for part in (innocent, suspects[:middle], suspects[middle:]) if part]
    return verdict


Outcomes = dict[tuple[str, str], list[Entry]]
"""`(status, reason)` → the entries with this outcome."""


def _settled(outcomes: Outcomes) -> list[Settled]:
    return [Settled(entries, *outcome) for outcome, entries in outcomes.items()]


def _outcomes(provider: Provider, response: Response, batch: Sequence[Entry]) -> list[Outcome]:
    """The provider's reading of the answer; an answer that it cannot read must not cost the lane its thread."""
    if response.html and 200 <= response.status < 300:
        return [
            Outcome(Status.RETRY, f"a web page with HTTP {response.status} in place of the platform's answer")
        ] * len(batch)
    try:
        outcomes = provider.outcomes(response, batch)
    except Exception as problem:  # noqa: BLE001 reason: answers come from outside, in any shape
        return [Outcome(Status.RETRY, f"unreadable answer ({type(problem).__name__})")] * len(batch)
    if len(outcomes) != len(batch):
        return [Outcome(Status.RETRY, "unreadable answer (wrong count)")] * len(batch)
    return outcomes


def requests_of(provider: Provider, entries: Iterable[Entry]) -> list[Batch]:
    """The entries in requests: grouped by what the platform wants once per request, and cut to its limits."""
    groups: dict[bytes, list[Entry]] = {}
    for entry in entries:
        envelope = entry.envelope
        groups.setdefault(payload.encode(envelope) if envelope else b"", []).append(entry)
    return [
        Batch(provider.request(batch), batch)
        for group in groups.values()
        for batch in _cut(group, provider.MAX_BATCH, provider.MAX_BYTES)
    ]


def _cut(group: Sequence[Entry], most: int, most_bytes: int) -> Iterator[Sequence[Entry]]:
    start = size = 0
    for index, entry in enumerate(group):
        length = len(entry.content) + 1
        if index > start and (index - start >= most or size + length > most_bytes):
            yield group[start:index]
            start, size = index, 0
        size += length
    yield group[start:]


def outdated(given: LaneSettings, entries: Sequence[Entry], now: int) -> list[Settled]:
    """The outcomes of those that must not go any more: since they were written they were erased, have become too old, or other
    rules of consent hold.

    Args:
        given: The present settings.
    """
    gone = erased(entries)
    settled: Outcomes = {("filtered", ERASED): gone} if gone else {}
    for entry in unsettled(entries, _settled(settled)):
        limit, source, by = entry.max_age_ns, entry.source, entry.by
        if limit is not None and now - source.time_unix_nano > limit:
            settled.setdefault(too_old(given.provider, limit), []).append(entry)
        elif by is not given and by is not None:
            reason = overruled(source.traits.choices, by.consent, given.consent, needed_consent(given.provider))
            if reason is not None:
                settled.setdefault(("filtered", reason), []).append(entry)
    return _settled(settled)


def unsettled(entries: Sequence[Entry], settled: Sequence[Settled]) -> Sequence[Entry]:
    """Those of the entries that are not among the settled ones."""
    gone = {id(entry) for one in settled for entry in one.entries}
    return [entry for entry in entries if id(entry) not in gone] if gone else entries


def erased(entries: Sequence[Entry]) -> list[Entry]:
    """Those that somebody had a person erased from."""
    by_journal: dict[Journal, dict[int, Entry]] = {}
    for entry in entries:
        journal, seq = entry.source.journal, entry.source.seq
        if journal is not None:
            by_journal.setdefault(journal, {})[seq] = entry
    found: list[Entry] = []
    for journal, rows in by_journal.items():
        try:
            found.extend(rows[seq] for seq in journal.erased(list(rows)))
        except sqlite3.Error:
            continue  # it cannot be read; what is in memory goes on
    return found

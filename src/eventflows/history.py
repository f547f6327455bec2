"""What became of each event, from the journals of a storage folder; and sending dead letters again."""

from __future__ import annotations

import csv
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from opentelemetry.sdk.resources import Resource

from . import direct, journals
from .capture import conversion_of
from .config import Settings
from .errors import ConfigurationError
from .journal import DEAD
from .journals import Told
from .mapping import Entry, NotSent, encode, source_of
from .pii import seal_all
from .providers.base import Provider
from .routing import filtered
from .sealing import Event
from .stats import UNREADABLE
from .stored import load
from .transport import open_transport

NEVER = "never recorded"
OUTCOMES = ("delivered", "filtered", "refused", "expired", "dropped", "pending", NEVER)
LOST = frozenset({"refused", "expired", "dropped", NEVER})
_BEST = {
    status: rank for rank, status in enumerate(("delivered", "pending", "filtered", "refused", "expired", "dropped"))
}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a provider did not get, kept with the reason."""

    told: Told
    provider: str
    status: str
    reason: str
    settled_at: int
    attempts: int


def dead_letters(folder: Path, provider: str | None = None, reason: str = "") -> Iterator[DeadLetter]:
    """The dead letters of a folder, oldest first in each journal.

    Args:
        reason: Only those whose reason holds this text.
    """
    for told in journals.told(folder, "body IS NOT NULL AND EXISTS (SELECT 1 FROM outcome AS o WHERE o.seq = e.seq)"):
        for name, (status, why, settled_at, attempts) in told.outcomes.items():
            if status in DEAD and provider in (None, name) and reason in why:
                yield DeadLetter(told, name, status, why, settled_at, attempts)


def find(folder: Path, wanted: str) -> list[Told]:
    """The events with this conversion id or order id."""
    return list(journals.told(folder, "e.id = ? OR e.order_id = ?", (wanted, wanted)))


# --- sending again


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a dead letter that was sent again: a new outcome, or `not sent` and why."""

    letter: DeadLetter
    status: str
    reason: str = ""


def replay(
    letters: Iterable[DeadLetter], settings: Settings, timeout: float, *, dry_run: bool = False
) -> Iterator[Replayed]:
    """Send dead letters with today's mapping and credentials, under the ids they have, and write down what becomes of them.

    Args:
        timeout: Seconds to go on where a platform says "not now".
        dry_run: Only say which could be sent.
    """
    by_name = {provider.name: provider for provider in settings.providers}
    by_provider: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        by_provider.setdefault(letter.provider, []).append(letter)
    deadline = time.monotonic() + timeout
    for name, theirs in by_provider.items():
        if (provider := by_name.get(name)) is None:
            yield from (Replayed(letter, direct.NOT_SENT, "the provider is not configured") for letter in theirs)
        else:
            yield from _replay(provider, theirs, settings, deadline, dry_run)


def _replay(
    provider: Provider, letters: Sequence[DeadLetter], settings: Settings, deadline: float, dry_run: bool
) -> Iterator[Replayed]:
    resource, now = Resource.create().attributes, time.time_ns()
    entries: list[Entry] = []
    of_entry: dict[int, DeadLetter] = {}
    for letter in letters:
        try:
            conversion = settings.consent.effective(conversion_of(load(letter.told.body or "")))
        except Exception:  # noqa: BLE001 reason: whatever stands in a file that others can write
            yield Replayed(letter, direct.NOT_SENT, UNREADABLE)
            continue
        source = source_of(conversion, None, len(of_entry))
        why = filtered(provider, conversion, send_synthetic=settings.send_synthetic, resource=resource)
        result = NotSent("filtered", why) if why else encode(provider, conversion, now, source)
        if isinstance(result, NotSent):
            known = Replayed(letter, result.status, result.reason)
            yield known if dry_run else _written(known, 0)
        elif dry_run:
            yield Replayed(letter, "ready")
        else:
            of_entry[result.source.seq] = letter
            entries.append(result)
    if not entries:
        return
    transport = open_transport(provider.METHOD, settings.transport(provider))
    try:
        for settled, attempts, *_ in direct.send(provider, entries, transport, settings.lane(provider).retry, deadline):
            known = Replayed(of_entry[settled.entries[0].source.seq], settled.status, settled.reason)
            yield known if settled.status == direct.NOT_SENT else _written(known, attempts)
    finally:
        transport.close()


def _written(known: Replayed, attempts: int) -> Replayed:
    """Write an outcome down; where that is not possible, it says so."""
    told = known.letter.told
    try:
        journals.resettle(told.path, told.seq, known.letter.provider, known.status, known.reason, attempts)
    except (sqlite3.Error, OSError) as problem:
        return replace(known, reason=f"{known.reason} (not written to the storage: {problem})".lstrip())
    return known


# --- comparing with real orders


@dataclass(frozen=True, slots=True)
class Report:
    """Real orders against what was recorded.

    Attributes:
        counts: Provider → outcome (of `OUTCOMES`) → how many orders.
        lost: `(order, provider, outcome, reason)` of each order that a provider did not get though it should have.
        orders: All of them: order → provider → `(outcome, reason)`.
        known: The providers that anything was recorded for, whether asked for or not.
    """

    orders: Mapping[str, Mapping[str, tuple[str, str]]]
    counts: Mapping[str, Counter[str]]
    lost: Sequence[tuple[str, str, str, str]] = field(default_factory=tuple)
    known: frozenset[str] = frozenset()


def read_orders(source: TextIO, column: str) -> list[str]:
    """The ids of a CSV file with a header line, each once, in their order.

    Raises:
        ConfigurationError: There is no such column.
    """
    reader = csv.DictReader(source)
    if column not in (reader.fieldnames or ()):
        raise ConfigurationError(
            f"--id-column: there is no column {column!r}; the file has: {', '.join(reader.fieldnames or ())}"
        )
    return list(dict.fromkeys(found for row in reader if (found := (row[column] or "").strip())))


def recorded(folder: Path, since: int = 0) -> Iterator[Told]:
    """All events of a folder that were recorded since this time, in Unix nanoseconds."""
    return journals.told(folder, "captured_at >= ?", (since,))


def report(events: Iterable[Told], orders: Sequence[str], provider: str | None = None) -> Report:
    """Compare a list of orders with what was recorded, per provider.

    Args:
        orders: Order ids or conversion ids.
    """
    wanted = set(orders)
    found: dict[str, dict[str, tuple[str, str]]] = {order: {} for order in orders}
    names: dict[str, None] = {} if provider is None else {provider: None}
    known_names: set[str] = set()
    for told in events:
        known_names.update(told.outcomes)
        for name, (status, reason, *_) in told.outcomes.items():
            if provider not in (None, name):
                continue
            names[name] = None
            for order in {told.id, told.order_id} & wanted:
                known = found[str(order)].get(name)
                if known is None or _BEST[status] < _BEST[known[0]]:  # a refused attempt and a delivered one: delivered
                    found[str(order)][name] = (status, reason)
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    lost = []
    for order, outcomes in found.items():
        for name in names:
            status, reason = outcomes.setdefault(name, (NEVER, ""))
            counts[name][status] += 1
            if status in LOST:
                lost.append((order, name, status, reason))
    return Report(found, counts, lost, frozenset(known_names))


# --- erasing a person


def digests_of(values: Iterable[str], default_country: str | None) -> tuple[set[str], set[str]]:
    """What to look for: the digests of every form that these may be sealed in, and the plain user ids."""
    plain = {value.strip() for value in values}
    digests: set[str] = set()
    for value in plain:
        for kind in ("email", "phone", "external_id"):
            sealed, _ = seal_all(kind, (value,), default_country)
            digests.update(one for found in sealed.values() for one in found)
    return digests, plain


def is_of(digests: set[str], plain: set[str]) -> Callable[[Event], bool]:
    """Whether an event is of the person whose identifiers these are."""

    def matches(event: Event) -> bool:
        conversion = conversion_of(event)
        sealed = conversion.user.sealed.values()
        return any(one in digests for found in sealed for one in found) or not plain.isdisjoint(conversion.user.user_id)

    return matches

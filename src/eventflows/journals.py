"""The journals of a folder, read and mended from outside, as the command line does, while any process may hold them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .holding import bring_in
from .journal import DAMAGED, IS_DEAD, SUFFIX, connect, forget, is_made, spooled, transaction
from .log import Notices
from .sealing import Event
from .stored import load

_notices = Notices("storage")
_COLUMNS = "seq, id, name, order_id, captured_at, owed, body"
# The journal may have taken in what was read from the spool a moment before.
_NOT_HELD = (
    "NOT EXISTS (SELECT 1 FROM event WHERE event.seq = spooled.seq)"
    " AND NOT EXISTS (SELECT 1 FROM history WHERE history.seq = spooled.seq)"
)
_EVERYWHERE = " UNION ALL ".join(
    f"SELECT {_COLUMNS} FROM {one}"  # noqa: S608
    for one in ("event", "history", f"spooled WHERE {_NOT_HELD}")
)


@dataclass(frozen=True, slots=True)
class Told:
    """What the journal knows of one event.

    Attributes:
        outcomes: Provider → `(status, reason, unix nanoseconds, attempts)`; a provider that is owed one has `pending`.
        body: The sealed event as JSON; None once it is delivered everywhere.
    """

    path: Path
    seq: int
    id: str
    name: str
    order_id: str | None
    captured_at: int
    outcomes: Mapping[str, tuple[str, str, int, int]]
    body: str | None


def files(folder: Path) -> list[Path]:
    """All journals of a folder."""
    return sorted(folder.glob(f"*{SUFFIX}"))


Unread = Callable[[Path, Exception], None]
"""Told of each journal of which not all could be read, and why."""


def _warn(path: Path, problem: Exception) -> None:
    text = "%s cannot be read (%s): nothing is told of what it holds"
    _notices.warn(f"read {path}", text, path, str(problem) or type(problem).__name__)


def _tell_damaged(folder: Path, unread: Unread) -> None:
    for path in sorted(folder.glob(f"*{DAMAGED}")):
        unread(path, OSError("damaged, and put aside"))


def told(folder: Path, where: str = "1", values: Sequence[Any] = ()) -> Iterator[Told]:
    """What the journals of a folder know of the events that meet an SQL condition on `event` (as `e`).

    One that cannot be read is left out, with a warning.
    """
    _tell_damaged(folder, _warn)
    for path in files(folder):
        try:
            with closing(connect(path, writable=False)) as db:
                yield from _told(db, path, where, values)
        except (sqlite3.Error, OSError) as problem:
            _warn(path, problem)


def _told(db: sqlite3.Connection, path: Path, where: str, values: Sequence[Any]) -> Iterator[Told]:
    if not is_made(db):
        return
    _add_spooled(db, path)
    query = f"SELECT * FROM ({_EVERYWHERE}) AS e WHERE {where} ORDER BY seq"  # noqa: S608 reason: our own constants
    for seq, event_id, name, order_id, captured_at, owed, body in db.execute(query, tuple(values)):
        outcomes: dict[str, tuple[str, str, int, int]] = dict.fromkeys(owed.split(","), ("pending", "", 0, 0))
        for provider, *rest in db.execute(
            "SELECT provider, status, reason, settled_at, attempts FROM outcome WHERE seq = ?", (seq,)
        ):
            outcomes[provider] = (rest[0], rest[1], rest[2], rest[3])
        yield Told(path, seq, event_id, name, order_id, captured_at, outcomes, body)


def _add_spooled(db: sqlite3.Connection, path: Path) -> None:
    """Add a table, of this connection only, with what the journal does not hold yet."""
    db.execute("CREATE TEMP TABLE spooled AS SELECT * FROM event WHERE 0")
    for _, row in spooled(db, path):
        db.execute("INSERT INTO spooled VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def resettle(path: Path, seq: int, provider: str, status: str, reason: str, attempts: int) -> None:
    """Replace the outcome of a dead letter that was sent again."""
    db = connect(path)
    try:
        with transaction(db):
            db.execute(
                "UPDATE outcome SET status = ?, reason = ?, settled_at = ?, attempts = attempts + ?"
                " WHERE seq = ? AND provider = ?",
                (status, reason, time.time_ns(), attempts, seq, provider),
            )
            is_dead = IS_DEAD.format(table="history")
            db.execute(f"UPDATE history SET body = NULL WHERE seq = ? AND NOT {is_dead}", (seq,))  # noqa: S608
    finally:
        db.close()


def erase(folder: Path, matches: Callable[[Event], bool], unread: Unread = _warn) -> int:
    """Remove the events of which `matches` is true, with all that is known of them; returns how many.

    Args:
        unread: What could not be read may hold more of them.
    """
    bring_in(folder)
    _tell_damaged(folder, unread)
    return sum(_each(folder, lambda path: _erase(path, matches, unread), unread))


def _each(folder: Path, do: Callable[[Path], int], unread: Unread) -> Iterator[int]:
    """Do something with each journal, so that one that is damaged or locked keeps nobody from the others."""
    for path in files(folder):
        try:
            yield do(path)
        except (sqlite3.Error, OSError) as problem:
            unread(path, problem)


def _erase(path: Path, matches: Callable[[Event], bool], unread: Unread) -> int:
    def is_meant(body: str) -> bool:
        try:
            return matches(load(body))
        except Exception as problem:  # noqa: BLE001 reason: whatever stands in a file that others can write
            unread(path, problem)
            return False

    with closing(connect(path)) as db:
        if not is_made(db):
            return 0
        # Read before the transaction, for which the process that holds the journal would wait; and first what may be in
        # the journal next.
        on_the_way = {row[0] for event, row in spooled(db, path) if matches(event)}
        query = "SELECT seq, body FROM event UNION ALL SELECT seq, body FROM history WHERE body IS NOT NULL"
        found = on_the_way | {seq for seq, body in db.execute(query) if is_meant(body)}
        with transaction(db):
            for table in ("event", "history"):  # it may have its outcome by now
                forget(db, table, [(seq,) for seq in found])
            db.executemany("INSERT OR IGNORE INTO erased VALUES (?)", [(seq,) for seq in found])
    return len(found)


def purge(folder: Path, before: int, unread: Unread = _warn) -> int:
    """Forget dead letters that were captured before this time (unix nanoseconds); returns how many."""
    return sum(_each(folder, lambda path: _purge(path, before), unread))


def _purge(path: Path, before: int) -> int:
    with closing(connect(path)) as db:
        if not is_made(db):
            return 0
        with transaction(db):
            query = "SELECT seq FROM history WHERE body IS NOT NULL AND captured_at < ?"
            old = db.execute(query, (before,)).fetchall()
            forget(db, "history", old)
        return len(old)

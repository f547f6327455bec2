"""A journal: one SQLite file that holds what one process has captured until every provider has its outcome, and the
history of it.

An event is a row of `event` as long as it owes an outcome to one of the providers in `owed`, and `left` counts those that are
missing. An outcome is a row of `outcome`. With the last one the event moves to `history`, without its body, unless it was
refused or has expired somewhere: a dead letter keeps it until the retention is over. The file belongs to the process that holds
the lock beside it; the lock falls with the process. What was recorded a moment ago is in the spool, until the intake's thread
brings it in.
"""

from __future__ import annotations

import importlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from . import spool
from .lifecycle import give_way, still_at_fork
from .log import Notices
from .sealing import Event
from .spool import GROWN_BYTES, Line, Spool, private
from .stored import dump, unpack

SUFFIX = ".journal"
DAMAGED = ".damaged"
"""The suffix of one that was put aside."""
DEAD = ("refused", "expired", "dropped")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, order_id TEXT, captured_at INTEGER NOT NULL,
  owed TEXT NOT NULL, left INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS history (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, order_id TEXT, captured_at INTEGER NOT NULL,
  owed TEXT NOT NULL, body TEXT
);
CREATE TABLE IF NOT EXISTS outcome (
  seq INTEGER NOT NULL, provider TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, settled_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL, PRIMARY KEY (seq, provider)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spool (through INTEGER NOT NULL, but TEXT NOT NULL);
INSERT INTO spool SELECT 0, '' WHERE NOT EXISTS (SELECT 1 FROM spool);
CREATE TABLE IF NOT EXISTS erased (seq INTEGER PRIMARY KEY);
PRAGMA user_version = 1;
"""
# Without AUTOINCREMENT and an index, each of which would be one more page to write.
_INSERT = "INSERT INTO event (seq, id, name, order_id, captured_at, owed, left, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_LAST = (
    "SELECT max((SELECT through FROM spool),"
    " coalesce((SELECT max(seq) FROM event), 0), coalesce((SELECT max(seq) FROM history), 0))"
)
_IS_KNOWN = (
    "SELECT EXISTS (SELECT 1 FROM event WHERE seq = ?1) OR EXISTS (SELECT 1 FROM history WHERE seq = ?1)"
    " OR EXISTS (SELECT 1 FROM erased WHERE seq = ?1)"
)
_ERASE = "DELETE FROM event WHERE seq IN (SELECT seq FROM erased WHERE seq >= ?)"
_HOLDS = "UPDATE spool SET through = ?, but = ?"
IS_DEAD = (
    "EXISTS (SELECT 1 FROM outcome AS o WHERE o.seq = {table}.seq AND o.status IN ('refused', 'expired', 'dropped'))"
)
_TOGETHER = 500
"""So many events are settled by one statement; SQLite allows 999 parameters at least."""
_FORGET = 1000
"""So many old events are forgotten at a time; who settles waits meanwhile."""
LOG_BYTES = 16_000_000
"""Beyond this size SQLite's log is brought into the file at the price that who settles waits for some of it."""
BUSY_SECONDS = 5.0
"""So long a program from outside waits for whoever else has the journal locked."""
OWN_BUSY_SECONDS = 0.1
"""And so long the process that holds it: it can do the same later, and somebody may wait for it who has little time."""
ORPHAN_SECONDS = 30 * 86_400.0
_notices = Notices("storage")


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one event at one provider, as it is written."""

    seq: int
    status: str
    reason: str
    attempts: int = 0


@dataclass(slots=True)
class _Outcomes:
    """Outcomes that a thread wants written, and whether another has written them meanwhile."""

    provider: str
    rows: Sequence[Row]
    done: bool = False
    problem: Exception | None = None


class Locked(sqlite3.OperationalError):
    """Another program has the journal locked; the same may be done a moment later."""


class Journal:
    """One journal file, opened for this process, with what an earlier one left in its spool.

    Attributes:
        spool: Where an event is on disk before it is in here.
        found_through: The number of the last event that was in it already when it was opened.
        is_closed: It was given back.

    Raises:
        OSError, sqlite3.Error: The file cannot be made or read.
    """

    def __init__(self, path: Path, lock: IO[bytes] | None) -> None:
        self.path = path
        self._file_lock = lock
        # One connection writes, and its users wait for a lock of ours: SQLite's own waiting sleeps for milliseconds.
        self._writing = threading.RLock()
        self._reading = threading.RLock()
        still_at_fork(
            self._writing, self._reading
        )  # and with them SQLite, whose own locks a child could not open any more
        with suppress(FileExistsError):  # SQLite would let others read it, and gives its log the same rights
            open(path, "xb", opener=private).close()
        self._writer = connect(path, busy_seconds=OWN_BUSY_SECONDS)
        self._reader = connect(path, busy_seconds=OWN_BUSY_SECONDS)
        self._outcomes: deque[_Outcomes] = deque()
        self.is_closed = False
        self._unwritten: dict[str, set[int]] = {}
        self._writer.executescript(_SCHEMA)
        self._writer.execute("PRAGMA wal_autocheckpoint = 0")  # nobody who delivers waits for the disk
        self._bring_in()
        (last,) = self._writer.execute(_LAST).fetchone()
        self.found_through = int(last)
        self.spool = Spool(path, self.found_through)

    def _bring_in(self) -> None:
        """Take over what an earlier process left in the spool.

        An event that is known already is one that it took in before it died.
        """
        with transaction(self._writer) as db:
            left = spool.files(self.path)
            for _, found in spooled(db, self.path):
                db.execute(_INSERT, found)
            through, _ = _held(db)
            last = max((line.seq for path in left for line, _ in spool.lines(path)), default=0)
            db.execute(_HOLDS, (max(through, last), ""))
            db.execute("DELETE FROM erased")  # whose numbers may be given to others
        for path in left:
            with suppress(OSError):  # whoever opens the journal next knows what is in there
                path.unlink()

    def take_in(self, kept: Sequence[tuple[Event, Line]]) -> None:
        """Hold events that are in the spool, or were to be there.

        Raises:
            Locked: They stay in the spool for now.
            sqlite3.Error, ValueError: They cannot be written, as where the disk is full: none is held, nor is it in the spool.
        """
        lines = [line for _, line in kept]
        with self._writing:
            try:
                rows = [_row(*one) for one in kept]
                through, but = self.spool.take(lines)
                with transaction(self._writer) as db:
                    db.executemany(_INSERT, rows)
                    db.execute(_ERASE, min(rows)[:1])
                    db.execute(_HOLDS, (through, " ".join(map(str, but))))
            except Locked:
                self.spool.leave_behind(lines)
                raise
            except (sqlite3.Error, ValueError):
                self.spool.give_up(lines)
                raise
            except BaseException:  # a signal handler's, which costs this process the events
                self.spool.leave_behind(lines)
                raise
            self.spool.release(lines)
        self.spool.leave(GROWN_BYTES)

    def settle(self, provider: str, rows: Sequence[Row]) -> None:
        """Write outcomes, all or none. One that is there already stays.

        Threads that come while another one writes are served by the next of them in one go.

        Raises:
            sqlite3.Error: They cannot be written.
        """
        mine = _Outcomes(provider, rows)
        self._outcomes.append(mine)
        with self._writing:
            if not mine.done:
                together = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
                problem: Exception | None = None
                try:
                    self._write(together)
                except Exception as raised:  # noqa: BLE001 reason: the others who wait must know
                    problem = raised
                except BaseException:  # a signal handler's; the next thread writes these
                    self._outcomes.extendleft(reversed(together))
                    raise
                for one in together:
                    one.done, one.problem = True, problem
        if mine.problem is not None:
            self._unwritten.setdefault(provider, set()).update(row.seq for row in rows)
            raise mine.problem
        if unwritten := self._unwritten.get(provider):
            unwritten.difference_update(row.seq for row in rows)

    def unwritten(self, provider: str) -> set[int]:
        """Those whose outcome at this provider could not be written yet: to the file they are pending."""
        return set(self._unwritten.get(provider, ()))

    def _write(self, together: Iterable[_Outcomes]) -> None:
        now = time.time_ns()
        with transaction(self._writer) as db:
            for one in together:
                for first in range(0, len(one.rows), _TOGETHER):
                    _settle(db, one.provider, one.rows[first : first + _TOGETHER], now)

    def pending(self, provider: str, after: int, limit: int) -> list[tuple[int, str]]:
        """`(seq, body)` of the next events that owe this provider an outcome, in their order."""
        with self._reading:
            return self._reader.execute(
                "SELECT seq, body FROM event WHERE seq > ? AND instr(',' || owed || ',', ?)"
                " AND NOT EXISTS (SELECT 1 FROM outcome AS o WHERE o.seq = event.seq AND o.provider = ?) ORDER BY seq LIMIT ?",
                (after, f",{provider},", provider, limit),
            ).fetchall()

    def owed(self) -> dict[str, int]:
        """Provider → how many events owe it an outcome."""
        query = (
            "SELECT count(*) FROM event AS e WHERE instr(',' || e.owed || ',', ?)"
            " AND NOT EXISTS (SELECT 1 FROM outcome AS o WHERE o.seq = e.seq AND o.provider = ?)"
        )
        with self._reading:
            lists = self._reader.execute("SELECT DISTINCT owed FROM event").fetchall()
            names = sorted({name for (listed,) in lists for name in listed.split(",")})
            return {name: int(self._reader.execute(query, (f",{name},", name)).fetchone()[0]) for name in names}

    def count_pending(self) -> int:
        """How many events owe an outcome."""
        with self._reading:
            return int(self._reader.execute("SELECT count(*) FROM event").fetchone()[0])

    def size(self) -> int:
        """Its bytes on disk, with those of the spool."""
        return _size(self.path) + _size(self._log) + spool.size(self.path)

    @property
    def _log(self) -> Path:
        return Path(f"{self.path}-wal")

    def oldest_age(self) -> float:
        """Seconds since the oldest event without all its outcomes was captured; 0 where there is none."""
        with self._reading, suppress(sqlite3.Error):
            (captured_at,) = self._reader.execute("SELECT captured_at FROM event ORDER BY seq LIMIT 1").fetchone() or (
                0,
            )
            return max(0.0, (time.time_ns() - captured_at) / 1e9) if captured_at else 0.0
        return 0.0

    def erased(self, seqs: Sequence[int]) -> set[int]:
        """Those of these events that a person was erased from."""
        query = "SELECT seq FROM erased WHERE seq BETWEEN ? AND ?"
        with self._reading:
            found = self._reader.execute(query, (min(seqs), max(seqs))).fetchall()
        return {seq for (seq,) in found}.intersection(seqs)

    def tidy(self, retention: float | None) -> None:
        """Bring the log into the file; with a retention, in seconds, also forget what is older.

        What still owes an outcome is kept until no platform would take it any more, and is an event of providers that are
        configured no longer.
        """
        self.spool.leave(1)
        if retention is not None:
            self.spool.forget_late()
            while self._forget_some(retention):
                give_way()
        with self._reading:
            self._reader.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if _size(self._log) > LOG_BYTES:  # what was written meanwhile keeps SQLite from beginning the log anew
            with self._writing, self._reading:
                self._reader.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _forget_some(self, retention: float) -> bool:
        """Forget some of what is older; whether there may be more of it."""
        now, more = time.time_ns(), False
        with self._writing, transaction(self._writer) as db:
            for table, seconds in (("event", max(retention, ORPHAN_SECONDS)), ("history", retention)):
                before = now - int(seconds * 1e9)
                query = f"SELECT seq, captured_at FROM {table} ORDER BY seq LIMIT ?"  # noqa: S608
                rows = db.execute(query, (_FORGET,)).fetchall()
                old = [(seq,) for seq, captured_at in rows if captured_at < before]
                forget(db, table, old)
                more = more or len(old) == _FORGET
        return more

    def abandon(self) -> None:
        """In a forked child: neither use nor close the connections, which are its parent's.

        To close them, as Python does with what nobody holds, would end the parent's transaction, or wait for a thread that
        the child does not have.
        """
        self.spool.abandon()
        for connection in (self._writer, self._reader):
            with suppress(ImportError, AttributeError):  # not every Python has it
                ctypes = importlib.import_module("ctypes")
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def close(self) -> None:
        """Close the file and give up its lock, so that another process may go on with what is left in it."""
        with self._writing, self._reading:
            self.is_closed = True
            with suppress(sqlite3.Error):
                self._writer.close()
                self._reader.close()
            self.spool.close()
            if self._file_lock is not None:
                self._file_lock.close()


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.stat().st_size
    return 0


def _whole(text: str) -> str:
    """SQLite takes no half of a surrogate pair; a question mark stands for it, as in JSON."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def spooled(db: sqlite3.Connection, path: Path) -> Iterator[tuple[Event, tuple[Any, ...]]]:
    """What is in the spool of a journal, not in the journal itself, and not erased: events, and their rows of `event`."""
    through, but = _held(db)
    for file in spool.files(path):
        for line, packed in spool.lines(file):
            if (line.seq > through or line.seq in but) and not db.execute(_IS_KNOWN, (line.seq,)).fetchone()[0]:
                try:
                    yield (event := unpack(packed)), _row(event, line)
                except ValueError as problem:
                    _notices.warn(f"{problem}", "{count} events in a spool cannot be read: %s", problem)


def _held(db: sqlite3.Connection) -> tuple[int, set[int]]:
    """Up to which number all that was in the spool has come into the journal, but for some."""
    through, but = db.execute("SELECT through, but FROM spool").fetchone()
    return int(through), set(map(int, but.split()))


def _row(event: Event, line: Line) -> tuple[Any, ...]:
    order_id = event.order_id
    known_by = (_whole(event.id), _whole(event.name), None if order_id is None else _whole(order_id))
    left = line.owed.count(",") + 1 if line.owed else 0
    return (line.seq, *known_by, line.captured_at, line.owed, left, dump(event).decode())


def connect(path: Path, *, writable: bool = True, busy_seconds: float | None = None) -> sqlite3.Connection:
    timeout = BUSY_SECONDS if busy_seconds is None else busy_seconds
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    if writable:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(
            "PRAGMA synchronous = NORMAL"
        )  # survives the death of the process; of the machine, but for the last moments
    return db


def is_made(db: sqlite3.Connection) -> bool:
    """Whether a journal has all its tables; one that its process is about to make has not yet."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'erased'").fetchone() is not None


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")
    except BaseException as problem:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        if isinstance(problem, sqlite3.OperationalError) and "locked" in str(problem):
            raise Locked(str(problem)) from None
        raise


def _settle(db: sqlite3.Connection, provider: str, rows: Sequence[Row], now: int) -> None:
    """Write outcomes of one provider, and move the events that owe no more."""
    marks = ",".join("?" * len(rows))
    # S608: what is put into the statements are question marks and constants
    there = f"SELECT seq FROM outcome WHERE provider = ? AND seq IN ({marks})"  # noqa: S608
    known = {seq for (seq,) in db.execute(there, (provider, *(row.seq for row in rows)))}
    new = [row for row in rows if row.seq not in known]
    db.executemany(
        "INSERT OR IGNORE INTO outcome VALUES (?, ?, ?, ?, ?, ?)",
        [(row.seq, provider, row.status, _whole(row.reason), now, row.attempts) for row in new],
    )
    seqs = [row.seq for row in new]
    these = f"seq IN ({','.join('?' * len(seqs))})"
    if db.execute(f"UPDATE event SET left = left - 1 WHERE {these}", seqs).rowcount < len(seqs):  # noqa: S608 some were erased
        db.execute(f"DELETE FROM outcome WHERE {these} AND seq NOT IN (SELECT seq FROM event)", seqs)  # noqa: S608
    db.execute(
        "INSERT INTO history SELECT seq, id, name, order_id, captured_at, owed,"  # noqa: S608
        f" CASE WHEN {IS_DEAD.format(table='event')} THEN body END FROM event WHERE left <= 0 AND {these}",
        seqs,
    )
    db.execute(f"DELETE FROM event WHERE left <= 0 AND {these}", seqs)  # noqa: S608


def forget(db: sqlite3.Connection, table: str, seqs: Sequence[tuple[int]]) -> None:
    db.executemany("DELETE FROM outcome WHERE seq = ?", seqs)
    db.executemany(f"DELETE FROM {table} WHERE seq = ?", seqs)  # noqa: S608 reason: one of two constants

"""Which process holds which journal of a folder: one takes over what no living process holds, and gives it back."""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

from . import spool
from .journal import DAMAGED, OWN_BUSY_SECONDS, SUFFIX, Journal, connect
from .lifecycle import give_way, still_at_fork
from .log import Notices, logger
from .spool import private

_held: set[Path] = set()
"""The journals of this process: a lock of POSIX is the process's own, so it does not keep the process from taking one twice.

A forked child keeps the names of those that its parent had open, and leaves them to others even when the parent is dead: to
SQLite they still are open in the child, with locks that it does not have.
"""
_taking = threading.Lock()
_taken_in = os.getpid()
_notices = Notices("storage")
still_at_fork(_taking)


def renew_in_child() -> None:
    """In a forked child: no fork waits for ever, and uWSGI's not at all."""
    global _taking, _taken_in
    if _taken_in != os.getpid():
        _taking, _taken_in = threading.Lock(), os.getpid()
        still_at_fork(_taking)


def take(folder: Path, wanted: Callable[[Path], bool] = lambda _path: True) -> Journal | None:
    """Take over a journal that no living process holds; None where there is none."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        give_way()
        with _taking:
            if path not in _held and wanted(path) and (found := _take(path)) is not None:
                return found
    return None


def _take(path: Path) -> Journal | None:
    try:
        lock = _lock(path)
    except OSError as problem:  # as where it is another user's
        _say_why_not(path, problem)
        return None
    if lock is None:
        return None
    _held.add(path)
    found: Journal | None = None
    try:
        found = Journal(path, lock)
        found.count_pending()  # reads what it owes, so that damage shows now
    except (sqlite3.Error, OSError) as problem:
        if found is not None:
            found.close()
        lock.close()
        _held.discard(path)
        _say_why_not(path, problem)
        # What is in the spool of one that was put aside goes into a new one, though some of it may have been delivered already.
        return _take(path) if not path.exists() and spool.files(path) else None
    return found


def _say_why_not(path: Path, problem: Exception) -> None:
    """A journal cannot be opened: it is put aside if it is damaged, and left for later if its disk has a bad moment."""
    if (
        type(problem) is not sqlite3.DatabaseError
    ):  # the others, as of a full disk or a missing right, are its subclasses
        _notices.warn(
            f"open {path}", "%s cannot be opened now (%s), what it holds waits. Mend the folder", path, problem
        )
        return
    aside = path.with_suffix(DAMAGED)
    with suppress(OSError):
        for end in ("-wal", ""):  # together, as the latest events are in the log
            if (part := Path(f"{path}{end}")).exists():
                part.rename(f"{aside}{end}")
        logger.error(
            "%s is damaged (%s) and was put aside. What it holds can be got with sqlite3's .recover", aside, problem
        )


def owes(path: Path) -> bool:
    """Whether a journal, whoever's it is, holds events that owe an outcome, or may hold some in its spool."""
    if spool.size(path):
        return True
    try:
        db = connect(path, writable=False, busy_seconds=OWN_BUSY_SECONDS)
        try:
            return db.execute("SELECT 1 FROM event LIMIT 1").fetchone() is not None
        finally:
            db.close()
    except sqlite3.Error:
        return True  # whoever takes it will see


def each(folder: Path, wanted: Callable[[Path], bool]) -> Iterator[Journal]:
    """Take over one journal after the other that nobody holds, and give each back."""
    done: set[Path] = set()  # as one may stay wanted, whose files cannot be removed
    while (found := take(folder, lambda path: path not in done and wanted(path))) is not None:
        done.add(found.path)
        try:
            yield found
        finally:
            give_back(found)


def forget(folder: Path, retention: float) -> None:
    """Forget what is older than so many seconds in the journals that nobody holds, and so nobody tidies."""
    before = time.time_ns() - int(retention * 1e9)
    for found in each(folder, lambda path: _knows_older(path, before)):
        found.tidy(retention)


def _knows_older(path: Path, before: int) -> bool:
    with suppress(sqlite3.Error), closing(connect(path, writable=False, busy_seconds=OWN_BUSY_SECONDS)) as db:
        oldest = db.execute("SELECT captured_at FROM history ORDER BY seq LIMIT 1").fetchone()
        return oldest is not None and oldest[0] < before
    return False


def bring_in(folder: Path) -> None:
    """Have the journals hold what dead processes left in their spools."""
    for _ in each(folder, lambda path: spool.size(path) > 0):
        pass


def create(folder: Path) -> Journal:
    """A new journal of this process.

    Raises:
        OSError, sqlite3.Error: It cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{time.time_ns():x}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
    with _taking:
        lock = _lock(path)
        _held.add(path)
        try:
            return Journal(path, lock)
        except (sqlite3.Error, OSError):
            _held.discard(path)
            if lock is not None:
                lock.close()
            for part in (path.with_suffix(".lock"), *(Path(f"{path}{end}") for end in ("", "-wal", "-shm"))):
                with suppress(OSError):
                    part.unlink()
            raise


def give_back(journal: Journal) -> None:
    """Close a journal, so that another process may go on with what is left in it."""
    journal.close()
    _held.discard(journal.path)


def _lock(path: Path) -> IO[bytes] | None:
    """Hold the file `<journal>.lock`; None where another process does.

    A lock of POSIX belongs to the process and not to its children, so a fork does not keep a dead parent's journal.
    """
    lock = open(path.with_suffix(".lock"), "a+b", opener=private)  # noqa: SIM115 reason: it is held as long as the journal
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]  # on Windows only
        else:
            import fcntl

            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock

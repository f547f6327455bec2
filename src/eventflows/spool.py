"""The spool of a journal: files that hold what the app's threads have recorded and the journal does not hold yet.

An app's thread appends an event and goes on. It waits for no database and for no lock that anybody holds while reading or
writing. The intake's thread brings many events at a time into the journal; what a process leaves behind when it dies is brought
in by whoever opens its journal next. Before each event stands a line of `<number> <captured at> <owed> <bytes> <CRC-32>`, so
that one that was cut off, as by a full disk, is known and does not spoil the next.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from itertools import count
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from .sealing import Event
from .stored import pack, unpack

GROWN_BYTES = 1_000_000
"""A file of this size is left for a new one, so that it can be removed once the journal holds all of it."""
_SUFFIX = ".spool"
_HEAD = re.compile(rb"\n([0-9]{1,18}) ([0-9]{1,18}|[1-8][0-9]{18}) (\S*) ([0-9]{1,9}) ([0-9]{1,10})\n")


@dataclass(slots=True, eq=False)
class _File:
    """One file, with the numbers of the lines that are yet to be written there, and of those that the journal does not hold."""

    path: Path
    out: FileIO  # and not its descriptor, which may be another file's once this one is closed
    unwritten: set[int] = field(default_factory=set)
    untaken: set[int] = field(default_factory=set)

    @property
    def is_done(self) -> bool:
        return not self.unwritten and not self.untaken


class Line(NamedTuple):
    """What the spool knows of an event.

    Attributes:
        captured_at: Unix time in nanoseconds.
        owed: The names of the providers whose outcomes are to come, with commas between.
        file: Where it is written; None where it was read.
    """

    seq: int
    captured_at: int
    owed: str
    file: _File | None = None


class Spool:
    """The spool that a process writes, for a journal that it holds.

    Args:
        journal: The journal's path, beside which the files lie.
        last: The last number that an event was ever given.
    """

    def __init__(self, journal: Path, last: int) -> None:
        self._journal = journal
        self._underway: dict[int, int] = {}
        # What gives a number notes it as under way in the same step. A lock would do that as well, but once a thread is stopped
        # while it holds that, all threads queue up behind each other from then on.
        self._numbers = map(self._underway.setdefault, count(last + 1), count(last + 1))
        self._lock = threading.RLock()  # a signal handler may open a file in here
        self._file: _File | None = None
        self._full: list[_File] = []
        self._through = last
        self._overtaken: set[int] = set()
        self._late: set[int] = set()
        self._closed = False

    def line(self, owed: str) -> Line:
        """Give an event its number. What follows, in any order, is `write`, and `take` and so on.

        Raises:
            OSError: There is no file to write it to.
        """
        seq = next(self._numbers)
        try:
            while True:
                file = self._file or self._open()
                file.unwritten.add(seq)
                file.untaken.add(seq)
                if file is self._file:
                    return Line(seq, time.time_ns(), owed, file)
                file.unwritten.discard(seq)  # it was left before this was noted, so it may be removed by now
                file.untaken.discard(seq)
        except OSError:
            self.offered(seq)
            raise

    @staticmethod
    def write(line: Line, event: Event) -> None:
        """Have an event on disk.

        Raises:
            OSError: That is not possible.
        """
        seq, captured_at, owed, file = line
        if file is None:
            return
        try:
            packed = pack(event)
            head = b"\n%d %d %b %d %d\n" % (seq, captured_at, owed.encode(), len(packed), crc32(packed))
            if file.out.write(head + packed) != len(head) + len(packed):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except ValueError as problem:  # the file is closed
            raise OSError(errno.EBADF, str(problem)) from None
        finally:
            file.unwritten.discard(seq)

    def take(self, lines: Sequence[Line]) -> tuple[int, list[int]]:
        """These go into the journal next, and `release`, `give_up` or `leave_behind` follows.

        Returns:
            Up to which number all have gone then, but for those that come second.
        """
        seqs = [line.seq for line in lines]
        with self._lock:
            last = max(seqs, default=0)
            self._overtaken.update(range(self._through + 1, last + 1))
            self._through = max(self._through, last)
            self._overtaken.difference_update(seqs)
            self._underway.update(zip(seqs, seqs, strict=True))  # again, where it was forgotten that they may come
            return self._through, sorted(self._overtaken)

    @staticmethod
    def release(lines: Iterable[Line]) -> None:
        """The journal holds these, so they need not be here any longer."""
        for line in lines:
            if line.file is not None:
                line.file.untaken.discard(line.seq)

    def give_up(self, lines: Sequence[Line]) -> None:
        """The journal cannot hold these: neither is a lane to look for them there, nor the next process here."""
        self.take(lines)
        self.release(lines)
        for line in lines:
            self.offered(line.seq)
        self.leave()

    def leave_behind(self, lines: Sequence[Line]) -> None:
        """The journal does not hold these yet. They come again, or nobody in this process sees to them, but the next does."""
        with self._lock:
            self._overtaken.update(line.seq for line in lines)

    def offered(self, seq: int) -> None:
        """All lanes know of the event with this number."""
        self._underway.pop(seq, None)

    def offered_through(self) -> int:
        """Up to this number all lanes know of every event; what comes later may be on its way to them."""
        through = (
            self._through
        )  # first, as it is the last number where none is under way: whatever comes next is greater
        return min(self._underway, default=through + 1) - 1

    @property
    def is_busy(self) -> bool:
        """Whether there are events that the lanes do not know of yet."""
        return bool(self._underway)

    def forget_late(self) -> None:
        """What was overtaken long ago comes no more: an exception of a signal handler ended its way. Called now and then."""
        with self._lock:
            late = {seq for seq in list(self._underway) if seq <= self._through}
            for seq in self._late & late:
                self._underway.pop(seq, None)
            self._late = late

    def leave(self, grown: int = 0) -> None:
        """Write no more to a file that has so many bytes, and remove those whose lines were all released."""
        with self._lock:
            file = self._file
            if file is not None and _size(file) >= grown:
                self._full.append(file)
                self._file = None
            done = [file for file in self._full if file.is_done]
            self._full = [file for file in self._full if file not in done]
        for file in done:
            _remove(file)

    def _open(self) -> _File:
        """The file that is written now, a new one if need be."""
        with self._lock:
            if self._file is None:
                if self._closed:
                    raise OSError(errno.EBADF, "the storage is closed")
                path = self._journal.with_suffix(f"{_SUFFIX}-{time.time_ns():x}")
                self._file = _File(path, open(path, "ab", buffering=0, opener=_create))  # noqa: SIM115 reason: it stays open
            return self._file

    def close(self) -> None:
        """Leave to the next process what was not released."""
        with self._lock:
            held = self._let_go()
        for file in held:
            if file.is_done:
                _remove(file)
            elif not file.unwritten:  # else a thread is about to write to it: it stays open as long as that needs it
                _close(file)

    def abandon(self) -> None:
        """In a forked child: let go of files that are its parent's, whose lock may be held for ever here."""
        for file in self._let_go():
            _close(file)

    def _let_go(self) -> list[_File]:
        self._closed = True
        held = [*self._full, *([self._file] if self._file is not None else [])]
        self._full, self._file = [], None
        return held


def _create(path: str, flags: int) -> int:
    return private(path, flags | os.O_EXCL)


def private(path: str, flags: int) -> int:
    """As the `opener` of a file: one that is made is nobody else's to read, whatever the folder's rights and the umask."""
    return os.open(path, flags, 0o600)


def _size(file: _File) -> int:
    with suppress(OSError):
        return os.fstat(file.out.fileno()).st_size
    return 0


def _close(file: _File) -> None:
    with suppress(OSError):  # a disk's last word, which changes nothing any more
        file.out.close()


def _remove(file: _File) -> None:
    _close(file)
    with suppress(OSError):  # somebody has removed the folder
        file.path.unlink()


# --- what is on disk


def files(journal: Path) -> list[Path]:
    """The files of a journal's spool, oldest first."""
    return sorted(journal.parent.glob(f"{journal.stem}{_SUFFIX}-*"))


def size(journal: Path) -> int:
    """Bytes in the spool of a journal."""
    found = 0
    for path in files(journal):
        with suppress(OSError):  # its process has removed it just now
            found += path.stat().st_size
    return found


def read_again(some: Sequence[Line]) -> dict[int, Event]:
    """Events that this process has written to one file, by their numbers, as far as they can be read."""
    found: dict[int, Event] = {}
    file, numbers = some[0].file, {line.seq for line in some}
    if file is not None:
        with suppress(OSError, ValueError):
            found.update((line.seq, unpack(packed)) for line, packed in lines(file.path) if line.seq in numbers)
    return found


def lines(path: Path) -> Iterator[tuple[Line, bytes]]:
    """The lines of a file, each with its event as `stored.unpack` takes it.

    One that is not whole is left out: nobody was told that it was written.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:  # its process has removed it just now
        return
    at = 0
    while head := _HEAD.search(content, at):
        seq, captured_at, owed, length, checksum = head.groups()
        packed = content[head.end() : head.end() + int(length)]
        if len(packed) == int(length) and crc32(packed) == int(checksum):
            yield Line(int(seq), int(captured_at), owed.decode("utf-8", "replace")), packed
            at = head.end() + len(packed)
        else:
            at = head.start() + 1

"""The backlog of a lane: entries that are only in a journal, because the memory is full or an earlier process left them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from .capture import conversion_of
from .conversion import Conversion
from .journal import Journal
from .mapping import Entry, NotSent, Source, source_of
from .stats import UNREADABLE
from .stored import load

_LOAD = 1000
Key = tuple[int, int]


class Backlog:
    """Knows which entries with a row in a journal are in memory, and from where on a journal holds more of them.

    `leave`, `hold`, `release` and `knows` are called with the lane's lock held.

    Args:
        provider: Whose outcomes are owed.
        lock: The lane's.
    """

    def __init__(self, provider: str, lock: threading.Condition) -> None:
        self._provider = provider
        self._lock = lock
        self._loading = threading.Lock()
        self._released_meanwhile: set[Key] | None = None
        self._left_meanwhile: dict[Journal, int] = {}
        self._held: set[Key] = set()
        self._after: dict[Journal, int] = {}

    @property
    def waits(self) -> bool:
        """Whether a journal may hold more."""
        return bool(self._after)

    def leave(self, journal: Journal, after: int) -> None:
        """Entries of this journal beyond that number are not in memory."""
        for known in (self._after, self._left_meanwhile):
            known[journal] = min(known.get(journal, after), after)

    def hold(self, source: Source) -> None:
        """The entry is in memory."""
        self._held.add((id(source.journal), source.seq))

    def release(self, source: Source) -> None:
        """The entry has its outcome."""
        key = (id(source.journal), source.seq)
        self._held.discard(key)
        if self._released_meanwhile is not None:
            self._released_meanwhile.add(key)

    def knows(self, source: Source) -> bool:
        """Whether the entry is in memory, or has got its outcome since the query that found it."""
        key = (id(source.journal), source.seq)
        return key in self._held or (self._released_meanwhile is not None and key in self._released_meanwhile)

    def load(
        self,
        room: Callable[[], int],
        written: Callable[[Sequence[Conversion], Sequence[Source], int], list[Entry | NotSent | None]],
        offer: Callable[[Sequence[Source], Sequence[Entry | NotSent | None]], None],
    ) -> None:
        """Bring entries into memory while there is room. One thread at a time does it; another returns at once.

        Args:
            written: Makes entries of conversions at a Unix time in nanoseconds, see `Lane.written`.
            offer: Given what was found; it asks `knows` what of it is new.

        Raises:
            sqlite3.Error: A journal cannot be read.
        """
        if not self._loading.acquire(blocking=False):
            return
        try:
            for journal in list(self._after):
                if journal.is_closed:  # it owed nothing any more
                    with self._lock:
                        self._after.pop(journal, None)
                    continue
                while (limit := min(room(), _LOAD)) > 0:
                    if not self._load_from(journal, limit, written, offer):
                        break
        finally:
            self._released_meanwhile = None
            self._loading.release()

    def _load_from(
        self,
        journal: Journal,
        limit: int,
        written: Callable[[Sequence[Conversion], Sequence[Source], int], list[Entry | NotSent | None]],
        offer: Callable[[Sequence[Source], Sequence[Entry | NotSent | None]], None],
    ) -> bool:
        """Load the next entries of a journal; False where there are no more for now."""
        with self._lock:
            self._released_meanwhile = set()
            self._left_meanwhile.clear()
            after = self._after[journal]
        through = journal.spool.offered_through()  # what comes later is on its way to the lane
        settled = journal.unwritten(self._provider)
        rows = journal.pending(self._provider, after, limit)
        usable = [row for row in rows if row[0] <= through]
        sources: list[Source] = []
        entries: list[Entry | NotSent | None] = []
        now = time.time_ns()
        for seq, body in usable:
            if seq in settled:
                continue
            try:
                conversion = conversion_of(load(body))
                source = source_of(conversion, journal, seq)
            except Exception:  # noqa: BLE001 reason: whatever stands in a file that others can write
                sources.append(Source("unknown", now, journal, seq))
                entries.append(NotSent("dropped", UNREADABLE))
                continue
            sources.append(source)
            entries += written([conversion], [source], now)
        offer(sources, entries)
        with self._lock:
            last = usable[-1][0] if usable else after
            left = self._left_meanwhile.get(journal)  # also one of these, where the room was gone before it was offered
            if len(usable) == len(rows) < limit:
                if left is None:
                    del self._after[journal]
                    return False
                self._after[journal] = left
            else:
                self._after[journal] = last if left is None else min(last, left)
            return bool(usable) or self._after[journal] < after

"""Writing the outcomes of one provider to the journals, now or, where a disk has a bad moment, later."""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Sequence

from .journal import Journal, Locked, Row
from .log import UNWRITTEN, Notices
from .mapping import Source

DISK_SECONDS = 1.0
"""So long the end of a process is held up by a disk that takes nothing."""


class Outcomes:
    """The outcomes of one provider on their way to the journals that hold the events.

    Args:
        provider: Its name.
    """

    def __init__(self, provider: str, notices: Notices) -> None:
        self._provider = provider
        self._notices = notices
        self._unwritten: deque[tuple[Journal, Row]] = deque()
        self._locked = False

    def write(self, sources: Iterable[Source], status: str, reason: str, attempts: int = 0) -> None:
        """Write the outcome of those that are in a journal."""
        by_journal: dict[Journal, list[Row]] = {}
        for source in sources:
            if source.journal is not None:
                by_journal.setdefault(source.journal, []).append(Row(source.seq, status, reason, attempts))
        for journal, rows in by_journal.items():
            self.write_rows(journal, rows)

    def write_rows(self, journal: Journal, rows: Sequence[Row]) -> None:
        """Write rows to a journal, or remember to do so."""
        try:
            journal.settle(self._provider, rows)
        except Exception as problem:  # noqa: BLE001 reason: they have their outcome, whatever the disk does
            self._unwritten.extend((journal, row) for row in rows)
            self._locked = isinstance(problem, Locked)
            told = problem if isinstance(problem, sqlite3.Error) else type(problem).__name__
            self._notices.warn("write", UNWRITTEN, self._provider, told, count=len(rows))

    def write_again(self) -> bool:
        """Write what could not be written before; True where all is written now."""
        by_journal: dict[Journal, list[Row]] = {}
        for _ in range(len(self._unwritten)):  # one by one, as another thread may add some meanwhile
            journal, row = self._unwritten.popleft()
            by_journal.setdefault(journal, []).append(row)
        for journal, rows in by_journal.items():
            self.write_rows(journal, rows)
        return not self._unwritten

    def write_last(self, deadline: float) -> None:
        """Write what could not be written before, as there is no later time.

        What another program's lock holds up is tried again until the deadline (of `time.monotonic`). A disk that takes nothing
        has a moment: it will not heal by waiting, and the platforms know the ids of what comes again.
        """
        for_the_disk = min(deadline, time.monotonic() + DISK_SECONDS)
        while not self.write_again():
            if time.monotonic() >= (deadline if self._locked else for_the_disk):
                return
            time.sleep(0.05)

"""The storage of a pipeline: a folder of journals, one per process, and the take-over of what dead processes left there."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from . import holding
from .intake import Arrival
from .journal import Journal, Locked
from .lifecycle import forks_its_workers
from .log import LOCKED, Notices, logger
from .sealing import Event
from .spool import Line, Spool

SCAN_SECONDS = 5.0
TIDY_SECONDS = 60.0
STEP_SECONDS = 60.0
"""A clock that goes so much farther than the monotonic one was set."""
DOUBT_SECONDS = 3_600.0
"""After that nothing is forgotten for so long: a clock that is a month ahead for a minute must not cost what waits."""
CLOSE_SECONDS = 0.05
"""What closing may take after the deadline."""
REFUSED_SECONDS = 1.0
"""After a write that failed the journal is not tried again for so long; events are in memory only meanwhile."""
LOCKED_SECONDS = 0.25
"""And one that another program has locked for so long; events are in the spool meanwhile."""


class Storage:
    """Keeps what is captured on disk until it has its outcomes.

    Args:
        folder: Shared by all processes of the app; made where it is not there.
        retention: Seconds that dead letters and the history are kept.
        recovered: Told of each journal that was taken over, with all that it still owes.
        tended: Called every few seconds on the storage's thread, for what the lanes have to do there.
    """

    def __init__(
        self, folder: Path, retention: float, recovered: Callable[[Journal], None], tended: Callable[[], None]
    ) -> None:
        self._folder = folder
        self.retention = retention
        self._recovered = recovered
        self._tended = tended
        self._notices = Notices("storage")
        self._own: Journal | None = None
        self._adopted: list[Journal] = []
        self.reset()

    def reset(self) -> None:
        """In new storage, and in a forked child, which has a journal of its own once it captures."""
        for one in [self._own, *self._adopted]:
            if one is not None:
                one.abandon()
        holding.renew_in_child()
        self._own, self._adopted = None, []
        self._opening = threading.RLock()
        self._stop, self._looked = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._not_before = self._not_taken_before = self._locked_before = 0.0
        self._closed = False
        self._lost = False

    def start(self) -> None:
        """Look after the folder from now on: deliver what an earlier process left."""
        with self._opening:
            if self._thread is None and not self._closed and not forks_its_workers():
                self._thread = thread = threading.Thread(target=self._tend, name="EventFlows-storage", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is shutting down
                    self._looked.set()

    def has_looked(self, deadline: float) -> bool:
        """Wait until the lanes know what earlier processes left; False where the deadline (of `time.monotonic`) comes first."""
        return self._thread is None or self._looked.wait(max(0.0, deadline - time.monotonic()))

    def number(self, event: Event, owed: str) -> Arrival:
        """Have a place for an event, which is to be queued and written then. Where there is none it is in memory only."""
        if self._not_before > time.monotonic():
            return Arrival(event, owed=owed)
        try:
            if not self._closed:
                try:
                    own = self._own or self._open()
                    line = own.spool.line(owed)
                    return Arrival(event, own, line.seq, owed, None, line)
                except OSError:
                    if not self._closed:
                        raise
            return self._keep_for_the_next(event, owed)
        except (sqlite3.Error, OSError) as problem:
            self._refused(problem)
            return Arrival(event, owed=owed)

    def write(self, arrival: Arrival) -> bool:
        """Have an event on disk before the app goes on; False where that is not possible."""
        if arrival.line is None:
            return arrival.journal is not None
        try:
            Spool.write(arrival.line, arrival.event)
        except OSError as problem:
            self._refused(problem)
            return False
        if self._lost:
            self._lost = False
            self._notices.warn("again", "the storage takes conversions again")
        return True

    def take_in(self, arrivals: Iterable[Arrival]) -> tuple[list[Arrival], list[Arrival]]:
        """Bring events into their journals.

        Returns:
            Those that may go on, in memory only where the journal takes nothing; and those that come again, as another program
            has it locked.
        """
        going: list[Arrival] = []
        again: list[Arrival] = []
        for journal, together in groupby(arrivals, attrgetter("journal")):
            some = list(together)
            kept = [(one.event, one.line) for one in some if one.line is not None]
            try:
                if journal is not None and kept and not self._taken_in(journal, kept):
                    some = [Arrival(one.event, owed=one.owed) for one in some]
                going += some
            except Locked:
                again += [one._replace(tell=None) for one in some]  # it was told
        return going, again

    def _taken_in(self, journal: Journal, kept: Sequence[tuple[Event, Line]]) -> bool:
        now = time.monotonic()
        if self._not_taken_before > now:  # each try costs, while more and more comes
            journal.spool.give_up([line for _, line in kept])
            return False
        if self._locked_before > now:
            raise Locked
        try:
            journal.take_in(kept)
        except Locked:
            self._locked_before = time.monotonic() + LOCKED_SECONDS
            self._notices.warn("locked", LOCKED, journal.path)
            raise
        except Exception as problem:
            foreseen = isinstance(problem, (sqlite3.Error, OSError, ValueError))
            if not foreseen and threading.current_thread() is threading.main_thread():
                raise  # it may be a signal handler's, and then is the app's
            if self._closed and isinstance(problem, sqlite3.ProgrammingError):  # it was given back, with its spool
                raise Locked from None
            journal.spool.give_up([line for _, line in kept])
            self._refused(problem)
            self._not_taken_before = self._not_before
            return False
        return True

    def give_up(self, arrival: Arrival) -> Arrival:
        """The same in memory only, as it could not be written down."""
        if arrival.journal is not None and arrival.line is not None:
            arrival.journal.spool.give_up([arrival.line])
        return Arrival(arrival.event, owed=arrival.owed)

    def _refused(self, problem: Exception) -> None:
        self._not_before = time.monotonic() + REFUSED_SECONDS
        self._lost = True
        text = "the storage takes nothing (%s): conversions are kept in memory only. Make room, or mend the folder"
        told = str(problem)[:200] if isinstance(problem, (sqlite3.Error, OSError)) else type(problem).__name__
        self._notices.warn("refused", text, told)

    def _keep_for_the_next(self, event: Event, owed: str) -> Arrival:
        """Write down what is recorded after the end, as by another exit handler, and let go of the journal at once."""
        with self._opening:
            own = holding.take(self._folder) or holding.create(self._folder)
            try:
                line = own.spool.line(owed)
                own.spool.write(line, event)
                return Arrival(event, own, line.seq, owed)
            finally:
                holding.give_back(own)

    def _open(self) -> Journal:
        with self._opening:
            if self._closed:
                raise OSError(errno.EBADF, "the storage is closed")
            if self._own is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._own = own = holding.take(self._folder) or holding.create(self._folder)
                if own.found_through and own.count_pending():
                    self._recovered(own)
                self.start()
            return self._own

    def size_and_age(self) -> tuple[int, float]:
        """The bytes of this process's journals, and the age in seconds of the oldest conversion that waits in them."""
        held = self.journals()
        return sum(one.size() for one in held), max((one.oldest_age() for one in held), default=0.0)

    def close(self, deadline: float, wait_answered: Callable[[float], None]) -> None:
        """Give up the journals; what is left in them is for the next process.

        Before that come the answers that are to be written, and then SQLite brings its log into the file. Where that takes
        longer than the deadline (of `time.monotonic`) it goes on by itself.

        Args:
            wait_answered: Given the deadline; returns once all requests that were sent have been answered.
        """
        self._stop.set()
        with self._opening:
            self._closed = True
            held = [*([self._own] if self._own is not None else []), *self._adopted]
            self._own, self._adopted = None, []

        def give_all_back() -> None:
            wait_answered(deadline)
            for one in held:
                holding.give_back(one)

        closing = threading.Thread(target=give_all_back, name="EventFlows-close", daemon=True)
        try:
            closing.start()
        except RuntimeError:  # the interpreter is shutting down
            closing.run()
        else:
            closing.join(max(CLOSE_SECONDS, deadline - time.monotonic()))

    # --- the storage's thread

    def _tend(self) -> None:
        pid, tidied = os.getpid(), 0.0
        ahead, doubtful_until = _ahead(), 0.0
        while os.getpid() == pid:
            before, ahead = ahead, _ahead()
            if abs(ahead - before) > STEP_SECONDS:
                doubtful_until = time.monotonic() + DOUBT_SECONDS
            due = time.monotonic() > max(tidied + TIDY_SECONDS, doubtful_until)
            tidied = time.monotonic() if due else tidied
            retention = self.retention if due else None
            self._attempt(self._leave_if_removed)
            self._attempt(self._adopt)
            self._looked.set()
            self._attempt(self._tended)
            for one in self.journals():
                self._attempt(one.tidy, retention)
            if retention is not None:
                self._attempt(holding.forget, self._folder, retention)
            if self._stop.wait(SCAN_SECONDS):
                return

    def _attempt(self, duty: Callable[..., None], *given: object) -> None:
        """Each by itself, so that one damaged journal does not keep the thread from the rest."""
        try:
            duty(*given)
        except Exception as problem:  # noqa: BLE001 reason: the thread must outlive a disk's bad day
            self._notices.warn("tend", "the storage could not be looked after (%s); tried again in seconds", problem)

    def _leave_if_removed(self) -> None:
        """Somebody removed our journal: SQLite would write on to a file that nobody finds again."""
        own = self._own
        if own is not None and not own.path.exists():
            with self._opening:
                self._own = None
                self._adopted.append(own)
            text = "%s was removed: what it held is this process's only to deliver. The next goes into a new journal"
            self._notices.warn("removed", text, own.path)

    def journals(self) -> list[Journal]:
        """Those that this process holds now."""
        with self._opening:
            return [*([self._own] if self._own is not None else []), *self._adopted]

    def _adopt(self) -> None:
        """Go on with the journals of dead processes, and give back those that owe nothing any more."""
        for one in list(self._adopted):
            with suppress(sqlite3.Error):  # one that cannot be read owes whatever it owes
                if not one.spool.is_busy and not one.count_pending():
                    with self._opening:
                        self._adopted.remove(one)
                    holding.give_back(one)
        while not self._stop.is_set() and (found := holding.take(self._folder, holding.owes)) is not None:
            with self._opening:
                closed = self._closed
                if not closed:
                    self._adopted.append(found)
            if closed:  # meanwhile, by a shutdown that did not see it
                holding.give_back(found)
                return
            if count := found.count_pending():
                logger.info("EventFlows goes on with %d conversions of an earlier process", count)
            self._recovered(found)


def _ahead() -> float:
    """By how much the clock is ahead of the monotonic one, in seconds."""
    return time.time_ns() / 1e9 - time.monotonic()

"""The intake: what was recorded, on its way from the app's threads to the lanes.

The app's thread only appends. What else there is to do with an event (reading it, deciding who gets it) happens here, on a
thread of the pipeline's own or on the one that flushes, for many events at a time.
"""

from __future__ import annotations

import queue  # and not its names, which gevent may replace only after the fork
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from . import spool
from .journal import Journal
from .log import logger
from .sealing import Event, Recorded, Tell
from .spool import Line
from .stats import AFTER_SHUTDOWN, UNREADABLE

GATHER_SECONDS = 0.05
"""How long the thread lets events gather: waking it for each would cost more than the event."""
_CHUNK = 32  # few enough that the garbage collector does not come while they are read and written
_LEFT_AT_ONCE = 1000  # for which a file has to be read
_HURRY = 512
"""So many that wait end the gathering."""
AGAIN_SECONDS = 0.05
"""What cannot be taken for now is tried again after this time."""


class Arrival(NamedTuple):
    """An event that was seen for the first time, and where it is on disk.

    Attributes:
        journal: The journal that holds it; None where it is in memory only.
        seq: Its number there.
        owed: The names of the providers that were configured when it was recorded, with commas between.
        tell: To be given the event, which then is sealed.
        line: What is to be taken into the journal yet; None where it is in there, or nowhere.
    """

    event: Event
    journal: Journal | None = None
    seq: int = 0
    owed: str = ""
    tell: Tell | None = None
    line: Line | None = None

    @property
    def kind(self) -> str:
        """The type of the conversion."""
        return self.event.type.value


class Left(NamedTuple):
    """What memory holds of an event for which it had no room: the event is in the spool, and read from there in its turn."""

    kind: str
    journal: Journal | None
    line: Line

    @property
    def seq(self) -> int:
        return self.line.seq

    @property
    def owed(self) -> str:
        return self.line.owed


Waiting = Arrival | Recorded | Left


class Intake:
    """A queue that costs the app's thread an append, and takes no lock there: a signal handler may use it, too.

    Args:
        take: Given what was put, in its order, by one thread at a time; must not raise. Gives back what cannot be taken for
            now, and comes again.
        refuse: Given what is put after the end, or cannot be read from disk any more, and why; must not raise.
        capacity: How many events may wait in memory.
    """

    def __init__(
        self,
        take: Callable[[Iterable[Arrival | Recorded]], Sequence[Arrival]],
        refuse: Callable[[Sequence[Waiting], str], None],
        capacity: int,
    ) -> None:
        self._take = take
        self._refuse = refuse
        self.capacity = capacity
        self.reset()

    def reset(self) -> None:
        """Start from nothing: in a new pipeline, and in a forked child, whose parent keeps what waited before."""
        self._queue: deque[Waiting] = deque()
        self._draining = threading.RLock()
        self._bell: queue.SimpleQueue[None] = (
            queue.SimpleQueue()
        )  # whose `put` a signal handler may interrupt and call again
        self._rings = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, one: Waiting) -> bool:
        """Queue an event, or what was recorded and is yet to be read; False where there is no room for it."""
        waiting = len(self._queue)
        if waiting >= self.capacity and not isinstance(one, Left):
            return False
        self._queue.append(one)
        if not self._rings or (self._rings == 1 and waiting >= _HURRY):
            self._rings += 1
            self._bell.put(None)
            if self._thread is None:
                self._start()
        if self._closed:  # by now, and whoever closed it may have looked already
            self._refuse(self._rest(), AFTER_SHUTDOWN)
        return True

    def drain(self, deadline: float | None = None) -> bool:
        """Take all that waits, on this thread, as far as that is possible now.

        Returns:
            False where the deadline (of `time.monotonic`) came first, or some cannot be taken for now.
        """
        if not self._draining.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic())):
            return False
        try:
            while self._queue:
                if again := self._take(self._portion()):
                    self._queue.extendleft(reversed(again))
                    if self._closed:  # by now, and whoever closed it has not seen these
                        self._refuse(self._rest(), AFTER_SHUTDOWN)
                    return False
                if deadline is not None and time.monotonic() > deadline:
                    break
        finally:
            self._draining.release()
        return not self._queue

    def empty(self, deadline: float) -> bool:
        """Drain again and again until nothing waits; False where the deadline (of `time.monotonic`) came first."""
        while not self.drain(deadline):
            if (left := deadline - time.monotonic()) <= 0:
                return False
            time.sleep(min(left, AGAIN_SECONDS))
        return True

    def _portion(self) -> Iterator[Arrival | Recorded]:
        """One by one, so that what has been read is gone."""
        with suppress(IndexError):  # a signal handler may drain in between
            for _ in range(_CHUNK):
                one = self._queue.popleft()
                if isinstance(one, Left):
                    yield from self._read_again(one)
                    break
                yield one

    def _read_again(self, first: Left) -> Sequence[Arrival]:
        """Events that are on disk only: this one, and those behind it in the same file, which is read as a whole."""
        left = [first]
        with suppress(IndexError):
            while len(left) < _LEFT_AT_ONCE:
                one = self._queue.popleft()
                if not isinstance(one, Left) or one.line.file is not first.line.file:
                    self._queue.appendleft(one)
                    break
                left.append(one)
        events = spool.read_again([one.line for one in left])
        found = [
            Arrival(events[one.seq], one.journal, one.seq, one.owed, None, one.line)
            for one in left
            if one.seq in events
        ]
        if lost := [one for one in left if one.seq not in events]:
            for one in lost:
                if one.journal is not None:
                    one.journal.spool.give_up([one.line])
            self._refuse([one._replace(journal=None) for one in lost], UNREADABLE)
        return found

    @contextmanager
    def still(self) -> Iterator[None]:
        """While the inside runs nothing is taken, and what was under way before has been."""
        with self._draining:
            yield

    def close(self) -> Sequence[Waiting]:
        """End the thread; what waits is the caller's to see to."""
        self._closed = True
        self._bell.put(None)
        return self._rest()

    def _rest(self) -> Sequence[Waiting]:
        found: list[Waiting] = []
        with suppress(IndexError):
            while True:
                found.append(self._queue.popleft())
        return found

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, args=(self._bell,), name="EventFlows-intake", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down; whoever flushes takes what waits
            return
        self._thread = thread

    def _run(self, bell: queue.SimpleQueue[None]) -> None:
        while not self._closed and bell is self._bell:
            with suppress(queue.Empty):
                bell.get(timeout=AGAIN_SECONDS if self._queue else None)
                bell.get(timeout=GATHER_SECONDS)
            self._rings = 0  # before the look at the queue, so that who comes after it rings again
            try:
                self.drain()
            except Exception as problem:  # noqa: BLE001 reason: the thread must outlive whatever one batch does
                logger.error("conversions were lost on their way to the providers: %s", type(problem).__name__)

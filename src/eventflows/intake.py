"""The intake: what was recorded, on its way from the app's threads to the lanes.

The app's thread only appends. What else there is to do with an event (reading it, deciding who gets it) happens here, on a
thread of the pipeline's own or on the one that flushes, for many events at a time.
"""

from __future__ import annotations

import queue  # and not its names, which gevent may replace only after the fork
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from .journal import Journal
from .log import logger
from .sealing import Event, Recorded, Tell
from .spool import Line

GATHER_SECONDS = 0.05
"""How long the thread lets events gather: waking it for each would cost more than the event."""
_CHUNK = 32  # few enough that the garbage collector does not come while they are read and written
_HURRY = 512
"""So many that wait end the gathering."""


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


class Intake:
    """A queue that costs the app's thread an append, and takes no lock there: a signal handler may use it, too.

    Args:
        take: Given what was put, in its order, by one thread at a time; must not raise.
        capacity: How many may wait.
    """

    def __init__(self, take: Callable[[Iterable[Arrival | Recorded]], None], capacity: int) -> None:
        self._take = take
        self.capacity = capacity
        self.reset()

    def reset(self) -> None:
        """Start from nothing: in a new pipeline, and in a forked child, whose parent keeps what waited before."""
        self._queue: deque[Arrival | Recorded] = deque()
        self._draining = threading.RLock()
        self._bell: queue.SimpleQueue[None] = (
            queue.SimpleQueue()
        )  # whose `put` a signal handler may interrupt and call again
        self._rings = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, one: Arrival | Recorded) -> bool:
        """Queue an event, or what was recorded and is yet to be read; False where there is no room for it."""
        waiting = len(self._queue)
        if waiting >= self.capacity:
            return False
        self._queue.append(one)
        if not self._rings or (self._rings == 1 and waiting >= _HURRY):
            self._rings += 1
            self._bell.put(None)
            if self._thread is None:
                self._start()
        if self._closed:  # by now, and whoever closed it may have looked already
            self.drain()
        return True

    def drain(self, deadline: float | None = None) -> bool:
        """Take all that waits, on this thread; False where the deadline (of `time.monotonic`) came first."""
        if not self._draining.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic())):
            return False
        try:
            while self._queue:
                self._take(self._portion())
                if deadline is not None and time.monotonic() > deadline:
                    break
        finally:
            self._draining.release()
        return not self._queue

    def _portion(self) -> Iterator[Arrival | Recorded]:
        """One by one, so that what has been read is gone."""
        with suppress(IndexError):  # a signal handler may drain in between
            for _ in range(_CHUNK):
                yield self._queue.popleft()

    @contextmanager
    def still(self) -> Iterator[None]:
        """While the inside runs nothing is taken, and what was under way before has been."""
        with self._draining:
            yield

    def rest(self) -> list[Arrival | Recorded]:
        """Take out what waits, for the caller to see to."""
        return [self._queue.popleft() for _ in range(len(self._queue))]

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._bell.put(None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, args=(self._bell,), name="EventFlows-intake", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down; whoever flushes takes what waits
            return
        self._thread = thread

    def _run(self, bell: queue.SimpleQueue[None]) -> None:
        while not self._closed and bell is self._bell:
            bell.get()
            with suppress(queue.Empty):
                bell.get(timeout=GATHER_SECONDS)
            self._rings = 0  # before the look at the queue, so that who comes after it rings again
            try:
                self.drain()
            except Exception as problem:  # noqa: BLE001 reason: the thread must outlive whatever one batch does
                logger.error("conversions were lost on their way to the providers: %s", type(problem).__name__)

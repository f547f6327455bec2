"""The outbox of a lane: requests that wait for their turn, and the threads that send them.

Each request waits for its own back-off. The lane as a whole waits too: for a platform that asks to (`Retry-After`), for
credentials to be mended, and once several requests in a row have failed it lets through one at a time, as a probe, until
one succeeds.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, count

from .delivery import Batch, Settled, Verdict, judge
from .log import logger
from .mapping import Entry
from .pace import Pace
from .providers.base import Provider, Response
from .retry import RetryPolicy
from .sdk import untraced
from .stats import UNDELIVERED
from .telemetry import Telemetry
from .transport import Transport

BREAK_AFTER = 5
"""So many failed requests in a row make an outage."""
IDLE_SECONDS = 5.0
"""A consumer without work ends after this time."""
CLOSING_SECONDS = 1.0
"""The longest wait between two attempts while the lane closes, as its time is short."""
FRESH_SECONDS = 0.5
"""A request that has waited longer for its turn is looked through again: who is in it may have been erased."""
RECOVERED = "recovered"
NEVER = float("inf")


@dataclass(slots=True)
class Work:
    """One request to be sent, with those of its events that are still to be seen to.

    Attributes:
        since: When its first attempt failed, on the monotonic clock.
        started: When its first attempt began, on the same clock.
        checked: When its entries were last known to be wanted, on the same clock: it is made of such ones.
    """

    batch: Batch
    failures: int = 0
    since: float = 0.0
    started: float = 0.0
    checked: float = field(default_factory=time.monotonic)

    @property
    def is_kept(self) -> bool:
        """Whether a journal holds all of it, so that the next process sends what this one does not."""
        return all(entry.source.journal is not None for entry in self.batch.entries)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the outbox asks of its lane.

    Attributes:
        settle: Told the outcomes of some entries, each exactly once, and after how many attempts.
        recheck: Given the entries of a request that goes again, or has waited; settles some, and returns those that may go.
        attempted: Told of each request that goes out.
        trouble: Told `(kind, reason)` once when the lane pauses (`credentials`, `outage`), and `recovered`.
        left: Given what is unsent when the lane closes, and why.
        move: Given what an outbox that was retired did not send, for the one in its place.
    """

    settle: Callable[[Sequence[Settled], int], None]
    recheck: Callable[[Sequence[Entry]], Sequence[Entry]]
    attempted: Callable[[], None]
    trouble: Callable[[str, str], None]
    left: Callable[[Sequence[Entry], str], None]
    move: Callable[[Sequence[Entry]], None]


class Outbox:
    """Sends requests on up to `consumers` threads, which start when there is work for them.

    Args:
        pace: Limits the requests per second, over all lanes with the same credentials; None is unlimited.
    """

    def __init__(
        self,
        name: str,
        provider: Provider,
        transport: Transport,
        policy: RetryPolicy,
        hooks: Hooks,
        consumers: int,
        pace: Pace | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._name = name
        self._provider = provider
        self._transport = transport
        self._policy = policy
        self._hooks = hooks
        self._consumers = consumers
        self._pace = pace
        self._telemetry = telemetry
        # Whoever waits has a condition of his own on the one lock, so that nobody is woken for what another waits for.
        self._lock = threading.Lock()
        self._resting: list[threading.Condition] = []  # consumers without work; the last one is called first
        self._watched = NEVER  # when one of them wakes up by itself, for a request whose time comes then
        self._room = threading.Condition(self._lock)  # the lane's thread, while the queue is full
        self._quiet = threading.Condition(self._lock)  # whoever closes
        self._ready: deque[Work] = deque()
        self._later: list[tuple[float, int, Work]] = []
        self._order = count()
        self._threads: set[threading.Thread] = set()
        self._sending = 0
        self._not_before = self._deadline = 0.0
        self._streak = self._denials = 0
        self._problem = ""  # of the requests that make the streak
        self._closing = self._over = self._retired = False

    # --- the lane's thread

    def submit(self, batches: Iterable[Batch]) -> None:
        """Queue requests; waits while as many are ready as there may be consumers, which keeps the rest in the lane's queue."""
        for batch in batches:
            with self._lock:
                while len(self._ready) >= self._consumers and self._threads and not self._closing and not self._retired:
                    self._room.wait(1.0)
                if retired := self._retired:
                    inline = False
                else:
                    self._ready.append(Work(batch))
                    inline = not self._call_one() and not self._threads
            if retired:
                self._hooks.move(batch.entries)
            if inline and not self._streak:  # no thread can start any more, as in exit handlers
                self._consume(wait=False)

    def _call_one(self) -> bool:
        """Have one more thread look for work, a resting one or a new one; False where there is none. With the lock held."""
        if self._resting:
            self._resting.pop().notify()
            return True
        return len(self._threads) < self._consumers and self._start_thread()

    def _call_all(self) -> None:
        for waiting in (*self._resting, self._room, self._quiet):
            waiting.notify()
        self._resting.clear()

    def _start_thread(self) -> bool:
        thread = threading.Thread(target=self._run, name=f"{self._name}-send", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._threads.add(thread)
        return True

    def oldest(self) -> int | None:
        """The Unix time in nanoseconds of the oldest conversion that waits here for its turn or a retry."""
        with self._lock:
            waiting = [*self._ready, *(work for _, _, work in self._later)]
        return min((entry.source.time_unix_nano for work in waiting for entry in work.batch.entries), default=None)

    # --- retired: another outbox, of other settings, takes the place of this one

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self._sending > 0

    def retire(self) -> None:
        """Give back what waits. What is under way ends, and is given back as well where it would have to go again."""
        with self._lock:
            self._retired = True
            waiting = self._waiting()
            self._call_all()
        for work in waiting:
            self._hooks.move(work.batch.entries)

    def _waiting(self) -> list[Work]:
        """Take out all that waits; with the lock held."""
        waiting = [*self._ready, *(work for _, _, work in self._later)]
        self._ready.clear()
        self._later.clear()
        return waiting

    # --- closing: whatever waits goes at once, and what fails goes again until the deadline, unless a journal keeps it

    def close_soon(self, deadline: float) -> None:
        """Take no more after this; `deadline` (of `time.monotonic`) is that of `join`."""
        with self._lock:
            self._closing, self._deadline, self._not_before = True, deadline, 0.0
            self._ready.extend(self._waiting())
            self._call_all()

    def join(self, deadline: float) -> None:
        """Wait for the end after `close_soon`. Afterwards nothing more is sent; answers may still come."""
        with self._lock:
            inline = not self._threads and (self._ready or self._later) and not self._start_thread()
        if inline:
            self._consume(wait=False)
        with self._lock:
            while (self._ready or self._later or self._sending) and not self._over:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._quiet.wait(left)
            self._over = True
            self._call_all()
            unsent = self._waiting()
        for work in unsent:
            reason = f"shutdown after failed attempts: {self._problem}" if self._problem else UNDELIVERED
            self._hooks.left(work.batch.entries, reason)

    def wait_answered(self) -> None:
        """After `join`: wait for the answers that are still to come, as long as a request may take."""
        with self._lock:
            while self._sending:
                self._quiet.wait()

    # --- the consumers' threads

    def _run(self) -> None:
        try:
            self._consume(wait=True)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())
                if self._ready and not self._over:  # what came while this thread was about to leave
                    self._call_one()
                self._room.notify()

    def _consume(self, *, wait: bool) -> None:
        with untraced():
            while (work := self._next(wait=wait)) is not None:
                try:
                    self._send(work)
                except Exception as problem:  # noqa: BLE001 reason: nobody else sees to these, and the thread must go on
                    self._lose(work, problem)
                finally:
                    with self._lock:
                        self._sending -= 1
                        if self._closing or self._retired:
                            self._call_all()
                if not wait and self._streak:
                    return  # this thread is somebody's who waits: no further request for a platform that does not answer

    def _lose(self, work: Work, problem: Exception) -> None:
        """Drop what has no outcome of a request that met what nobody foresaw; its text may hold values of an event."""
        kind = type(problem).__name__
        logger.error("%s: internal error (%s) while a request was seen to", self._provider.name, kind)
        with suppress(Exception):
            self._hooks.settle([Settled(work.batch.entries, "dropped", f"internal error ({kind})")], work.failures + 1)

    def _next(self, *, wait: bool) -> Work | None:
        """The next request that may go out; None where the thread has no more to do."""
        idle_until = time.monotonic() + IDLE_SECONDS
        with self._lock:
            while not self._over:
                now = time.monotonic()
                seconds = self._seconds_to_work(now)
                if seconds <= 0:
                    return self._take()
                watch = now + seconds < self._watched
                if not watch:
                    seconds = idle_until - now
                    if seconds <= 0 or (self._closing and not (self._ready or self._later)):
                        return None
                if not wait:
                    return None
                self._rest(seconds, watch=watch)
        return None

    def _seconds_to_work(self, now: float) -> float:
        """How long until a request may go."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        if self._ready:
            return self._seconds_to_go(now)
        return self._later[0][0] - now if self._later else NEVER

    def _rest(self, seconds: float, *, watch: bool) -> None:
        """Wait to be called, or for so long."""
        called, until = threading.Condition(self._lock), time.monotonic() + seconds
        self._resting.append(called)
        self._watched = until if watch else self._watched
        called.wait(seconds)
        if called in self._resting:
            self._resting.remove(called)
        if watch and self._watched == until:  # else for one whose time comes sooner another thread watches
            self._watched = NEVER

    def _take(self) -> Work:
        """The first request that is ready. Whoever takes one calls another thread for what is left."""
        work = self._ready.popleft()
        self._sending += 1
        if self._ready or (self._later and self._resting):
            self._call_one()
        if len(self._ready) <= self._consumers // 2:
            self._room.notify()
        return work

    def _seconds_to_go(self, now: float) -> float:
        """How long the lane as a whole has to wait before its next request; 0 or less where it may go."""
        if self._broken and self._sending:
            return NEVER  # the probe is under way; who sends it looks again then
        paced = self._pace.seconds(now) if self._pace is not None and not self._closing else 0.0
        return max(self._not_before - now, paced)

    @property
    def _broken(self) -> bool:
        return self._streak >= BREAK_AFTER or self._denials > 0

    def _send(self, work: Work) -> None:
        batch = work.batch
        if work.failures or time.monotonic() - work.checked > FRESH_SECONDS:
            batch = work.batch = batch.of(self._hooks.recheck(batch.entries))
        if not batch.entries:
            return
        if self._pace is not None:
            self._pace.take(time.monotonic(), len(batch.entries))
        self._hooks.attempted()
        work.started = work.started or time.monotonic()
        exchange = (
            self._telemetry.sending(self._provider, batch, work.failures, work.started)
            if self._telemetry is not None
            else None
        )
        response = self._response(batch)
        verdict = judge(self._provider, batch.entries, response)
        if exchange is not None:
            exchange.answered(response, verdict)
        if verdict.settled:
            work.batch = batch.of([*verdict.later, *verdict.paused, *chain.from_iterable(verdict.again)])
            self._hooks.settle(verdict.settled, work.failures + 1)
        if not self._follow(work, verdict, response) and exchange is not None:
            exchange.over()

    def _response(self, batch: Batch) -> Response:
        request, events = batch.request, batch.events
        try:
            response = self._transport.send(request, events)
            if response.dropped and all(entry.repeatable for entry in batch.entries):
                response = self._transport.send(request, events)  # it was idle for too long; a new one is made
        except Exception as problem:  # noqa: BLE001 reason: what somebody else's provider wants must not cost the lane its thread
            return Response(0, error=f"request failed ({type(problem).__name__})", sent=False)
        return response

    def _follow(self, work: Work, verdict: Verdict, response: Response) -> bool:
        """Queue what goes again, and open or close the way for the lane as a whole.

        Returns:
            Whether the batch is sent again, after a while.
        """
        now = time.monotonic()
        left: list[tuple[Sequence[Entry], str]] = []
        told: tuple[str, str] | None = None
        with self._lock:
            again = map(work.batch.of, reversed(verdict.again))
            self._ready.extendleft(Work(batch, work.failures, work.since) for batch in again)
            if verdict.later:
                self._streak += 1
                self._problem = verdict.reason
                failed = Work(work.batch.of(verdict.later), work.failures + 1, work.since or now, work.started)
                seconds, asked = self._policy.wait(failed.failures, response.retry_after), response.retry_after or 0.0
                if self._closing:
                    seconds = max(min(seconds, CLOSING_SECONDS, (self._deadline - now) / 2), asked)
                if self._closing and failed.is_kept and (asked or not response.status or self._streak >= BREAK_AFTER):
                    left.append((verdict.later, f"shutdown after failed attempts: {verdict.reason}"))
                elif self._policy.max_elapsed_time and now - failed.since + seconds > self._policy.max_elapsed_time:
                    left.append((verdict.later, f"given up after failed attempts: {verdict.reason}"))
                else:
                    heapq.heappush(self._later, (now + seconds, next(self._order), failed))
                if response.retry_after or self._streak >= BREAK_AFTER:
                    self._not_before = max(self._not_before, now + seconds)
                if self._streak == BREAK_AFTER:
                    told = ("outage", verdict.reason)
            elif verdict.paused:
                self._denials += 1
                if self._denials == 1:
                    told = ("credentials", verdict.reason)
                if self._closing:
                    reason = f"shutdown while the credentials or account are refused: {verdict.reason}"
                    left.append((verdict.paused, reason))
                else:
                    paused = work.batch.of(verdict.paused)
                    self._ready.appendleft(Work(paused, work.failures + 1, work.since or now, work.started))
                    self._not_before = now + self._policy.pause(self._denials)
            else:
                if self._broken:
                    told = (RECOVERED, "")
                self._streak = self._denials = 0
                self._not_before, self._problem = 0.0, ""
            left += [(one.batch.entries, f"shutdown during an outage: {verdict.reason}") for one in self._given_up()]
            given_back = self._waiting() if self._retired else []
            work.batch = work.batch.of(())  # it is seen to by others from here on
        for one in given_back:
            self._hooks.move(one.batch.entries)
        for entries, reason in left:
            self._hooks.left(entries, reason)
        if told is not None and not self._retired:
            self._hooks.trouble(*told)
        return bool(verdict.later or verdict.paused) and not left and not given_back

    def _given_up(self) -> list[Work]:
        """Take out what need not wait for the end, as a journal keeps it, or would wait in vain; with the lock held."""
        in_vain = self._denials > 0 or self._not_before > self._deadline
        if not self._closing or not (in_vain or self._broken):
            return []
        waiting = self._waiting()
        self._ready.extend(work for work in waiting if not (in_vain or work.is_kept))
        return [work for work in waiting if in_vain or work.is_kept]

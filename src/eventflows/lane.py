"""A lane: one provider's queue, threads, connections and counters. No lane waits for another.

An entry is in memory (queued, waiting or under way), or only in its journal, when the memory is full or an earlier process
left it there; then it is loaded once there is room. It is written as the platform wants it before it is queued, by the
settings of that moment; the request that carries it is made when it goes out.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from .backlog import Backlog
from .conversion import Conversion
from .delivery import Settled, outdated, requests_of, unsettled
from .journal import Journal
from .log import FULL, LEFT, UNREADABLE, Notices, logger, tell_held, tell_lost, tell_trouble
from .mapping import Entry, NotSent, Sorted, Source, count_match_keys, internal_error, sort
from .model import LaneSettings
from .outbox import RECOVERED, Hooks, Outbox
from .outcomes import Outcomes
from .pace import Pace
from .sdk import Batcher, InlineBatcher, start_batcher
from .stats import AFTER_SHUTDOWN, ERASED, QUEUE_FULL, UNDELIVERED, Ledger, ProviderStats, Tally
from .telemetry import Telemetry
from .transport import Transport, open_transport
from .writing import write


class Lane:
    """One provider's way from a conversion to its outcome.

    The threads start with the first conversion. The app's threads do not come here: `intake` hands over what they recorded.

    Attributes:
        log_only: Log the requests instead of sending them: outside production, where the platform has no test facility.
    """

    def __init__(
        self,
        given: LaneSettings,
        *,
        testing: bool = False,
        pace: Pace | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.resource: Mapping[str, Any] = {}
        self._telemetry = telemetry
        self._notices = Notices("delivery")
        self._go_by(given, testing, pace)
        self.reset()

    def _go_by(self, given: LaneSettings, testing: bool, pace: Pace | None) -> None:
        self.given, self.testing, self._pace = given, testing, pace
        tested = given.provider.for_testing() if testing else given.provider
        self.log_only, self.provider = tested is None, tested or given.provider

    def reset(self) -> None:
        """Start from nothing: in a new lane, and in a forked child, whose parent keeps all that was captured before."""
        # Re-entrant, since a signal handler or finaliser may record a conversion while its thread is counting one.
        self._changed = threading.Condition(threading.RLock())
        self._ledger = Ledger()
        self._pending = self._in_memory = self._journaled = self._exporting = 0
        self._troubles: frozenset[str] = frozenset()
        self._batcher: Batcher | InlineBatcher | None = None
        self._outbox: Outbox | None = None
        self._former: list[Outbox] = []  # of settings that were renewed, as long as a request of theirs is under way
        self._moved = 0  # entries that come a second time from the batcher
        self._transport: Transport | None = None
        self._closed = self._gave_up = False
        self._backlog = Backlog(self.provider.name, self._changed)
        self._outcomes = Outcomes(self.provider.name, self._notices)

    def renew(self, given: LaneSettings, *, testing: bool = False, pace: Pace | None = None) -> None:
        """Go by other settings from now on. What waits goes by them as well; a request under way ends as it began."""
        with self._changed:
            self._go_by(given, testing, pace)
            if self._batcher is None or self._closed:
                return
            former, transport = self._outbox, self._transport
            self._open()
            self._batcher.adjust(batch_size=self._batch_size, flush_interval=given.queue.flush_interval)
            self._troubles = frozenset()
        if former is not None and transport is not None:
            self._former = [one for one in self._former if one.is_busy]
            self._former.append(former)
            former.retire()
            transport.close()
        if self._backlog.waits:
            self._load()

    # --- the intake's side

    def written(
        self, conversions: Sequence[Conversion], sources: Sequence[Source], now: int
    ) -> list[Entry | NotSent | None]:
        """See `writing.write`."""
        room = self._room() > 0
        return write(self.provider, self.given, self.resource, conversions, sources, now, room=room)

    def offer(
        self, sources: Sequence[Source], written: Sequence[Entry | NotSent | None], *, loaded: bool = False
    ) -> None:
        """Count conversions in, queue the entries that `written` made of them, and settle the others. Never raises.

        Where the queue is full they stay on disk, or are dropped.

        Args:
            loaded: They come from a journal: some are counted already, and some may be in memory.
        """
        with self._changed:
            if loaded:
                found = [one for one in zip(sources, written, strict=True) if not self._backlog.knows(one[0])]
                sources, written = [source for source, _ in found], [result for _, result in found]
            try:
                (admitted, not_sent, no_room), match_keys = self._sorted(sources, written)
            except Exception as problem:  # noqa: BLE001 reason: one lane must not cost the others their events
                (admitted, not_sent, no_room), match_keys = self._sorted(
                    sources, [internal_error(problem)] * len(sources)
                )
            self._count_in(sources, loaded)
            ledger = self._ledger
            full = AFTER_SHUTDOWN if self._closed else QUEUE_FULL
            turned_away = sum([self._turn_away(one.kind, one.journal, one.seq, full) for one in no_room])
            for outcome, some in not_sent.items():
                ledger.settle_all(*outcome, (source.kind for source in some))
                ledger.handed_over += len(some) if outcome.status != "filtered" else 0
            if self._telemetry is not None:
                ledger.mapped += len(admitted)
                ledger.match_keys.update(match_keys)
            self._admit(admitted)
        if admitted and self._batcher is not None:
            self._batcher.emit_all(admitted)
        for outcome, some in not_sent.items():
            self._outcomes.write(some, *outcome)
            tell_lost(self._notices, self.provider.name, *outcome, len(some))
        self._say_full(turned_away)

    def _sorted(
        self, sources: Sequence[Source], written: Sequence[Entry | NotSent | None]
    ) -> tuple[Sorted, Mapping[str, int]]:
        """All of taking conversions in that may fail, before any of them is counted; with the lock held."""
        found = sort(sources, written, self._room())
        if found.admitted and self._batcher is None:
            self._start()
        traits = (entry.source.traits for entry in found.admitted) if self._telemetry is not None else ()
        return found, count_match_keys(traits, self.provider.MATCH_KEYS)

    def _count_in(self, sources: Sequence[Source], loaded: bool) -> None:
        """Count conversions as captured, but for those from a journal that were counted when there was no room for them."""
        if loaded:
            new = [one for one in sources if one.journal is None or one.seq <= one.journal.found_through]
            self._pending -= len(sources) - len(new)
            self._journaled -= len(sources) - len(new)
            sources = new
        self._ledger.captured.update(map(_KIND, sources))

    def turn_away(self, kind: str, journal: Journal | None, seq: int, reason: str = QUEUE_FULL) -> None:
        """Count an event in for which there was no room, or no time, before it could be read."""
        with self._changed:
            self._ledger.captured[kind] += 1
            dropped = self._turn_away(kind, journal, seq, reason)
        self._say_full(dropped)

    def _turn_away(self, kind: str, journal: Journal | None, seq: int, reason: str) -> int:
        """There is no room for an entry: it stays in its journal, or is dropped; with the lock held.

        Returns:
            How many were dropped because the queue is full.
        """
        if journal is not None:
            self._pending += 1
            self._journaled += 1
            self._backlog.leave(journal, seq - 1)
            return 0
        self._ledger.settle("dropped", reason, kind)
        return 1 if reason == QUEUE_FULL else 0

    def _say_full(self, dropped: int) -> None:
        if dropped:
            self._notices.warn("full", FULL, self.provider.name, self.given.queue.queue_size, count=dropped)

    def _admit(self, entries: Sequence[Entry]) -> None:
        """Count entries as in memory; with the lock held."""
        self._pending += len(entries)
        self._in_memory += len(entries)
        for entry in entries:
            if entry.source.journal is not None:
                self._journaled += 1
                self._backlog.hold(entry.source)

    def _start(self) -> None:
        self._open()
        self._batcher = start_batcher(
            self._export,
            name=f"EventFlows-{self.provider.name}",
            batch_size=self._batch_size,
            flush_interval=self.given.queue.flush_interval,
        )

    @property
    def _batch_size(self) -> int:
        return min(1000, self.given.queue.queue_size)

    def _open(self) -> None:
        """The way out, by the present settings."""
        given, consumers = self.given, self.given.queue.num_consumers
        self._transport = open_transport(self.provider.METHOD, given.transport)
        hooks = Hooks(self._settle, self._recheck, self._attempted, self._trouble, self._left, self._move)
        name = f"EventFlows-{self.provider.name}"
        self._outbox = Outbox(
            name, self.provider, self._transport, given.retry, hooks, consumers, self._pace, self._telemetry
        )

    def stats(self) -> ProviderStats:
        with self._changed:
            return self._ledger.stats(self._pending)

    def tally(self) -> Tally:
        """The numbers by the conversions' types, and how the lane is."""
        with self._changed:
            numbers = (self._pending, self._in_memory, self._exporting, self.given.queue.queue_size)
            return Tally(self._ledger.copy(), *numbers, self._troubles)

    def oldest(self) -> int | None:
        """The Unix time in nanoseconds of the oldest conversion that waits for a request or a retry."""
        return self._outbox.oldest() if self._outbox is not None else None

    # --- flush and shutdown: first all lanes are told, then all are waited for, within one deadline

    def flush_soon(self) -> None:
        if self._batcher is not None:
            self._batcher.flush_soon()

    def wait_settled(self, deadline: float) -> bool:
        """Wait until nothing is pending or to be loaded, or the deadline (of `time.monotonic`) has come; True where nothing is.

        What is on disk only when the lane is closed is for the next process, and not waited for.
        """
        with self._changed:
            while (
                (self._pending or self._backlog.waits)
                and not (self._closed and self._in_memory <= 0)
                and (left := deadline - time.monotonic()) > 0
            ):
                self.flush_soon()  # again and again, as the SDK's thread may lose a wake-up
                self._changed.wait(min(left, 0.05))
            return not (self._pending or self._backlog.waits)

    def close_soon(self, deadline: float) -> None:
        """Take no more; `deadline` (of `time.monotonic`) is that of `close`."""
        with self._changed:
            self._closed = True
        if self._batcher is not None:
            self._batcher.close_soon()
        if self._outbox is not None:
            self._outbox.close_soon(deadline)

    def close(self, deadline: float) -> bool:
        """Wait for the end after `close_soon`; what has no outcome by the deadline is left in the storage, or dropped.

        Returns:
            True where every conversion had its outcome.
        """
        if self._batcher is not None and self._outbox is not None:
            self._batcher.join(deadline - time.monotonic())
            for outbox in (*self._former, self._outbox):
                outbox.join(deadline)
        with self._changed:
            lost = self._pending - self._journaled
            self._pending = kept = self._journaled
            self._in_memory = self._exporting = 0
            if lost:
                self._ledger.settle("dropped", UNDELIVERED, "unknown", lost)
        if lost:
            self._notices.warn("left", LEFT, self.provider.name, count=lost)
        tell_held(all_of_them=True)
        if kept:
            logger.info("%s: %d conversions are left in the storage for the next process", self.provider.name, kept)
        if self._transport is not None:
            self._transport.close()
        return not (lost or kept or self._gave_up)

    def wait_answered(self, deadline: float) -> None:
        """After `close`: wait for the answers to what was under way then, and have all outcomes written to the journal.

        Args:
            deadline: Of `time.monotonic`; see `Outcomes.write_last`.
        """
        for outbox in (*self._former, self._outbox):
            if outbox is not None:
                outbox.wait_answered()
        self._outcomes.write_last(deadline)

    # --- the storage's side

    def recover(self, journal: Journal) -> None:
        """There are entries of an earlier process in this journal."""
        with self._changed:
            self._backlog.leave(journal, 0)

    def tend(self) -> None:
        """Load what there is room for, and write outcomes that could not be written before; on the storage's thread."""
        self._outcomes.write_again()
        self._load()

    def _load(self) -> None:
        try:
            self._backlog.load(self._room, self.written, partial(self.offer, loaded=True))
        except sqlite3.Error as problem:
            self._notices.warn("load", UNREADABLE, self.provider.name, problem)
        with self._changed:
            gone = 0 if self._backlog.waits or self._closed else self._pending - self._in_memory
            if gone:  # they were on disk only, and no journal has them any more
                self._pending -= gone
                self._journaled -= gone
                self._ledger.settle("filtered", ERASED, "unknown", gone)
                self._changed.notify_all()

    def _room(self) -> int:
        return 0 if self._closed else self.given.queue.queue_size - self._in_memory

    # --- the lane's threads

    def _export(self, entries: list[Entry]) -> None:
        """Take queued entries to the outbox. Never raises: an exception would cost the thread, or the batch its count."""
        settled: list[Settled] = []
        with self._changed:
            again = min(self._moved, len(entries))
            self._moved -= again
            self._ledger.handed_over += len(entries) - again
            self._exporting += len(entries)
            # Together, as a reload may change them; an outbox that was retired meanwhile gives its requests back.
            given, provider, outbox, log_only = self.given, self.provider, self._outbox, self.log_only
        try:
            tell_held()
            settled = outdated(given, entries, time.time_ns())
            self._settle(settled)
            requests = requests_of(provider, unsettled(entries, settled))
            if log_only:
                for batch in requests:
                    logger.info("%s, test environment, not sent: %s", self.provider.name, batch.body().decode())
                reason = "test environment: logged, not sent"
                self._settle([Settled(batch.entries, "filtered", reason) for batch in requests])
            elif outbox is not None:
                outbox.submit(requests)
        except BaseException as problem:  # noqa: BLE001 reason: even SystemExit would end the SDK's thread for good
            reason = f"internal error ({type(problem).__name__})"
            self._settle([Settled(unsettled(entries, settled), "dropped", reason)])

    def _recheck(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Before another attempt, or one that had to wait: what was erased or has expired meanwhile is settled."""
        settled = outdated(self.given, entries, time.time_ns())
        self._settle(settled)
        return unsettled(entries, settled)

    def _attempted(self) -> None:
        with self._changed:
            self._ledger.attempts += 1

    def _trouble(self, kind: str, reason: str) -> None:
        with self._changed:
            self._troubles = frozenset() if kind == RECOVERED else self._troubles | {kind}
            waiting = self._pending
        tell_trouble(self._notices, kind, self.provider.name, reason, waiting)

    def _move(self, entries: Sequence[Entry]) -> None:
        """An outbox that was retired gives these back, for the present one."""
        with self._changed:
            batcher = None if self._closed else self._batcher
            if batcher is not None:
                self._exporting -= len(entries)
                self._moved += len(entries)
        if batcher is None:
            self._left(entries, UNDELIVERED)
        else:
            batcher.emit_all(entries)

    def _left(self, entries: Sequence[Entry], reason: str) -> None:
        """The outbox gives these up: dropped, or left in the storage."""
        closing = self._closed
        with self._changed:
            self._gave_up = self._gave_up or closing
        given_up = [entry for entry in entries if not closing or entry.source.journal is None]
        self._settle([Settled(given_up, "dropped", reason)])

    def _settle(self, settled: Sequence[Settled], attempts: int = 0) -> None:
        for entries, status, reason in settled:
            self._outcomes.write([entry.source for entry in entries], status, reason, attempts)
            # Before they are counted: the flush that waits for that may be the process's last.
            if self._telemetry is not None and status == "delivered":
                self._telemetry.delivered(self.provider, entries)
            in_journal = [entry for entry in entries if entry.source.journal is not None]
            in_memory = [entry for entry in entries if entry.source.journal is None] if in_journal else entries
            with self._changed:
                in_journal = in_journal[: self._journaled]  # what shutdown gave up already stays counted as that
                counted = [*in_journal, *in_memory[: self._pending - self._journaled]]
                self._journaled -= len(in_journal)
                for entry in in_journal:
                    self._backlog.release(entry.source)
                self._pending -= len(counted)
                self._in_memory -= len(counted)
                self._exporting -= len(counted)
                told = self._ledger.settle_all(status, reason, map(_ENTRY_KIND, counted))
                if not self._pending:
                    self._changed.notify_all()
                more = self._backlog.waits and self._in_memory < self.given.queue.queue_size // 2
            tell_lost(self._notices, self.provider.name, status, told, len(counted))
            if more:
                self._load()


_KIND = attrgetter("kind")
_ENTRY_KIND = attrgetter("source.kind")

"""The pipeline: what is captured goes to every lane, and what became of it can be read."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

from . import lifecycle
from .commit import Fate, UnitOfWork, WaitingRoom
from .config import Settings, check_unchanged, read_again, settings
from .context import Surroundings, around
from .errors import Unusable
from .intake import Arrival, Intake, Left, Waiting
from .journal import Journal
from .lane import Lane
from .lanes import Lanes
from .log import NOT_CONFIGURED, RECORDED_TOO_LATE, Notices, logger
from .offering import offer, turn_away
from .providers.base import Provider
from .reader import Reader
from .sealing import Event, Recorded, Tell, record
from .semconv import CONVERSION_COMMIT, SPAN_OK
from .stats import AFTER_SHUTDOWN, QUEUE_FULL, UNDELIVERED, ProviderStats
from .storage import Storage
from .telemetry import Telemetry
from .values import commit, unix_nano

SECONDS_TO_READ = 1.0
"""Neither a reload nor the numbers wait longer for what was recorded before to be read."""


class Pipeline:
    """Takes conversions from any way in, and delivers each once to each provider.

    Made by `eventflows.configure`. Of its methods only `reload` and `add_provider` raise, and only `force_flush` and `shutdown`
    wait for the network.

    Args:
        resource: Attributes of the app's resource; None where they are found out with the first conversion.

    Attributes:
        ways_in: The processors and exporters of OpenTelemetry's providers that feed it.
        reader: Says what of what is recorded is a conversion, and what others may see of it.
        changed: Called when the settings have changed, and after a shutdown; must not raise.
        at_first: Called once, before the first event is read, on a thread of the pipeline; must not raise.

    Raises:
        ConfigurationError: The resource does not say in which environment this is.
    """

    def __init__(self, built_from: Settings, resource: Mapping[str, Any] | None = None) -> None:
        self.settings = built_from
        self.reader = Reader(built_from)
        self._notices = Notices("capture")
        self._telemetry = Telemetry(self._lanes_here, self._journal) if built_from.telemetry else None
        self._lanes = Lanes(built_from, resource, self._telemetry)
        self._storage: Storage | None = None
        if (folder := built_from.sending_queue.storage) is not None:
            # Where it is now: an app that becomes a daemon changes its working directory.
            self._storage = Storage(
                Path(folder).absolute(), built_from.sending_queue.retention, self._recovered, self._tend
            )
        # What is written down is sealed before, and whoever is strict has nothing raw wait even in memory.
        self._seals_at_once = self._storage is not None or built_from.privacy.strict
        self._intake = Intake(self._route, self._turn_away, built_from.sending_queue.queue_size)
        self._waiting = WaitingRoom(self._end_of_work, built_from.commit_timeout)
        self.at_first: Callable[[], None] | None = None
        self.changed: Callable[[], None] = lambda: None
        self.is_shut_down = False
        self.ways_in: WeakSet[object] = WeakSet()
        self._resetting: dict[int, threading.RLock] = {}
        self._reset()
        if self._storage is not None:
            self._storage.start()

    @property
    def mode(self) -> str | None:
        """`live`, or `test` where the environment says so; None until the environment is known."""
        return self._lanes.mode

    def _reset(self) -> None:
        """In a new pipeline and in a forked child, which starts from zero: what was captured before is its parent's."""
        self.reader.reset()
        self._waiting.reset()
        self._intake.reset()
        if self._storage is not None:
            self._storage.reset()
        # A signal handler may call either while its thread is there.
        self._ending, self._reloading = threading.Lock(), threading.RLock()
        self._ended, self._ended_by = threading.Event(), 0
        self._patience = SECONDS_TO_READ
        for lane in self._lanes:
            lane.reset()
        lifecycle.watch(self, Pipeline.shutdown, Pipeline.force_flush)
        self._pid = os.getpid()  # last, as other threads go by it

    def leave(
        self,
        name: str,
        attributes: Mapping[str, Any] | None,
        timestamp: int | None = None,
        tell: Tell | None = None,
    ) -> bool:
        """Leave a conversion to the intake's thread, which reads it: this one does no more than hold it as it is now.

        Args:
            name: An unknown one is a custom conversion.
            timestamp: Unix time in nanoseconds; None is now.
            tell: Given the sealed event, at once or there. None where nobody else may see it.

        Returns:
            Whether it was taken.
        """
        try:
            if self._pid != os.getpid():  # else the call would cost as much as the look
                self._check_fork()
            attributes = attributes or {}
            if self.reader.has(attributes) or not isinstance(name, str):
                return False
            surroundings = around()
            recorded = self._hold(name, attributes, timestamp, surroundings, tell, waits=not self._seals_at_once)
            unit = surroundings.unit
            if self._seals_at_once or (unit is not None and self._waits(recorded)):
                self._take(recorded, unit, sealed=self._seals_at_once)
            else:
                self._put(recorded)
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            self.reader.lose(problem)
            return False
        return True

    def record(
        self,
        name: str,
        attributes: Mapping[str, Any] | None,
        timestamp: int | None = None,
        *,
        always: bool = False,
        surrounded: Callable[[], Surroundings] = around,
    ) -> Event | None:
        """Seal an event at once if it is a conversion, and queue it.

        Args:
            timestamp: Unix time in nanoseconds; None is now.
            always: Take an unknown name as a custom conversion.
            surrounded: Tells what the conversion may take from around it; by default what is current.

        Returns:
            The sealed event, also where it was known already; None where it is no conversion.
        """
        try:
            self._check_fork()
            attributes = attributes or {}
            if self.reader.has(attributes) or not (always or self.reader.is_conversion(name, attributes)):
                return None
            surroundings = surrounded()
            recorded = self._hold(name, attributes, timestamp, surroundings, waits=False)
            return self._take(recorded, surroundings.unit, sealed=True)
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            self.reader.lose(problem)
            return None

    def _hold(
        self,
        name: str,
        attributes: Mapping[str, Any],
        timestamp: int | None,
        surroundings: Surroundings,
        tell: Tell | None = None,
        *,
        waits: bool,
    ) -> Recorded:
        now_or_then = time.time_ns() if timestamp is None else unix_nano(timestamp)
        told, _, origin = surroundings
        owed = self._lanes.owed
        return record(name, attributes, now_or_then, told, origin, timestamp is None, owed, tell, waits=waits)

    def _take(self, recorded: Recorded, unit: UnitOfWork | None, *, sealed: bool) -> Event:
        """Read an event here and now, and queue it, or let it wait for the end of its work."""
        event = self.reader.event(recorded, sealed=sealed)
        if unit is not None and self._waits(recorded):
            self._waiting.hold(event, unit)
            self.reader.tell(recorded.tell, event)  # however long it waits
        else:
            self.accept(event, recorded.tell)
        return event

    def _waits(self, recorded: Recorded) -> bool:
        chosen = self.settings.commit
        if (own := recorded.attributes.get(CONVERSION_COMMIT)) is not None:
            with suppress(Unusable):
                chosen = commit(own)
        return chosen == SPAN_OK

    def _check_fork(self) -> None:
        """Start from zero in a forked child, once it has work: uWSGI runs no fork hooks, and gevent may come later."""
        if self._pid != (pid := os.getpid()):
            with self._resetting.setdefault(pid, threading.RLock()):  # one of this process, so that no parent holds it
                if self._pid != pid:
                    self._reset()
                    if self.is_shut_down:
                        self._end(time.monotonic())
                        self._ended.set()

    def _end_of_work(self, event: Event, fate: Fate) -> None:
        try:
            self._check_fork()
            if fate is Fate.DUPLICATE:
                self.reader.duplicates += 1
            else:
                self.accept(event._replace(failed=True) if fate is Fate.FAILED else event)
        except Exception as problem:  # noqa: BLE001 reason: this is the end of a span of the app, or the shutdown
            self.reader.lose(problem)

    def accept(self, event: Event, tell: Tell | None = None) -> bool:
        """Write an event down where there is storage, and queue it; False where it came before by another way.

        Args:
            tell: As for `leave`.
        """
        if not self.reader.is_first(event):
            self.reader.tell(tell, event)
            return False
        owed = self._lanes.owed
        arrival = Arrival(event, owed=owed) if self._storage is None else self._storage.number(event, owed)
        self._put(arrival if tell is None else arrival._replace(tell=tell))
        return True

    def _put(self, one: Arrival | Recorded) -> None:
        queued = self._intake.put(one)  # first, as whatever ends this thread then finds the event in the queue already
        written = self._storage is not None and isinstance(one, Arrival) and self._storage.write(one)
        if not queued:
            self._find_no_room(one, written=written)

    def _find_no_room(self, one: Arrival | Recorded, *, written: bool) -> None:
        """Have an event wait in the spool, or count it as dropped."""
        for arrival in self.reader.arrivals([one]):
            if written and arrival.line is not None:
                self._intake.put(Left(arrival.kind, arrival.journal, arrival.line))
            else:
                lost = arrival if self._storage is None else self._storage.give_up(arrival)
                turn_away([lost], self._lanes.of, QUEUE_FULL)

    def _turn_away(self, waiting: Sequence[Waiting], reason: str) -> None:
        """Count events in that find no lane any more. What is in the spool comes into the journal in the next process."""
        if reason == AFTER_SHUTDOWN:
            self._notices.warn("ended", RECORDED_TOO_LATE, count=len(waiting))
        for one in waiting:
            turn_away([one] if isinstance(one, Left) else self.reader.arrivals([one]), self._lanes.of, reason)

    def _route(self, waiting: Iterable[Arrival | Recorded]) -> Sequence[Arrival]:
        """Read events, and offer each to every lane; on the intake's thread, or on one that flushes.

        Returns:
            Those that cannot come into the journal for now.
        """
        try:
            if self.at_first is not None:
                told, self.at_first = self.at_first, None
                told()
            self._lanes.find_environment()
        except Exception as problem:  # noqa: BLE001 reason: what is asked of others' providers must not cost the events
            self._notices.warn("first", "the app's providers cannot be looked at (%s)", type(problem).__name__)
        arrivals = self.reader.arrivals(waiting)
        going, again = (arrivals, ()) if self._storage is None else self._storage.take_in(arrivals)
        offer(going, self.reader, self._lanes.of)
        return again

    def _lanes_here(self) -> list[Lane]:
        """The lanes of this process, once all that was recorded by now has come to them, where that does not take long."""
        self._check_fork()
        self._intake.drain(time.monotonic() + self._patience)
        return list(self._lanes)

    def _journal(self) -> tuple[int, float] | None:
        self._check_fork()
        return None if self._storage is None or self.is_shut_down else self._storage.size_and_age()

    def _recovered(self, journal: Journal) -> None:
        for lane in self._lanes:
            lane.recover(journal)
        known = {lane.provider.name for lane in self._lanes}
        for name, count in journal.owed().items():
            if count and name not in known:
                self._notices.warn(f"owed to {name}", NOT_CONFIGURED, name, count=count)

    def _tend(self) -> None:
        for lane in self._lanes:
            lane.tend()

    # --- other settings

    def add_provider(self, provider: Provider) -> None:
        """One more destination, for what is recorded from now on.

        Raises:
            ConfigurationError: Its name is taken.
        """
        self._apply(replace(self.settings, providers=settings([*self.settings.providers, provider]).providers))

    def reload(self, providers: Sequence[Provider] | Mapping[str, Any] | None = None, **options: Any) -> None:
        """Go by other settings from now on: without arguments those that the configuration file holds now.

        What was recorded before goes as it was written then to the providers that were configured then, and where those still
        are by their new credentials, addresses and limits.
        Lanes whose settings did not change are left alone. Providers that are gone stay in `stats`, and deliver what they owe.

        Args:
            providers: As `eventflows.configure` takes them, with the other settings.

        Raises:
            ConfigurationError: The settings are wrong, cannot be changed without a restart, or come from no file that could be
                read again. Everything goes on as before.
        """
        with self._reloading:
            given = providers is not None or bool(options)
            self._apply(settings(providers, **options) if given else read_again(self.settings))

    def _apply(self, new: Settings) -> None:
        self._check_fork()
        check_unchanged(self.settings, new)
        with self._intake.still():
            self._intake.drain(time.monotonic() + SECONDS_TO_READ)  # by the settings of their time
            changed = self._lanes.apply(new)
            self.settings = self.reader.settings = new
            self._intake.capacity = new.sending_queue.queue_size
            self._waiting.timeout = new.commit_timeout
            if self._storage is not None:
                self._storage.retention = new.sending_queue.retention
                for journal in self._storage.journals():
                    for name in changed.added:
                        self._lanes.named(name).recover(journal)
        self.changed()
        told = [f"{what} {', '.join(names)}" for what, names in changed._asdict().items() if names]
        logger.info("EventFlows goes by new settings: %s", "; ".join(told))

    # --- what became of it

    def stats(self) -> dict[str, ProviderStats]:
        """The counters of each provider, by its name."""
        return {lane.provider.name: lane.stats() for lane in self._lanes_here()}

    @property
    def waiting(self) -> int:
        """How many conversions wait for the end of their span or request; no provider has been offered them yet."""
        self._check_fork()
        return len(self._waiting)

    @property
    def left_out(self) -> Mapping[tuple[str, str], int]:
        """`(attribute, reason)` → how often that field was not usable."""
        self._lanes_here()
        return dict(self.reader.left_out)

    @property
    def duplicates(self) -> int:
        """How many conversions came again, by another way or under the same id, and were not counted again."""
        self._lanes_here()
        return self.reader.duplicates

    # --- flush and shutdown

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Deliver what is queued; True where every conversion had its outcome within the timeout.

        What waits for the end of its work (`commit: span_ok`) goes on waiting, and makes it False.
        """
        self._check_fork()
        deadline = time.monotonic() + timeout_millis / 1000
        known = self._intake.empty(deadline) and (self._storage is None or self._storage.has_looked(deadline))
        for lane in self._lanes:
            lane.flush_soon()
        return known and all([lane.wait_settled(deadline) for lane in self._lanes]) and not self._waiting

    def shutdown(self, timeout_millis: float = 30_000) -> bool:
        """Deliver what is queued and take no more; what is left at the timeout stays in the storage, or is counted as dropped.

        Returns:
            True where every conversion had its outcome. Further calls wait for the end of the first, and say whether it came.
        """
        self._check_fork()
        deadline = time.monotonic() + timeout_millis / 1000
        if self.is_shut_down or not self._ending.acquire(blocking=False):  # which nobody gives back
            is_amid_it = self._ended_by == threading.get_ident()  # as a signal handler's call may be
            return is_amid_it or self._ended.wait(max(0.0, deadline - time.monotonic()))
        self._ended_by = threading.get_ident()
        self.is_shut_down = True
        try:
            return self._end(deadline)
        finally:
            self._ended.set()

    def _end(self, deadline: float) -> bool:
        self._waiting.close()
        drained = self._intake.empty(deadline)  # else some are on their way to lanes that are closed by now
        for lane in self._lanes:
            lane.close_soon(deadline)
        self._turn_away(left := self._intake.close(), UNDELIVERED)
        settled = all([lane.close(deadline) for lane in self._lanes]) and drained and not left
        if self._telemetry is not None:
            self._patience = 0.0
            self._telemetry.ended()
            self._patience = SECONDS_TO_READ
        if self._storage is not None:
            self._storage.close(deadline, self._wait_answered)
        self.changed()
        return settled

    def _wait_answered(self, deadline: float) -> None:
        for lane in self._lanes:
            lane.wait_answered(deadline)

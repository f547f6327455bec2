"""The pipeline: what is captured goes to every lane, and what became of it can be read."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from . import lifecycle
from .capture import conversion_of, recognise, without_persons
from .commit import Fate, WaitingRoom
from .config import Settings, read_again, settings
from .context import Surroundings, around
from .conversion import EventType
from .delivery import Settled
from .errors import ConfigurationError
from .intake import Arrival, Intake
from .journal import Journal
from .lane import Lane
from .lanes import Lanes
from .log import NOT_CONFIGURED, Notices, logger
from .mapping import Entry, source_of
from .providers.base import Provider
from .routing import Seen
from .sealing import Event, record, seal, shown
from .semconv import COMMITS, CONVERSION_COMMIT, RECORDED_BY, SPAN_OK
from .stats import QUEUE_FULL, UNDELIVERED, ProviderStats
from .storage import Storage
from .telemetry import Telemetry
from .values import unix_nano


def _nothing() -> None:
    """Nobody wants to be told."""


class Pipeline:
    """Takes conversions from any way in, and delivers each once to each provider.

    Made by `eventflows.configure`. Once it is made its methods never raise, and none but `force_flush` and `shutdown` blocks.

    Args:
        resource: Attributes of the app's resource; None where they are found out with the first conversion.

    Attributes:
        reloaded: Called when the settings have changed; must not raise.
        at_first: Called once, before the first event is read, on a thread of the pipeline; must not raise.

    Raises:
        ConfigurationError: The resource does not say in which environment this is.
    """

    def __init__(self, built_from: Settings, resource: Mapping[str, Any] | None = None) -> None:
        self.settings = built_from
        self._notices = Notices("capture")
        self._routes: dict[int, Callable[[], None]] = {}
        self._telemetry = Telemetry(self._lanes_here, self._journal) if built_from.telemetry else None
        self._lanes = Lanes(built_from, resource, self._telemetry)
        self._storage: Storage | None = None
        if (folder := built_from.sending_queue.storage) is not None:
            self._storage = Storage(Path(folder), built_from.sending_queue.retention, self._recovered, self._tend)
        # What is written down is sealed before, and whoever is strict has nothing raw wait even in memory.
        self._seals_at_once = self._storage is not None or built_from.privacy.strict
        self._intake = Intake(self._route, built_from.sending_queue.queue_size)
        self._waiting = WaitingRoom(self._end_of_work, built_from.commit_timeout)
        self.at_first: Callable[[], None] | None = None
        self.reloaded: Callable[[], None] = _nothing
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
        self._name = f"{os.getpid():x}-{secrets.token_hex(4)}"
        self._seen = Seen()
        self._waiting.reset()
        self._intake.reset()
        if self._storage is not None:
            self._storage.reset()
        self._left_out, self._duplicates = Counter[tuple[str, str]](), 0
        self._shutdown_lock, self._reloading = threading.Lock(), threading.Lock()
        self.is_shut_down = False
        for lane in self._lanes:
            lane.reset()
        lifecycle.watch(self, Pipeline.shutdown, Pipeline.force_flush)
        self._pid = os.getpid()  # last, as other threads go by it

    def record(
        self,
        name: str,
        attributes: Mapping[str, Any] | None,
        timestamp: int | None = None,
        *,
        always: bool = False,
        for_us: bool = False,
        surrounded: Callable[[], Surroundings] = around,
    ) -> Event | None:
        """Queue an event if it is a conversion, sealed wherever anyone else can see it.

        Args:
            timestamp: Unix time in nanoseconds; None is now.
            always: Take an unknown name as a custom conversion (`tracer.add_event`, `tracker.track`).
            for_us: Nobody else sees the event.
            surrounded: Tells what the conversion may take from around it; by default what is current.

        Returns:
            The event, also where it was known already; None where it is no conversion.
        """
        try:
            self._check_fork()
            attributes = attributes or {}
            if self.has(attributes):
                return None
            event_type = recognise(name, attributes, self.settings.rules) or (EventType.CUSTOM if always else None)
            if event_type is None:
                return None
            surroundings = surrounded()
            event = record(
                name,
                event_type,
                attributes,
                time.time_ns() if timestamp is None else unix_nano(timestamp),
                surroundings.attributes,
                surroundings.origin,
                timestamp is None,
            )
            if not for_us or self._seals_at_once:
                event = seal(event, self.settings.rules.default_country)
            commit = attributes.get(CONVERSION_COMMIT)
            if (commit if commit in COMMITS else self.settings.commit) == SPAN_OK and surroundings.unit is not None:
                self._waiting.hold(event, surroundings.unit)
            else:
                self.accept(event)
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            self._left_out["event", type(problem).__name__] += 1
            self._notices.warn(
                "capture", "{count} events could not be captured (%s) and are lost", type(problem).__name__
            )
            return None
        return event

    def has(self, attributes: Mapping[str, Any] | None) -> bool:
        """Whether an event with these attributes went through this pipeline before, and comes back by an exporter."""
        return attributes is not None and attributes.get(RECORDED_BY) == self._name

    def is_conversion(self, name: str, attributes: Mapping[str, Any] | None) -> bool:
        """Whether `record` would take the event."""
        return recognise(name, attributes or {}, self.settings.rules) is not None

    def shown(
        self,
        name: str,
        attributes: Mapping[str, Any] | None,
        event: Event | None,
        *,
        on_record: bool = False,
    ) -> Mapping[str, Any] | None:
        """The attributes that others may see of what `record` was given, or None where the event is none of our business.

        Fails closed: a conversion that could not be captured loses all that may identify a person.

        Args:
            on_record: They go on a log record, which may tell of the visitor's request; a span may not.
        """
        attributes = attributes or {}
        try:
            if event is not None:
                return shown(event, self._name, around=on_record and not self.settings.privacy.omit_request)
            return without_persons(attributes) if recognise(name, attributes, self.settings.rules) is not None else None
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            text = "{count} events lost their attributes for others, as they could not be sealed (%s)"
            self._notices.warn("seal", text, type(problem).__name__)
            return {}

    def _check_fork(self) -> None:
        """Start from zero in a forked child, once it has work: uWSGI runs no fork hooks, and gevent may come later."""
        if self._pid != (pid := os.getpid()):
            with self._resetting.setdefault(pid, threading.RLock()):  # one of this process, so that no parent holds it
                if self._pid != pid:
                    self._reset()

    def _end_of_work(self, event: Event, fate: Fate) -> None:
        self._check_fork()
        if fate is Fate.DUPLICATE:
            self._duplicates += 1
        else:
            self.accept(event._replace(failed=True) if fate is Fate.FAILED else event)

    def accept(self, event: Event) -> bool:
        """Write an event down where there is storage, and queue it; False where it came before by another way."""
        # What failed may be tried again under the same id, so it does not count as seen.
        if not event.failed and not self._seen.first(event.key):
            self._duplicates += 1
            return False
        storage = self._storage
        owed = self._lanes.owed
        arrival = Arrival(event, owed=owed) if storage is None else storage.keep(event, owed, len(self._lanes.of(owed)))
        if self.is_shut_down:
            self._route([arrival])
        elif not self._intake.put(arrival):
            self._turn_away([arrival], QUEUE_FULL)
        return True

    def _route(self, arrivals: Sequence[Arrival]) -> None:
        """Read events, and offer each to every lane; on the intake's thread, or on one that flushes."""
        if self.at_first is not None:
            told, self.at_first = self.at_first, None
            told()
        self._lanes.find_environment()
        for owed, some in groupby(arrivals, attrgetter("owed")):
            self._offer(list(some), self._lanes.of(owed))

    def _offer(self, arrivals: Sequence[Arrival], lanes: Sequence[Lane]) -> None:
        """Read each event and write it for all lanes before the next: whatever lives longer costs the collector its time."""
        country, now = self.settings.rules.default_country, time.time_ns()
        offers: list[list[Entry | Settled]] = [[] for _ in lanes]
        for arrival in arrivals:
            event, journal, seq, _ = arrival
            try:
                conversion = conversion_of(event, country)
            except Exception as problem:  # noqa: BLE001 reason: one event must not cost the others of its batch
                self._turn_away([arrival], f"internal error ({type(problem).__name__})")
                continue
            for attribute, reason in conversion.left_out:
                self._left_out[attribute, reason] += 1
                self._notices.warn(f"{attribute}: {reason}", "{count} conversions go without %s: %s", attribute, reason)
            source = source_of(conversion, journal, seq)
            for lane, offered in zip(lanes, offers, strict=True):
                offered.append(lane.written(conversion, source, now))
        for lane, offered in zip(lanes, offers, strict=True):
            lane.offer(offered)
        self._offered(arrivals)

    def _turn_away(self, arrivals: Sequence[Arrival], reason: str) -> None:
        for event, journal, seq, owed in arrivals:
            for lane in self._lanes.of(owed):
                lane.turn_away(event.type.value, journal, seq, reason)
        self._offered(arrivals)

    @staticmethod
    def _offered(arrivals: Sequence[Arrival]) -> None:
        for _, journal, seq, _ in arrivals:
            if journal is not None:
                journal.offered(seq)

    def _lanes_here(self) -> list[Lane]:
        """The lanes of this process, once all that was recorded by now has come to them."""
        self._check_fork()
        self._intake.drain()
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

    # --- what became of it
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
        for key, old_value, new_value in (
            ("sending_queue.storage", self.settings.sending_queue.storage, new.sending_queue.storage),
            ("telemetry", self.settings.telemetry, new.telemetry),
            ("reload_on_sighup", self.settings.reload_on_sighup, new.reload_on_sighup),
        ):
            if old_value != new_value:
                raise ConfigurationError("cannot be changed without a restart", path=key)
        with self._intake.still():  # what is on its way to the lanes arrives first
            changed = self._lanes.apply(new)
            self.settings = new
            self._intake.capacity = new.sending_queue.queue_size
            self._waiting.timeout = new.commit_timeout
            if self._storage is not None:
                self._storage.retention = new.sending_queue.retention
                for journal in self._storage.journals():
                    for name in changed.added:
                        self._lanes.named(name).recover(journal)
        self.reloaded()
        told = [f"{what} {', '.join(names)}" for what, names in changed._asdict().items() if names]
        logger.info("EventFlows goes by new settings: %s", "; ".join(told))

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
        return dict(self._left_out)

    @property
    def duplicates(self) -> int:
        """How many conversions came again, by another way or under the same id, and were not counted again."""
        return self._duplicates

    # --- flush and shutdown

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Deliver what is queued; True where every conversion had its outcome within the timeout.

        What waits for the end of its work (`commit: span_ok`) goes on waiting, and makes it False.
        """
        self._check_fork()
        deadline = time.monotonic() + timeout_millis / 1000
        drained = self._intake.drain(deadline)
        for lane in self._lanes:
            lane.flush_soon()
        return drained and all([lane.wait_settled(deadline) for lane in self._lanes]) and not self._waiting

    def shutdown(self, timeout_millis: float = 30_000) -> bool:
        """Deliver what is queued and take no more; what is left at the timeout stays in the storage, or is counted as dropped.

        Returns:
            True where every conversion had its outcome. Further calls return True at once.
        """
        self._check_fork()
        deadline = time.monotonic() + timeout_millis / 1000
        with self._shutdown_lock:
            if self.is_shut_down:
                return True
            self.is_shut_down = True
        self._waiting.close()
        drained = self._intake.drain(deadline)  # else some are on their way to lanes that are closed by now
        for lane in self._lanes:
            lane.close_soon()
        self._intake.close()
        self._turn_away(left := self._intake.rest(), UNDELIVERED)
        for detach in self._routes.values():
            detach()
        self._routes.clear()
        settled = all([lane.close(deadline) for lane in self._lanes]) and drained and not left
        if self._telemetry is not None:
            self._telemetry.ended()
        if self._storage is not None:
            self._storage.close(deadline)
        return settled

    # --- the OTel providers it is attached to

    def attach(self, route: object, detach: Callable[[], None] = lambda: None) -> None:
        """A processor or exporter that feeds this pipeline, and how to take it off its provider again."""
        self._routes[id(route)] = detach

    def detach(self, route: object) -> None:
        """Undo `attach`, and take the route off its provider."""
        if undo := self._routes.pop(id(route), None):
            undo()

    def release(self, route: object, timeout_millis: float = 30_000) -> bool:
        """That route's provider shuts down: flush, and with the last route shut down as well."""
        self._routes.pop(id(route), None)
        return self.force_flush(timeout_millis) if self._routes else self.shutdown(timeout_millis)

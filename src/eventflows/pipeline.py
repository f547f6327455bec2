"""The pipeline: what is captured goes to every lane, and what became of it can be read."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import baggage, lifecycle
from .capture import capture, recognise, sealed_attributes, without_persons
from .commit import COMMITS, SPAN_FAILED, SPAN_OK, Fate, WaitingRoom
from .config import Settings, settings
from .context import Surroundings, around
from .conversion import Conversion, EventType
from .delivery import Entry
from .environments import TEST, mode_of, name_in, resource_attributes
from .errors import ConfigurationError
from .journal import Journal
from .lane import Lane
from .log import Notices, logger
from .pace import Paces
from .providers.base import Provider
from .routing import Seen
from .semconv import CONVERSION_COMMIT, RECORDED_BY
from .stats import ProviderStats
from .storage import Storage
from .telemetry import Telemetry
from .values import unix_nano
from .visitor import VisitorSettings, use_settings


class Pipeline:
    """Takes conversions from any way in, and delivers each once to each provider.

    Made by `eventflows.configure`. Once it is made its methods never raise, and none but `force_flush` and `shutdown` blocks.

    Args:
        resource: Attributes of the app's resource; None where they are found out with the first conversion.

    Attributes:
        mode: `live`, or `test` where the environment says so; None until the environment is known.

    Raises:
        ConfigurationError: The resource does not say in which environment this is.
    """

    def __init__(self, built_from: Settings, resource: Mapping[str, Any] | None = None) -> None:
        self.settings = built_from
        self._notices = Notices()
        self._routes: dict[int, Callable[[], None]] = {}
        self._telemetry = Telemetry(self._lanes_here, self._journal) if built_from.telemetry else None
        self._paces = Paces()
        self._lanes = [self._lane(provider) for provider in built_from.providers]
        self._storage: Storage | None = None
        if (folder := built_from.queue.storage) is not None:
            self._storage = Storage(Path(folder), built_from.queue.retention, self._recovered, self._tend)
        self._waiting = WaitingRoom(self._end_of_work, built_from.commit_timeout)
        self.mode: str | None = None
        self._resetting: dict[int, threading.RLock] = {}
        if resource is not None or built_from.environment is not None or not built_from.environments:
            self.in_environment(resource or {})
        self._reset()
        if self._storage is not None:
            self._storage.start()

    def _reset(self) -> None:
        """In a new pipeline and in a forked child, which starts from zero: what was captured before is its parent's."""
        self._name = f"{os.getpid():x}-{secrets.token_hex(4)}"
        self._seen = Seen()
        self._waiting.reset()
        if self._storage is not None:
            self._storage.reset()
        self._left_out, self._duplicates = Counter[tuple[str, str]](), 0
        self._shutdown_lock = threading.Lock()
        self.is_shut_down = False
        for lane in self._lanes:
            lane.reset()
        lifecycle.watch(self, Pipeline.shutdown, Pipeline.force_flush)
        self._pid = os.getpid()  # last, as other threads go by it

    def _lane(self, provider: Provider) -> Lane:
        given = self.settings
        return Lane(
            provider, given.queue, given.retry, given.timeout, given.consent,
            send_synthetic=given.send_synthetic, pace=self._paces.of(provider), telemetry=self._telemetry,
        )  # fmt: skip

    def in_environment(self, resource: Mapping[str, Any]) -> None:
        """Go live, or into test mode, as the resource's environment demands.

        Raises:
            ConfigurationError: The configuration does not say which.
        """
        self.mode = mode_of(self.settings.environments, self.settings.environment or name_in(resource))
        if self.mode == TEST:
            self._test()

    def _test(self) -> None:
        for lane in self._lanes:
            tested = lane.provider.for_testing()
            lane.log_only, lane.provider = tested is None, tested or lane.provider

    def _find_environment(self) -> None:
        """With the first conversion, where a declarative file made the pipeline before the resource was known."""
        try:
            self.in_environment(resource_attributes())
        except ConfigurationError as problem:
            self.mode = TEST
            self._test()
            logger.error("%s. Until then conversions are not sent, as in a test environment", problem)

    def record(
        self,
        name: str,
        attributes: Mapping[str, Any] | None,
        timestamp: int | None = None,
        *,
        always: bool = False,
        surrounded: Callable[[], Surroundings] = around,
    ) -> Conversion | None:
        """Capture an event if it is a conversion, and hand it to the lanes.

        Args:
            timestamp: Unix time in nanoseconds; None is now.
            always: Take an unknown name as a custom conversion (`tracer.add_event`, `tracker.track`).
            surrounded: Tells what the conversion may take from around it; by default what is current.

        Returns:
            The conversion, also where it was known already; None where the event is none.
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
            conversion = capture(
                name,
                event_type,
                attributes,
                unix_nano(timestamp),
                self.settings.rules,
                surroundings.attributes,
                surroundings.origin,
                timed_here=timestamp is None,
            )
            commit = attributes.get(CONVERSION_COMMIT)
            if (commit if commit in COMMITS else self.settings.commit) == SPAN_OK and surroundings.unit is not None:
                self._waiting.hold(conversion, surroundings.unit)
            else:
                self.accept(conversion)
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            self._left_out["event", type(problem).__name__] += 1
            self._notices.warn("capture", "an event could not be captured: %s", type(problem).__name__)
            return None
        return conversion

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
        conversion: Conversion | None,
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
            if conversion is not None:
                request = on_record and not self.settings.privacy.omit_request
                return {**sealed_attributes(attributes, conversion, request=request), RECORDED_BY: self._name}
            return without_persons(attributes) if recognise(name, attributes, self.settings.rules) is not None else None
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            self._notices.warn(
                "seal", "an event lost its attributes, as it could not be sealed: %s", type(problem).__name__
            )
            return {}

    def _check_fork(self) -> None:
        """Start from zero in a forked child, once it has work: uWSGI runs no fork hooks, and gevent may come later."""
        if self._pid != (pid := os.getpid()):
            with self._resetting.setdefault(pid, threading.RLock()):  # one of this process, so that no parent holds it
                if self._pid != pid:
                    self._reset()

    def _end_of_work(self, conversion: Conversion, fate: Fate) -> None:
        if fate is Fate.DUPLICATE:
            self._duplicates += 1
        else:
            self.accept(conversion, failed=fate is Fate.FAILED)

    def accept(self, conversion: Conversion, *, failed: bool = False) -> bool:
        """Hand a conversion to the lanes; False where it came before by another way.

        Args:
            failed: The work in which it was recorded has failed: it is counted and not delivered.
        """
        self._check_fork()
        if self.mode is None:
            self._find_environment()
        # What failed may be tried again under the same id, so it does not count as seen.
        if not failed and not self._seen.first(conversion):
            self._duplicates += 1
            return False
        for attribute, reason in conversion.left_out:
            self._left_out[attribute, reason] += 1
            self._notices.warn(f"{attribute}: {reason}", "%s left out of a conversion: %s", attribute, reason)
        effective = self.settings.consent.effective(conversion)
        offers = [(lane, lane.filtered(effective) or (SPAN_FAILED if failed else None)) for lane in self._lanes]
        entry = self._entry(conversion, offers)
        for lane, filtered in offers:
            lane.offer(entry, filtered)
        if entry.journal is not None:
            entry.journal.offered(entry.seq)
        return True

    def _entry(self, conversion: Conversion, offers: Sequence[tuple[Lane, str | None]]) -> Entry:
        """The conversion as the lanes queue it; with storage, only once it is written there."""
        if self._storage is None:
            return Entry(conversion)
        owed = [lane.provider.name for lane, filtered in offers if filtered is None]
        filtered = {lane.provider.name: reason for lane, reason in offers if reason is not None}
        return self._storage.keep(conversion, owed, filtered) or Entry(conversion)

    def _lanes_here(self) -> list[Lane]:
        self._check_fork()
        return self._lanes

    def _journal(self) -> tuple[int, float] | None:
        self._check_fork()
        return None if self._storage is None or self.is_shut_down else self._storage.size_and_age()

    def _recovered(self, journal: Journal) -> None:
        for lane in self._lanes:
            lane.recover(journal)

    def _tend(self) -> None:
        for lane in self._lanes:
            lane.tend()

    # --- what became of it
    def add_provider(self, provider: Provider) -> None:
        """One more destination, for what is recorded from now on.

        Raises:
            ConfigurationError: Its name is taken.
        """
        self.settings = replace(self.settings, providers=settings([*self.settings.providers, provider]).providers)
        self._lanes = [*self._lanes, self._lane(provider)]
        if self.mode == TEST:
            self._test()

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
        for lane in self._lanes:
            lane.flush_soon()
        return all([lane.wait_settled(deadline) for lane in self._lanes]) and not self._waiting

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
        for lane in self._lanes:
            lane.close_soon()
        for detach in self._routes.values():
            detach()
        self._routes.clear()
        settled = all([lane.close(deadline) for lane in self._lanes])
        if self._telemetry is not None:
            self._telemetry.ended()
        if self._storage is not None:
            self._storage.close()
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


ordinary: set[str] = set()
"""Names of events that were no conversions, so that the next costs next to nothing. Another pipeline has other rules."""
_MAX_ORDINARY = 4096
_current: Pipeline | None = None
_rehearsed: ContextVar[Pipeline | None] = ContextVar("eventflows-rehearsal", default=None)
_notices = Notices()


def current() -> Pipeline | None:
    """The pipeline of this process, if one is configured."""
    return _rehearsed.get() or _current


def remember_ordinary(name: str) -> None:
    """An event of this name, and without a `conversion.type`, is no conversion."""
    if len(ordinary) >= _MAX_ORDINARY:
        ordinary.clear()
    ordinary.add(name)


@contextmanager
def rehearsal(built_from: Settings) -> Iterator[Pipeline]:
    """Another pipeline for the code inside, and for that code only."""
    pipeline = Pipeline(built_from, {})
    token = _rehearsed.set(pipeline)
    try:
        yield pipeline
    finally:
        _rehearsed.reset(token)
        pipeline.shutdown(0)


def make_current(pipeline: Pipeline | None) -> None:
    global _current
    _current = pipeline
    ordinary.clear()
    visitor = pipeline.settings.visitor if pipeline is not None else VisitorSettings()
    use_settings(visitor)
    if visitor.baggage:
        baggage.switch_on()
    else:
        baggage.switch_off()


def required() -> Pipeline | None:
    """The pipeline, or a log line that says why nothing is recorded."""
    running = current()
    if running is None:
        _notices.warn("none", "an event was recorded while EventFlows is not configured; it is lost")
    return running


def shared(built_from: Settings, resource: Mapping[str, Any] | None = None) -> Pipeline:
    """The pipeline of this process, made from these settings where there is none yet.

    Raises:
        ConfigurationError: As `Pipeline`.
    """
    running = _current
    if running is None or running.is_shut_down:
        running = Pipeline(built_from, resource)
        make_current(running)
        logger.info(
            "EventFlows delivers conversions to: %s (%s)",
            ", ".join(provider.name for provider in built_from.providers),
            running.mode or "environment not known yet",
        )
    return running

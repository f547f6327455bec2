"""The pipeline: what is captured goes to every lane, and what became of it can be read."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from .capture import capture, recognise, sealed_attributes, without_persons
from .config import Settings, settings
from .conversion import Conversion, EventType
from .lane import Lane, ProviderStats
from .log import Notices, logger
from .providers.base import Provider
from .routing import Seen


class Pipeline:
    """Takes conversions from any way in, and delivers each once to each provider.

    Made by `eventflows.configure`. Its methods never raise, and none but `force_flush` and `shutdown` blocks.
    """

    def __init__(self, built_from: Settings) -> None:
        self.settings = built_from
        self._lanes = [Lane(p, built_from.queue, built_from.retry, built_from.timeout) for p in built_from.providers]
        self._notices = Notices()
        self._routes: dict[int, Callable[[], None]] = {}
        self._reset()
        # A pipeline that nobody holds any more must not be kept alive by its own exit and fork hooks.
        me = weakref.ref(self)

        def at_exit() -> None:
            if (pipeline := me()) is not None:
                pipeline.shutdown()

        def in_forked_child() -> None:
            if (pipeline := me()) is not None:
                pipeline._reset()

        atexit.register(at_exit)
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=in_forked_child)

    def _reset(self) -> None:
        """In a new pipeline and in a forked child, which starts from zero: what was captured before is its parent's."""
        self._pid = os.getpid()
        self._seen = Seen()
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._duplicates = 0
        self._shutdown_lock = threading.Lock()
        self.is_shut_down = False
        for lane in self._lanes:
            lane.reset()

    def record(
        self,
        name: str,
        attributes: Mapping[str, Any] | None,
        timestamp: int | None = None,
        *,
        always: bool = False,
    ) -> Conversion | None:
        """Capture an event if it is a conversion, and hand it to the lanes.

        Args:
            timestamp: Unix time in nanoseconds; None is now.
            always: Take an unknown name as a custom conversion (`tracer.add_event`, `tracker.track`).

        Returns:
            The conversion, also where it was known already; None where the event is none.
        """
        try:
            attributes = attributes or {}
            event_type = recognise(name, attributes, self.settings.rules) or (EventType.CUSTOM if always else None)
            if event_type is None:
                return None
            conversion = capture(name, event_type, attributes, unix_nano(timestamp), self.settings.rules)
            self.accept(conversion)
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            self._left_out["event", type(problem).__name__] += 1
            self._notices.warn("capture", "an event could not be captured: %s", type(problem).__name__)
            return None
        return conversion

    def shown(
        self, name: str, attributes: Mapping[str, Any] | None, conversion: Conversion | None
    ) -> Mapping[str, Any] | None:
        """The attributes that others may see of what `record` was given, or None where the event is none of our business.

        Fails closed: a conversion that could not be captured loses all that may identify a person.
        """
        attributes = attributes or {}
        try:
            if conversion is not None:
                return sealed_attributes(attributes, conversion)
            return without_persons(attributes) if recognise(name, attributes, self.settings.rules) is not None else None
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            self._notices.warn(
                "seal", "an event lost its attributes, as it could not be sealed: %s", type(problem).__name__
            )
            return {}

    def accept(self, conversion: Conversion) -> bool:
        """Hand a conversion to the lanes; False where it came before by another way."""
        if self._pid != os.getpid():  # forks that Python's own hooks do not see, such as uWSGI's
            self._reset()
        if not self._seen.first(conversion):
            self._duplicates += 1
            return False
        for attribute, reason in conversion.left_out:
            self._left_out[attribute, reason] += 1
            self._notices.warn(f"{attribute}: {reason}", "%s left out of a conversion: %s", attribute, reason)
        for lane in self._lanes:
            lane.offer(conversion)
        return True

    # --- what became of it

    def add_provider(self, provider: Provider) -> None:
        """One more destination, for what is recorded from now on.

        Raises:
            ConfigurationError: Its name is taken.
        """
        self.settings = replace(self.settings, providers=settings([*self.settings.providers, provider]).providers)
        self._lanes = [*self._lanes, Lane(provider, self.settings.queue, self.settings.retry, self.settings.timeout)]

    def stats(self) -> dict[str, ProviderStats]:
        """The counters of each provider, by its name."""
        return {lane.provider.name: lane.stats() for lane in self._lanes}

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
        """Deliver what is queued; True where every conversion had its outcome within the timeout."""
        deadline = time.monotonic() + timeout_millis / 1000
        for lane in self._lanes:
            lane.flush_soon()
        return all([lane.wait_settled(deadline) for lane in self._lanes])

    def shutdown(self, timeout_millis: float = 30_000) -> bool:
        """Deliver what is queued and take no more; what is left at the timeout is counted as dropped.

        Returns:
            True where every conversion had its outcome. Further calls return True at once.
        """
        deadline = time.monotonic() + timeout_millis / 1000
        with self._shutdown_lock:
            if self.is_shut_down:
                return True
            self.is_shut_down = True
        for lane in self._lanes:
            lane.close_soon()
        for detach in self._routes.values():
            detach()
        self._routes.clear()
        return all([lane.close(deadline) for lane in self._lanes])

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


def unix_nano(timestamp: int | datetime | None) -> int:
    """A timestamp as OpenTelemetry writes it; a datetime is taken too, and anything else is now."""
    if isinstance(timestamp, datetime):
        return int(timestamp.timestamp() * 1_000_000) * 1000
    if isinstance(timestamp, int) and not isinstance(timestamp, bool) and timestamp > 0:
        return timestamp
    return time.time_ns()


_current: Pipeline | None = None
_notices = Notices()


def current() -> Pipeline | None:
    """The pipeline of this process, if one is configured."""
    return _current


def make_current(pipeline: Pipeline | None) -> None:
    global _current
    _current = pipeline


def required() -> Pipeline | None:
    """The pipeline, or a log line that says why nothing is recorded."""
    if _current is None:
        _notices.warn("none", "an event was recorded while EventFlows is not configured; it is lost")
    return _current


def shared(built_from: Settings) -> Pipeline:
    """The pipeline of this process, made from these settings where there is none yet."""
    running = _current
    if running is None or running.is_shut_down:
        running = Pipeline(built_from)
        make_current(running)
        logger.info(
            "EventFlows delivers conversions to: %s", ", ".join(provider.name for provider in built_from.providers)
        )
    return running

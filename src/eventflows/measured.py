"""What is measured: the lanes of the process at one moment, the same for all metrics of one collection."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit
from weakref import WeakSet

from .providers.base import Provider
from .stats import Ledger, Tally

# The conventions know no type for us. Type and name are written as the Collector writes an exporter's id: `eventflows/meta`.
COMPONENT_TYPE = "eventflows"
STALE_SECONDS = 1.0


class Component(NamedTuple):
    """A provider, and where its requests go."""

    provider: str
    address: str
    port: int

    @property
    def ours(self) -> dict[str, str | int]:
        """Its attributes on metrics of `eventflows.*`."""
        return {"eventflows.provider": self.provider}

    @property
    def processor(self) -> dict[str, str | int]:
        """Its attributes on metrics of `otel.sdk.processor.*`."""
        return {"otel.component.type": COMPONENT_TYPE, "otel.component.name": f"{COMPONENT_TYPE}/{self.provider}"}

    @property
    def server(self) -> dict[str, str | int]:
        return {"server.address": self.address, "server.port": self.port} if self.address else {}

    @property
    def exporter(self) -> dict[str, str | int]:
        """Its attributes on metrics of `otel.sdk.exporter.*`."""
        return {**self.processor, **self.server}


def component_of(provider: Provider) -> Component:
    return _component(provider.name, provider.base_url)


@lru_cache(maxsize=256)
def _component(name: str, base_url: str) -> Component:
    url = urlsplit(base_url)
    return Component(name, url.hostname or "", url.port or (443 if url.scheme == "https" else 80))


class Measured(Protocol):
    """What is read of a lane."""

    @property
    def provider(self) -> Provider: ...
    def tally(self) -> Tally: ...
    def oldest(self) -> int | None: ...


class Source:
    """What is read of a pipeline.

    Args:
        lanes: Gives its lanes.
        journal: Gives the bytes on disk and the age in seconds of the oldest conversion there; None without storage.
    """

    def __init__(
        self, lanes: Callable[[], Sequence[Measured]], journal: Callable[[], tuple[int, float] | None]
    ) -> None:
        self.lanes = lanes
        self.journal = journal
        self._known: list[Measured] = []
        _sources.add(self)

    def counted(self) -> list[Measured]:
        """The lanes that count: those that there are, and those that were replaced and still have something to deliver."""
        lanes = list(self.lanes())
        for lane in self._known:
            if lane not in lanes:
                tally = lane.tally()
                if tally.pending:
                    lanes.append(lane)
                else:
                    _past.add(component_of(lane.provider), tally.ledger)
        self._known = lanes
        return lanes

    def ended(self) -> None:
        """The pipeline is shut down: its counters stay as they are, so that a reader that collects at exit misses nothing."""
        if self in _sources:
            _sources.discard(self)
            for lane in self.counted():
                _past.add(component_of(lane.provider), lane.tally().ledger)


class _Past:
    """The counters of lanes that there were in this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.ledgers: dict[Component, Ledger] = {}

    def add(self, component: Component, ledger: Ledger) -> None:
        self.ledgers.setdefault(component, Ledger()).add(ledger)


_sources: WeakSet[Source] = WeakSet()
"""The pipelines of the process; a new one is told by the instruments that are there, which exist once."""
_past = _Past()


class LaneNow(NamedTuple):
    """A lane at one moment."""

    component: Component
    provider: Provider
    tally: Tally
    oldest: int | None


class Moment:
    """The process at one moment.

    Attributes:
        ledgers: The counters, of all lanes that there are and were.
        lanes: The lanes that there are.
        journals: Bytes on disk and age of the oldest conversion there, of each pipeline with storage.
    """

    def __init__(self) -> None:
        global _past
        if _past.pid != os.getpid():  # what a forked child finds here is its parent's
            _past = _Past()
        self.at = time.monotonic()
        self.lanes: list[LaneNow] = []
        self.journals: list[tuple[int, float]] = []
        counted: list[tuple[Component, Ledger]] = []
        for source in list(_sources):
            there = list(source.lanes())
            for lane in source.counted():
                component, tally = component_of(lane.provider), lane.tally()
                counted.append((component, tally.ledger))
                if lane in there:
                    self.lanes.append(LaneNow(component, lane.provider, tally, lane.oldest()))
            if (journal := source.journal()) is not None:
                self.journals.append(journal)
        self.ledgers = {component: ledger.copy() for component, ledger in _past.ledgers.items()}
        for component, ledger in counted:
            self.ledgers.setdefault(component, Ledger()).add(ledger)


class Collections:
    """Gives the callbacks of one collection the same moment: a new one begins where a callback asks again."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._moment: Moment | None = None
        self._asked: set[object] = set()

    def moment(self, callback: object) -> Moment:
        if self._pid != os.getpid():  # forked, perhaps in the middle of a collection, whose lock stays taken here
            Collections.__init__(self)
        with self._lock:
            known = self._moment
            if known is None or callback in self._asked or time.monotonic() - known.at > STALE_SECONDS:
                known = self._moment = Moment()
                self._asked.clear()
            self._asked.add(callback)
            return known


def forget() -> None:
    """Begin anew, in a test."""
    global _past
    _past = _Past()
    _sources.clear()

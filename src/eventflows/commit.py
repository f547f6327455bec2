"""Only what really happened: with `commit: span_ok` a conversion waits for the end of the work that it was recorded in.

A unit of work is a local root span, or an HTTP request that this process answers. Units lie in one another (the server span
within the request); what an inner one lets through waits for the outer one. Only a known failure drops a conversion: where
the end of the work does not come within the time limit, or the process ends before, it is delivered.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from .lifecycle import still_at_fork
from .sealing import Event

DEFAULT_TIMEOUT = 300.0
keeping = threading.RLock()  # re-entrant, since a signal handler may record a conversion; held for an assignment only
still_at_fork(keeping)


class Within(Protocol):
    """What work may be a part of: a span's scope, or a visitor."""

    @property
    def unit(self) -> UnitOfWork | None: ...


class UnitOfWork:
    """Work that succeeds or fails as a whole.

    Attributes:
        within: What it is a part of, if anything.
        failed: Whether it is known to have failed; may become true at any time before the end.
    """

    __slots__ = ("_held", "_span", "ended", "failed", "within")

    def __init__(self, within: Within | None = None) -> None:
        self.within = within
        self.failed = False
        self.ended = False
        self._held: dict[object, Ticket] | None = None  # most work records no conversion
        self._span: ReadableSpan | None = None

    @property
    def outer(self) -> UnitOfWork | None:
        """The unit that this one is a part of, if any."""
        return self.within.unit if self.within is not None else None

    def keep(self, ticket: Ticket) -> None:
        """Have the ticket told of the end; at once where that has been already."""
        with keeping:
            if self._held is None:
                self._held = {}
            again = self._held.setdefault(ticket.key, ticket) is not ticket
        if again:
            ticket.settle(Fate.DUPLICATE)
        if self.ended:  # looked at last, as `end` looks at what is held last: one of the two sees the other
            self._tell()

    def end(self, span: ReadableSpan | None = None) -> None:
        """The work is over; what it held goes on, or is dropped where it failed. Takes no lock where it held nothing.

        Args:
            span: As it ended, where the work is a recorded span: then it says whether the work failed.
        """
        self._span = span
        self.ended = True
        if self._held is not None:
            self._tell()

    def _tell(self) -> None:
        with keeping:
            held, self._held = self._held, None
        if held is None:
            return
        if self._span is not None and _has_failed(self._span):
            self.failed = True
        outer = self.outer
        for ticket in held.values():
            if self.failed:
                ticket.settle(Fate.FAILED)
            elif outer is not None:
                outer.keep(ticket)
            else:
                ticket.settle(Fate.DELIVER)


def _has_failed(span: ReadableSpan) -> bool:
    if span.status.status_code is StatusCode.ERROR:
        return True
    attributes = span.attributes or {}
    return any(is_server_error(attributes.get(name)) for name in STATUS_CODES)


STATUS_CODES = ("http.response.status_code", "http.status_code")
"""The attributes of a server span that hold the status of its response."""


def is_server_error(status_code: object) -> bool:
    return isinstance(status_code, int) and status_code >= 500


class Fate(Enum):
    """How the waiting of a conversion ends."""

    DELIVER = "deliver"
    FAILED = "failed"
    DUPLICATE = "duplicate"  # it waits here already, having come by another way


class Ticket:
    """A conversion that waits; it is settled once, whoever comes first: the end of the work, the time limit, the shutdown."""

    __slots__ = ("_pid", "_settled", "_settler", "deadline", "event", "key")

    def __init__(self, key: object, event: Event, deadline: float, settler: Callable[[Ticket, Fate], None]) -> None:
        self.key = key
        self.event = event
        self.deadline = deadline
        self._settler = settler
        self._settled: list[None] = [None]
        self._pid = os.getpid()

    def settle(self, fate: Fate) -> None:
        if self._pid != os.getpid():
            return  # this is a forked child, and the work was begun by its parent, who ends it as well
        try:
            self._settled.pop()  # atomic: of two threads one finds it empty
        except IndexError:
            return
        self._settler(self, fate)


class WaitingRoom:
    """The conversions of one pipeline that wait for the end of their work.

    Args:
        settle: Told each conversion's fate once.
        timeout: Seconds after which one that was told nothing is delivered.
    """

    def __init__(self, settle: Callable[[Event, Fate], None], timeout: float) -> None:
        self._settle = settle
        self.timeout = timeout
        self.reset()

    def reset(self) -> None:
        """Start from nothing: in a new pipeline and in a forked child, whose parent keeps what waited before."""
        self._waiting: dict[Ticket, None] = {}  # in order of their deadlines, but where a reload changed the timeout
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def hold(self, event: Event, unit: UnitOfWork) -> None:
        """Let the event wait for the end of this unit, and of those that it is a part of."""
        ticket = Ticket((id(self), event.key), event, time.monotonic() + self.timeout, self._settled)
        with self._changed:
            if not self._closed:
                self._waiting[ticket] = None
                if self._thread is None:
                    self._start()
        if self._closed:
            ticket.settle(Fate.DELIVER)
        else:
            unit.keep(ticket)

    def close(self) -> None:
        """No more waiting: what is left is delivered."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._changed.notify_all()
        for ticket in left:
            ticket.settle(Fate.DELIVER)

    def _settled(self, ticket: Ticket, fate: Fate) -> None:
        with self._changed:
            self._waiting.pop(ticket, None)
        self._settle(ticket.event, fate)

    def _start(self) -> None:
        thread = threading.Thread(target=self._watch, name="EventFlows-commit", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down; the pipeline's own shutdown follows
            return
        self._thread = thread

    def _watch(self) -> None:
        """Deliver what has waited too long. Ends after a time without work; the next conversion starts it again."""
        while True:
            with self._changed:
                if not self._waiting and not self._closed:
                    self._changed.wait(self.timeout)  # no later than the deadline of whatever comes now
                if self._closed or not self._waiting:
                    self._thread = None
                    return
                overdue = next(iter(self._waiting))
                if (left := overdue.deadline - time.monotonic()) > 0:
                    self._changed.wait(left)
                    continue
            overdue.settle(Fate.DELIVER)

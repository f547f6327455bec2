"""From what was recorded to events: which of it is a conversion, whether it came before, and what others may see of it."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .capture import recognise
from .conversion import EventType
from .intake import Arrival
from .log import Notices
from .model import Settings
from .others import shown, without_persons
from .routing import Seen
from .sealing import Event, Recorded, Tell, event_of, seal
from .semconv import RECORDED_BY

MAX_LEFT_OUT = 200
"""So many attributes and reasons are told apart: an app may make names of its data, such as `item_<id>`."""
MAX_FORMER = 8
"""An exporter's queue holds what was read in the last seconds."""
OTHER_ATTRIBUTES = "other attributes"


class Reader:
    """Reads for one pipeline. Nothing here raises but `event`.

    Attributes:
        settings: A reload gives others.
        left_out: `(attribute, reason)` → how often that field was not usable; of `OTHER_ATTRIBUTES` once there are many.
        duplicates: How many conversions came again.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._notices = Notices("capture")
        self.reset()

    def reset(self) -> None:
        """Start from nothing: in a new pipeline, and in a forked child."""
        self._name = f"{os.getpid():x}-{secrets.token_hex(4)}"
        self._names: tuple[str, ...] = (self._name,)
        self._seen = Seen()
        self.left_out, self.duplicates = Counter[tuple[str, str]](), 0

    def has(self, attributes: Mapping[str, Any] | None) -> bool:
        """Whether an event with these attributes was read here before, and comes back by an exporter."""
        return attributes is not None and attributes.get(RECORDED_BY) in self._names

    def succeed(self, former: Reader) -> None:
        """Know what was read there as well: some of it may be on its way to an exporter yet."""
        self._names = tuple(dict.fromkeys((*self._names, *former._names)))[:MAX_FORMER]

    def is_conversion(self, name: str, attributes: Mapping[str, Any] | None) -> bool:
        """Whether the event is one by its name or its attributes."""
        return recognise(name, attributes or {}, self.settings.rules) is not None

    def event(self, recorded: Recorded, *, sealed: bool = False) -> Event:
        """The event that was recorded, a custom one where its name is unknown; always sealed where others are to be told."""
        rules = self.settings.rules
        event = event_of(recorded, recognise(recorded.name, recorded.attributes, rules) or EventType.CUSTOM)
        return seal(event, rules.default_country) if sealed or recorded.tell is not None else event

    def is_first(self, event: Event) -> bool:
        """Remember an event; False where it came before, by another way or under the same id."""
        # What failed may be tried again under the same id, so it does not count as seen.
        if event.failed or self._seen.first(event.key):
            return True
        self.duplicates += 1
        return False

    def arrivals(self, waiting: Iterable[Arrival | Recorded]) -> Iterator[Arrival]:
        """What waited in the intake, and others are told now: what was left there is read, and no arrival if it came before."""
        for one in waiting:
            if isinstance(one, Arrival):
                self.tell(one.tell, one.event)
                yield one
                continue
            try:
                event = self.event(one)
                self.tell(one.tell, event)
                is_first = self.is_first(event)
            except Exception as problem:  # noqa: BLE001 reason: one event must not cost the others of its batch
                self.lose(problem)
                continue
            if is_first:
                yield Arrival(event, owed=one.owed)

    def tell(self, tell: Tell | None, event: Event) -> None:
        """Show others a sealed event, if they want it: another exporter's failure reaches neither the app nor the event."""
        if tell is not None:
            try:
                tell(event)
            except Exception as problem:  # noqa: BLE001 reason: whatever others do
                text = (
                    "{count} conversions have no log record (%s): they are delivered, and missing in the logs' backend"
                )
                self._notices.warn("record", text, type(problem).__name__)

    def lose(self, problem: Exception) -> None:
        """Count an event that could not be read."""
        reason = type(problem).__name__
        self.left_out["event", reason] += 1
        self._notices.warn("capture", "{count} events could not be captured (%s) and are lost", reason)

    def leave_out(self, fields: Iterable[tuple[str, str]]) -> None:
        """Count fields that were not usable, by attribute and reason."""
        for attribute, reason in fields:
            if (attribute, reason) not in self.left_out and len(self.left_out) >= MAX_LEFT_OUT:
                attribute = OTHER_ATTRIBUTES
            self.left_out[attribute, reason] += 1
            self._notices.warn(f"{attribute}: {reason}", "{count} conversions go without %s: %s", attribute, reason)

    def shown(
        self,
        name: str,
        attributes: Mapping[str, Any] | None,
        event: Event | None,
        *,
        on_record: bool = False,
    ) -> Mapping[str, Any] | None:
        """The attributes that others may see of what was recorded, or None where the event is none of our business.

        Fails closed: a conversion that could not be captured loses all that may identify a person.

        Args:
            event: The sealed one; None where it was not captured.
            on_record: They go on a log record, which may tell of the visitor's request; a span may not.
        """
        attributes = attributes or {}
        try:
            if event is not None:
                return shown(event, self._name, around=on_record and not self.settings.privacy.omit_request)
            return without_persons(attributes) if self.is_conversion(name, attributes) else None
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            text = "{count} events lost their attributes for others, as they could not be sealed (%s)"
            self._notices.warn("seal", text, type(problem).__name__)
            return {}

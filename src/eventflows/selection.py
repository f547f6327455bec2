"""Which conversions a provider gets, and under which names: pure decisions on one conversion. Every "no" has a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any

from .checks import shown, wrong
from .conditions import Condition, WrongExpression
from .conversion import Conversion, EventType
from .kinds import Kind, Mapped, Section, Text, Texts
from .lookup import AttributesOf
from .semconv import ALIASES, STANDARD_EVENTS, event_key


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Conversion types and event names, in any case and with any separators.

    Attributes:
        include: The only ones; None is all.
        exclude: Those left out; it goes before `include`.
    """

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()

    def wants(self, conversion: Conversion) -> bool:
        return (self.include is None or _among(self.include, conversion)) and not _among(self.exclude, conversion)


def _among(events: tuple[str, ...], conversion: Conversion) -> bool:
    keys = _keys(events)
    return event_key(conversion.type.value) in keys or (
        conversion.type is EventType.CUSTOM and event_key(conversion.name) in keys
    )


@lru_cache(maxsize=256)
def _keys(events: tuple[str, ...]) -> frozenset[str]:
    return frozenset(event_key(event) for event in events)


@dataclass(frozen=True, slots=True)
class Rename:
    """Names as one provider is to see them.

    Attributes:
        events: A conversion type or event name → another: a standard one changes the type, any other makes a custom event.
        properties: A custom property's name → another, or null to leave it out.
    """

    events: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str | None] = field(default_factory=dict)

    def apply(self, conversion: Conversion) -> Conversion:
        """The conversion under its new names; itself where nothing changes."""
        new = self._event(conversion)
        if new is not None:
            conversion = conversion._replace(name=new, type=STANDARD_EVENTS.get(event_key(new), EventType.CUSTOM))
        if self.properties and not self.properties.keys().isdisjoint(conversion.properties):
            kept = {key: value for key, value in conversion.properties.items() if key not in self.properties}
            for key, name in self.properties.items():
                if name is not None and key in conversion.properties:
                    kept[name] = conversion.properties[key]
            conversion = conversion._replace(properties=kept)
        return conversion

    def _event(self, conversion: Conversion) -> str | None:
        """By its name before its type, as the name says more."""
        if not self.events:
            return None
        keys = {event_key(old): new for old, new in self.events.items()}
        return keys.get(event_key(conversion.name)) or keys.get(event_key(conversion.type.value))


@dataclass(frozen=True, slots=True)
class Tenant:
    """One of several customers that share a configuration, each with credentials of its own.

    Attributes:
        attribute: Of the event or the resource; it says whose the conversion is.
        value: Whose conversions these are.
        others: The attribute's values of the other tenants.
    """

    attribute: str
    value: str
    others: tuple[str, ...] = ()

    def why_not(self, attributes: Mapping[str, Any]) -> str | None:
        found = attributes.get(self.attribute)
        if found is None:
            return f"no {self.attribute}"
        if str(found) == self.value:
            return None
        return f"another {self.attribute}" if str(found) in self.others else f"unknown {self.attribute}"


def sampled(conversion: Conversion, share: float) -> bool:
    """Whether a conversion is in the sample. Its id decides, so that all routes, retries and providers agree."""
    return int.from_bytes(sha256(conversion.id.encode("utf-8", "replace")).digest()[:8], "big") < share * 2**64


def why_not(
    conversion: Conversion,
    resource: Mapping[str, Any],
    *,
    events: EventFilter | None,
    when: Condition | None,
    tenant: Tenant | None,
    sample: float | None,
) -> str | None:
    """Why these settings keep a conversion from a provider, or None. The reason holds no value of the event."""
    if events is not None and not events.wants(conversion):
        return "not among the provider's events"
    if tenant is not None or when is not None:
        attributes = AttributesOf(conversion, resource)
        if tenant is not None and (reason := tenant.why_not(attributes)):
            return reason
        if when is not None:
            try:
                if not when.holds(attributes):
                    return "the provider's condition does not hold"
            except Exception as problem:  # noqa: BLE001 reason: a function of the app
                return f"the provider's condition failed ({type(problem).__name__})"
    if sample is not None and not sampled(conversion, sample):
        return "not in the sample"
    return None


@dataclass(frozen=True)
class When(Kind):
    """A condition on attributes: an expression, or in code a function."""

    def read(self, path: str, value: Any) -> Condition:
        if isinstance(value, Condition):
            return value
        if not callable(value) and (not isinstance(value, str) or not value.strip()):
            raise wrong(path, f'{shown(value)} must be an expression such as: plan == "pro" and conversion.value >= 10')
        try:
            return Condition(value)
        except WrongExpression as problem:
            raise wrong(path, f"{problem} (in {shown(value)})") from None

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


@dataclass(frozen=True)
class TenantOf(Kind):
    """The tenant of one provider; a file makes it from `tenants`."""

    def read(self, path: str, value: Any) -> Tenant:
        if not isinstance(value, Tenant):
            raise wrong(path, "must be a Tenant; a file has tenants: {attribute: ..., values: {...}}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"not": {}}


def _filter_contradictions(events: EventFilter, _given: Mapping[str, Any]) -> list[tuple[str, str]]:
    excluded = {event_key(name) for name in events.exclude}
    both = [name for name in events.include or () if event_key(name) in excluded]
    return [("exclude", f"{', '.join(both)} is included as well")] if both else []


def _rename_contradictions(rename: Rename, _given: Mapping[str, Any]) -> list[tuple[str, str]]:
    attributes = {*ALIASES, *ALIASES.values()}
    taken = [name for name in rename.properties.values() if name in attributes]
    reason = "the name of an attribute, which a property cannot become: record it under this name"
    return [("properties", f"{', '.join(taken)}: {reason}")] if taken else []


EVENTS = Section(
    EventFilter,
    {"include": Texts(), "exclude": Texts()},
    _filter_contradictions,
    short=((list, tuple, set, frozenset), "include"),
)
RENAME = Section(Rename, {"events": Mapped(Text()), "properties": Mapped(Text(), empty=True)}, _rename_contradictions)

"""Sealing: from the attributes that an app recorded to an event that nobody can read a person from.

`record` holds what the app recorded as it is at that moment, and `event_of` makes an event of it. `seal` replaces what
identifies a person by its digests, leaves out what would carry a person in the open, such as an e-mail address in a custom
property, and makes all the rest plain JSON data. An event is sealed before anything but the pipeline's own intake sees it: at
once where it goes on a span, to the disk or to a log processor that may look at it now, else a moment later on the intake's
thread. `capture.conversion_of` reads the sealed event, here or in another process, and gets the same conversion.
"""

from __future__ import annotations

import marshal
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from . import items, persons, values
from . import semconv as sc
from .conversion import EventType
from .errors import Unusable
from .names import ByName
from .pii import FORMS, contains_email
from .told import NOTHING_TOLD, Told

_CUSTOM = EventType.CUSTOM  # before Python 3.12 it is slow to look up


class Event(NamedTuple):
    """A recognised event on its way to become a conversion.

    Attributes:
        id: The same on every route and attempt; platforms deduplicate by it.
        name: The event's name as it was recorded; that of its type where it holds an e-mail address.
        time_unix_nano: When it happened, in nanoseconds since 1970.
        attributes: Semantic attributes and custom properties, aliases as they were given. Once it is sealed all of them are
            JSON data, and `conversion.sealed.<form>` holds digests, joined by commas.
        sealed: Nothing in it identifies a person any more.
        around: What the visitor's request tells, for what the event does not carry itself.
        origin: Trace id and span id of the span that it was recorded in.
        timed_here: The time is that of this process's clock, and not one that the app gave.
        left_out: `(attribute, reason)` of each field that was not usable. Never holds the value.
        failed: The work in which it was recorded has failed: it is counted, and goes to nobody.
    """

    id: str
    type: EventType
    name: str
    time_unix_nano: int
    attributes: Mapping[str, Any]
    sealed: bool = False
    around: Told = NOTHING_TOLD
    origin: tuple[int, int] | None = None
    timed_here: bool = False
    left_out: tuple[tuple[str, str], ...] = ()
    failed: bool = False

    def __repr__(self) -> str:
        return f"Event({self.id!r}, {self.name!r}, sealed={self.sealed})"

    @property
    def key(self) -> tuple[str, str]:
        """What is the same on every way in: the event and its id."""
        return (self.name if self.type is _CUSTOM else self.type._value_, self.id)

    @property
    def order_id(self) -> str | None:
        return _identifier(self.attributes, _ORDER_IDS)


Tell = Callable[[Event], object]
"""Given a sealed event, for those who may see it too. Must not raise."""


class Recorded(NamedTuple):
    """What an app recorded, as it was at that moment, and not looked at any further.

    Attributes:
        attributes: As recorded, raw values included.
        around, origin, timed_here, left_out: See `Event`.
        owed: The names of the providers that were configured then, with commas between.
        tell: To be given the event once it is sealed; None where nobody else sees it.
        packed: Names of the attributes that are lists or dicts, here in bytes; `event_of` unpacks them.
    """

    name: str
    attributes: dict[str, Any]
    time_unix_nano: int
    around: Told = NOTHING_TOLD
    origin: tuple[int, int] | None = None
    timed_here: bool = False
    left_out: tuple[tuple[str, str], ...] = ()
    owed: str = ""
    tell: Tell | None = None
    packed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Recorded({shown_event_name(self.name)!r})"


def record(
    name: str,
    attributes: Mapping[str, Any],
    time_unix_nano: int,
    around: Told = NOTHING_TOLD,
    origin: tuple[int, int] | None = None,
    timed_here: bool = False,
    owed: str = "",
    tell: Tell | None = None,
    *,
    waits: bool = True,
) -> Recorded:
    """Hold what was recorded as it is now: what the app changes later does not change it.

    Args:
        attributes: As recorded, raw values included; not changed.
        around, origin, timed_here, owed, tell: See `Recorded`.
        waits: It is not read at once, in this call of the app.
    """
    hold = _packed if waits else values.snapshot
    held = dict(attributes)
    left_out: tuple[tuple[str, str], ...] = ()
    packed: tuple[str, ...] = ()
    for key, value in held.items():  # of which only values change
        if type(value) in _IMMUTABLE:
            continue
        try:
            held[key] = copy = hold(value)
        except Exception as problem:  # noqa: BLE001 reason: a value with a hostile __iter__ or __len__ must not reach the app
            held[key] = copy = _usable_items(key, value, hold)
            if copy is None:
                left_out = (*left_out, _left_out(key, problem))
                held[key] = _instead(treatments[key])
        if type(copy) is bytes:
            packed = (*packed, key)
    fields = (name, held, time_unix_nano, around, origin, timed_here, left_out, owed, tell, packed)
    return tuple.__new__(Recorded, fields)  # half the time of a call


def _usable_items(key: Any, value: Any, hold: Callable[[Any], Any]) -> Any:
    """Of items what can be held, as a bad field costs only itself; None where nothing can, and for any other attribute."""
    with suppress(Exception):
        return hold(items.plain(value)) if treatments[key] is _items else None
    return None


_FORMAT = 2
"""Of `marshal`: the newer ones look for what comes twice, which takes longer than it saves."""


def _packed(value: Any) -> Any:
    """A value as it is now. Lists and dicts become bytes, in less time than a copy takes and a third of its room.

    What waits then has nothing in it that the garbage collector goes over, which would come several times as often, and on the
    app's thread.
    """
    try:
        if type(value) is list and _is_plain(value):
            return marshal.dumps(value, _FORMAT)
        value = values.snapshot(value)
        return marshal.dumps(value, _FORMAT) if type(value) is list or type(value) is dict else value
    except ValueError:  # a key is no text, say
        return values.snapshot(value)


def _is_plain(entries: list[Any]) -> bool:
    """Whether these are dicts which `marshal` writes as what they are: of what numpy has it writes the bytes."""
    for one in entries:  # two plain loops take less than any of their shorter forms
        if type(one) is not dict:
            return False
        for key, value in one.items():
            if type(key) is not str or type(value) not in _IMMUTABLE:
                return False
    return True


_IMMUTABLE = values.IMMUTABLE


def event_of(recorded: Recorded, event_type: EventType) -> Event:
    """The event that was recorded.

    Args:
        event_type: What `capture.recognise` said.
    """
    name, held, time_unix_nano, around, origin, timed_here, left_out, _, _, packed = recorded
    if packed:
        held = held.copy()
        for key in packed:
            held[key] = marshal.loads(held[key])  # noqa: S302 reason: it was written in this process
    if "@" in name or "%" in name or not name.isascii() or not name.strip():
        left_out = (*left_out, _NAME_LEFT_OUT) if contains_email(name) else left_out
        name = shown_event_name(name, event_type)
    event_id = _identifier(held, _IDS)
    if event_id is None:
        event_id = _default_id(name, event_type, _identifier(held, _ORDER_IDS))
    fields = (event_id, event_type, name, time_unix_nano, held, False, around, origin, timed_here, left_out, False)
    return tuple.__new__(Event, fields)  # half the time of a call


def seal(event: Event, default_country: str | None = None) -> Event:
    """The event without raw personal data: itself where it is sealed already. Bad data costs a field.

    Args:
        default_country: Of phone numbers without a calling code, ISO 3166-1 alpha-2.
    """
    if event.sealed:
        return event
    event_id, event_type, name, time_unix_nano, attributes, _, around, origin, timed_here, before, failed = event
    held, others = _plans[tuple(attributes)]
    clean: dict[str, Any] = {}
    left_out = list(before)
    sealed, ids = persons.sealed(attributes, held, default_country, left_out)
    for key, treatment in others:
        value = attributes[key]
        if value is None or (value == "" and treatment in _REFUSALS):
            continue
        try:
            clean[key] = treatment(value) if value != "" else value
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            left_out.append(_left_out(key, problem))
            if (instead := _instead(treatment)) is not None:
                clean[key] = instead
    if ids:
        clean[sc.USER_ID] = ids
    for form, found in sealed.items():
        attribute = _AS_ATTRIBUTE[form]
        clean[attribute] = ",".join(
            dict.fromkeys((*clean[attribute].split(","), *found)) if attribute in clean else found
        )
    around = Told.of(around.attributes)  # read by now, as cookies may be as good as a name
    fields = (
        event_id, event_type, name, time_unix_nano, clean, True, around, origin, timed_here, tuple(left_out), failed
    )  # fmt: skip
    return tuple.__new__(Event, fields)  # half the time of a call


_AS_ATTRIBUTE: Mapping[str, str] = {form: sc.SEALED + form for form in FORMS}


def shown_name(key: Any) -> str:
    """The name of an attribute, where it may be told."""
    return (
        key if isinstance(key, str) and not contains_email(key) and values.writable(key) == key else "custom property"
    )


_NAME_LEFT_OUT = ("event name", "holds an e-mail address: the event has that of its type")


def shown_event_name(name: str, event_type: EventType = EventType.CUSTOM) -> str:
    """The name of an event, where it has one that may be told; else that of its type."""
    return event_type.value if contains_email(name) or not name.strip() else values.writable(name)


def _left_out(key: Any, problem: Exception) -> tuple[str, str]:
    return shown_name(key), str(problem) if isinstance(problem, Unusable) else "unreadable"


# --- how each attribute is treated, by its name

Treatment = Callable[[Any], Any]
"""The value as plain JSON data. Raises Unusable where nobody may see it."""


def _items(value: Any) -> Any:
    return values.writable(value) if isinstance(value, str) and not _AT.search(value) else items.plain(value)


_AT = re.compile(r"@|%(?:25)*40|\\u0040")  # as it may stand in JSON


def _flag(value: Any) -> Any:
    """As it was given; of a header's list the first, which is the one that is read."""
    values.flag(value)
    return values.custom(value[0] if isinstance(value, (list, tuple)) else value)


def _names(value: Any) -> Any:
    values.names(value)
    return values.custom(value)


def _consent(value: Any) -> Any:
    return _flag(value)


def _limited(value: Any) -> Any:
    return _flag(value)


def _instead(treatment: Treatment) -> str | bool | None:
    """What stands for a value that cannot be read: such a choice is not taken for a yes."""
    return "denied" if treatment is _consent else True if treatment is _limited else None


def _forbidden(_value: Any) -> Any:
    raise Unusable("personal data as a custom property: record it as user.*")


def _email_as_name(_value: Any) -> Any:
    raise Unusable("an e-mail address in its name")


def _not_a_name(_value: Any) -> Any:
    raise Unusable("half a character in its name")


def digests(value: Any) -> str:
    """What another process has sealed: `<hex>,<hex>`."""
    found = str(value)
    if not _DIGESTS.fullmatch(found):
        raise Unusable("not digests of a known form")
    return found


_DIGESTS = re.compile(r"[0-9a-f]{64}(?:,[0-9a-f]{64})*")


def _unknown_form(_value: Any) -> Any:
    raise Unusable("not digests of a known form")


_REFUSALS = (_forbidden, _email_as_name, _not_a_name, _unknown_form)
"""For what nobody may see because of its name, whatever its value."""

_BY_ATTRIBUTE: Mapping[str, Treatment] = {
    sc.URL_FULL: values.url,
    sc.REFERER: values.url,
    sc.USER_AGENT: values.told,
    sc.LANGUAGE: values.told,
    sc.SEC_GPC: _flag,
    sc.CONVERSION_LIMITED_DATA_USE: _limited,
    sc.CONVERSION_ITEMS: _items,
    sc.CONVERSION_COMMIT: values.commit,
    sc.CONVERSION_PROVIDERS: _names,
    sc.CONVERSION_EXCLUDE_PROVIDERS: _names,
    **{sc.CONVERSION_CONSENT + purpose: _consent for purpose in sc.CONSENT_PURPOSES},
}


def _treatment(key: Any) -> Treatment:
    if not isinstance(key, str):
        return _forbidden
    if treatment := _BY_ATTRIBUTE.get(sc.ALIASES.get(key, key)):
        return treatment
    if key.startswith(sc.SEALED):
        return digests if key[len(sc.SEALED) :] in FORMS else _unknown_form
    if contains_email(key):
        return _email_as_name
    if values.writable(key) != key:
        return _not_a_name
    return _forbidden if sc.event_key(key) in sc.PERSONAL_KEYS else values.custom


treatments: ByName[Treatment] = ByName(_treatment)
"""Name of an attribute → how its value is treated."""


def _plan(keys: tuple[Any, ...]) -> tuple[persons.Held, tuple[tuple[Any, Treatment], ...]]:
    """Of an event with these attributes, what holds a person, and how the others are treated."""
    return persons.held(keys), tuple((key, treatments[key]) for key in keys if key not in persons.KINDS)


_plans = ByName(_plan)


# --- ids


def spellings(attribute: str) -> tuple[str, ...]:
    """The names under which an attribute may be given."""
    return (attribute, *(alias for alias, name in sc.ALIASES.items() if name == attribute))


def read_first(attributes: Mapping[str, Any], names: tuple[str, ...], reader: Callable[[object], Any]) -> Any:
    """The first of these attributes that can be read so, or None."""
    for name in names:
        value = attributes.get(name)
        if value is not None and value != "":
            try:
                return None if (found := reader(value)) == "" else found
            except Unusable:
                continue
    return None


_IDS, _ORDER_IDS = spellings(sc.CONVERSION_ID), spellings(sc.CONVERSION_ORDER_ID)


def _identifier(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    found: str | None = read_first(attributes, names, values.identifier)
    return found


def _default_id(name: str, event_type: EventType, order_id: str | None) -> str:
    """The same on every route, and easy to repeat in the browser pixel: `purchase-70331`."""
    if order_id:
        return f"{name if event_type is _CUSTOM else event_type._value_}-{order_id}"
    return secrets.token_hex(16)

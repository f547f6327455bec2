"""Sealing: from the attributes that an app recorded to an event that nobody can read a person from.

This is all that happens on the app's thread. What identifies a person is replaced by its digests, what would carry a person in
the open is left out, and the rest goes on as plain JSON data. The sealed event is the one form in which a conversion is queued,
written to the journal, and shown to other log processors; `capture.conversion_of` reads it, here or in another process.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from . import semconv as sc
from . import values
from .conversion import NOTHING, EventType
from .pii import FORMS, Unusable, contains_email, seal_all, split_full_name
from .pii import seal as seal_identifier

SEALED_FORMS: Mapping[str, str] = {form: sc.SEALED + form for form in FORMS}
"""Normal form → the attribute with its digests."""
_HEX = frozenset("0123456789abcdef")


class SealedEvent(NamedTuple):
    """A recognised event, free of raw personal data. Everything in it is JSON.

    Attributes:
        id: The same on every route and attempt; platforms deduplicate by it.
        name: The event's name as it was recorded.
        time_unix_nano: When it happened, in nanoseconds since 1970.
        attributes: Semantic attributes and custom properties, aliases as they were given. `conversion.sealed.<form>` holds
            digests, joined by commas.
        around: Attributes of the visitor's request, with clean values, for what the event does not carry itself.
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
    around: Mapping[str, Any] = NOTHING
    origin: tuple[int, int] | None = None
    timed_here: bool = False
    left_out: tuple[tuple[str, str], ...] = ()
    failed: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What is the same on every way in: the event and its id."""
        return (self.name if self.type is EventType.CUSTOM else self.type.value, self.id)

    @property
    def order_id(self) -> str | None:
        return _text_of(self.attributes, _ORDER_IDS)


class _Sealing:
    """One event that is being sealed."""

    __slots__ = ("clean", "country", "left_out", "personal")

    def __init__(self, country: str | None) -> None:
        self.country = country
        self.clean: dict[str, Any] = {}
        self.left_out: list[tuple[str, str]] = []
        self.personal: dict[str, Any] | None = None


Treatment = Callable[[_Sealing, str, Any], None]


def seal(
    name: str,
    event_type: EventType,
    attributes: Mapping[str, Any],
    time_unix_nano: int,
    default_country: str | None = None,
    around: Mapping[str, Any] = NOTHING,
    origin: tuple[int, int] | None = None,
    timed_here: bool = False,
) -> SealedEvent:
    """Seal a recognised event. Never raises for bad data.

    Args:
        name: The event's name as recorded.
        event_type: What `capture.recognise` said.
        attributes: As recorded, raw values included; not changed.
        default_country: Of phone numbers without a calling code, ISO 3166-1 alpha-2.
        around: See `SealedEvent`.
    """
    work = _Sealing(default_country)
    clean = work.clean
    for key, value in attributes.items():
        treatment = _treatments.get(key) or _treatment(key)
        if treatment is _as_it_is:  # the most common ones first, without a call
            kind = type(value)
            if kind is str:
                if "@" not in value and "%40" not in value:
                    clean[key] = value
                    continue
            elif kind is int or kind is bool or (kind is float and value - value == 0.0):  # finite
                clean[key] = value
                continue
            elif value is None:
                continue
        try:
            treatment(work, key, value)
        except Unusable as problem:
            work.left_out.append((key, str(problem)))
        except Exception:  # noqa: BLE001 reason: a value with a hostile __str__ or __len__ must not reach the app
            work.left_out.append((key if isinstance(key, str) else "custom property", "unreadable"))
    if work.personal is not None:
        _full_names(work)
    event_id = _text_of(clean, _IDS)
    if event_id is None:
        event_id = _default_id(name, event_type, _text_of(clean, _ORDER_IDS))
    left_out = tuple(work.left_out) if work.left_out else ()
    return SealedEvent(
        event_id, event_type, name, time_unix_nano, clean, around, origin, timed_here, left_out
    )  # fmt: skip


# --- how each attribute is treated, by its name


def _as_it_is(work: _Sealing, key: str, value: Any) -> None:
    """Not about a person by its name; a text with an e-mail address in it is left out all the same."""
    work.clean[key] = values.custom(value)


def _header(work: _Sealing, key: str, value: Any) -> None:
    """User agents of robots name an address to complain at, which is no visitor's."""
    if value is not None and value != "":
        work.clean[key] = values.header(value)


def _url(work: _Sealing, key: str, value: Any) -> None:
    if value is not None and value != "":
        work.clean[key] = values.url(value)


def _items(work: _Sealing, key: str, value: Any) -> None:
    work.clean[key] = value if isinstance(value, str) and "@" not in value else values.plain_items(value)


def _consent(work: _Sealing, key: str, value: Any) -> None:
    if value is None or value == "":
        return
    try:
        values.flag(value)
    except Unusable:
        work.clean[key] = "denied"  # a choice that cannot be read is not taken for a yes
        raise
    work.clean[key] = values.custom(value)


def _commit(work: _Sealing, key: str, value: Any) -> None:
    if value is not None and value != "":
        work.clean[key] = values.commit(value)


def _forbidden(_work: _Sealing, _key: str, value: Any) -> None:
    if value is not None and value != "":
        raise Unusable("personal data as a custom property: record it as user.*")


def _email_as_name(work: _Sealing, _key: str, _value: Any) -> None:
    work.left_out.append(("custom property", "an e-mail address in its name"))


def _nothing(_work: _Sealing, _key: str, _value: Any) -> None:
    """Of no use to the conversion."""


def _digests(work: _Sealing, key: str, value: Any) -> None:
    """What another process has sealed: `conversion.sealed.email.lower` = `<hex>,<hex>`."""
    if value is None or value == "":
        return
    digests = str(value).split(",")
    if key[len(sc.SEALED) :] not in FORMS or not all(len(one) == 64 and _HEX.issuperset(one) for one in digests):
        raise Unusable("not digests of a known form")
    _add(work.clean, key, digests)


def _user_id(work: _Sealing, key: str, value: Any) -> None:
    ids: list[str] = []
    for raw in listed(value):
        if raw is None or raw == "":
            continue
        try:
            user_id = values.text(raw)
        except Unusable as problem:
            work.left_out.append((key, str(problem)))
            continue
        if contains_email(user_id):  # of some use hashed, of none in the open
            work.left_out.append((key, "an e-mail address: only its hash is used"))
            _seal_each(work, key, "external_id", (user_id,))
        elif user_id not in ids:
            ids.append(user_id)
    if ids:
        work.clean[key] = ids[0] if len(ids) == 1 else ids


def _identifier(kind: str) -> Treatment:
    def treatment(work: _Sealing, key: str, value: Any) -> None:
        if value is None or value == "":
            return
        if type(value) is not str:
            _seal_each(work, key, kind, listed(value))
            return
        clean = work.clean
        for form, digest in seal_identifier(kind, value, work.country).items():
            attribute = SEALED_FORMS[form]
            if attribute in clean:
                _add(clean, attribute, (digest,))
            else:
                clean[attribute] = digest

    return treatment


def _of_full_name(work: _Sealing, key: str, value: Any) -> None:
    """Parts of a name are looked at together, as a first name of its own counts more."""
    if value is not None and value != "":
        if work.personal is None:
            work.personal = {}
        work.personal[key] = value


def _full_names(work: _Sealing) -> None:
    personal = work.personal or {}
    for key, kind in ((sc.USER_FIRST_NAME, "first_name"), (sc.USER_LAST_NAME, "last_name")):
        if key in personal:
            _seal_each(work, key, kind, listed(personal[key]))
    if sc.USER_FULL_NAME in personal and len(personal) == 1:
        full = personal[sc.USER_FULL_NAME]
        parts = [split_full_name(one) for one in listed(full) if isinstance(one, str)]
        if not all(parts) or not parts:
            work.left_out.append((sc.USER_FULL_NAME, "not a first and a last name"))
        for part, kind in enumerate(("first_name", "last_name")):
            _seal_each(work, sc.USER_FULL_NAME, kind, [pair[part] for pair in parts if pair])


def _seal_each(work: _Sealing, key: str, kind: str, raw: Iterable[Any]) -> None:
    sealed, reason = seal_all(kind, raw, work.country)
    for form, digests in sealed.items():
        _add(work.clean, SEALED_FORMS[form], digests)
    if reason:
        work.left_out.append((key, reason))


def _add(clean: dict[str, Any], attribute: str, digests: Iterable[str]) -> None:
    known = clean[attribute].split(",") if attribute in clean else []
    clean[attribute] = ",".join(dict.fromkeys((*known, *digests)))


def listed(value: object) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple, set, frozenset)) else (value,)


_BY_ATTRIBUTE: Mapping[str, Treatment] = {
    sc.URL_FULL: _url,
    sc.REFERER: _url,
    sc.USER_AGENT: _header,
    sc.LANGUAGE: _header,
    sc.CONVERSION_ITEMS: _items,
    sc.USER_ID: _user_id,
    sc.RECORDED_BY: _nothing,
    sc.CONVERSION_TYPE: _nothing,
    sc.CONVERSION_COMMIT: _commit,
    **{sc.CONVERSION_CONSENT + purpose: _consent for purpose in sc.CONSENT_PURPOSES},
    **{attribute: _identifier(kind) for attribute, kind in sc.SEALED_ATTRIBUTES.items()},
    **dict.fromkeys((sc.USER_FIRST_NAME, sc.USER_LAST_NAME, sc.USER_FULL_NAME), _of_full_name),
}
_treatments: dict[str, Treatment] = {}
_MAX_TREATMENTS = 4096


def _treatment(key: Any) -> Treatment:
    """The treatment of an attribute, found out once for each name."""
    if not isinstance(key, str):
        return _forbidden
    attribute = sc.ALIASES.get(key, key)
    treatment = _BY_ATTRIBUTE.get(attribute)
    if treatment is None:
        if attribute.startswith(sc.SEALED):
            treatment = _digests
        elif sc.event_key(key) in sc.PERSONAL_KEYS:
            treatment = _forbidden
        elif contains_email(key):
            treatment = _email_as_name
        else:
            treatment = _as_it_is
    if len(_treatments) >= _MAX_TREATMENTS:
        _treatments.clear()
    _treatments[key] = treatment
    return treatment


# --- ids

_IDS = (sc.CONVERSION_ID, *(alias for alias, name in sc.ALIASES.items() if name == sc.CONVERSION_ID))
_ORDER_IDS = (sc.CONVERSION_ORDER_ID, *(alias for alias, name in sc.ALIASES.items() if name == sc.CONVERSION_ORDER_ID))


def _text_of(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of these attributes that is a text."""
    for name in names:
        value = attributes.get(name)
        if value is not None and value != "":
            try:
                return values.text(value) or None
            except Unusable:
                continue
    return None


def _default_id(name: str, event_type: EventType, order_id: str | None) -> str:
    """The same on every route, and easy to repeat in the browser pixel: `purchase-70331`."""
    if order_id:
        return f"{name if event_type is EventType.CUSTOM else event_type.value}-{order_id}"
    return secrets.token_hex(16)


# --- what others see, and what is written down


def shown(event: SealedEvent, recorded_by: str, *, around: bool = False) -> dict[str, Any]:
    """The attributes that others may see: all that `capture.conversion_of` needs to read the same conversion elsewhere.

    Args:
        recorded_by: Names the pipeline that has the event already.
        around: Add what the visitor's request tells, which belongs on log records and never on spans.
    """
    attributes = event.attributes
    if around and event.around:
        told = {sc.ALIASES.get(key, key) for key in attributes}
        attributes = {**{key: value for key, value in event.around.items() if key not in told}, **attributes}
    return {
        **attributes,
        sc.CONVERSION_ID: event.id,
        sc.CONVERSION_TYPE: event.type.value,
        sc.RECORDED_BY: recorded_by,
    }


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def dump(event: SealedEvent) -> str:
    """The event as one line of JSON, as the journal keeps it; what has its default is left out."""
    found = {
        "id": event.id,
        "type": event.type.value,
        "name": event.name,
        "time_unix_nano": event.time_unix_nano,
        "attributes": event.attributes,
    }
    if event.around:
        found["around"] = dict(event.around)
    for name in ("origin", "timed_here", "left_out", "failed"):
        if value := getattr(event, name):
            found[name] = value
    return _encode(found)


def load(line: str) -> SealedEvent:
    """The event that `dump` wrote.

    Raises:
        ValueError: The line is none.
    """
    try:
        found = json.loads(line)
        found["type"] = EventType(found["type"])
        for name, part in (("origin", tuple), ("left_out", lambda pairs: tuple(map(tuple, pairs)))):
            if name in found:
                found[name] = part(found[name])
        return SealedEvent(**found)
    except (TypeError, AttributeError, KeyError) as problem:
        raise ValueError(f"not a sealed event ({type(problem).__name__})") from None

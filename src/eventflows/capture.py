"""Capture: which events are conversions, and from the sealed event to the Conversion. Never raises for bad data.

A field that cannot be used is left out with a reason; the event still goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import persons, values
from . import semconv as sc
from .conversion import NOTHING, Consent, Conversion, Device, EventType, Identifiers, Request
from .cookies import clicks_of_query
from .pii import FORMS, Unusable, contains_email
from .pii import seal as seal_identifier
from .sealing import Event, event_of, record, shown_name, treatment_of


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says about capturing.

    Attributes:
        events: `event_key` of a name → type, beyond the standard events.
        default_country: Of phone numbers without a calling code, ISO 3166-1 alpha-2.
    """

    events: Mapping[str, EventType] = field(default_factory=dict)
    default_country: str | None = None


def recognise(name: str, attributes: Mapping[str, Any], rules: Rules) -> EventType | None:
    """The neutral type of an event, or None where it is not a conversion."""
    declared = attributes.get(sc.CONVERSION_TYPE)
    if declared:
        if isinstance(declared, EventType):
            return declared
        return _by_name(declared, rules) or EventType.CUSTOM if isinstance(declared, str) else EventType.CUSTOM
    return _by_name(name, rules)


def _by_name(name: str, rules: Rules) -> EventType | None:
    key = sc.event_key(name)
    return rules.events.get(key) or sc.STANDARD_EVENTS.get(key)


def capture(
    name: str,
    event_type: EventType,
    attributes: Mapping[str, Any],
    time_unix_nano: int,
    rules: Rules,
    around: Mapping[str, Any] = NOTHING,
) -> Conversion:
    """Record and read an event in one go, as a dry run does. The arguments are those of `sealing.record` and `event_of`."""
    recorded = record(name, attributes, time_unix_nano, around)
    return conversion_of(event_of(recorded, event_type), rules.default_country)


# --- the places of the attributes: which part of the conversion, which field there, and how it is read

_PARTS: tuple[type[Any], ...] = (Conversion, Identifiers, Request, Device, Consent)
_WHOLE, _USER, _REQUEST, _DEVICE, _CONSENT = range(5)
_BLANKS: tuple[list[Any], ...] = tuple([part._field_defaults.get(name) for name in part._fields] for part in _PARTS)
_FIELDS: Mapping[str, tuple[int, str, Callable[[object], Any]]] = {
    sc.CONVERSION_VALUE: (_WHOLE, "value", values.number),
    sc.CONVERSION_CURRENCY: (_WHOLE, "currency", values.currency),
    sc.CONVERSION_ORDER_ID: (_WHOLE, "order_id", values.identifier),
    sc.CONVERSION_ITEMS: (_WHOLE, "items", values.items),
    sc.CONVERSION_QUANTITY: (_WHOLE, "quantity", values.count),
    sc.CONVERSION_SEARCH_TERM: (_WHOLE, "search_term", values.identifier),
    sc.CONVERSION_COUPON: (_WHOLE, "coupon", values.identifier),
    sc.CONVERSION_TAX: (_WHOLE, "tax", values.number),
    sc.CONVERSION_SHIPPING: (_WHOLE, "shipping", values.number),
    sc.CONVERSION_ACTION_SOURCE: (_WHOLE, "action_source", values.action_source),
    sc.CONVERSION_PROVIDERS: (_WHOLE, "providers", values.names),
    sc.CONVERSION_EXCLUDE_PROVIDERS: (_WHOLE, "exclude_providers", values.names),
    sc.CONVERSION_LIMITED_DATA_USE: (_WHOLE, "limited_data_use", values.flag),
    sc.CITY: (_USER, "city", values.identifier),
    sc.REGION: (_USER, "region", values.identifier),
    sc.POSTAL_CODE: (_USER, "postal_code", values.identifier),
    sc.COUNTRY: (_USER, "country", values.country),
    sc.CLIENT_ADDRESS: (_REQUEST, "client_address", values.client_address),
    sc.USER_AGENT: (_REQUEST, "user_agent", values.header),
    sc.URL_FULL: (_REQUEST, "url", values.url),
    sc.REFERER: (_REQUEST, "referrer", values.url),
    sc.SESSION_ID: (_REQUEST, "session_id", values.identifier),
    sc.LANGUAGE: (_REQUEST, "language", values.language),
    sc.PAGE_TITLE: (_REQUEST, "page_title", values.identifier),
    sc.SEC_GPC: (_REQUEST, "global_privacy_control", values.flag),
    sc.SYNTHETIC_TYPE: (_REQUEST, "synthetic_type", values.identifier),
    sc.CONVERSION_ADVERTISING_ID: (_DEVICE, "advertising_id", values.identifier),
    sc.CONVERSION_VENDOR_ID: (_DEVICE, "vendor_id", values.identifier),
    sc.CONVERSION_APP_INSTANCE_ID: (_DEVICE, "app_instance_id", values.identifier),
    sc.CONVERSION_PARTNER_ID: (_DEVICE, "partner_id", values.identifier),
    **{sc.CONVERSION_CONSENT + purpose: (_CONSENT, purpose, values.flag) for purpose in sc.CONSENT_PURPOSES},
}
_ELSEWHERE = frozenset({sc.CONVERSION_TYPE, sc.CONVERSION_ID, sc.CONVERSION_COMMIT, sc.RECORDED_BY})
_ROUTING = (sc.CONVERSION_PROVIDERS, sc.CONVERSION_EXCLUDE_PROVIDERS)
_PROPERTY, _CLICK, _DIGESTS, _USER_ID, _NOWHERE = -1, -2, -3, -4, -5
_Place = tuple[int, Any, Any, str]
_places: dict[str, _Place] = {}
_MAX_PLACES = 4096


def _place(key: Any) -> _Place:
    """`(part, field, reader, attribute)` of an attribute, found out once for each name."""
    attribute = sc.ALIASES.get(key, key)
    found: _Place
    if not isinstance(key, str):
        found = (_PROPERTY, key, treatment_of(key), "")
    elif known := _FIELDS.get(attribute):
        part, name, reader = known
        found = (part, _PARTS[part]._fields.index(name), reader, attribute)
    elif attribute == sc.USER_ID:
        found = (_USER_ID, None, None, attribute)
    elif attribute.startswith(sc.CONVERSION_CLICK):
        found = (_CLICK, attribute[len(sc.CONVERSION_CLICK) :], values.click_id, attribute)
    elif attribute.startswith(sc.SEALED) and attribute[len(sc.SEALED) :] in FORMS:
        found = (_DIGESTS, attribute[len(sc.SEALED) :], treatment_of(attribute), attribute)
    elif attribute in _ELSEWHERE:
        found = (_NOWHERE, None, treatment_of(key), attribute)
    else:
        found = (_PROPERTY, key, treatment_of(key), attribute)
    if len(_places) >= _MAX_PLACES:
        _places.clear()
    _places[key] = found
    return found


_AT = Conversion._fields.index
_SOURCE, _ITEMS, _QUANTITY = (_AT(name) for name in ("action_source", "items", "quantity"))
_HEAD, _MIDDLE, _TAIL = slice(0, _SOURCE), slice(_AT("user"), _AT("consent") + 1), slice(_AT("properties"), None)
_USER_IDS, _SEALED = (Identifiers._fields.index(name) for name in ("user_id", "sealed"))
_URL, _AGENT, _ADDRESS = (Request._fields.index(name) for name in ("url", "user_agent", "client_address"))
_WEB = ("website", "app")
_NO_DEVICE, _NO_CONSENT = Device(), Consent()
_make = tuple.__new__  # half the time of a named tuple's own `_make`


def conversion_of(event: Event, default_country: str | None = None) -> Conversion:
    """Read an event, one that was sealed in this process or another, or one that was not sealed yet. No matter which, it is the
    same conversion, free of raw personal data.

    Args:
        default_country: Of phone numbers without a calling code, ISO 3166-1 alpha-2.
    """
    parts: list[list[Any]] = [blank.copy() for blank in _BLANKS]
    clicks: dict[str, str] = {}
    properties: dict[str, Any] = {}
    left_out = list(event.left_out)
    attributes, sealed = persons.sealed(event.attributes, default_country, left_out)
    user_id: Any = None
    for key, value in attributes.items():
        part, index, reader, attribute = _places.get(key) or _place(key)
        if value is None or (value == "" and attribute not in _ROUTING):
            continue
        try:
            if part >= 0:
                fields = parts[part]
                if attribute != key and (
                    fields[index] is not _BLANKS[part][index] or attributes.get(attribute) not in (None, "")
                ):
                    continue  # another spelling: the attribute itself wins, or the first of two
                if (clean := reader(value)) != "":
                    fields[index] = clean
            elif part == _PROPERTY:
                properties[key] = reader(value)
            elif part == _DIGESTS:
                persons.add(sealed, index, reader(value).split(","))
            elif part == _CLICK:
                clicks[index] = reader(value)
            elif part == _USER_ID:
                user_id = value
            else:
                reader(value)
        except Unusable as problem:
            left_out.append((shown_name(key), str(problem)))
            if part == _CONSENT:
                parts[_CONSENT][index] = False  # a choice that cannot be read is not taken for a yes
        except Exception:  # noqa: BLE001 reason: a number beyond all bounds, say, costs itself only
            left_out.append((shown_name(key), "unreadable"))
    whole, user, request, device, consent = parts
    if (url := request[_URL]) is not None and "?" in url:
        for click, value in clicks_of_query(url.partition("?")[2].partition("#")[0]).items():
            clicks.setdefault(click, value)
    if event.around and not _is_anothers(event.around, whole, request):
        user_id = user_id or event.around.get(sc.USER_ID)
        _complete(event.around, parts, clicks)
    if user_id:
        user[_USER_IDS] = _user_ids(user_id, sealed)
    user[_SEALED] = sealed
    if whole[_QUANTITY] is None and whole[_ITEMS]:
        whole[_QUANTITY] = sum(1 if item.quantity is None else item.quantity for item in whole[_ITEMS])
    whole[_HEAD] = event.id, event.type, event.name, event.time_unix_nano
    whole[_MIDDLE] = (
        _make(Identifiers, user), _make(Request, request), _make(Device, device) if device != _BLANKS[_DEVICE] else _NO_DEVICE,
        clicks, _make(Consent, consent) if consent != _BLANKS[_CONSENT] else _NO_CONSENT,
    )  # fmt: skip
    whole[_TAIL] = properties, event.origin, event.timed_here, tuple(left_out), event.failed
    return _make(Conversion, whole)


def _is_anothers(around: Mapping[str, Any], whole: list[Any], request: list[Any]) -> bool:
    """Whether what surrounds the event is another person's request than the event is about.

    That is so for a sale that was not made on the web (the request is the clerk's), and where the event brings the user agent
    or else the address of somebody else.
    """
    if whole[_SOURCE] not in _WEB:
        return True
    for key, index in ((sc.USER_AGENT, _AGENT), (sc.CLIENT_ADDRESS, _ADDRESS)):
        if request[index] is not None and key in around:
            return bool(request[index] != around[key])
    return False


def _complete(around: Mapping[str, Any], parts: list[list[Any]], clicks: dict[str, str]) -> None:
    """Add what the visitor's request tells, with its clean values, where the event has nothing of its own."""
    for key, value in around.items():
        part, index, _, _ = _places.get(key) or _place(key)
        if part == _CLICK:
            clicks.setdefault(index, value)
        elif part >= 0 and parts[part][index] is _BLANKS[part][index]:
            parts[part][index] = value


def _user_ids(value: Any, sealed: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The app's own ids, which some platforms take as they are and others hashed."""
    ids = (value,) if isinstance(value, str) else tuple(value)
    for one in ids:
        for form, digest in seal_identifier("external_id", one).items():
            persons.add(sealed, form, (digest,))
    return ids


# --- what others must not see


def without_persons(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes without those that hold a person raw: what others may see of a conversion that was not captured."""
    return {
        key: value
        for key, value in attributes.items()
        if key not in sc.SEALED_ATTRIBUTES and key != sc.USER_ID and sc.event_key(key) not in sc.PERSONAL_KEYS
    }


def names_a_person(text: object, attributes: Mapping[str, Any]) -> bool:
    """Whether a text, or a map written out as one, holds an e-mail address or a personal value that the attributes hold too."""
    written = str(text).casefold()
    if contains_email(written):
        return True
    raw = (one for key in sc.SEALED_ATTRIBUTES if key in attributes for one in persons.listed(attributes[key]))
    return any(str(one).strip().casefold() in written for one in raw if len(str(one).strip()) > 2)

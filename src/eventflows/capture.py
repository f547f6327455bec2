"""Capture: which events are conversions, and from the sealed event to the Conversion. Never raises for bad data.

A field that cannot be used is left out with a reason; the event still goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import items, persons, values
from . import semconv as sc
from .conversion import Consent, Conversion, Device, EventType, Identifiers, Item, Request
from .cookies import clicks_of_url
from .errors import Unusable
from .names import ByName
from .pii import FORMS
from .sealing import Event, digests, event_of, record, shown_name, treatments
from .told import NOTHING_TOLD, Told


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
    around: Told = NOTHING_TOLD,
) -> Conversion:
    """Record and read an event in one go, as a dry run does. The arguments are those of `sealing.record` and `event_of`."""
    recorded = record(name, attributes, time_unix_nano, around)
    return conversion_of(event_of(recorded, event_type), rules.default_country)


# --- the places of the attributes: which part of the conversion, which field there, and how it is read

_FIELDS: Mapping[str, tuple[type[Any], str, Callable[[object], Any]]] = {
    sc.CONVERSION_VALUE: (Conversion, "value", values.number),
    sc.CONVERSION_CURRENCY: (Conversion, "currency", values.currency),
    sc.CONVERSION_ORDER_ID: (Conversion, "order_id", values.identifier),
    sc.CONVERSION_ITEMS: (Conversion, "items", items.read),
    sc.CONVERSION_QUANTITY: (Conversion, "quantity", values.count),
    sc.CONVERSION_SEARCH_TERM: (Conversion, "search_term", values.identifier),
    sc.CONVERSION_COUPON: (Conversion, "coupon", values.identifier),
    sc.CONVERSION_TAX: (Conversion, "tax", values.number),
    sc.CONVERSION_SHIPPING: (Conversion, "shipping", values.number),
    sc.CONVERSION_ACTION_SOURCE: (Conversion, "action_source", values.action_source),
    sc.CONVERSION_PROVIDERS: (Conversion, "providers", values.names),
    sc.CONVERSION_EXCLUDE_PROVIDERS: (Conversion, "exclude_providers", values.names),
    sc.CONVERSION_LIMITED_DATA_USE: (Conversion, "limited_data_use", values.flag),
    sc.CITY: (Identifiers, "city", values.place),
    sc.REGION: (Identifiers, "region", values.place),
    sc.POSTAL_CODE: (Identifiers, "postal_code", values.place),
    sc.COUNTRY: (Identifiers, "country", values.country),
    sc.CLIENT_ADDRESS: (Request, "client_address", values.client_address),
    sc.USER_AGENT: (Request, "user_agent", values.told),
    sc.URL_FULL: (Request, "url", values.url),
    sc.REFERER: (Request, "referrer", values.url),
    sc.SESSION_ID: (Request, "session_id", values.identifier),
    sc.LANGUAGE: (Request, "language", values.language),
    sc.PAGE_TITLE: (Request, "page_title", values.identifier),
    sc.SEC_GPC: (Request, "global_privacy_control", values.flag),
    sc.SYNTHETIC_TYPE: (Request, "synthetic_type", values.identifier),
    sc.CONVERSION_ADVERTISING_ID: (Device, "advertising_id", values.identifier),
    sc.CONVERSION_VENDOR_ID: (Device, "vendor_id", values.identifier),
    sc.CONVERSION_APP_INSTANCE_ID: (Device, "app_instance_id", values.identifier),
    sc.CONVERSION_PARTNER_ID: (Device, "partner_id", values.identifier),
    **{sc.CONVERSION_CONSENT + purpose: (Consent, purpose, values.flag) for purpose in sc.CONSENT_PURPOSES},
}
_ELSEWHERE = frozenset({sc.CONVERSION_TYPE, sc.CONVERSION_ID, sc.CONVERSION_COMMIT, sc.RECORDED_BY})

# While an event is read, the fields of all parts lie one after the other in one list.
_PARTS: tuple[type[Any], ...] = (Conversion, Identifiers, Request, Device, Consent)
_PLACES = {field: place for place, field in enumerate((part, name) for part in _PARTS for name in part._fields)}
_BLANK: list[Any] = [part._field_defaults.get(name) for part, name in _PLACES]
_USER, _REQUEST, _DEVICE, _CONSENT = (_PLACES[part, part._fields[0]] for part in _PARTS[1:])
_OF_USER, _OF_REQUEST = slice(_USER, _REQUEST), slice(_REQUEST, _DEVICE)
_OF_DEVICE, _OF_CONSENT = slice(_DEVICE, _CONSENT), slice(_CONSENT, None)
_BLANK_USER, _BLANK_REQUEST, _BLANK_DEVICE, _BLANK_CONSENT = (
    _BLANK[part] for part in (_OF_USER, _OF_REQUEST, _OF_DEVICE, _OF_CONSENT)
)
_NO_USER, _NO_REQUEST, _NO_DEVICE, _NO_CONSENT = Identifiers(), Request(), Device(), Consent()
# The fields of the conversion itself that are read from attributes stand in two rows.
_ORDER = slice(_PLACES[Conversion, "action_source"], _PLACES[Conversion, "user"])
_ROUTES = slice(_PLACES[Conversion, "limited_data_use"], _PLACES[Conversion, "properties"])
_SOURCE, _ITEMS, _QUANTITY, _LIMITED = (
    _PLACES[Conversion, name] for name in ("action_source", "items", "quantity", "limited_data_use")
)
_SEALED, _USER_IDS = (_PLACES[Identifiers, name] for name in ("sealed", "user_id"))
_URL, _AGENT, _ADDRESS = (_PLACES[Request, name] for name in ("url", "user_agent", "client_address"))
_PROPERTY, _CLICK, _DIGESTS, _CHECKED = -1, -2, -3, -4  # places elsewhere; the last one is only looked at
_WEB = ("website", "app")
_make = tuple.__new__  # half the time of a named tuple's own `_make`

_Step = tuple[Any, int, Callable[[Any], Any], str]
"""How one attribute is read: its name as given, the place of its value, its reader, and one name more: that of the click id or
normal form; else the attribute's own where this is another spelling that yields to others of the event."""


def _step(key: Any) -> _Step:
    attribute = sc.ALIASES.get(key, key)
    if known := _FIELDS.get(attribute):
        part, name, reader = known
        return key, _PLACES[part, name], reader, attribute
    if isinstance(key, str):
        if key.startswith(sc.CONVERSION_CLICK) and treatments[key] is values.custom:
            return key, _CLICK, values.click_id, key[len(sc.CONVERSION_CLICK) :]
        if key.startswith(sc.SEALED) and (form := key[len(sc.SEALED) :]) in FORMS:
            return key, _DIGESTS, _digests, form
    return key, _CHECKED if attribute in _ELSEWHERE else _PROPERTY, treatments[key], ""


def _digests(value: Any) -> tuple[str, ...]:
    found = digests(value)
    return (found,) if len(found) == 64 else tuple(dict.fromkeys(found.split(",")))


_steps: ByName[_Step] = ByName(_step)


def _plan(names: tuple[Any, ...]) -> tuple[persons.Held, tuple[_Step, ...]]:
    """How an event with these attributes is read: what holds a person, and a step for each of the others."""
    steps: list[_Step] = []
    met: set[str] = set()
    for name in sorted(names, key=sc.ALIASES.__contains__):  # an attribute comes before its other spellings
        if name not in persons.KINDS:
            key, place, reader, attribute = _steps[name]
            if place >= 0:
                yields = attribute in met
                met.add(attribute)
                attribute = attribute if yields else ""
            steps.append((key, place, reader, attribute))
    return persons.held(names), tuple(steps)


_plans: ByName[tuple[persons.Held, tuple[_Step, ...]]] = ByName(_plan)


def conversion_of(event: Event, default_country: str | None = None) -> Conversion:
    """Read an event, one that was sealed in this process or another, or one that was not sealed yet. No matter which, it is the
    same conversion, free of raw personal data.

    Args:
        default_country: Of phone numbers without a calling code, ISO 3166-1 alpha-2.
    """
    event_id, event_type, name, time_unix_nano, attributes, _, told, origin, timed_here, before, failed = event
    held, steps = _plans[tuple(attributes)]
    fields = _BLANK.copy()
    clicks: dict[str, str] = {}
    properties: dict[str, Any] = {}
    left_out = list(before)
    sealed, user_id = persons.sealed(attributes, held, default_country, left_out)
    for key, place, reader, more in steps:
        value = attributes[key]
        if not value and (value is None or (value == "" and reader is not values.names)):
            continue
        try:
            if place >= 0:
                if more and fields[place] is not _BLANK[place]:
                    continue  # this is another spelling
                if (clean := reader(value)) != "":
                    fields[place] = clean
            elif place == _PROPERTY:
                properties[key] = reader(value)
            elif place == _CLICK:
                if (clean := reader(value)) != "":
                    clicks[more] = clean
            elif place == _DIGESTS:
                found = reader(value)
                sealed[more] = tuple(dict.fromkeys((*sealed[more], *found))) if more in sealed else found
            else:
                reader(value)
        except Exception as problem:  # noqa: BLE001 reason: a number beyond all bounds, say, costs itself only
            left_out.append((shown_name(key), str(problem) if isinstance(problem, Unusable) else "unreadable"))
            if place >= _CONSENT or place == _LIMITED:  # a choice that cannot be read is not taken for a yes
                fields[place] = place == _LIMITED
    if (url := fields[_URL]) is not None and "?" in url:
        for click, value in clicks_of_url(url).items():
            clicks.setdefault(click, value)
    if (around := told.attributes) and not is_anothers(around, fields[_SOURCE], fields[_AGENT], fields[_ADDRESS]):
        user_id = user_id or around.get(sc.USER_ID)
        _complete(around, fields, clicks)
    if user_id:
        fields[_USER_IDS] = ids = (user_id,) if isinstance(user_id, str) else tuple(user_id)
        persons.add_ids(sealed, ids, left_out)
    if sealed:
        fields[_SEALED] = sealed
    if fields[_QUANTITY] is None and fields[_ITEMS]:
        fields[_QUANTITY] = _pieces(fields[_ITEMS])
    user, request, device, consent = fields[_OF_USER], fields[_OF_REQUEST], fields[_OF_DEVICE], fields[_OF_CONSENT]
    return _make(Conversion, (
        event_id, event_type, name, time_unix_nano, *fields[_ORDER],
        _NO_USER if user == _BLANK_USER else _make(Identifiers, user),
        _NO_REQUEST if request == _BLANK_REQUEST else _make(Request, request),
        _NO_DEVICE if device == _BLANK_DEVICE else _make(Device, device),
        clicks,
        _NO_CONSENT if consent == _BLANK_CONSENT else _make(Consent, consent),
        *fields[_ROUTES], properties, origin, timed_here, tuple(left_out), failed,
    ))  # fmt: skip


def _pieces(items: tuple[Item, ...]) -> int:
    count = 0
    for item in items:
        count += 1 if (quantity := item.quantity) is None else quantity
    return count


def is_anothers(around: Mapping[str, Any], source: str | None, agent: str | None, address: str | None) -> bool:
    """Whether what surrounds an event is another person's request than the event is about.

    That is so for a sale that was not made on the web (the request is the clerk's), and where the event brings the user agent
    or else the address of somebody else.

    Args:
        source, agent, address: What the event brings: its action source, user agent and client address.
    """
    if source is not None and source not in _WEB:
        return True
    for key, own in ((sc.USER_AGENT, agent), (sc.CLIENT_ADDRESS, address)):
        if own is not None and key in around:
            return bool(own != around[key])
    return False


def _complete(around: Mapping[str, Any], fields: list[Any], clicks: dict[str, str]) -> None:
    """Add what the visitor's request tells, with its clean values, where the event has nothing of its own."""
    for key, place, _, name in _plans[tuple(around)][1]:
        if place == _CLICK:
            clicks.setdefault(name, around[key])
        elif place >= 0 and fields[place] is _BLANK[place]:
            fields[place] = around[key]

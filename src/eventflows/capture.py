"""From the attributes of a span event or log record to a Conversion. Runs on the app's thread, never raises for bad data.

What identifies a person is sealed here, before anything else can see it. A field that cannot be used is left out with a
reason; the event still goes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import semconv as sc
from . import values
from .conversion import Consent, Conversion, Device, EventType, Identifiers, Request
from .cookies import clicks_of_query
from .pii import FORMS, Unusable, contains_email, seal_all, split_full_name

_READERS: Mapping[str, Callable[[object], Any]] = {
    sc.CONVERSION_ID: values.identifier,
    sc.CONVERSION_VALUE: values.number,
    sc.CONVERSION_CURRENCY: values.currency,
    sc.CONVERSION_ORDER_ID: values.identifier,
    sc.CONVERSION_ITEMS: values.items,
    sc.CONVERSION_QUANTITY: values.count,
    sc.CONVERSION_SEARCH_TERM: values.identifier,
    sc.CONVERSION_COUPON: values.identifier,
    sc.CONVERSION_TAX: values.number,
    sc.CONVERSION_SHIPPING: values.number,
    sc.CONVERSION_ACTION_SOURCE: values.action_source,
    sc.CONVERSION_PROVIDERS: values.names,
    sc.CONVERSION_EXCLUDE_PROVIDERS: values.names,
    sc.CONVERSION_LIMITED_DATA_USE: values.flag,
    sc.CONVERSION_ADVERTISING_ID: values.identifier,
    sc.CONVERSION_VENDOR_ID: values.identifier,
    sc.CONVERSION_APP_INSTANCE_ID: values.identifier,
    sc.CONVERSION_PARTNER_ID: values.identifier,
    sc.CITY: values.identifier,
    sc.REGION: values.identifier,
    sc.POSTAL_CODE: values.identifier,
    sc.COUNTRY: values.country,
    sc.CLIENT_ADDRESS: values.client_address,
    sc.USER_AGENT: values.header,
    sc.URL_FULL: values.url,
    sc.REFERER: values.url,
    sc.SESSION_ID: values.identifier,
    sc.LANGUAGE: values.language,
    sc.SEC_GPC: values.flag,
    sc.SYNTHETIC_TYPE: values.identifier,
    sc.CONVERSION_COMMIT: values.commit,
    sc.PAGE_TITLE: values.identifier,
    **{sc.CONVERSION_CONSENT + purpose: values.flag for purpose in sc.CONSENT_PURPOSES},
}
_ELSEWHERE = frozenset({sc.CONVERSION_TYPE, sc.USER_ID, sc.RECORDED_BY})
_NOTHING: Mapping[str, Any] = {}
_ROUTING = (sc.CONVERSION_PROVIDERS, sc.CONVERSION_EXCLUDE_PROVIDERS)


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


@dataclass(slots=True)
class _Sorted:
    """The attributes of one event, sorted by what they are."""

    known: dict[str, Any] = field(default_factory=dict)
    personal: dict[str, Any] = field(default_factory=dict)
    sealed: dict[str, list[str]] = field(default_factory=dict)
    clicks: dict[str, str] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def capture(
    name: str,
    event_type: EventType,
    attributes: Mapping[str, Any],
    time_unix_nano: int,
    rules: Rules,
    around: Mapping[str, Any] = _NOTHING,
    origin: tuple[int, int] | None = None,
    *,
    timed_here: bool = False,
) -> Conversion:
    """Make the conversion of a recognised event.

    Args:
        name: The event's name as recorded.
        event_type: What `recognise` said.
        attributes: As recorded, raw values included; not changed.
        time_unix_nano: When it happened.
        rules: What the configuration says about capturing.
        around: Attributes of the visitor's request, with clean values, for what the event does not carry itself.
        origin: Trace id and span id of the span that it was recorded in.
        timed_here: The time is this process's clock's.
    """
    found = _sort(attributes)
    if (own_url := found.known.get(sc.URL_FULL)) is not None:
        _add_clicks_of(own_url, found.clicks)
    if around:
        _complete(found, attributes, around)
    known, get = found.known, found.known.get
    _seal(found, rules.default_country)
    user_id = _user_ids(found, attributes.get(sc.USER_ID) or get(sc.USER_ID), rules.default_country)
    order_id, items, quantity = get(sc.CONVERSION_ORDER_ID), get(sc.CONVERSION_ITEMS, ()), get(sc.CONVERSION_QUANTITY)
    if quantity is None and items:
        quantity = sum(1 if item.quantity is None else item.quantity for item in items)
    consent = (get(sc.CONVERSION_CONSENT + purpose) for purpose in sc.CONSENT_PURPOSES)
    return Conversion(
        id=get(sc.CONVERSION_ID) or _default_id(name, event_type, order_id),
        type=event_type,
        name=name,
        time_unix_nano=time_unix_nano,
        action_source=get(sc.CONVERSION_ACTION_SOURCE, "website"),
        value=get(sc.CONVERSION_VALUE),
        currency=get(sc.CONVERSION_CURRENCY),
        order_id=order_id,
        items=items,
        quantity=quantity,
        search_term=get(sc.CONVERSION_SEARCH_TERM),
        coupon=get(sc.CONVERSION_COUPON),
        tax=get(sc.CONVERSION_TAX),
        shipping=get(sc.CONVERSION_SHIPPING),
        user=Identifiers(
            {form: tuple(digests) for form, digests in found.sealed.items()},
            user_id,
            get(sc.CITY),
            get(sc.REGION),
            get(sc.POSTAL_CODE),
            get(sc.COUNTRY),
        ),
        request=Request(
            get(sc.CLIENT_ADDRESS),
            get(sc.USER_AGENT),
            get(sc.URL_FULL),
            get(sc.REFERER),
            get(sc.SESSION_ID),
            get(sc.LANGUAGE),
            get(sc.PAGE_TITLE),
            get(sc.SEC_GPC),
            get(sc.SYNTHETIC_TYPE),
        ),
        device=Device(
            get(sc.CONVERSION_ADVERTISING_ID),
            get(sc.CONVERSION_VENDOR_ID),
            get(sc.CONVERSION_APP_INSTANCE_ID),
            get(sc.CONVERSION_PARTNER_ID),
        ),
        clicks=found.clicks,
        consent=Consent(*consent),
        limited_data_use=get(sc.CONVERSION_LIMITED_DATA_USE),
        providers=known.get(sc.CONVERSION_PROVIDERS),
        exclude_providers=get(sc.CONVERSION_EXCLUDE_PROVIDERS, frozenset()),
        properties=found.properties,
        origin=origin,
        timed_here=timed_here,
        left_out=tuple(found.left_out),
    )


def _sort(attributes: Mapping[str, Any]) -> _Sorted:
    found = _Sorted()
    for key, value in attributes.items():
        if value is None or (value == "" and key not in _ROUTING) or key in _ELSEWHERE:
            continue
        name = sc.ALIASES.get(key, key)
        if name is not key and (name in found.known or attributes.get(name) not in (None, "")):
            continue
        try:
            if reader := _READERS.get(name):
                clean = reader(value)
                if clean != "":
                    found.known[name] = clean
            elif name in sc.SEALED_ATTRIBUTES:
                found.personal[name] = value
            elif name.startswith(sc.CONVERSION_CLICK):
                found.clicks[name[len(sc.CONVERSION_CLICK) :]] = values.click_id(value)
            elif name.startswith(sc.SEALED):
                _sealed_elsewhere(name[len(sc.SEALED) :], value, found.sealed)
            elif sc.event_key(name) in sc.PERSONAL_KEYS:
                raise Unusable("personal data as a custom property: record it as user.*")
            elif contains_email(name):
                found.left_out.append(("custom property", "an e-mail address in its name"))
            else:
                found.properties[name] = values.custom(value)
        except Unusable as problem:
            found.left_out.append((key, str(problem)))
            if name.startswith(sc.CONVERSION_CONSENT):
                found.known[name] = False  # a choice that cannot be read is not taken for a yes
        except Exception:  # noqa: BLE001 reason: a value with a hostile __str__ or __len__ must not reach the app
            found.left_out.append((key if isinstance(key, str) else "custom property", "unreadable"))
    return found


def _add_clicks_of(url: str, clicks: dict[str, str]) -> None:
    if "?" in url:
        for click, value in clicks_of_query(url.partition("?")[2].partition("#")[0]).items():
            clicks.setdefault(click, value)


_WEB = ("website", "app")


def _complete(found: _Sorted, attributes: Mapping[str, Any], around: Mapping[str, Any]) -> None:
    """Add what the visitor's request tells, unless it is another person's request than the event is about.

    That is so for a sale that was not made on the web (the request is the clerk's), and where the event brings the user agent
    or else the address of somebody else.
    """
    known = found.known
    if known.get(sc.CONVERSION_ACTION_SOURCE, "website") not in _WEB:
        return
    for key in (sc.USER_AGENT, sc.CLIENT_ADDRESS):
        if key in known and key in around:
            if known[key] != around[key]:
                return
            break
    for key, value in around.items():
        if key.startswith(sc.CONVERSION_CLICK):
            found.clicks.setdefault(key[len(sc.CONVERSION_CLICK) :], value)
        elif key != sc.USER_ID or not attributes.get(sc.USER_ID):
            known.setdefault(key, value)


def _listed(value: object) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple, set, frozenset)) else (value,)


def _merge(found: _Sorted, attribute: str, kind: str, raw: Iterable[Any], default_country: str | None) -> None:
    sealed, reason = seal_all(kind, raw, default_country)
    for form, digests in sealed.items():
        found.sealed[form] = [*found.sealed.get(form, ()), *digests]
    if reason:
        found.left_out.append((attribute, reason))


def _seal(found: _Sorted, default_country: str | None) -> None:
    for attribute, value in found.personal.items():
        kind = sc.SEALED_ATTRIBUTES[attribute]
        if kind != "full_name":
            _merge(found, attribute, kind, _listed(value), default_country)
        elif sc.USER_FIRST_NAME not in found.personal and sc.USER_LAST_NAME not in found.personal:
            parts = [split_full_name(full) for full in _listed(value) if isinstance(full, str)]
            if not all(parts) or not parts:
                found.left_out.append((attribute, "not a first and a last name"))
            for part, name in enumerate(("first_name", "last_name")):
                _merge(found, attribute, name, (pair[part] for pair in parts if pair), default_country)


def _sealed_elsewhere(form: str, value: object, sealed: dict[str, list[str]]) -> None:
    """Digests that another process made: `conversion.sealed.email.lower` = `<hex>,<hex>`."""
    digests = str(value).split(",")
    if form not in FORMS or not all(len(d) == 64 and set(d) <= set("0123456789abcdef") for d in digests):
        raise Unusable("not digests of a known form")
    sealed[form] = [*sealed.get(form, ()), *digests]


def _user_ids(found: _Sorted, value: object, default_country: str | None) -> tuple[str, ...]:
    ids: list[str] = []
    for raw in _listed(value):
        if raw is None or raw == "":
            continue
        try:
            user_id = values.text(raw)
        except Unusable as problem:
            found.left_out.append((sc.USER_ID, str(problem)))
            continue
        if contains_email(user_id):  # of some use hashed, of none in the open
            found.left_out.append((sc.USER_ID, "an e-mail address: only its hash is used"))
        elif user_id not in ids:
            ids.append(user_id)
        sealed, _ = seal_all("external_id", (user_id,), default_country)
        for form, digests in sealed.items():
            known = found.sealed.setdefault(form, [])
            known.extend(hexdigest for hexdigest in digests if hexdigest not in known)
    return tuple(ids)


def _default_id(name: str, event_type: EventType, order_id: str | None) -> str:
    """The same on every route, and easy to repeat in the browser pixel: `purchase-70331`."""
    if order_id:
        return f"{name if event_type is EventType.CUSTOM else event_type.value}-{order_id}"
    return secrets.token_hex(16)


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
    raw = (one for key in sc.SEALED_ATTRIBUTES if key in attributes for one in _listed(attributes[key]))
    return any(str(one).strip().casefold() in written for one in raw if len(str(one).strip()) > 2)


_OF_REQUEST: tuple[tuple[str, str], ...] = (
    (sc.CLIENT_ADDRESS, "client_address"),
    (sc.USER_AGENT, "user_agent"),
    (sc.URL_FULL, "url"),
    (sc.REFERER, "referrer"),
    (sc.SESSION_ID, "session_id"),
    (sc.LANGUAGE, "language"),
    (sc.SEC_GPC, "global_privacy_control"),
    (sc.SYNTHETIC_TYPE, "synthetic_type"),
)


def sealed_attributes(
    attributes: Mapping[str, Any], conversion: Conversion, *, request: bool = False
) -> dict[str, Any]:
    """The attributes that others may see: raw personal data replaced by its digests, unusable fields gone.

    They still hold all that `capture` needs to make the same conversion in another process.

    Args:
        request: Add what the conversion took from the visitor's request, which belongs on log records and never on spans.
    """
    gone = {key for key, _ in conversion.left_out}
    shown = {
        key: value
        for key, value in attributes.items()
        if key not in sc.SEALED_ATTRIBUTES
        and key not in gone
        and not key.startswith(sc.SEALED)
        and not contains_email(key)
    }
    for key, clean in ((sc.URL_FULL, conversion.request.url), (sc.REFERER, conversion.request.referrer)):
        for alias in (key, *(name for name, target in sc.ALIASES.items() if target == key)):
            if alias in shown:
                shown[alias] = clean
    shown.update((key, "denied") for key in gone if key.startswith(sc.CONVERSION_CONSENT))
    if request:
        _show_request(shown, conversion)
    shown[sc.CONVERSION_ID] = conversion.id
    shown[sc.CONVERSION_TYPE] = conversion.type.value
    shown.update((sc.SEALED + form, ",".join(digests)) for form, digests in conversion.user.sealed.items())
    return shown


def _show_request(shown: dict[str, Any], conversion: Conversion) -> None:
    told = {sc.ALIASES.get(key, key) for key in shown}
    found: dict[str, Any] = {key: getattr(conversion.request, name) for key, name in _OF_REQUEST}
    found.update((sc.CONVERSION_CLICK + click, value) for click, value in conversion.clicks.items())
    for purpose in sc.CONSENT_PURPOSES:
        granted = getattr(conversion.consent, purpose)
        found[sc.CONVERSION_CONSENT + purpose] = None if granted is None else "granted" if granted else "denied"
    found[sc.CONVERSION_LIMITED_DATA_USE] = conversion.limited_data_use
    for key, name in (
        (sc.CITY, "city"),
        (sc.REGION, "region"),
        (sc.POSTAL_CODE, "postal_code"),
        (sc.COUNTRY, "country"),
    ):
        found[key] = getattr(conversion.user, name)
    if conversion.user.user_id:
        found[sc.USER_ID] = conversion.user.user_id[0]
    shown.update((key, value) for key, value in found.items() if value is not None and key not in told)

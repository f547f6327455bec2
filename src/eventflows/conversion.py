"""The conversion: what happened, in neutral words, once nothing raw about a person is left in it.

Everything here is immutable data without behaviour. It knows neither OpenTelemetry nor any platform. Named tuples and not
frozen dataclasses, which take ten times as long to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

NOTHING: Mapping[str, Any] = MappingProxyType({})


class EventType(str, Enum):
    """The neutral conversion types; every provider maps them to its own names."""

    __hash__ = str.__hash__  # that of Enum is no C, and these are the keys of much that is counted and looked up

    PAGE_VIEW = "page_view"
    VIEW_CONTENT = "view_content"
    SEARCH = "search"
    ADD_TO_CART = "add_to_cart"
    ADD_TO_WISHLIST = "add_to_wishlist"
    INITIATE_CHECKOUT = "initiate_checkout"
    ADD_PAYMENT_INFO = "add_payment_info"
    PURCHASE = "purchase"
    LEAD = "lead"
    SIGN_UP = "sign_up"
    SUBSCRIBE = "subscribe"
    START_TRIAL = "start_trial"
    CONTACT = "contact"
    SCHEDULE = "schedule"
    SUBMIT_APPLICATION = "submit_application"
    DOWNLOAD = "download"
    REFUND = "refund"
    CUSTOM = "custom"


class Item(NamedTuple):
    """One line of a cart or order. `price` is for one piece, in units of the conversion's currency."""

    id: str | None = None
    name: str | None = None
    price: float | int | None = None
    quantity: int | None = None
    category: str | None = None
    brand: str | None = None
    variant: str | None = None
    coupon: str | None = None
    discount: float | int | None = None


class Identifiers(NamedTuple):
    """Who did it. `sealed` holds only SHA-256 digests; the other fields are no secret of the person.

    Attributes:
        sealed: Digests by normal form, such as `{"email.lower": ("62a1…",), "phone.e164": ("e5b1…",)}`. The
            forms are listed in `eventflows.pii`; each provider says which one its API documents.
        user_id: The app's own ids, as given (an id that is an e-mail address is only in `sealed`).
        city, region, postal_code: As given; `country` is ISO 3166-1 alpha-2, upper case.
    """

    sealed: Mapping[str, tuple[str, ...]] = NOTHING
    user_id: tuple[str, ...] = ()
    city: str | None = None
    region: str | None = None
    postal_code: str | None = None
    country: str | None = None


class Request(NamedTuple):
    """What is known of the visitor's HTTP request.

    Attributes:
        client_address: A valid IPv4 or IPv6 address.
        global_privacy_control: Whether the browser sent `Sec-GPC: 1`.
        synthetic_type: `bot` or `test` where the instrumentation found out that no person sent the request.
    """

    client_address: str | None = None
    user_agent: str | None = None
    url: str | None = None
    referrer: str | None = None
    session_id: str | None = None
    language: str | None = None
    page_title: str | None = None
    global_privacy_control: bool | None = None
    synthetic_type: str | None = None


class Device(NamedTuple):
    """Identifiers of an app's device. `advertising_id` is an IDFA or a GAID."""

    advertising_id: str | None = None
    vendor_id: str | None = None
    app_instance_id: str | None = None
    partner_id: str | None = None


class Consent(NamedTuple):
    """The visitor's choices: True is granted, False is denied, None is not known."""

    ad_storage: bool | None = None
    ad_user_data: bool | None = None
    ad_personalization: bool | None = None
    analytics_storage: bool | None = None


class Conversion(NamedTuple):
    """One conversion, immutable and free of raw personal data; the unit that is queued, mapped and settled.

    Attributes:
        id: The same on every route and attempt; platforms deduplicate by it.
        name: The event's name as it was recorded.
        time_unix_nano: When it happened, in nanoseconds since 1970.
        timed_here: The time is that of this process's clock, and not one that the app gave.
        value: The total in units (not cents) of `currency`, an upper-case ISO 4217 code.
        quantity: How many pieces in all.
        clicks: Click ids and cookies by the last part of their attribute name (`fbc`, `ttclid`, ...).
        providers: Ids or types of the only providers that may get it; None means all of them.
        properties: Everything the app recorded beyond the semantic attributes.
        origin: Trace id and span id of the span that it was recorded in.
        left_out: `(attribute, reason)` of each field that was not usable. Never holds the value.
        failed: The work in which it was recorded has failed: it is counted, and goes to nobody.
    """

    id: str
    type: EventType
    name: str
    time_unix_nano: int
    action_source: str = "website"
    value: float | int | None = None
    currency: str | None = None
    order_id: str | None = None
    items: tuple[Item, ...] = ()
    quantity: int | None = None
    search_term: str | None = None
    coupon: str | None = None
    tax: float | int | None = None
    shipping: float | int | None = None
    user: Identifiers = Identifiers()
    request: Request = Request()
    device: Device = Device()
    clicks: Mapping[str, str] = NOTHING
    consent: Consent = Consent()
    limited_data_use: bool | None = None
    providers: frozenset[str] | None = None
    exclude_providers: frozenset[str] = frozenset()
    properties: Mapping[str, Any] = NOTHING
    origin: tuple[int, int] | None = None
    timed_here: bool = False
    left_out: tuple[tuple[str, str], ...] = ()
    failed: bool = False

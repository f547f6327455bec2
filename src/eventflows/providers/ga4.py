"""Google Analytics 4, by its Measurement Protocol. `docs/providers/ga4.md` explains the choices made here.

Sources (checked on 2026-11-23): https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference
with `?client_type=gtag`, its neighbours `sending-events`, `validating-events` and `use-cases`, and
https://developers.google.com/analytics/devguides/collection/ga4/uid-data
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from ..conversion import Conversion, EventType, Item
from ..secret import SecretLike
from ..semconv import event_key
from .base import (
    DAY_NS,
    Encoded,
    Outcome,
    Provider,
    Request,
    Response,
    Sent,
    Status,
    Unencodable,
    all_of,
    by_http_status,
    language_tag,
    scalars,
)
from .ga4_identity import client_id, location, session_id, user_data
from .ga4_validation import validated

REGIONS: Mapping[str, str] = {
    "us": "https://www.google-analytics.com",
    "eu": "https://region1.google-analytics.com",
}
MAX_NAME = 40  # characters of an event's or a parameter's name
MAX_PARAMS = 25
MAX_ITEMS = 200
MAX_ITEMS_BYTES = 80_000  # of an event that must fit in a request
FITTING_ITEMS = 20  # so many always do
MAX_USER_ID = 256
MAX_VALUE = 100  # characters of a parameter's value, but for these:
MAX_VALUES: Mapping[str, int] = {"page_title": 300, "page_referrer": 420, "page_location": 1000}

# Without a positive engagement time an event shows in Realtime and is missing in the reports.
DEFAULT_ENGAGEMENT_TIME_MSEC = 1
MAX_ENGAGEMENT_TIME_MSEC = 2**53
# Google's pages disagree where an event's time belongs: beside `params`, or among them. Only beside them it was
# seen to work; on top level as well where one time holds for the whole request.
TIME_FIELD = "timestamp_micros"
# The strict mode belongs to tests: in production Google advises to leave `validation_behavior` out.
TEST_VALIDATION = "ENFORCE_RECOMMENDATIONS"
# The only events GA4 recognises when they come twice, by their transaction_id.
DEDUPLICATED = frozenset({"purchase", "refund"})

_RESERVED_EVENTS = """
    ad_activeview ad_click ad_exposure ad_query ad_reward adunit_exposure app_clear_data app_exception app_install
    app_remove app_store_refund app_store_subscription_cancel app_store_subscription_convert
    app_store_subscription_renew app_update app_upgrade dynamic_link_app_open dynamic_link_app_update
    dynamic_link_first_open error firebase_campaign firebase_in_app_message_action firebase_in_app_message_dismiss
    firebase_in_app_message_impression first_open first_visit notification_dismiss notification_foreground
    notification_open notification_receive notification_send os_update session_start user_engagement
"""
_RECOMMENDED_EVENTS = """
    ad_impression earn_virtual_currency generate_lead join_group login purchase refund search select_content share
    sign_up spend_virtual_currency tutorial_begin tutorial_complete add_payment_info add_shipping_info add_to_cart
    add_to_wishlist begin_checkout remove_from_cart select_item select_promotion view_cart view_item view_item_list
    view_promotion qualify_lead disqualify_lead working_lead close_convert_lead close_unconvert_lead
"""
RESERVED_EVENTS = frozenset(_RESERVED_EVENTS.split())
# Only app streams take these.
APP_EVENTS = frozenset({"ad_impression", "in_app_purchase", "screen_view"})
RESERVED_PREFIXES = ("_", "firebase_", "ga_", "google_", "gtag.")
# Google's own, and those that only this module may set: a wrong one would break sessions or switch debugging on.
RESERVED_PARAMS = frozenset({"firebase_conversion", "session_id", "engagement_time_msec", "debug_mode", "items"})

_APP_INSTANCE_ID = re.compile(r"[0-9A-Fa-f]{32}")


@dataclass(frozen=True, repr=False)
class GA4Provider(Provider):
    """Google Analytics 4: a web stream (`measurement_id`) or an app stream (`firebase_app_id`).

    Args:
        measurement_id: The web stream's id, such as `G-FJ0RD1AMP9`.
        api_secret: A Measurement Protocol API secret of the stream.
        firebase_app_id: The app stream's id, instead of a measurement id.
        region: `"eu"` collects on Google's EU host.
        debug_mode: Marks the events for DebugView. They are recorded all the same.
        test_mode: Sends to the validation server, which checks strictly and records nothing.

    Raises:
        ConfigurationError: Not exactly one of the two ids, no secret, or a wrong value.
    """

    measurement_id: str | None = None
    api_secret: SecretLike | None = None
    firebase_app_id: str | None = None
    region: Literal["us", "eu"] | None = None
    debug_mode: bool = False
    test_mode: bool = False

    TYPE: ClassVar[str] = "ga4"
    URL: ClassVar[str] = REGIONS["us"]
    REQUIRED: ClassVar[tuple[str, ...]] = ("api_secret",)
    SECRETS: ClassVar[tuple[str, ...]] = ("api_secret",)
    NEEDS_CONSENT: ClassVar[tuple[str, ...]] = ("analytics_storage",)
    MAX_BATCH: ClassVar[int] = 25
    MAX_BYTES: ClassVar[int] = 110_000  # of a body that must stay below 130 kB; the rest is for the envelope
    MAX_AGE_NS: ClassVar[int | None] = 3 * DAY_NS  # Google silently moves an older event to 72 hours ago
    MAX_AHEAD_NS: ClassVar[int | None] = None
    NOT_TESTED: ClassVar[str] = (
        "api_secret and the stream's id, as the validation server knows neither, and the real one answers 2xx to anything. "
        "Send an event (eventflows send) and look for it in Realtime"
    )
    MATCH_KEYS: ClassVar[frozenset[str]] = frozenset(
        "ga_client_id ga_session_id app_instance_id email phone first_name last_name street external_id city region "
        "postal_code country client_address user_agent".split()
    )
    EVENT_NAMES: ClassVar[Mapping[EventType, str]] = {
        EventType.PAGE_VIEW: "page_view",
        EventType.VIEW_CONTENT: "view_item",
        EventType.SEARCH: "search",
        EventType.ADD_TO_CART: "add_to_cart",
        EventType.ADD_TO_WISHLIST: "add_to_wishlist",
        EventType.INITIATE_CHECKOUT: "begin_checkout",
        EventType.ADD_PAYMENT_INFO: "add_payment_info",
        EventType.PURCHASE: "purchase",
        EventType.LEAD: "generate_lead",
        EventType.SIGN_UP: "sign_up",
        EventType.SUBSCRIBE: "subscribe",  # this and the next four are custom events to GA4
        EventType.START_TRIAL: "start_trial",
        EventType.CONTACT: "contact",
        EventType.SCHEDULE: "schedule",
        EventType.SUBMIT_APPLICATION: "submit_application",
        EventType.DOWNLOAD: "file_download",
        EventType.REFUND: "refund",
    }
    STANDARD_EVENTS: ClassVar[frozenset[str]] = frozenset(_RECOMMENDED_EVENTS.split())

    def contradictions(self) -> Iterable[tuple[str, str]]:
        if (self.measurement_id is None) == (self.firebase_app_id is None):
            yield "measurement_id", "either this (web) or firebase_app_id (app) is required, and not both"
        # Google answers 2xx to any id.
        if self.measurement_id is not None and not self.measurement_id.startswith("G-"):
            yield "measurement_id", "must begin with G-"
        if self.firebase_app_id is not None and not re.fullmatch(r"\d+:\d+:\w+:\w+", self.firebase_app_id):
            yield "firebase_app_id", "must look like 1:4711:ios:0aff"

    @property
    def base_url(self) -> str:
        return self.endpoint or REGIONS[self.region or "us"]

    def for_testing(self) -> Provider:
        return replace(self, test_mode=True)

    def encode(self, conversion: Conversion) -> Encoded:
        name = self._event_name(conversion)
        params = _params(conversion, name, self)
        time = {TIME_FIELD: conversion.time_unix_nano // 1000}
        event = {"name": name, **time, "params": params}
        # An app stream deduplicates nothing.
        repeatable = name in DEDUPLICATED and "transaction_id" in params and self.firebase_app_id is None
        return Encoded(event, self._envelope(conversion), repeatable, time)

    def request(self, batch: Sequence[Sent]) -> Request:
        envelope, common = dict(batch[0].envelope), batch[0].common
        if all(one.common == common for one in batch):
            envelope |= common
        if self.test_mode:
            envelope["validation_behavior"] = TEST_VALIDATION
        return Request(
            method="POST",
            url=self._url,
            envelope=envelope,
            events_at=("events",),
            secret_params={"api_secret": self.api_secret or ""},
        )

    @cached_property
    def _url(self) -> str:
        path = "/debug/mp/collect" if self.test_mode else "/mp/collect"
        key = "measurement_id" if self.measurement_id is not None else "firebase_app_id"
        stream = quote(self.measurement_id or self.firebase_app_id or "", safe=":")  # Google wants the colons as such
        return f"{self.base_url}{path}?{key}={stream}"

    def outcomes(self, response: Response, batch: Sequence[Sent]) -> list[Outcome]:
        status = response.status
        if 200 <= status < 300:
            # All that a 2xx says is that the request arrived; GA4 never tells more.
            return validated(response, batch) if self.test_mode else all_of(batch, Status.DELIVERED)
        return by_http_status(response, batch)

    def _event_name(self, conversion: Conversion) -> str:
        if known := self.EVENT_NAMES.get(conversion.type):
            return known
        given = conversion.name
        name = _STANDARD_BY_KEY.get(event_key(given)) or _slug(given)
        if name in RESERVED_EVENTS or (self.firebase_app_id is None and name in APP_EVENTS):
            name = f"e_{name}"[:MAX_NAME]
        return name

    def _envelope(self, conversion: Conversion) -> dict[str, Any]:
        user, request, consent = conversion.user, conversion.request, conversion.consent
        envelope: dict[str, Any] = {}
        if self.firebase_app_id is None:
            envelope["client_id"] = client_id(conversion)
        elif _APP_INSTANCE_ID.fullmatch(app := conversion.device.app_instance_id or ""):
            envelope["app_instance_id"] = app
        else:
            raise Unencodable("GA4 app streams need conversion.app_instance_id: 32 hex digits, as Firebase makes it")
        for user_id in user.user_id:
            if 0 < len(user_id) <= MAX_USER_ID and "@" not in user_id:
                envelope["user_id"] = user_id
                break
        ad_user_data = consent.ad_user_data
        personalization = False if conversion.limited_data_use else consent.ad_personalization
        if ad_user_data is not None or personalization is not None:
            choices = envelope["consent"] = {}
            if ad_user_data is not None:
                choices["ad_user_data"] = _choice(ad_user_data)
            if personalization is not None:
                choices["ad_personalization"] = _choice(personalization)
        # Google ignores ip_override beside user_location, and user_agent beside device.
        if address := request.client_address:
            envelope["ip_override"] = address
        elif place := location(user):
            envelope["user_location"] = place
        if user_agent := request.user_agent:
            envelope["user_agent"] = user_agent
        elif language := language_tag(request.language):
            envelope["device"] = {"language": language}
        if ad_user_data is not False and (data := user_data(user)):
            envelope["user_data"] = data
        return envelope

    @cached_property
    def _session_cookie(self) -> str:
        """The name of this stream's own cookie, `_ga_<measurement id without G->`, among the clicks."""
        return f"ga_session_id.{(self.measurement_id or '').removeprefix('G-')}"


_STANDARD_BY_KEY = {event_key(name): name for name in GA4Provider.STANDARD_EVENTS}


@lru_cache(maxsize=1024)
def _slug(name: str) -> str:
    """A name GA4 takes, for an event or a parameter: `Lamp configured!` → `Lamp_configured_`."""
    slug = re.sub(r"[^A-Za-z0-9_]", "_", name.strip())
    if not slug[:1].isalpha() or slug.startswith(RESERVED_PREFIXES):
        slug = f"e_{slug}"
    return slug[:MAX_NAME]


def _choice(granted: bool) -> str:
    return "GRANTED" if granted else "DENIED"


# --- what ----------------------------------------------------------------------------------------------------------


def _params(conversion: Conversion, name: str, provider: GA4Provider) -> dict[str, Any]:
    """What GA4 knows comes first, so that custom properties are what the limit of 25 cuts off."""
    value, request, clicks, properties = conversion.value, conversion.request, conversion.clicks, conversion.properties
    params: dict[str, Any] = {}
    if clicks and (session := session_id(clicks, provider._session_cookie)) is not None:
        params["session_id"] = session
    params["engagement_time_msec"] = _engagement_time(properties)
    if provider.debug_mode:
        params["debug_mode"] = 1
    if transaction_id := _transaction_id(conversion, name):
        params["transaction_id"] = transaction_id
    if currency := conversion.currency:
        params["currency"] = currency
    if value is not None:
        params["value"] = abs(value) if name == "refund" else value
    if coupon := conversion.coupon:
        params["coupon"] = coupon[:MAX_VALUE]
    if (shipping := conversion.shipping) is not None:
        params["shipping"] = abs(shipping) if name == "refund" else shipping
    if (tax := conversion.tax) is not None:
        params["tax"] = abs(tax) if name == "refund" else tax
    if term := conversion.search_term:
        params["search_term"] = term[:MAX_VALUE]
    if url := request.url:
        params["page_location"] = url[: MAX_VALUES["page_location"]]
    if referrer := request.referrer:
        params["page_referrer"] = referrer[: MAX_VALUES["page_referrer"]]
    if title := request.page_title:
        params["page_title"] = title[: MAX_VALUES["page_title"]]
    if items := [_item(item) for item in conversion.items if item.id or item.name]:
        params["items"] = items if len(items) <= FITTING_ITEMS else _fitting(items)
    for key, custom in scalars(properties, RESERVED_PARAMS).items() if properties else ():
        if len(params) == MAX_PARAMS:
            break
        slug = _param(key)
        unusable = custom == "" or (not isinstance(custom, str) and (slug in MAX_VALUES or not math.isfinite(custom)))
        if slug and slug not in params and not unusable:
            params[slug] = custom[: MAX_VALUES.get(slug, MAX_VALUE)] if isinstance(custom, str) else custom
    return params


@lru_cache(maxsize=1024)
def _param(key: str) -> str | None:
    """The parameter that a custom property becomes, if any."""
    slug = _slug(key)
    return slug if slug not in RESERVED_PARAMS and re.search(r"[A-Za-z0-9]", key) else None


def _transaction_id(conversion: Conversion, name: str) -> str | None:
    """The order; for a purchase without one the conversion's id, so that GA4 recognises a repeated delivery.

    An id that is too long is left out: cut, it could be the id of another order.
    """
    order_id = conversion.order_id
    if order_id and len(order_id) <= MAX_VALUE:
        return order_id
    return conversion.id if name == "purchase" and len(conversion.id) <= MAX_VALUE else None


def _engagement_time(properties: Mapping[str, Any]) -> int:
    given = properties.get("engagement_time_msec")
    if isinstance(given, (int, float)) and not isinstance(given, bool) and 1 <= given < MAX_ENGAGEMENT_TIME_MSEC:
        return int(given)
    return DEFAULT_ENGAGEMENT_TIME_MSEC


def _fitting(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many as GA4 takes: of a request that is too large it takes nothing, and says nothing."""
    length = 0
    for count, item in enumerate(items[:MAX_ITEMS]):
        length += len(json.dumps(item, ensure_ascii=False).encode("utf-8", "replace"))
        if length > MAX_ITEMS_BYTES:
            return items[:count]
    return items[:MAX_ITEMS]


def _item(item: Item) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if item_id := item.id:
        made["item_id"] = item_id[:MAX_VALUE]
    if name := item.name:
        made["item_name"] = name[:MAX_VALUE]
    if (price := item.price) is not None:
        made["price"] = price
    if (quantity := item.quantity) is not None:
        made["quantity"] = quantity
    if category := item.category:
        made["item_category"] = category[:MAX_VALUE]
    if brand := item.brand:
        made["item_brand"] = brand[:MAX_VALUE]
    if variant := item.variant:
        made["item_variant"] = variant[:MAX_VALUE]
    if coupon := item.coupon:
        made["coupon"] = coupon[:MAX_VALUE]
    if (discount := item.discount) is not None:
        made["discount"] = discount
    return made

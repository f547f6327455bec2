"""Reddit, by its Conversions API v3. `docs/providers/reddit.md` explains the choices made here.

Sources (checked on 2026-11-23): https://ads-api.reddit.com/api/v3/openapi.json (operation `post_conversion_events`),
https://github.com/reddit/reddit-ss-gtm-template (Reddit's own server tag), and on https://business.reddithelp.com the
pages "Manual advanced matching", "Event deduplication" and "About event metadata".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

from ..conversion import Conversion, EventType, Item
from ..pii import digest, iso_place, mobile_id
from ..secret import SecretLike, bearer
from .base import (
    DAY_NS,
    MINUTE_NS,
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
    present,
    refused_at,
)

VERSION = "v3"  # Reddit has set no end for it
MAX_CUSTOM_NAME = 64
MAX_ORDER_ID = 100

# Only upper case is accepted, whatever public examples show.
ACTION_SOURCES: Mapping[str, str] = {"website": "WEBSITE", "app": "APP", "physical_store": "PHYSICAL_STORE"}
OTHER_SOURCE = "OTHER"

# The platform has no tracking type for these. Some send them as LEAD, which spoils campaigns that optimise for leads.
CUSTOM_NAMES: Mapping[EventType, str] = {
    EventType.INITIATE_CHECKOUT: "InitiateCheckout",
    EventType.ADD_PAYMENT_INFO: "AddPaymentInfo",
    EventType.SUBSCRIBE: "Subscribe",
    EventType.START_TRIAL: "StartTrial",
    EventType.CONTACT: "Contact",
    EventType.SCHEDULE: "Schedule",
    EventType.SUBMIT_APPLICATION: "SubmitApplication",
    EventType.DOWNLOAD: "Download",
    EventType.REFUND: "Refund",
}

# The specification allows every metadata field on every event, the help pages only these. They are followed.
REVENUE_TYPES = frozenset({"PURCHASE", "ADD_TO_CART", "ADD_TO_WISHLIST", "LEAD", "SIGN_UP", "CUSTOM"})
COUNTED_TYPES = frozenset({"PURCHASE", "ADD_TO_CART", "ADD_TO_WISHLIST", "CUSTOM"})
TYPES_WITHOUT_PRODUCTS = frozenset({"PAGE_VISIT", "SEARCH"})

# Sources disagree on the e-mail: without dots and +alias, or letters and digits only. Reddit's help page and its
# example say the latter.
EMAIL_FORM = "email.alnum"
# One manual hashes the phone number's digits; the specification's example hashes the plus as well.
PHONE_FORM = "phone.e164"

# The test id is the one that Event Testing in the Events Manager shows. Without a `test_code` the pixel's id is used,
# which is an assumption: no public page says that they are the same.
TEST_ID_FALLBACK = "pixel_id"

# Limited data use needs a country. Where the person's is not known: it is the law of US states that it serves.
LDU_COUNTRY = "US"

_REFUND = EventType.REFUND  # before Python 3.12 it is slow to look up
MATCH_KEYS = frozenset({"email", "phone_number", "external_id", "uuid", "idfa", "aaid"})
# `_rdt_uuid` is `<milliseconds>.<uuid>`; one that is not an RFC 4122 UUID sinks the whole request.
_UUID = re.compile(
    r"(?:[0-9]{13}\.)?[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE
)
_EVENT_INDEX = re.compile(r"\bevents\[(\d+)\]")
_PATH = re.compile(r"[\w.\[\]$]{1,120}")


@dataclass(frozen=True, repr=False)
class RedditProvider(Provider):
    """Reddit's Conversions API, version 3.

    Args:
        pixel_id: The pixel's id, such as `a2_f3x9k1`; usually equal to the ad account's.
        access_token: A conversion access token from the Events Manager.
        test_mode: Shows the events under Event Testing, with `test_code` as test id where that is given.

    Raises:
        ConfigurationError: A required setting is empty, or a setting has a wrong value.
    """

    pixel_id: str
    access_token: SecretLike
    test_mode: bool = False

    TYPE: ClassVar[str] = "reddit"
    URL: ClassVar[str] = "https://ads-api.reddit.com"
    REQUIRED: ClassVar[tuple[str, ...]] = ("pixel_id", "access_token")
    SECRETS: ClassVar[tuple[str, ...]] = ("access_token",)
    MAX_BATCH: ClassVar[int] = 1000
    MAX_REQUESTS_PER_SECOND: ClassVar[float | None] = 1000
    MAX_EVENTS_PER_SECOND: ClassVar[float | None] = 10_000
    MAX_AGE_NS: ClassVar[int | None] = 7 * DAY_NS  # "must be less than 168h0m0s old"
    MAX_AHEAD_NS: ClassVar[int | None] = 5 * MINUTE_NS  # not published; what others found
    MATCH_KEYS: ClassVar[frozenset[str]] = frozenset(
        "email phone external_id client_address user_agent rdt_cid rdt_uuid advertising_id".split()
    )
    API_VERSION: ClassVar[str] = VERSION
    HOW_TO_TEST: ClassVar[str] = "set test_code to the test id of Events Manager → Event Testing, or test_mode: true"
    EVENT_NAMES: ClassVar[Mapping[EventType, str]] = {
        EventType.PAGE_VIEW: "PAGE_VISIT",
        EventType.VIEW_CONTENT: "VIEW_CONTENT",
        EventType.SEARCH: "SEARCH",
        EventType.ADD_TO_CART: "ADD_TO_CART",
        EventType.ADD_TO_WISHLIST: "ADD_TO_WISHLIST",
        EventType.PURCHASE: "PURCHASE",
        EventType.LEAD: "LEAD",
        EventType.SIGN_UP: "SIGN_UP",
    }

    @property
    def test_id(self) -> str | None:
        """What marks the request as a test, or None."""
        return self.test_code or (getattr(self, TEST_ID_FALLBACK) if self.test_mode else None)

    def for_testing(self) -> Provider | None:
        return self if self.test_mode or self.test_code else None

    def encode(self, conversion: Conversion) -> Encoded:
        source = ACTION_SOURCES.get(conversion.action_source, OTHER_SOURCE)
        tracking_type = self.EVENT_NAMES.get(conversion.type, "CUSTOM")
        in_store = source == "PHYSICAL_STORE"  # takes neither click id nor browser or device ids
        click_id = None if in_store else conversion.clicks.get("rdt_cid")
        user = _user(conversion, device=not in_store)
        if not click_id and MATCH_KEYS.isdisjoint(user) and not ("ip_address" in user and "user_agent" in user):
            raise Unencodable(
                "Reddit has nothing to match on: it needs a click id, an e-mail, phone, user or device id, "
                "the _rdt_uuid cookie, or an IP address with a user agent"
            )
        kind = {"tracking_type": tracking_type}
        if tracking_type == "CUSTOM":
            kind["custom_event_name"] = CUSTOM_NAMES.get(conversion.type, conversion.name)[:MAX_CUSTOM_NAME]
        event: dict[str, Any] = {
            "event_at": conversion.time_unix_nano // 10**6,
            "action_source": source,
            "type": kind,
            "metadata": _metadata(conversion, tracking_type),
        }
        if user:
            event["user"] = user
        if click_id:
            event["click_id"] = click_id
        request = conversion.request
        if source == "WEBSITE" and (url := request.url):
            event["event_source_url"] = url
        if referrer := request.referrer:
            event["referrer_url"] = referrer
        return Encoded(event)

    def request(self, batch: Sequence[Sent]) -> Request:  # noqa: ARG002 reason: nothing in it depends on the events
        return Request(
            method="POST",
            url=f"{self.base_url}/api/{VERSION}/pixels/{quote(self.pixel_id, safe='')}/conversion_events",
            envelope={"data": present(test_id=self.test_id)},
            events_at=("data", "events"),
            secret_headers={"Authorization": bearer(self.access_token)},
        )

    def outcomes(self, response: Response, batch: Sequence[Sent]) -> list[Outcome]:
        if response.status == 200 and isinstance(response.json, Mapping) and "data" in response.json:
            return all_of(batch, Status.DELIVERED)
        if response.status == 400:
            # One bad event refuses the whole request ("None were processed"), but the answer says which it was.
            reasons = _refused(response.json, len(batch))
            if reasons:
                return refused_at(batch, reasons)
        return by_http_status(response, batch)


def _user(conversion: Conversion, *, device: bool) -> dict[str, Any]:
    user, request = conversion.user, conversion.request
    sealed = user.sealed
    found: dict[str, Any] = {}
    if emails := sealed.get(EMAIL_FORM):
        found["email"] = emails[0]
    if phones := sealed.get(PHONE_FORM):
        found["phone_number"] = phones[0]
    if ids := sealed.get("external_id.trim"):
        found["external_id"] = ids[0]
    if address := request.client_address:
        found["ip_address"] = address  # plain, as in Reddit's own tag, though older clients hashed it
    if user_agent := request.user_agent:
        found["user_agent"] = user_agent
    if device and (uuid := conversion.clicks.get("rdt_uuid")) and _UUID.fullmatch(uuid.strip()):
        found["uuid"] = uuid.strip()
    if device and (advertising_id := conversion.device.advertising_id):
        mobile = mobile_id(advertising_id, str(conversion.properties.get("os.name", "")))
        if mobile is not None:
            found["idfa" if mobile[0] == "idfa" else "aaid"] = digest(mobile[1])
    if conversion.limited_data_use or conversion.consent.ad_personalization is False:
        country, code = iso_place(user.region or "", user.country)
        place = present(country=country, region=code)
        found["data_processing_options"] = {"modes": ["LDU"], "country": LDU_COUNTRY} | place
    return found


def _metadata(conversion: Conversion, tracking_type: str) -> dict[str, Any]:
    data: dict[str, Any] = {"conversion_id": conversion.id}
    if order_id := conversion.order_id:
        data["order_id"] = order_id[:MAX_ORDER_ID]
    if tracking_type in REVENUE_TYPES:
        value = conversion.value
        if value is not None and conversion.type is _REFUND:
            value = abs(value)
        if value is not None and value >= 0:
            data["value"] = value
        if currency := conversion.currency:
            data["currency"] = currency
    if (quantity := conversion.quantity) is not None and tracking_type in COUNTED_TYPES:
        data["item_count"] = quantity
    if tracking_type not in TYPES_WITHOUT_PRODUCTS and (products := _products(conversion.items)):
        data["products"] = products
    return data


def _products(items: Iterable[Item]) -> list[dict[str, Any]]:
    products: list[dict[str, Any]] = []
    for item in items:
        product: dict[str, Any] = {}
        if item_id := item.id:
            product["id"] = item_id
        if name := item.name:
            product["name"] = name
        if category := item.category:
            product["category"] = category
        if (quantity := item.quantity) is not None:
            product["quantity"] = quantity
        if (price := item.price) is not None:
            product["item_price"] = price
        if product:
            products.append(product)
    return products


def _refused(body: Any, size: int) -> dict[int, str]:
    """The refused events of an answer and why: the field, since the message repeats its value."""
    error = body.get("error") if isinstance(body, Mapping) else None
    fields = error.get("fields") if isinstance(error, Mapping) else None
    reasons: dict[int, str] = {}
    for entry in fields if isinstance(fields, list) else ():
        path = str(entry.get("field", "")) if isinstance(entry, Mapping) else ""
        match = _EVENT_INDEX.search(path)
        if match and int(match[1]) < size:
            named = re.sub(r"\[\d+\]", "[]", path)
            reasons.setdefault(int(match[1]), f"refused at {named}" if _PATH.fullmatch(named) else "refused")
    return reasons

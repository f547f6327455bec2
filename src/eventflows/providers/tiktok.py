"""TikTok, by its Events API 2.0 (Business API v1.3). `docs/providers/tiktok.md` explains the choices made here.

Sources (checked on 2026-11-23): https://business-api.tiktok.com/portal/docs?id=1771101303285761 and its neighbours on
parameters, supported events and test events, and https://ads.tiktok.com/help/article/event-deduplication
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..conversion import Conversion, EventType, Identifiers, Item
from ..conversion import Request as Visit
from ..pii import compact_place, mobile_id, place_digest, postal, state_code
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
    as_amount,
    as_text,
    as_texts,
    by_http_status,
    language_tag,
    one_of,
    present,
    refused_at,
)

VERSION = "v1.3"  # TikTok sets no ends
PATH = f"/open_api/{VERSION}/event/track/"  # with its trailing slash
# The parameter table calls `page` required for web events, the portal's own example has none. An event without a URL
# goes without a page: should TikTok refuse it, it is counted; kept back, it would be lost for certain.
PAGE_REQUIRED = False

CURRENCIES = frozenset(
    "AED ARS AUD BDT BHD BIF BOB BRL CAD CHF CLP CNY COP CRC CZK DKK DZD EGP EUR GBP GTQ HKD HNL HUF IDR ILS INR ISK JPY "
    "KES KHR KRW KWD KZT MAD MOP MXN MYR NGN NIO NOK NZD OMR PEN PHP PKR PLN PYG QAR RON RUB SAR SEK SGD THB TRY TWD UAH "
    "USD VES VND ZAR".split()
)
"""The closed list. A value in another currency is left out, since its number alone would be read as another amount."""

WEAK_KEYS = frozenset({"ip", "user_agent", "locale", "city", "state", "country"})
"""An event that has only such keys cannot be matched, but for an address together with a user agent."""

_REFUND = EventType.REFUND  # before Python 3.12 it is slow to look up
_PARTIAL_SUCCESS = 20001
_INVALID = 40002
_UNAUTHORISED = frozenset({40001, 40007, 40101, 40102, 40104, 40105})
_TOO_FREQUENT = frozenset({40016, 40100, 40132, 40133})
_INDEX = re.compile(r"\b(?:data|batch)\.(\d+)\.", re.IGNORECASE)

LEAD = ("lead_id", "lead_event_source")
"""Properties of an event that comes from a CRM; TikTok's lead ids have 19 digits, hence are texts."""

CONTENT_TYPE = one_of("product|product_group")
# Properties that TikTok documents with a type: a value of another one would sink the batch ("not a valid string"), so
# it is converted or left out.
TYPED_PROPERTIES: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("description", "query", "shop_id"), as_text),
    "content_ids": as_texts,
    "content_type": CONTENT_TYPE,
    "predicted_ltv": as_amount,
    "customer_type": one_of("new|returning"),
    "delivery_category": one_of("in_store|curbside|home_delivery"),
}


@dataclass(frozen=True, repr=False)
class TikTokProvider(Provider):
    """TikTok's Events API.

    Args:
        pixel_code: The event source's id: a pixel code, an app's id, an offline or a CRM event set's id.
        access_token: From Events Manager → the pixel → Settings.
        event_source: `web`, `app`, `offline` or `crm`: what kind of source that id is.
        app_id: For `app`: the id in the store.
        test_code: From Events Manager → Test Events.

    Raises:
        ConfigurationError: A required setting is empty, or a setting has a wrong value.
    """

    pixel_code: str
    access_token: SecretLike
    event_source: Literal["web", "app", "offline", "crm"] = "web"
    app_id: str | None = None

    TYPE: ClassVar[str] = "tiktok"
    URL: ClassVar[str] = "https://business-api.tiktok.com"
    REQUIRED: ClassVar[tuple[str, ...]] = ("pixel_code", "access_token")
    SECRETS: ClassVar[tuple[str, ...]] = ("access_token",)
    # Documented for offline events; attribution windows end there for the others too.
    MAX_REQUESTS_PER_SECOND: ClassVar[float | None] = 1000
    MAX_AGE_NS: ClassVar[int | None] = 28 * DAY_NS
    MATCH_KEYS: ClassVar[frozenset[str]] = frozenset(
        "email phone external_id first_name last_name city region postal_code country client_address user_agent ttclid ttp "
        "advertising_id".split()
    )
    API_VERSION: ClassVar[str] = VERSION
    HOW_TO_TEST: ClassVar[str] = "set test_code, from Events Manager → Test Events"
    EVENT_NAMES: ClassVar[Mapping[EventType, str]] = {
        EventType.PAGE_VIEW: "Pageview",  # no standard event; this is how TikTok's own template spells it
        EventType.VIEW_CONTENT: "ViewContent",
        EventType.SEARCH: "Search",
        EventType.ADD_TO_CART: "AddToCart",
        EventType.ADD_TO_WISHLIST: "AddToWishlist",
        EventType.INITIATE_CHECKOUT: "InitiateCheckout",
        EventType.ADD_PAYMENT_INFO: "AddPaymentInfo",
        EventType.PURCHASE: "Purchase",
        EventType.LEAD: "Lead",
        EventType.SIGN_UP: "CompleteRegistration",
        EventType.SUBSCRIBE: "Subscribe",
        EventType.START_TRIAL: "StartTrial",
        EventType.CONTACT: "Contact",
        EventType.SCHEDULE: "Schedule",
        EventType.SUBMIT_APPLICATION: "SubmitApplication",
        EventType.DOWNLOAD: "Download",
    }
    STANDARD_EVENTS: ClassVar[frozenset[str]] = frozenset(
        {*EVENT_NAMES.values(), "ApplicationApproval", "CustomizeProduct", "FindLocation"} - {"Pageview"}
    )

    def contradictions(self) -> Iterable[tuple[str, str]]:
        if self.event_source == "app" and self.app_id is None:
            yield "app_id", "required for event_source 'app'"
        lead = (self.extra or {}).get("lead")
        if isinstance(lead, Mapping) and not all(isinstance(value, str) for value in lead.values()):
            yield "extra", "lead: TikTok takes texts only: put the numbers in quotes"

    def test_conversion(self, now: int) -> Conversion:
        conversion = super().test_conversion(now)
        if self.event_source == "crm":
            return conversion._replace(properties={"lead_id": "0"})
        # Offline sources take standard events only.
        return conversion._replace(type=EventType.CONTACT) if self.event_source == "offline" else conversion

    def encode(self, conversion: Conversion) -> Encoded:
        source, request = self.event_source, conversion.request
        name, user = self._event_name(conversion), self._user(conversion)
        if user.keys() <= WEAK_KEYS and not ("ip" in user and "user_agent" in user):
            raise Unencodable(
                "TikTok has nothing to match on: it needs an e-mail, phone, id, click id, or IP and user agent"
            )
        url = request.url if source == "web" else None
        if PAGE_REQUIRED and source == "web" and not url:
            raise Unencodable("TikTok needs the page's URL: url.full")
        event: dict[str, Any] = {
            "event": name,
            "event_time": conversion.time_unix_nano // 10**9,
            "event_id": conversion.id,
            "user": user,
        }
        if data := _properties(conversion):
            event["properties"] = data
        if url:
            event["page"] = {"url": url}
            if referrer := request.referrer:
                event["page"]["referrer"] = referrer
        if source == "app":
            event["app"] = {"app_id": self.app_id}
        if source == "crm":
            event["lead"] = self._lead(conversion)
        if source in ("web", "app"):
            limited = True if conversion.consent.ad_personalization is False else conversion.limited_data_use
            if limited is not None:
                event["limited_data_use"] = limited
        return Encoded(event)

    def request(self, batch: Sequence[Sent]) -> Request:  # noqa: ARG002 reason: nothing in it depends on the events
        return Request(
            method="POST",
            url=f"{self.base_url}{PATH}",
            envelope=present(
                event_source=self.event_source, event_source_id=self.pixel_code, test_event_code=self.test_code
            ),
            events_at=("data",),
            secret_headers={"Access-Token": self.access_token},
        )

    def outcomes(self, response: Response, batch: Sequence[Sent]) -> list[Outcome]:
        # The body's code decides: errors come with HTTP 200 as well.
        code = response.json.get("code") if isinstance(response.json, Mapping) else None
        if not isinstance(code, int):
            return by_http_status(response, batch)
        reason = f"TikTok {code}"
        if code in (0, _PARTIAL_SUCCESS):
            return all_of(batch, Status.DELIVERED)
        if code == _INVALID:
            # Only the first bad event is named; the message itself may repeat its value.
            match = _INDEX.search(str(response.json.get("message", "")))
            if match and int(match[1]) < len(batch):
                return refused_at(batch, {int(match[1]): f"{reason} (a key or value is not accepted)"})
            return all_of(batch, Status.SUSPECT, f"{reason} (a key or value is not accepted)")
        if code in _UNAUTHORISED:
            return all_of(batch, Status.UNAUTHORIZED, reason)
        if code in _TOO_FREQUENT or 50000 <= code < 60000 or response.status >= 500 or response.status == 429:
            return all_of(batch, Status.RETRY, reason)
        return all_of(batch, Status.SUSPECT, reason)

    def _event_name(self, conversion: Conversion) -> str:
        happened_at, source = conversion.action_source, self.event_source
        if happened_at == "physical_store" and source in ("web", "app"):
            raise Unencodable("a store's event needs a TikTok provider with event_source 'offline'", filtered=True)
        if happened_at == "app" and source == "web":
            raise Unencodable("an app's event needs a TikTok provider with event_source 'app'", filtered=True)
        if conversion.type is _REFUND:
            raise Unencodable("TikTok has no refund event", filtered=True)
        given = conversion.name
        name = self.EVENT_NAMES.get(conversion.type) or _STANDARD_BY_KEY.get(event_key(given), given)
        if source == "offline" and name not in self.STANDARD_EVENTS:  # nor is "Pageview" among them
            raise Unencodable("TikTok takes only its standard events offline", filtered=True)
        return name

    def _lead(self, conversion: Conversion) -> dict[str, str]:
        given = conversion.properties
        lead = {key: as_text(given[key]) for key in LEAD if given.get(key) not in (None, "")}
        if "lead_id" not in lead and "lead" not in (self.extra or {}):
            raise Unencodable("TikTok needs lead_id, that of its own lead form")
        return lead

    def _user(self, conversion: Conversion) -> dict[str, Any]:
        sealed, source = conversion.user.sealed, self.event_source
        known: dict[str, Any] = {}
        if emails := sealed.get("email.lower"):
            known["email"] = [*emails]
        if phones := sealed.get("phone.e164"):
            known["phone"] = [*phones]
        if source in ("web", "crm") and (ids := sealed.get("external_id.trim")):
            known["external_id"] = [*ids]
        if source in ("web", "app"):
            _add_browser(known, conversion.request)
        if source == "web":
            _add_person(known, conversion.user)
            for click in ("ttclid", "ttp"):
                if given := conversion.clicks.get(click):
                    known[click] = given
        if source == "app":
            _add_device(known, conversion)
        return known


_STANDARD_BY_KEY = {event_key(name): name for name in TikTokProvider.STANDARD_EVENTS}


def _add_browser(known: dict[str, Any], request: Visit) -> None:
    if address := request.client_address:
        known["ip"] = address
    if user_agent := request.user_agent:
        known["user_agent"] = user_agent
    if locale := language_tag(request.language):
        known["locale"] = locale


def _add_person(known: dict[str, Any], user: Identifiers) -> None:
    sealed, country = user.sealed, user.country
    if names := sealed.get("first_name.unpunctuated"):
        known["first_name"] = names[0]
    if names := sealed.get("last_name.unpunctuated"):
        known["last_name"] = names[0]
    if (code := user.postal_code) and (zip_code := place_digest(postal, code, country)):
        known["zip_code"] = zip_code
    if (city := user.city) and (name := compact_place(city)):
        known["city"] = name
    if (region := user.region) and (state := state_code(region, country)):
        known["state"] = state
    if country:
        known["country"] = country.lower()


def _add_device(known: dict[str, Any], conversion: Conversion) -> None:
    device = conversion.device
    if mobile := mobile_id(device.advertising_id or "", str(conversion.properties.get("os.name", ""))):
        known[mobile[0]] = mobile[1]
    if device.vendor_id and mobile_id(device.vendor_id):
        known["idfv"] = device.vendor_id


def _properties(conversion: Conversion) -> dict[str, Any]:
    value, currency, properties = conversion.value, conversion.currency, conversion.properties
    listed = currency is None or currency in CURRENCIES
    priced = listed and (value is None or value >= 0)
    data: dict[str, Any] = {}
    if priced:
        if value is not None:
            data["value"] = value
        if currency:
            data["currency"] = currency
    if order_id := conversion.order_id:
        data["order_id"] = order_id
    if contents := _contents(conversion.items, priced=listed):
        data["contents"] = contents
        if ids := [content["content_id"] for content in contents if "content_id" in content]:
            data["content_ids"] = ids
        data["content_type"] = CONTENT_TYPE(properties.get("content_type")) or "product"
    if (quantity := conversion.quantity) is not None:
        data["num_items"] = quantity
    if term := conversion.search_term:
        data["search_string"] = term
    if coupon := conversion.coupon:
        data["coupon"] = coupon
    if (tax := conversion.tax) is not None:
        data["tax"] = tax
    if (shipping := conversion.shipping) is not None:
        data["shipping"] = shipping
    for key, custom in properties.items():
        if key in data or custom is None or (not priced and key in ("value", "currency")):
            continue
        convert = TYPED_PROPERTIES.get(key)
        sent = convert(custom) if convert else custom
        if not convert or sent or sent == 0:
            data[key] = sent
    return data


def _contents(items: Iterable[Item], *, priced: bool) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    for item in items:
        content: dict[str, Any] = {}
        if item_id := item.id:
            content["content_id"] = item_id
        if name := item.name:
            content["content_name"] = name
        if not content:
            continue
        if category := item.category:
            content["content_category"] = category
        if brand := item.brand:
            content["brand"] = brand
        if priced and (price := item.price) is not None:
            content["price"] = price
        if (quantity := item.quantity) is not None:
            content["quantity"] = quantity
        contents.append(content)
    return contents

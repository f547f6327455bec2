"""TikTok, by its Events API 2.0 (Business API v1.3). `docs/providers/tiktok.md` explains the choices made here.

Sources (checked on 2026-11-23): https://business-api.tiktok.com/portal/docs?id=1771101303285761 and its neighbours on
parameters, supported events and test events, and https://ads.tiktok.com/help/article/event-deduplication
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..conversion import Conversion, EventType, Item
from ..errors import ConfigurationError
from ..pii import compact_place, digest, mobile_id, postal, state_code
from ..secret import SecretLike
from ..semconv import event_key
from .base import (
    DAY_NS,
    Encoded,
    Outcome,
    Provider,
    Request,
    Response,
    Status,
    Unencodable,
    all_of,
    as_amount,
    as_text,
    as_texts,
    by_http_status,
    one_of,
    present,
    refused_at,
)

VERSION = "v1.3"  # TikTok sets no ends
PATH = f"/open_api/{VERSION}/event/track/"  # with its trailing slash
EVENT_SOURCES = ("web", "app", "offline", "crm")
# The parameter table calls `page` required for web events, the portal's own example has none. An event without a URL
# goes without a page: should TikTok refuse it, it is counted; kept back, it would be lost for certain.
PAGE_REQUIRED = False

CURRENCIES = frozenset(
    "AED ARS AUD BDT BHD BIF BOB BRL CAD CHF CLP CNY COP CRC CZK DKK DZD EGP EUR GBP GTQ HKD HNL HUF IDR ILS INR ISK JPY "
    "KES KHR KRW KWD KZT MAD MOP MXN MYR NGN NIO NOK NZD OMR PEN PHP PKR PLN PYG QAR RON RUB SAR SEK SGD THB TRY TWD UAH "
    "USD VES VND ZAR".split()
)
"""The closed list. A value in another currency is left out, since its number alone would be read as another amount."""

_PARTIAL_SUCCESS = 20001
_INVALID = 40002
_UNAUTHORISED = frozenset({40001, 40007, 40101, 40102, 40104, 40105})
_TOO_FREQUENT = frozenset({40016, 40100, 40132, 40133})
_INDEX = re.compile(r"\b(?:data|batch)\.(\d+)\.", re.IGNORECASE)
# A language tag, also at the head of an Accept-Language header or of a POSIX locale.
_LOCALE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8})*(?=$|[\s,;.@])")

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
    event_source: str = "web"
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.event_source not in EVENT_SOURCES:
            raise ConfigurationError(f"{self.name}: event_source must be one of {', '.join(EVENT_SOURCES)}")
        if self.event_source == "app" and not (isinstance(self.app_id, str) and self.app_id.strip()):
            raise ConfigurationError(f"{self.name}: app_id is required for event_source 'app'")
        if self.event_source == "crm" and "lead" not in (self.extra or {}):
            raise ConfigurationError(f"{self.name}: event_source 'crm' needs extra={{'lead': {{'lead_id': ...}}}}")

    def encode(self, conversion: Conversion) -> Encoded:
        name = self._event_name(conversion)
        source = self.event_source
        user = self._user(conversion)
        if not user.keys() - {"ip", "user_agent", "locale", "city", "state", "country"} and not {
            "ip",
            "user_agent",
        } <= (user.keys()):
            raise Unencodable(
                "TikTok has nothing to match on: it needs an e-mail, phone, id, click id, or IP and user agent"
            )
        request = conversion.request
        if PAGE_REQUIRED and source == "web" and not request.url:
            raise Unencodable("TikTok needs the page's URL: url.full")
        limited = conversion.limited_data_use
        if conversion.consent.ad_personalization is False:
            limited = True
        event = present(
            event=name,
            event_time=conversion.time_unix_nano // 10**9,
            event_id=conversion.id,
            user=user,
            properties=_properties(conversion),
            page=present(url=request.url, referrer=request.referrer) if source == "web" and request.url else None,
            app=present(app_id=self.app_id) if source == "app" else None,
            limited_data_use=limited if source in ("web", "app") else None,
        )
        return Encoded(conversion.id, event)

    def request(self, batch: Sequence[Encoded]) -> Request:
        return Request(
            method="POST",
            url=f"{self.base_url}{PATH}",
            body=present(
                event_source=self.event_source,
                event_source_id=self.pixel_code,
                test_event_code=self.test_code,
                data=[encoded.event for encoded in batch],
            ),
            secret_headers={"Access-Token": self.access_token},
        )

    def outcomes(self, response: Response, batch: Sequence[Encoded]) -> list[Outcome]:
        # The body's code decides: errors come with HTTP 200 as well.
        code = response.json.get("code") if isinstance(response.json, Mapping) else None
        if not isinstance(code, int):
            if response.status == 200:
                return all_of(batch, Status.RETRY, "HTTP 200 without TikTok's answer")
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
        if conversion.type is EventType.REFUND:
            raise Unencodable("TikTok has no refund event", filtered=True)
        given = conversion.name
        name = self.EVENT_NAMES.get(conversion.type) or _STANDARD_BY_KEY.get(event_key(given), given)
        if source == "offline" and name not in self.STANDARD_EVENTS:  # nor is "Pageview" among them
            raise Unencodable("TikTok takes only its standard events offline", filtered=True)
        return name

    def _user(self, conversion: Conversion) -> dict[str, Any]:
        sealed, request, clicks = conversion.user.sealed, conversion.request, conversion.clicks
        known = present(email=list(sealed.get("email.lower", ())), phone=list(sealed.get("phone.e164", ())))
        if self.event_source == "offline":
            return known
        if self.event_source in ("web", "crm"):
            known |= present(external_id=list(sealed.get("external_id.trim", ())))
        if self.event_source == "crm":
            return known
        locale = _LOCALE.match((request.language or "").replace("_", "-"))
        browser = present(
            ip=request.client_address, user_agent=request.user_agent, locale=locale[0] if locale else None
        )
        if self.event_source == "app":
            mobile = mobile_id(conversion.device.advertising_id or "", str(conversion.properties.get("os.name", "")))
            ids = {mobile[0]: mobile[1]} if mobile else {}
            vendor_id = conversion.device.vendor_id or ""
            return known | browser | ids | present(idfv=vendor_id if mobile_id(vendor_id) else None)
        user = conversion.user
        zip_code = postal(user.postal_code or "", user.country)
        return known | present(
            first_name=next(iter(sealed.get("first_name.unpunctuated", ())), None),
            last_name=next(iter(sealed.get("last_name.unpunctuated", ())), None),
            zip_code=digest(zip_code) if zip_code else None,
            city=compact_place(user.city or ""),
            state=state_code(user.region or "", user.country),
            country=(user.country or "").lower(),
            ttclid=clicks.get("ttclid"),
            ttp=clicks.get("ttp"),
            **browser,
        )


_STANDARD_BY_KEY = {event_key(name): name for name in TikTokProvider.STANDARD_EVENTS}


def _properties(conversion: Conversion) -> dict[str, Any]:
    priced = (conversion.currency is None or conversion.currency in CURRENCIES) and (conversion.value or 0) >= 0
    items = [item for item in conversion.items if item.id or item.name]
    data = present(
        value=conversion.value if priced else None,
        currency=conversion.currency if priced else None,
        order_id=conversion.order_id,
        contents=[_content(item) for item in items],
        content_ids=[item.id for item in items if item.id],
        content_type=(CONTENT_TYPE(conversion.properties.get("content_type")) or "product") if items else None,
        num_items=conversion.quantity,
        search_string=conversion.search_term,
        coupon=conversion.coupon,
        tax=conversion.tax,
        shipping=conversion.shipping,
    )
    for key, custom in conversion.properties.items():
        if key not in data and custom is not None and (priced or key not in ("value", "currency")):
            data |= present(**{key: TYPED_PROPERTIES[key](custom)}) if key in TYPED_PROPERTIES else {key: custom}
    return data


def _content(item: Item) -> dict[str, Any]:
    return present(
        content_id=item.id,
        content_name=item.name,
        content_category=item.category,
        brand=item.brand,
        price=item.price,
        quantity=item.quantity,
    )

"""Meta, by its Conversions API. `docs/providers/meta.md` explains the choices made here.

Sources (checked on 2026-11-23): https://developers.facebook.com/docs/marketing-api/conversions-api and its pages
`using-the-api`, `parameters/*`, `best-practices`, https://developers.facebook.com/docs/graph-api/changelog, and
https://developers.facebook.com/docs/marketing-api/data-processing-options
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, ClassVar

from ..conversion import Conversion, EventType, Identifiers, Item
from ..pii import compact_place, mobile_id, place_digest, postal, state_code
from ..secret import SecretLike, bearer
from ..semconv import event_key
from .base import (
    DAY_NS,
    Api,
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

NEWEST_VERSION = "v26.0"
# Version → the day it ends; None where Meta has not set one.
VERSIONS: Mapping[str, date | None] = {
    "v26.0": None,
    "v25.0": date(2028, 7, 29),
    "v24.0": date(2028, 2, 18),
    "v23.0": date(2027, 10, 8),
    "v22.0": date(2027, 5, 20),
    "v21.0": date(2027, 1, 21),
}
MAX_CUSTOM_NAME = 50
IN_STORE_AGE_NS = 62 * DAY_NS

# An event that has only keys of one of these sets cannot be matched and is refused (best practices, 2804050).
WEAK_KEYS = (
    frozenset({"ct", "country", "st", "zp", "ge", "client_user_agent"}),
    frozenset({"db", "client_user_agent"}),
    frozenset({"fn", "ge"}),
    frozenset({"ln", "ge"}),
)
_ALL_WEAK_KEYS = frozenset().union(*WEAK_KEYS)

# Here and not where they are compared, since before Python 3.12 they are slow to look up.
_REFUND, _SEARCH = EventType.REFUND, EventType.SEARCH
_FBC = re.compile(r"fb\.[0-9]\.[0-9]{13}\.(\S+)")  # the third part is in milliseconds
_FBP = re.compile(r"fb\.[0-9]\.[0-9]{13}\.[0-9]+(?:\.[A-Za-z0-9_-]{2,8})?")
_LEAD_ID = re.compile(r"[0-9]{15,17}")  # of Meta's own lead form
_INDEX = re.compile(r"\['data'\]\[(\d+)\]")
_APP_SYSTEMS = {"ios": "i2", "ipados": "i2", "android": "a2"}

_TEMPORARY = frozenset({1, 2, 4, 17, 32, 341, 368, 613, 5000, 21009})
_AUTHORISATION = frozenset({3, 10, 102, 190, 294, 2635, *range(200, 300)})  # 2635: the API version has ended
_REASONS: Mapping[int, str] = {
    2804003: "event too old",
    2804009: "purchase without value",
    2804019: "a key or value is not accepted",
    2804050: "not enough match data",
}


def _store_data(value: Any) -> dict[str, str]:
    known = ("store_page_id", "brand_page_id", "store_code") if isinstance(value, Mapping) else ()
    return {key: as_text(value[key]) for key in known if value.get(key) is not None}


CONTENT_TYPE = one_of("product|product_group")
# Custom data that Meta documents with a type: a value of another one would sink the batch, so it is converted or left out.
TYPED_DATA: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("content_name", "content_category", "content_type", "status", "item_number"), as_text),
    **dict.fromkeys(("predicted_ltv", "net_revenue"), as_amount),
    "content_ids": as_texts,
    "delivery_category": one_of("in_store|curbside|home_delivery"),
    "customer_segmentation": one_of(
        "customer_in_loyalty_program|(new|existing)_customer_to_(business|business_line|product_area|medium)"
    ),
    "store_data": _store_data,
}


@dataclass(frozen=True, repr=False)
class MetaProvider(Provider):
    """Meta's Conversions API.

    Args:
        pixel_id: The pixel's or dataset's id.
        access_token: From Events Manager → Settings.
        api_version: Of the Graph API. A version that has ended is refused.
        test_code: From Events Manager → Test Events. Such events count all the same.
        partner_agent: Of a platform that sends for its customers.

    Raises:
        ConfigurationError: A required setting is empty, or a setting has a wrong value.
    """

    pixel_id: str
    access_token: SecretLike
    api_version: str = NEWEST_VERSION
    partner_agent: str | None = None

    TYPE: ClassVar[str] = "meta"
    URL: ClassVar[str] = "https://graph.facebook.com"
    REQUIRED: ClassVar[tuple[str, ...]] = ("pixel_id", "access_token")
    SECRETS: ClassVar[tuple[str, ...]] = ("access_token",)
    MAX_BATCH: ClassVar[int] = 500  # 1000 are allowed; one bad event refuses them all, and halving then costs less
    MAX_AGE_NS: ClassVar[int | None] = 7 * DAY_NS
    MATCH_KEYS: ClassVar[frozenset[str]] = frozenset(
        "email phone first_name last_name date_of_birth gender external_id city region postal_code country client_address "
        "user_agent fbc fbp fbclid advertising_id".split()
    )
    HOW_TO_TEST: ClassVar[str] = (
        "set test_code, from Events Manager → Test Events; Meta counts it like any event: a custom one, EventFlowsCheck"
    )
    EVENT_NAMES: ClassVar[Mapping[EventType, str]] = {
        EventType.PAGE_VIEW: "PageView",
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
        EventType.DOWNLOAD: "Download",  # Meta has no such standard event, nor one for refunds
        EventType.REFUND: "Refund",
    }
    STANDARD_EVENTS: ClassVar[frozenset[str]] = frozenset(
        {*EVENT_NAMES.values(), "CustomizeProduct", "Donate", "FindLocation"} - {"Download", "Refund"}
    )

    def contradictions(self) -> Iterable[tuple[str, str]]:
        version = self.api_version
        well_formed = re.fullmatch(r"v\d{1,3}\.\d{1,3}", version)
        if not well_formed or (version not in VERSIONS and _number(version) < _number(NEWEST_VERSION)):
            yield "api_version", f"{version!r} is none, or has ended; allowed: {', '.join(VERSIONS)} or newer"

        if (agent := self.partner_agent) and not (len(agent) < 23 and len(re.findall("[A-Za-z]", agent)) >= 2):
            yield "partner_agent", f"{agent!r} must be shorter than 23 characters, with two letters or more"

    def api(self) -> Api:
        return Api(self.api_version, VERSIONS.get(self.api_version), NEWEST_VERSION)

    def max_age_ns(self, conversion: Conversion) -> int | None:
        return IN_STORE_AGE_NS if conversion.action_source == "physical_store" else self.MAX_AGE_NS

    def encode(self, conversion: Conversion) -> Encoded:
        name, data = self._event_name(conversion), _custom_data(conversion)
        # By the name that is sent and the value that is left: a custom "purchase" and a negative value sink a batch, too.
        if name == "Purchase" and not ("value" in data and "currency" in data):
            raise Unencodable("a purchase needs value and currency")
        user = _user_data(conversion)
        if user.keys() <= _ALL_WEAK_KEYS and any(user.keys() <= weak for weak in WEAK_KEYS):
            raise Unencodable("Meta has nothing to match on: no e-mail, phone, user id, cookie or IP address")
        source, request = conversion.action_source, conversion.request
        personalised, limited = conversion.consent.ad_personalization is not False, conversion.limited_data_use
        event: dict[str, Any] = {
            "event_name": name,
            "event_time": conversion.time_unix_nano // 10**9,
            "event_id": conversion.id,
            "action_source": source,
            "user_data": user,
        }
        if data:
            event["custom_data"] = data
        if url := request.url:
            event["event_source_url"] = url
        if referrer := request.referrer:
            event["referrer_url"] = referrer
        if not personalised:
            event["opt_out"] = True
        if source == "app" and (app := self._app_data(conversion)):
            event["app_data"] = app
        if limited or not personalised:
            # Country and state 0: Meta finds out where the person is, and limits what the law there limits.
            event |= {
                "data_processing_options": ["LDU"],
                "data_processing_options_country": 0,
                "data_processing_options_state": 0,
            }
        elif limited is False:
            event["data_processing_options"] = []
        return Encoded(event)

    def request(self, batch: Sequence[Sent]) -> Request:  # noqa: ARG002 reason: nothing in it depends on the events
        return Request(
            method="POST",
            url=f"{self.base_url}/{self.api_version}/{self.pixel_id}/events",
            envelope=present(test_event_code=self.test_code, partner_agent=self.partner_agent),
            events_at=("data",),
            secret_headers={"Authorization": bearer(self.access_token)},
        )

    def outcomes(self, response: Response, batch: Sequence[Sent]) -> list[Outcome]:
        body = response.json if isinstance(response.json, Mapping) else {}
        error = body.get("error")
        if not isinstance(error, Mapping):
            if response.status == 200 and "events_received" in body:
                return all_of(batch, Status.DELIVERED)
            return by_http_status(response, batch)
        # Meta's status codes say little: the code decides, then is_transient, then the status.
        code, subcode = _integer(error.get("code")), _integer(error.get("error_subcode"))
        reason = f"Meta {code}/{subcode}" + (f" ({_REASONS[subcode]})" if subcode in _REASONS else "")
        if code in _TEMPORARY or code < 0 or 80000 <= code <= 80014 or error.get("is_transient") is True:
            return all_of(batch, Status.RETRY, reason)
        if code in _AUTHORISATION or (code, subcode) == (100, 33):
            return all_of(batch, Status.UNAUTHORIZED, reason)
        if code != 100:
            return [outcome._replace(reason=reason) for outcome in by_http_status(response, batch)]
        match = _INDEX.search(f"{error.get('message')} {error.get('error_user_msg')}")
        if match and int(match[1]) < len(batch):
            return refused_at(batch, {int(match[1]): reason})
        return all_of(batch, Status.SUSPECT, reason)

    def _event_name(self, conversion: Conversion) -> str:
        given = conversion.name
        return self.EVENT_NAMES.get(conversion.type) or _STANDARD_BY_KEY.get(event_key(given), given[:MAX_CUSTOM_NAME])

    def _app_data(self, conversion: Conversion) -> dict[str, Any]:
        """What Meta requires of app events: 16 positions, of which the layout's version and the system's are required."""
        properties, device = conversion.properties, conversion.device
        if self.extra is not None and "app_data" in self.extra:
            return present(vendor_id=device.vendor_id)
        system = _APP_SYSTEMS.get(str(properties.get("os.name", "")).lower())
        version = str(properties.get("os.version", ""))
        if system is None or not version:
            raise Unencodable("an app event needs os.name (iOS or Android) and os.version, or extra={'app_data': ...}")
        extinfo = [""] * 16
        extinfo[0], extinfo[4] = system, version
        extinfo[5] = str(properties.get("device.model.identifier", ""))
        extinfo[6] = (language_tag(conversion.request.language) or "").replace("-", "_")
        allowed = 0 if conversion.consent.ad_personalization is False else 1
        return present(
            advertiser_tracking_enabled=allowed,
            application_tracking_enabled=allowed,
            extinfo=extinfo,
            vendor_id=device.vendor_id,
        )


_STANDARD_BY_KEY = {event_key(name): name for name in MetaProvider.STANDARD_EVENTS}


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version[1:].split("."))


def _integer(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _user_data(conversion: Conversion) -> dict[str, Any]:
    user, request, clicks = conversion.user, conversion.request, conversion.clicks
    sealed = user.sealed
    data: dict[str, Any] = {}
    if emails := sealed.get("email.lower"):
        data["em"] = [*emails]
    if phones := sealed.get("phone.digits"):
        data["ph"] = [*phones]
    if names := sealed.get("first_name.compact"):
        data["fn"] = [*names]
    if names := sealed.get("last_name.compact"):
        data["ln"] = [*names]
    if births := sealed.get("date_of_birth.yyyymmdd"):
        data["db"] = [*births]
    if genders := sealed.get("gender.letter"):
        data["ge"] = [*genders]
    # Meta recommends hashing; its own parameter builder, which the pixel shares, lower-cases and drops spaces first.
    if ids := sealed.get("external_id.lower"):
        data["external_id"] = [*ids]
    if address := request.client_address:
        data["client_ip_address"] = address
    if user_agent := request.user_agent:
        data["client_user_agent"] = user_agent
    _add_place(data, user)
    if clicks and (fbc := _fbc(conversion)):
        data["fbc"] = fbc
    if (fbp := clicks.get("fbp")) and _FBP.fullmatch(fbp):
        data["fbp"] = fbp
    if (lead_id := conversion.properties.get("lead_id")) and _LEAD_ID.fullmatch(str(lead_id)):
        data["lead_id"] = int(lead_id)
    if conversion.action_source == "app" and (advertising_id := conversion.device.advertising_id):
        mobile = mobile_id(advertising_id, str(conversion.properties.get("os.name", "")))
        if mobile is not None:
            data["madid"] = mobile[1]
    return data


def _add_place(data: dict[str, Any], user: Identifiers) -> None:
    country = user.country
    if (city := user.city) and (digested := place_digest(compact_place, city)):
        data["ct"] = [digested]
    if (region := user.region) and (digested := place_digest(state_code, region, country)):
        data["st"] = [digested]
    if (code := user.postal_code) and (digested := place_digest(postal, code, country)):
        data["zp"] = [digested]
    if country:
        data["country"] = [place_digest(str.lower, country)]


def _fbc(conversion: Conversion) -> str | None:
    """The `_fbc` cookie, or one made from a newer `fbclid`; when that was first seen is not known, hence the event's time."""
    fbc, fbclid = conversion.clicks.get("fbc"), conversion.clicks.get("fbclid")
    match = _FBC.fullmatch(fbc) if fbc else None
    # The cookie may carry a fifth part behind the click id.
    if match and (not fbclid or match[1] == fbclid or match[1].startswith(f"{fbclid}.")):
        return fbc
    return f"fb.1.{conversion.time_unix_nano // 10**6}.{fbclid}" if fbclid else (fbc if match else None)


def _custom_data(conversion: Conversion) -> dict[str, Any]:
    data: dict[str, Any] = {}
    kind, value, properties = conversion.type, conversion.value, conversion.properties
    if value is not None and kind is _REFUND:
        value = abs(value)
    if value is not None and value >= 0:
        data["value"] = value
        if currency := conversion.currency:
            data["currency"] = currency
    if order_id := conversion.order_id:
        data["order_id"] = order_id
    if contents := _contents(conversion.items):
        data["contents"] = contents
        data["content_ids"] = [content["id"] for content in contents]
        data["content_type"] = CONTENT_TYPE(properties.get("content_type")) or "product"
    if (quantity := conversion.quantity) is not None:
        data["num_items"] = quantity
    if kind is _SEARCH and (term := conversion.search_term):
        data["search_string"] = term
    if coupon := conversion.coupon:
        data["coupon"] = coupon
    if (tax := conversion.tax) is not None:
        data["tax"] = tax
    if (shipping := conversion.shipping) is not None:
        data["shipping"] = shipping
    for key, custom in properties.items():
        if key in data or custom is None:
            continue
        # Beyond what it documents Meta takes scalars only.
        convert = TYPED_DATA.get(key, as_text if isinstance(custom, (list, dict)) else None)
        sent = convert(custom) if convert else custom
        if sent or sent == 0:
            data[key] = sent
    return data


def _contents(items: Iterable[Item]) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    for item in items:
        if not (item_id := item.id):
            continue
        quantity = item.quantity if item.quantity is not None else 1  # required where there is a catalogue
        content: dict[str, Any] = {"id": item_id, "quantity": quantity}
        if (price := item.price) is not None:
            content["item_price"] = price
        if name := item.name:
            content["title"] = name
        if brand := item.brand:
            content["brand"] = brand
        if category := item.category:
            content["category"] = category
        contents.append(content)
    return contents

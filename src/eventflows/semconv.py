"""Semantic attributes and event names, as constants. `docs/attributes.md` explains them.

`conversion.*` is EventFlows' own namespace; `user.*`, `geo.*`, `client.*`, `http.*` and `browser.*` are OpenTelemetry's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from .conversion import EventType
from .names import ByName

CONVERSION_TYPE: Final = "conversion.type"
CONVERSION_ID: Final = "conversion.id"
CONVERSION_VALUE: Final = "conversion.value"
CONVERSION_CURRENCY: Final = "conversion.currency"
CONVERSION_ORDER_ID: Final = "conversion.order_id"
CONVERSION_ITEMS: Final = "conversion.items"
CONVERSION_QUANTITY: Final = "conversion.quantity"
CONVERSION_SEARCH_TERM: Final = "conversion.search_term"
CONVERSION_COUPON: Final = "conversion.coupon"
CONVERSION_TAX: Final = "conversion.tax"
CONVERSION_SHIPPING: Final = "conversion.shipping"
CONVERSION_ACTION_SOURCE: Final = "conversion.action_source"
CONVERSION_PROVIDERS: Final = "conversion.providers"
CONVERSION_EXCLUDE_PROVIDERS: Final = "conversion.exclude_providers"
CONVERSION_COMMIT: Final = "conversion.commit"
IMMEDIATE: Final = "immediate"
SPAN_OK: Final = "span_ok"
COMMITS: Final = (IMMEDIATE, SPAN_OK)
"""Values of `conversion.commit`: what a conversion waits for."""
CONVERSION_LIMITED_DATA_USE: Final = "conversion.limited_data_use"
CONVERSION_CONSENT: Final = "conversion.consent."
"""Prefix: `ad_storage`, `ad_user_data`, `ad_personalization`, `analytics_storage` follow."""
CONVERSION_CLICK: Final = "conversion.click."
"""Prefix: one of `CLICK_IDS` follows."""
CONVERSION_ADVERTISING_ID: Final = "conversion.device.advertising_id"
CONVERSION_VENDOR_ID: Final = "conversion.device.vendor_id"
CONVERSION_APP_INSTANCE_ID: Final = "conversion.app_instance_id"
CONVERSION_PARTNER_ID: Final = "conversion.partner_id"
RECORDED_BY: Final = "conversion.recorded_by"
"""Names the pipeline that has taken this event already, should it come back to it by an exporter."""
SEALED: Final = "conversion.sealed."
"""Prefix: the name of a normal form follows (`email.lower`). The value holds its digests, joined by commas."""

USER_ID: Final = "user.id"
USER_EMAIL: Final = "user.email"
USER_PHONE: Final = "user.phone"
USER_FIRST_NAME: Final = "user.first_name"
USER_LAST_NAME: Final = "user.last_name"
USER_FULL_NAME: Final = "user.full_name"
USER_DATE_OF_BIRTH: Final = "user.date_of_birth"
USER_GENDER: Final = "user.gender"
USER_STREET: Final = "user.street"
CITY: Final = "geo.locality.name"
REGION: Final = "geo.region.iso_code"
POSTAL_CODE: Final = "geo.postal_code"
COUNTRY: Final = "geo.country.iso_code"
CLIENT_ADDRESS: Final = "client.address"
USER_AGENT: Final = "user_agent.original"
URL_FULL: Final = "url.full"
REFERER: Final = "http.request.header.referer"
SEC_GPC: Final = "http.request.header.sec-gpc"
SYNTHETIC_TYPE: Final = "user_agent.synthetic.type"
SESSION_ID: Final = "session.id"
LANGUAGE: Final = "browser.language"
PAGE_TITLE: Final = "page_title"

CLICK_IDS: Final = tuple(
    "fbc fbp fbclid gclid gbraid wbraid ga_client_id ga_session_id ttclid ttp rdt_cid rdt_uuid epik "
    "sc_click_id sc_cookie1 li_fat_id twclid msclkid".split()
)
CONSENT_PURPOSES: Final = ("ad_storage", "ad_user_data", "ad_personalization", "analytics_storage")
SYNTHETIC_TYPES: Final = frozenset({"bot", "test"})
"""Values of `user_agent.synthetic.type`: https://opentelemetry.io/docs/specs/semconv/registry/attributes/user-agent/"""
ACTION_SOURCES: Final = frozenset("website app physical_store email phone_call chat system_generated other".split())

QUERY_CLICK_IDS: Final[Mapping[str, str]] = {
    **{name: name for name in ("fbclid", "gclid", "gbraid", "wbraid", "ttclid", "rdt_cid", "epik", "li_fat_id")},
    **{name: name for name in ("twclid", "msclkid")},
    "ScCid": "sc_click_id",
}
"""Query parameter of a landing page → click id."""

ALIASES: Final[Mapping[str, str]] = {
    "event_id": CONVERSION_ID,
    "value": CONVERSION_VALUE,
    "revenue": CONVERSION_VALUE,
    "currency": CONVERSION_CURRENCY,
    "order_id": CONVERSION_ORDER_ID,
    "transaction_id": CONVERSION_ORDER_ID,
    "items": CONVERSION_ITEMS,
    "contents": CONVERSION_ITEMS,
    "products": CONVERSION_ITEMS,
    "num_items": CONVERSION_QUANTITY,
    "search_term": CONVERSION_SEARCH_TERM,
    "search_string": CONVERSION_SEARCH_TERM,
    "coupon": CONVERSION_COUPON,
    "tax": CONVERSION_TAX,
    "shipping": CONVERSION_SHIPPING,
    "user.city": CITY,
    "user.state": REGION,
    "user.zip": POSTAL_CODE,
    "user.country": COUNTRY,
    "ip_address": CLIENT_ADDRESS,
    "user_agent": USER_AGENT,
    "url": URL_FULL,
    "referrer": REFERER,
    "locale": LANGUAGE,
    "http.request.header.sec_gpc": SEC_GPC,  # as OpenTelemetry's Python instrumentations write it
}
"""Other spellings of an attribute. Where several are given the attribute itself wins, then the first of its aliases; one that
cannot be used yields to the next."""

SEALED_ATTRIBUTES: Final[Mapping[str, str]] = {
    USER_EMAIL: "email",
    USER_PHONE: "phone",
    USER_FIRST_NAME: "first_name",
    USER_LAST_NAME: "last_name",
    USER_FULL_NAME: "full_name",
    USER_DATE_OF_BIRTH: "date_of_birth",
    USER_GENDER: "gender",
    USER_STREET: "street",
}
"""Attributes whose raw value never leaves the capture, and the kind of identifier they hold."""

PERSONAL_KEYS: Final = frozenset(
    "email emailaddress useremail customeremail phone phonenumber userphone mobile mobilephone firstname givenname "
    "lastname surname familyname fullname dateofbirth birthdate birthday dob street streetaddress address".split()
)
"""Names (`event_key`) of custom properties that would carry a person in the open; they are left out."""

# Standard names of the platforms beyond the neutral types. Sources: Meta Pixel reference, GA4 recommended events,
# TikTok supported standard events (web and app), Reddit tracking types.
_STANDARD_EVENTS: Final[Mapping[EventType, str]] = {
    EventType.PAGE_VIEW: "PageView Pageview PAGE_VISIT",
    EventType.VIEW_CONTENT: "ViewContent view_item",
    EventType.SEARCH: "Search",
    EventType.ADD_TO_CART: "AddToCart",
    EventType.ADD_TO_WISHLIST: "AddToWishlist",
    EventType.INITIATE_CHECKOUT: "InitiateCheckout begin_checkout Checkout",
    EventType.ADD_PAYMENT_INFO: "AddPaymentInfo",
    EventType.PURCHASE: "Purchase CompletePayment",
    EventType.LEAD: "Lead generate_lead GenerateLead SubmitForm",
    EventType.SIGN_UP: "SignUp CompleteRegistration Registration",
    EventType.SUBSCRIBE: "Subscribe",
    EventType.START_TRIAL: "StartTrial",
    EventType.CONTACT: "Contact",
    EventType.SCHEDULE: "Schedule",
    EventType.SUBMIT_APPLICATION: "SubmitApplication",
    EventType.DOWNLOAD: "Download file_download",
    EventType.REFUND: "refund",
    EventType.CUSTOM: (
        "custom CustomizeProduct Donate FindLocation MobileAppInstall "
        "ad_impression earn_virtual_currency join_group login select_content share spend_virtual_currency "
        "tutorial_begin tutorial_complete add_shipping_info remove_from_cart select_item select_promotion view_cart "
        "view_item_list view_promotion qualify_lead disqualify_lead working_lead close_convert_lead "
        "close_unconvert_lead "
        "ApplicationApproval PlaceAnOrder ClickButton AchieveLevel CompleteTutorial CreateGroup CreateRole "
        "InAppADClick InAppADImpr InstallApp JoinGroup LaunchAPP LoanApplication LoanApproval LoanDisbursal Login "
        "Rate SpendCredits UnlockAchievement"
    ),
}


def _event_key(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


event_key: Callable[[str], str] = ByName(_event_key).__getitem__
"""An event's name for comparison: letters and digits only, in one case (`Add to-cart` → `addtocart`)."""


STANDARD_EVENTS: Final[Mapping[str, EventType]] = {
    event_key(name): event_type
    for event_type, names in _STANDARD_EVENTS.items()
    for name in (event_type.value, *names.split())
}
"""`event_key` of every neutral type and standard event name → neutral type."""

"""Whatever an app records, no platform refuses what it is sent: for one field it would refuse all that is in the request."""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventflows import GA4Provider, MetaProvider, RedditProvider, TikTokProvider, payload
from eventflows import semconv as sc
from eventflows.capture import Rules, capture, conversion_of, recognise
from eventflows.conversion import Conversion, EventType
from eventflows.mapping import NotSent, encode
from eventflows.providers.base import Provider
from eventflows.sandbox import ga4, meta, reddit, tiktok
from eventflows.sandbox.store import Credentials
from eventflows.sandbox.wire import Answer, Request
from eventflows.sealing import event_of, record, seal
from eventflows.transport import all_headers, secret_url
from tests.conftest import CANARIES, PERSON

PLATFORMS: dict[str, Callable[[Request, Credentials, float], Answer]] = {
    "meta": meta.answer, "ga4": ga4.answer, "tiktok": tiktok.answer, "reddit": reddit.answer,
}  # fmt: skip
PROVIDERS: list[Provider] = [
    MetaProvider("123", "abc"),
    GA4Provider("G-123", "abc"),
    GA4Provider(api_secret="abc", firebase_app_id="1:47:ios:0aff", name="ga4/app"),
    TikTokProvider("CPIX", "abc"),
    TikTokProvider("APP", "abc", "app", app_id="com.shop", name="tiktok/app"),
    TikTokProvider("SET1", "abc", "offline", name="tiktok/offline"),
    TikTokProvider("SET2", "abc", "crm", name="tiktok/crm"),
    RedditProvider("a2_123", "abc"),
]
NAMES = (
    "Purchase Lead Refund Search PageView ViewContent AddToCart SignUp session_start screen_view ga_x 3D PlaceAnOrder "
    "view_cart Donate error".split()
)


class Colour(enum.Enum):
    OPAL = "opal"
    FIVE = 5


NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.decimals(),
    st.sampled_from(
        [Fraction(1, 4), Decimal("1E+400"), "9" * 400, " 12.5 ", "1,234.50", "-7", "٤٩", True, Colour.FIVE]
    ),
)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", "x" * 300, "灯" * 150, "\x00", "\ud800", "a@b.se", "a%40b.se", "null", "f" * 64]),
)
PLAIN = st.one_of(
    st.none(), st.booleans(), NUMBERS, TEXTS, st.dates(), st.datetimes(), st.uuids(), st.binary(max_size=5),
    st.just(Colour.OPAL), st.builds(object),
)  # fmt: skip
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
ITEMS = st.lists(
    st.dictionaries(
        st.sampled_from(
            "id sku name title price item_price quantity category brand variant coupon discount colour".split()
        ),
        st.one_of(NUMBERS, TEXTS, ANYTHING),
    )
    | ANYTHING,
    max_size=4,
)
LIKELY: dict[str, Any] = {
    "value": NUMBERS, "tax": NUMBERS, "shipping": NUMBERS, "num_items": NUMBERS, "items": ITEMS,
    "currency": st.sampled_from(["USD", "sek ", "BGN", "euro", "US$"]),
    "conversion.action_source": st.sampled_from([*sorted(sc.ACTION_SOURCES), "moon"]),
    "conversion.limited_data_use": st.sampled_from([True, False, "maybe"]),
    "conversion.consent.ad_personalization": st.sampled_from(["granted", "denied"]),
    "conversion.type": st.sampled_from([*EventType, "nonsense"]),
    "ip_address": st.sampled_from(["198.51.100.24", "[2001:db8::1]:443", "::ffff:198.51.100.24", "fe80::1%eth0", "1.2.3"]),
    "user_agent": st.sampled_from(["Mozilla/5.0", "x" * 9000, "bot (a@b.se)"]),
    "url": st.sampled_from(["https://x.example/?q=1&fbclid=Iw&ttclid=E.C.P&rdt_cid=3", "https://x.example/" + "y" * 3000]),
    "browser.language": st.sampled_from(["sv_SE", "sv-SE,sv;q=0.9", "en_US.UTF-8", "*", "POSIX", "i-default"]),
    "user.city": st.sampled_from(["Zürich", "St. John's", "東京", "---"]),
    "user.country": st.sampled_from(["us", "SWE", "uk", "xx"]),
    "user.state": st.sampled_from(["CA", "US-CA", "SE-C", "Bavaria", "--"]),
    "user.zip": st.sampled_from(["94103-1234", "M1 1AE", "~"]),
    "conversion.click.fbp": st.sampled_from(["fb.1.1790000000123.18", "fb.1.17.18", "fb.1.1790000000123.18.AQ"]),
    "conversion.click.fbc": st.sampled_from(["fb.1.1790000000123.Iw", "garbage", "fb.1.1790000000123.Iw.AQYBAQIA"]),
    "conversion.click.ga_client_id": st.sampled_from(["1.2", "GA1.1.5.6", "0.0", "uuid"]),
    "conversion.click.ga_session_id": st.sampled_from([1795454100, "GS1.1.1795454100.3", "GS2.1.s1795454100$o3", "x"]),
    "conversion.click.rdt_uuid": st.sampled_from(["1790000000123.5d9b6c1e-3f0a-4a77-9a55-0d2f6f1c7b21", "1.x", "x"]),
    "conversion.device.advertising_id": st.sampled_from(["6D92078A-8246-4BA4-AE5B-76104861E7DC", "0", "x"]),
    "conversion.device.vendor_id": st.sampled_from(["6D92078A-8246-4BA4-AE5B-76104861E7DC", "V"]),
    "conversion.app_instance_id": st.sampled_from(["a" * 32, "x"]),
    "os.name": st.sampled_from(["iOS", "Android", "BeOS"]), "os.version": st.sampled_from(["18.1", 18, ""]),
    "lead_id": st.sampled_from([123456789012345, "7123456789012345678"]),
    **dict.fromkeys("content_ids content_type predicted_ltv store_data delivery_category customer_type".split(), ANYTHING),
    **dict.fromkeys("page_location page_title engagement_time_msec session_id debug_mode ga_x 3d".split(), ANYTHING),
}  # fmt: skip
KEYS = sorted({*LIKELY, *sc.ALIASES, "note", "plan type", "email", "conversion.click.ttclid", "user.id", "user.gender"})


@st.composite
def attributes(draw: st.DrawFn) -> dict[str, Any]:
    found = {}
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=14, unique=True)):
        found[key] = draw(LIKELY[key] if key in LIKELY and draw(st.integers(0, 4)) else ANYTHING)
    return {**found, **draw(st.dictionaries(TEXTS, ANYTHING, max_size=2)), **PERSON}


def refusals(conversion: Conversion, now: int) -> dict[str, str]:
    """Provider → why its platform refuses what it is sent of a conversion."""
    found = {}
    for provider in PROVIDERS:
        entry = encode(provider, conversion, now)
        if isinstance(entry, NotSent):
            if "not encodable" in entry.reason:
                found[provider.name] = entry.reason
            continue
        request = provider.request([entry])
        url = urlsplit(secret_url(request))
        headers = {name.lower(): value for name, value in all_headers(request).items()}
        body = payload.body(request.envelope, request.events_at, [entry.content])
        sent = Request(request.method, url.path, dict(parse_qsl(url.query)), headers, body)
        answer = PLATFORMS[provider.TYPE](sent, Credentials(), now / 1e9)
        found.update((provider.name, reason) for _, reason in answer.refused)
        shown = body.decode().lower()
        found.update((provider.name, f"shows {canary}") for canary in CANARIES if canary in shown)
    return found


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(NAMES) | TEXTS, attributes())
def test_no_platform_refuses_what_it_is_sent(name: str, given_attributes: dict[str, Any]) -> None:
    """Nor what it is sent of an event that was sealed before; and both are the same."""
    now = time.time_ns()
    event_type = recognise(name, given_attributes, Rules()) or EventType.CUSTOM
    conversion = capture(name, event_type, given_attributes, now, Rules())
    assert refusals(conversion, now) == {}
    sealed = conversion_of(seal(event_of(record(name, given_attributes, now), event_type)))
    assert sealed._replace(left_out=(), id="") == conversion._replace(left_out=(), id="")


@pytest.mark.parametrize("cents", [0, 1, 99, 100, 4999, 124_950, 10**9 + 1, 10**13 + 7, 123_456_789_012_345])
@pytest.mark.parametrize("kind", [Decimal, float, str, lambda amount: f" {amount} "])
def test_an_amount_arrives_to_its_last_digit(cents: int, kind: Callable[[Decimal], Any]) -> None:
    amount = Decimal(cents) / 100
    event = {"value": kind(amount), "currency": "SEK", "items": [{"id": "a", "price": kind(amount)}], **PERSON}
    conversion = capture("Purchase", EventType.PURCHASE, event, time.time_ns(), Rules())
    for provider in PROVIDERS:
        entry = encode(provider, conversion, time.time_ns())
        if not isinstance(entry, NotSent):
            body = json.loads(entry.content, parse_float=Decimal)
            data = body.get("custom_data") or body.get("properties") or body.get("metadata") or body["params"]
            (item,) = data.get("contents") or data.get("products") or data["items"]
            assert data["value"] == amount
            assert item.get("item_price", item.get("price")) == amount

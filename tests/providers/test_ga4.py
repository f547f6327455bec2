"""Google Analytics 4: what goes over the wire, and what an answer means."""

from __future__ import annotations

import re
from typing import Any

import pytest

from eventflows import payload
from eventflows.conversion import Consent, Conversion, Device, EventType, Identifiers, Item
from eventflows.conversion import Request as Visit
from eventflows.errors import ConfigurationError
from eventflows.pii import seal_all
from eventflows.providers.base import DELIVERED, NOT_THE_CULPRIT, Outcome, Response, Status, Unencodable
from eventflows.providers.ga4 import FITTING_ITEMS, MAX_VALUES, GA4Provider

from . import body_of

TIME = 1_795_455_900_000_000_000
MICROS = 1_795_455_900_000_000
CLIENT = {"ga_client_id": "1836402915.1795431201"}
WEB = GA4Provider("G-FJ0RD1AMP9", "s3cret")
APP = GA4Provider(api_secret="s3cret", firebase_app_id="1:4711:ios:0aff")


def conversion(event_type: EventType = EventType.CUSTOM, name: str = "x", **fields: Any) -> Conversion:
    fields.setdefault("clicks", CLIENT)
    return Conversion(id="c-1", type=event_type, name=name, time_unix_nano=TIME, **fields)


def sealed(**raw: str | list[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for kind, values in raw.items():
        found |= seal_all(kind, [values] if isinstance(values, str) else values, None)[0]
    return found


def body(event: Conversion, provider: GA4Provider = WEB) -> dict[str, Any]:
    return body_of(provider, provider.encode(event))


def params(event: Conversion, provider: GA4Provider = WEB) -> dict[str, Any]:
    return dict(provider.encode(event).event["params"])


PURCHASE = conversion(
    EventType.PURCHASE,
    "Purchase",
    value=1249.5,
    currency="SEK",
    order_id="70331",
    shipping=49.0,
    tax=249.9,
    items=(
        Item(id="LMP-11", name="Table lamp Skagen", price=749.5, quantity=1),
        Item(id="LMP-29", name="Bulb E27", price=250.0, quantity=2),
    ),
    user=Identifiers(
        sealed(
            email="Freja.Lind+a@Gmail.com", phone="+46 70 123 45 67", first_name="Freja", last_name="Lind",
            street="Storgatan 5"
        ),
        user_id=("cust_8841",),
        city="Uppsala",
        postal_code="753.20",
        country="SE",
    ),
    request=Visit(
        client_address="198.51.100.24",
        user_agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
        url="https://shop.fjordlamp.example/tack?order=70331",
        language="sv",
    ),
    clicks={**CLIENT, "ga_session_id": "1795454100"},
    consent=Consent(ad_user_data=True, ad_personalization=False),
    properties={"engagement_time_msec": 1200, "customer_type": "returning"},
)  # fmt: skip


def test_a_purchase_has_exactly_this_body() -> None:
    hashes = PURCHASE.user.sealed
    assert body(PURCHASE) == {
        "client_id": "1836402915.1795431201",
        "user_id": "cust_8841",
        "timestamp_micros": MICROS,
        "consent": {"ad_user_data": "GRANTED", "ad_personalization": "DENIED"},
        "ip_override": "198.51.100.24",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
        "user_data": {
            "sha256_email_address": [hashes["email.gmail"][0]],
            "sha256_phone_number": [hashes["phone.e164"][0]],
            "address": [
                {
                    "sha256_first_name": hashes["first_name.letters"][0],
                    "sha256_last_name": hashes["last_name.letters"][0],
                    "sha256_street": hashes["street.words"][0],
                    "city": "uppsala",
                    "postal_code": "75320",
                    "country": "SE",
                }
            ],
        },
        "events": [
            {
                "name": "purchase",
                "timestamp_micros": MICROS,
                "params": {
                    "session_id": 1795454100,
                    "engagement_time_msec": 1200,
                    "transaction_id": "70331",
                    "currency": "SEK",
                    "value": 1249.5,
                    "shipping": 49.0,
                    "tax": 249.9,
                    "customer_type": "returning",
                    "page_location": "https://shop.fjordlamp.example/tack?order=70331",
                    "items": [
                        {"item_id": "LMP-11", "item_name": "Table lamp Skagen", "price": 749.5, "quantity": 1},
                        {"item_id": "LMP-29", "item_name": "Bulb E27", "price": 250.0, "quantity": 2},
                    ],
                },
            }
        ],
    }


def test_a_lead_without_address_and_agent_has_place_and_language_instead() -> None:
    event = conversion(
        EventType.LEAD,
        value=150.0,
        currency="SEK",
        user=Identifiers(city="Uppsala", region="SE-C", country="SE"),
        request=Visit(language="sv"),
        properties={"lead_source": "showroom_form", "lead_ref": "lead-5c1e"},
    )
    assert body(event) == {
        "client_id": "1836402915.1795431201",
        "timestamp_micros": MICROS,
        "user_location": {"country_id": "SE", "region_id": "SE-C", "city": "Uppsala"},
        "device": {"language": "sv"},
        "events": [
            {
                "name": "generate_lead",
                "timestamp_micros": MICROS,
                "params": {
                    "engagement_time_msec": 1,
                    "currency": "SEK",
                    "value": 150.0,
                    "lead_source": "showroom_form",
                    "lead_ref": "lead-5c1e",
                },
            }
        ],
    }


def test_a_custom_event_carries_its_scalars_and_nothing_else() -> None:
    event = conversion(
        name="lamp_configured",
        clicks={**CLIENT, "ga_session_id": "1795454100"},
        properties={"config_id": "cfg-9921", "shade": "opal", "steps": 4, "gift": False, "parts": ["a"], "map": {}},
    )
    assert body(event) == {
        "client_id": "1836402915.1795431201",
        "timestamp_micros": MICROS,
        "events": [
            {
                "name": "lamp_configured",
                "timestamp_micros": MICROS,
                "params": {
                    "session_id": 1795454100,
                    "engagement_time_msec": 1,
                    "config_id": "cfg-9921",
                    "shade": "opal",
                    "steps": 4,
                    "gift": False,
                },
            }
        ],
    }


@pytest.mark.parametrize(
    ("event_type", "name"),
    [
        (EventType.PAGE_VIEW, "page_view"),
        (EventType.VIEW_CONTENT, "view_item"),
        (EventType.SEARCH, "search"),
        (EventType.ADD_TO_CART, "add_to_cart"),
        (EventType.ADD_TO_WISHLIST, "add_to_wishlist"),
        (EventType.INITIATE_CHECKOUT, "begin_checkout"),
        (EventType.ADD_PAYMENT_INFO, "add_payment_info"),
        (EventType.PURCHASE, "purchase"),
        (EventType.LEAD, "generate_lead"),
        (EventType.SIGN_UP, "sign_up"),
        (EventType.SUBSCRIBE, "subscribe"),
        (EventType.START_TRIAL, "start_trial"),
        (EventType.CONTACT, "contact"),
        (EventType.SCHEDULE, "schedule"),
        (EventType.SUBMIT_APPLICATION, "submit_application"),
        (EventType.DOWNLOAD, "file_download"),
        (EventType.REFUND, "refund"),
        (EventType.CUSTOM, "as_it_was_given"),
    ],
)
def test_every_neutral_type_has_its_event_name(event_type: EventType, name: str) -> None:
    assert WEB.encode(conversion(event_type, "as_it_was_given")).event["name"] == name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("View Cart", "view_cart"),
        ("QualifyLead", "qualify_lead"),
        ("Lamp Configured!", "Lamp_Configured_"),
        ("3D preview", "e_3D_preview"),
        ("app_update", "e_app_update"),
        ("session_start", "e_session_start"),
        ("_lamp", "e__lamp"),
        ("ga_lamp", "e_ga_lamp"),
        ("google_lamp", "e_google_lamp"),
        ("firebase_lamp", "e_firebase_lamp"),
        ("ad_impression", "e_ad_impression"),
        ("screen_view", "e_screen_view"),
        ("ä" * 3, "e____"),
        ("x" * 60, "x" * 40),
    ],
)
def test_a_custom_name_is_made_one_that_ga4_takes(given: str, name: str) -> None:
    assert WEB.encode(conversion(name=given)).event["name"] == name


@pytest.mark.parametrize("given", ["ad_impression", "in_app_purchase", "screen_view"])
def test_names_that_only_app_streams_take_get_a_prefix_elsewhere(given: str) -> None:
    event = conversion(name=given, device=Device(app_instance_id="a" * 32))
    assert APP.encode(event).event["name"] == given
    assert WEB.encode(event).event["name"] == f"e_{given}"


@pytest.mark.parametrize(
    ("cookie", "client_id"),
    [
        ("1836402915.1795431201", "1836402915.1795431201"),
        ("GA1.1.1836402915.1795431201", "1836402915.1795431201"),
        ("GA1.2-2.1836402915.1795431201", "1836402915.1795431201"),
    ],
)
def test_the_client_id_is_the_cookie_s_last_two_numbers(cookie: str, client_id: str) -> None:
    assert body(conversion(clicks={"ga_client_id": cookie}))["client_id"] == client_id


@pytest.mark.parametrize("cookie", ["", "abc", "GA1.1.", "1.2.3", "0.5", "5d9b6c1e-3f0a-4a77-9a55-0d2f6f1c7b21"])
def test_a_missing_or_malformed_client_id_is_replaced_by_one_of_the_same_layout(cookie: str) -> None:
    client_id = body(conversion(clicks={"ga_client_id": cookie}))["client_id"]
    match = re.fullmatch(r"([1-9]\d*)\.(\d{10})", client_id)
    assert match is not None
    assert 1 <= int(match[1]) < 2**31


@pytest.mark.parametrize(
    ("person", "other"),
    [
        ({"user": Identifiers(user_id=("u1",))}, {"user": Identifiers(user_id=("u2",))}),
        ({"user": Identifiers(sealed(email="a@x.example"))}, {"user": Identifiers(sealed(email="b@x.example"))}),
        ({"user": Identifiers(sealed(phone="+46701234567"))}, {"user": Identifiers(sealed(phone="+46701234568"))}),
        ({"request": Visit(session_id="s1")}, {"request": Visit(session_id="s2")}),
        (
            {"request": Visit(client_address="198.51.100.1", user_agent="A")},
            {"request": Visit(client_address="198.51.100.1", user_agent="B")},
        ),
    ],
)
def test_a_derived_client_id_stays_with_its_person_and_differs_from_others(person: Any, other: Any) -> None:
    first = conversion(clicks={}, **person)
    again = conversion(EventType.PURCHASE, clicks={}, **person)._replace(id="c-2")
    assert body(first)["client_id"] == body(again)["client_id"]
    assert body(first)["client_id"] != body(conversion(clicks={}, **other))["client_id"]


def test_the_user_id_decides_the_derived_client_id_before_all_other_traces() -> None:
    one = conversion(clicks={}, user=Identifiers(user_id=("u1",)))
    two = conversion(clicks={}, user=Identifiers(sealed(email="a@x.example"), ("u1",)), request=Visit(session_id="s"))
    assert body(one)["client_id"] == body(two)["client_id"]


@pytest.mark.parametrize(
    ("cookie", "session_id"),
    [
        ("1795454100", 1795454100),
        ("GS1.1.1795454100.3.1.1795455900.60.0.0", 1795454100),
        ("GS1.1.1795454100", 1795454100),
        ("GS2.1.s1795454100$o3$g1$t1795455900$j60$l0$h0", 1795454100),
        ("GS2.1.o3$g1$s1795454100$t1795455900", 1795454100),
        ("GS2.1.o3$g1$t1795455900", None),
        ("s1795454100", None),
        ("1795454100.5", None),
        ("0", None),
        ("nonsense", None),
    ],
)
def test_the_session_id_is_read_from_both_cookie_layouts_as_a_number(cookie: str, session_id: int | None) -> None:
    assert params(conversion(clicks={**CLIENT, "ga_session_id": cookie})).get("session_id") == session_id


@pytest.mark.parametrize(("given", "sent"), [(None, 1), (1200, 1200), (0, 1), (-5, 1), ("9", 1), (True, 1), (1e300, 1)])
def test_the_engagement_time_is_the_property_or_at_least_one(given: Any, sent: int) -> None:
    assert params(conversion(properties={"engagement_time_msec": given}))["engagement_time_msec"] == sent


@pytest.mark.parametrize(
    ("user_ids", "sent"),
    [(("u1", "u2"), "u1"), (("a@b.example",), None), (("x" * 257,), None), (("a@b.example", "u2"), "u2"), ((), None)],
)
def test_the_user_id_is_the_first_that_google_allows(user_ids: tuple[str, ...], sent: str | None) -> None:
    assert body(conversion(user=Identifiers(user_id=user_ids))).get("user_id") == sent


@pytest.mark.parametrize(
    ("consent", "limited", "sent"),
    [
        (Consent(), None, None),
        (Consent(ad_storage=True, analytics_storage=True), None, None),
        (Consent(ad_user_data=False), None, {"ad_user_data": "DENIED"}),
        (Consent(ad_personalization=True), None, {"ad_personalization": "GRANTED"}),
        (Consent(ad_personalization=True), True, {"ad_personalization": "DENIED"}),
        (Consent(), True, {"ad_personalization": "DENIED"}),
        (Consent(), False, None),
    ],
)
def test_consent_is_sent_as_far_as_it_is_known(consent: Consent, limited: bool | None, sent: Any) -> None:
    assert body(conversion(consent=consent, limited_data_use=limited)).get("consent") == sent


def test_without_consent_to_ad_user_data_no_user_data_is_sent() -> None:
    event = PURCHASE._replace(consent=Consent(ad_user_data=False))
    assert "user_data" not in body(event)
    assert not any(digest in str(body(event)) for digests in event.user.sealed.values() for digest in digests)


def test_only_analytics_storage_is_needed_to_send() -> None:
    assert GA4Provider.NEEDS_CONSENT == ("analytics_storage",)


def test_at_most_three_hashes_of_a_kind_are_sent() -> None:
    user = Identifiers(sealed(email=[f"u{i}@x.example" for i in range(5)]))
    assert body(conversion(user=user))["user_data"] == {"sha256_email_address": list(user.sealed["email.gmail"][:3])}


@pytest.mark.parametrize(
    ("user", "address"),
    [
        (Identifiers(city="Uppsala", region="SE-C", country="SE"), None),
        (Identifiers(postal_code=" 94.1~07 ", country="US"), {"postal_code": "94107", "country": "US"}),
        (
            Identifiers(city="St. Louis 5", region="US-MO", postal_code="63101", country="US"),
            {"city": "st louis", "region": "mo", "postal_code": "63101", "country": "US"},
        ),
        (Identifiers(region="California", postal_code="94107"), {"region": "california", "postal_code": "94107"}),
    ],
)
def test_an_address_needs_more_than_a_city_and_has_google_s_form(user: Identifiers, address: Any) -> None:
    assert body(conversion(user=user)).get("user_data") == (None if address is None else {"address": [address]})


@pytest.mark.parametrize(
    ("region", "country", "location"),
    [
        ("CA", "US", {"country_id": "US", "region_id": "US-CA"}),
        ("US-CA", "US", {"country_id": "US", "region_id": "US-CA"}),
        ("us-ca", None, {"country_id": "US", "region_id": "US-CA"}),
        ("California", "US", {"country_id": "US", "region_id": "US-CA"}),
        ("Nowhere", "US", {"country_id": "US"}),
        ("C", "SE", {"country_id": "SE", "region_id": "SE-C"}),
        ("75", "FR", {"country_id": "FR", "region_id": "FR-75"}),
        ("Ain", "FR", {"country_id": "FR"}),
        ("Uppsala", "SE", {"country_id": "SE"}),
        ("US-CA", "SE", {"country_id": "SE"}),
        ("CA", None, None),
        (None, "SE", {"country_id": "SE"}),
    ],
)
def test_the_region_is_sent_only_as_iso_3166_2(region: str | None, country: str | None, location: Any) -> None:
    user = Identifiers(region=region, country=country)
    assert body(conversion(user=user)).get("user_location") == location


def test_the_client_address_wins_over_the_place_and_the_user_agent_over_the_language() -> None:
    visit = Visit(client_address="2001:db8::1", user_agent="UA", language="sv")
    found = body(conversion(user=Identifiers(city="Uppsala", country="SE"), request=visit))
    assert (found["ip_override"], found["user_agent"]) == ("2001:db8::1", "UA")
    assert not {"user_location", "device"} & found.keys()


@pytest.mark.parametrize(
    ("event_type", "order_id", "transaction_id", "repeatable"),
    [
        (EventType.PURCHASE, "o1", "o1", True),
        (EventType.PURCHASE, None, "c-1", True),
        (EventType.PURCHASE, "o" * 100, "o" * 100, True),
        (EventType.PURCHASE, "o" * 101, "c-1", True),
        (EventType.REFUND, "o1", "o1", True),
        (EventType.REFUND, None, None, False),
        (EventType.REFUND, "o" * 101, None, False),
        (EventType.LEAD, "o1", "o1", False),
        (EventType.LEAD, None, None, False),
    ],
)
def test_only_what_ga4_recognises_by_its_transaction_may_be_repeated(
    event_type: EventType, order_id: str | None, transaction_id: str | None, repeatable: bool
) -> None:
    encoded = WEB.encode(conversion(event_type, order_id=order_id))
    assert encoded.event["params"].get("transaction_id") == transaction_id
    assert encoded.repeatable is repeatable


def test_an_app_stream_repeats_nothing_because_it_deduplicates_nothing() -> None:
    event = conversion(EventType.PURCHASE, order_id="o1", device=Device(app_instance_id="a" * 32))
    encoded = APP.encode(event)
    assert encoded.repeatable is False
    assert encoded.envelope == {"app_instance_id": "a" * 32}


@pytest.mark.parametrize("text", ["x" * 100, "灯" * 100, "\U0001f4a1" * 100, "\x01" * 100])
@pytest.mark.parametrize("count", [FITTING_ITEMS, 100, 200])
def test_the_items_of_an_order_fit_in_a_request(count: int, text: str) -> None:
    """Google takes nothing of a body of 130 kB, and answers 2xx."""
    item = Item(text, text, 1.5, 2, text, text, text, text, 0.5)
    encoded = WEB.encode(PURCHASE._replace(items=(item,) * count))
    request = WEB.request([encoded])
    sent = len(encoded.event["params"]["items"])
    content = payload.body(request.envelope, request.events_at, [payload.encode(encoded.event)])
    assert len(content) < WEB.MAX_BYTES
    assert sent == count or len(content) > 75_000


@pytest.mark.parametrize(
    ("language", "sent"), [("sv_SE", "sv-SE"), ("en_US.UTF-8", "en-US"), ("sv-SE,sv;q=0.9", "sv-SE"), ("*", None)]
)
def test_the_language_of_the_device_is_one_tag(language: str, sent: str | None) -> None:
    device = body(conversion(request=Visit(language=language))).get("device")
    assert device == ({"language": sent} if sent else None)


@pytest.mark.parametrize("given", [None, "a" * 31, "a" * 33, "g" * 32])
def test_an_app_stream_refuses_what_has_no_app_instance_id(given: str | None) -> None:
    """Google answers 2xx to such an event, and drops it."""
    with pytest.raises(
        Unencodable, match=r"^GA4 app streams need conversion\.app_instance_id: 32 hex digits"
    ) as caught:
        APP.encode(conversion(device=Device(app_instance_id=given)))
    assert caught.value.filtered is False


@pytest.mark.parametrize("given", [5, True, 1.5])
@pytest.mark.parametrize("key", ["page_location", "page_referrer", "page_title"])
def test_a_page_is_a_text_or_left_out(key: str, given: Any) -> None:
    assert key not in params(conversion(properties={key: given}))
    assert params(conversion(properties={key: "x" * 2000}))[key] == "x" * MAX_VALUES[key]


@pytest.mark.parametrize(("event_type", "value"), [(EventType.REFUND, 49.0), (EventType.PURCHASE, -49.0)])
def test_a_refund_s_value_is_positive(event_type: EventType, value: float) -> None:
    found = params(conversion(event_type, value=-49.0, tax=-49.0, shipping=-49.0, currency="EUR"))
    assert {found["value"], found["tax"], found["shipping"]} == {value}


def test_a_value_of_zero_is_sent() -> None:
    assert params(conversion(EventType.PURCHASE, value=0, currency="EUR"))["value"] == 0


def test_texts_are_cut_to_what_google_keeps() -> None:
    found = params(
        conversion(
            coupon="c" * 200,
            search_term="s" * 200,
            request=Visit(url="https://x.example/" + "u" * 2000, referrer="r" * 2000, page_title="t" * 2000),
            items=(Item(id="i" * 200, name="n" * 200),),
            properties={"note": "p" * 200},
        )
    )
    lengths = {name: len(value) for name, value in found.items() if isinstance(value, str)}
    assert lengths == {
        "coupon": 100, "search_term": 100, "page_location": 1000, "page_referrer": 420, "page_title": 300, "note": 100
    }  # fmt: skip
    assert found["items"] == [{"item_id": "i" * 100, "item_name": "n" * 100}]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"plan type": "annual"}, {"plan_type": "annual"}),
        ({"a.b-c": 1}, {"a_b_c": 1}),
        ({"3d": True}, {"e_3d": True}),
        ({"ga_x": 1, "google_x": 2, "firebase_x": 3, "_x": 4}, {"e_ga_x": 1, "e_google_x": 2, "e_firebase_x": 3, "e__x": 4}),
        ({"firebase_conversion": 1, "session_id": "abc", "debug_mode": False, "items": "x"}, {}),
        ({"session.id": "abc", "debug mode": False}, {}),
        ({"n" * 50: 1}, {"n" * 40: 1}),
        ({"a b": 1, "a_b": 2}, {"a_b": 1}),
        ({"note": "", "nan": float("nan"), "inf": float("inf"), "none": None, "日本": 1}, {}),
        ({"currency": "clash"}, {}),
        ({"method": "google"}, {"method": "google"}),
    ],
)  # fmt: skip
def test_custom_properties_become_parameters_google_takes(given: dict[str, Any], sent: dict[str, Any]) -> None:
    base = {"engagement_time_msec": 1, "currency": "EUR"}
    assert params(conversion(currency="EUR", properties=given)) == base | sent


def test_of_more_than_25_parameters_the_modelled_ones_stay() -> None:
    found = params(PURCHASE._replace(properties={f"p{i}": i for i in range(40)}))
    assert len(found) == 25
    assert {"transaction_id", "items", "page_location", "tax", "p0"} <= found.keys()


def test_items_are_cut_to_200_and_need_an_id_or_a_name() -> None:
    items = (Item(price=1.0), *(Item(id=str(i)) for i in range(250)))
    assert params(conversion(items=items))["items"] == [{"item_id": str(i)} for i in range(200)]


def test_an_item_has_all_its_fields() -> None:
    item = Item("i", "n", 0, 2, "cat", "brand", "variant", "coupon", 1.5)
    assert params(conversion(items=(item,)))["items"] == [
        {
            "item_id": "i", "item_name": "n", "price": 0, "quantity": 2, "item_category": "cat",
            "item_brand": "brand", "item_variant": "variant", "coupon": "coupon", "discount": 1.5,
        }
    ]  # fmt: skip


def test_debug_mode_marks_the_events_and_is_absent_otherwise() -> None:
    assert params(conversion(), GA4Provider("G-1", "s", debug_mode=True))["debug_mode"] == 1
    assert "debug_mode" not in params(conversion())


@pytest.mark.parametrize(
    ("provider", "url"),
    [
        (WEB, "https://www.google-analytics.com/mp/collect?measurement_id=G-FJ0RD1AMP9"),
        (GA4Provider("G-1", "s", region="us"), "https://www.google-analytics.com/mp/collect?measurement_id=G-1"),
        (GA4Provider("G-1", "s", region="eu"), "https://region1.google-analytics.com/mp/collect?measurement_id=G-1"),
        (GA4Provider("G-1", "s", test_mode=True), "https://www.google-analytics.com/debug/mp/collect?measurement_id=G-1"),
        (GA4Provider("G-&1", "s"), "https://www.google-analytics.com/mp/collect?measurement_id=G-%261"),
        (GA4Provider("G-1", "s", endpoint="http://h:1/ga4/"), "http://h:1/ga4/mp/collect?measurement_id=G-1"),
        (APP, "https://www.google-analytics.com/mp/collect?firebase_app_id=1:4711:ios:0aff"),
    ],
)  # fmt: skip
def test_the_url_names_the_stream_and_not_the_secret(provider: GA4Provider, url: str) -> None:
    request = provider.request([provider.encode(conversion(device=Device(app_instance_id="a" * 32)))])
    assert (request.method, request.url) == ("POST", url)
    assert request.secret_params == {"api_secret": provider.api_secret}


def test_the_secret_is_in_no_repr() -> None:
    request = WEB.request([WEB.encode(conversion())])
    assert "s3cret" not in repr(WEB) + repr(request)
    assert "G-FJ0RD1AMP9" in repr(WEB)


def test_the_time_is_on_top_only_where_all_events_share_it() -> None:
    one, same = WEB.encode(conversion()), WEB.encode(conversion(name="y"))
    later = WEB.encode(conversion()._replace(time_unix_nano=TIME + 1_000_000))
    assert body_of(WEB, one, same)["timestamp_micros"] == MICROS
    mixed = body_of(WEB, one, later)
    assert "timestamp_micros" not in mixed
    assert [event["timestamp_micros"] for event in mixed["events"]] == [MICROS, MICROS + 1000]


def test_only_the_test_mode_asks_for_strict_validation() -> None:
    strict = body(conversion(), GA4Provider("G-1", "s", test_mode=True))
    assert strict["validation_behavior"] == "ENFORCE_RECOMMENDATIONS"
    assert "validation_behavior" not in body(conversion())


def test_the_limits_are_google_s() -> None:
    assert (WEB.MAX_BATCH, WEB.MAX_AGE_NS, WEB.MAX_AHEAD_NS) == (25, 72 * 3600 * 10**9, None)
    assert WEB.MAX_BYTES < 130_000


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"measurement_id": "G-1"}, "api_secret"),
        ({"measurement_id": "G-1", "api_secret": " "}, "api_secret"),
        ({"api_secret": "s"}, "measurement_id"),
        ({"api_secret": "s", "measurement_id": "G-1", "firebase_app_id": "1:2"}, "firebase_app_id"),
        ({"api_secret": "s", "measurement_id": ""}, "measurement_id"),
        ({"api_secret": "s", "firebase_app_id": " "}, "firebase_app_id"),
        ({"api_secret": "s", "firebase_app_id": "com.shop"}, "firebase_app_id: must look like"),
        ({"api_secret": "s", "measurement_id": "UA-123-1"}, "measurement_id: must begin with G-"),
        ({"api_secret": "s", "measurement_id": "G-1", "region": "asia"}, "region"),
        ({"api_secret": "s", "measurement_id": "G-1", "debug_mode": "yes"}, "debug_mode"),
        ({"api_secret": "s", "measurement_id": "G-1", "test_mode": 1}, "test_mode"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key):
        GA4Provider(**settings)


PAIR = [WEB.encode(PURCHASE._replace(id="c-1")), WEB.encode(conversion(name="y"))]
TEST = GA4Provider("G-1", "s", test_mode=True)
NAME_INVALID = {
    "fieldPath": "events",
    "description": "Event at index: [0] has invalid name [_lamp]. Names must start with an alphabetic character.",
    "validationCode": "NAME_INVALID",
}


@pytest.mark.parametrize(
    ("response", "statuses"),
    [
        (Response(204), [Status.DELIVERED] * 2),
        (Response(200, {"validationMessages": [NAME_INVALID]}), [Status.DELIVERED] * 2),
        (Response(413), [Status.SUSPECT] * 2),
        (Response(408), [Status.RETRY] * 2),
        (Response(429), [Status.RETRY] * 2),
        (Response(500), [Status.RETRY] * 2),
        (Response(503), [Status.RETRY] * 2),
        (Response(302), [Status.RETRY] * 2),
        (Response(400), [Status.SUSPECT] * 2),
        (Response(403), [Status.UNAUTHORIZED] * 2),
        (Response(0, error="timeout"), [Status.RETRY, Status.REFUSED]),
        (Response(0, error="refused", sent=False), [Status.RETRY] * 2),
    ],
)
def test_an_answer_decides_like_this(response: Response, statuses: list[Status]) -> None:
    """After a lost answer only the purchase goes again: GA4 would count the other event twice."""
    assert [outcome.status for outcome in WEB.outcomes(response, PAIR)] == statuses


@pytest.mark.parametrize(
    ("answer", "outcomes"),
    [
        ({"validationMessages": []}, [DELIVERED] * 2),
        ({}, [DELIVERED] * 2),
        (None, [Outcome(Status.SUSPECT, "the validation server's answer is not readable")] * 2),
        ({"validationMessages": "x"}, [Outcome(Status.SUSPECT, "the validation server's answer is not readable")] * 2),
        (
            {"validationMessages": [{"fieldPath": "events[1].params.currency", "validationCode": "VALUE_REQUIRED"}]},
            [NOT_THE_CULPRIT, Outcome(Status.REFUSED, "VALUE_REQUIRED at events[].params.currency")],
        ),
        (
            {"validationMessages": [NAME_INVALID]},
            [Outcome(Status.REFUSED, "NAME_INVALID at events"), NOT_THE_CULPRIT],
        ),
        (
            {"validationMessages": [{"description": "Unable to parse (events[0])", "validationCode": "VALUE_INVALID"}]},
            [Outcome(Status.SUSPECT, "VALUE_INVALID")] * 2,
        ),
        (
            {"validationMessages": [{"fieldPath": "events[7].name", "validationCode": "NAME_INVALID"}]},
            [Outcome(Status.SUSPECT, "NAME_INVALID at events[].name")] * 2,
        ),
        (
            {"validationMessages": [{"fieldPath": "a b@x.example", "validationCode": "b@x.example"}]},
            [Outcome(Status.SUSPECT, "refused by the validation server")] * 2,
        ),
    ],
)
def test_in_test_mode_the_validation_messages_decide_and_no_value_is_repeated(
    answer: Any, outcomes: list[Outcome]
) -> None:
    assert TEST.outcomes(Response(200, answer), PAIR) == outcomes

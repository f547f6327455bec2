"""TikTok: what goes over the wire, and what an answer means."""

from __future__ import annotations

from typing import Any

import pytest

from eventflows.capture import Rules, capture, recognise
from eventflows.conversion import Conversion, EventType
from eventflows.errors import ConfigurationError
from eventflows.pii import digest
from eventflows.providers.base import NOT_THE_CULPRIT, Encoded, Response, Status, Unencodable
from eventflows.providers.tiktok import TikTokProvider
from eventflows.secret import Secret

from . import body_of

TIME = 1_795_455_900_123_456_789
TIKTOK = TikTokProvider("CPIX", "t0ken")
PERSON = {"user.email": "Mara.Lind@Example.com"}
EMAIL = digest("mara.lind@example.com")
GAID = "cdda802e-fb9c-47ad-9866-0794d394c912"
IDFV = "6D92078A-8246-4BA4-AE5B-76104861E7DC"


def conversion(name: str = "Lead", **attributes: Any) -> Conversion:
    given = {"conversion.id": "c-1", **PERSON, **attributes}
    return capture(name, recognise(name, given, Rules()) or EventType.CUSTOM, given, TIME, Rules())


def event(name: str = "Lead", provider: TikTokProvider = TIKTOK, **attributes: Any) -> dict[str, Any]:
    return provider.encode(conversion(name, **attributes)).event


def test_a_full_purchase() -> None:
    """Every field in its place, type and unit; ids are strings."""
    made = event(
        "Purchase",
        **{
            "conversion.id": 70331, "order_id": 70331, "value": "1249.50", "currency": "sek", "coupon": "XMAS",
            "items": [{"id": 11, "name": "Lamp", "price": 749.5, "quantity": 1, "brand": "S", "category": "L", "variant": "v"}],
            "user.phone": "+46 70 123 45 67", "user.first_name": "Mary Ann", "user.last_name": "O'Brien",
            "user.id": " Cust_8841 ",
            "user.city": "San Francisco", "user.state": "US-CA", "user.zip": "94103-1234", "user.country": "US",
            "client.address": "198.51.100.24", "user_agent.original": "Mozilla/5.0", "browser.language": "sv_SE",
            "url.full": "https://shop.example/done", "referrer": "https://shop.example/",
            "conversion.click.ttclid": "E.C.P.x", "conversion.click.ttp": "2aBc", "plan_type": "annual", "tags": ["a", "b"],
        },
    )  # fmt: skip
    assert made == {
        "event": "Purchase", "event_time": 1795455900, "event_id": "70331",
        "user": {
            "email": [EMAIL], "phone": [digest("+46701234567")], "external_id": [digest("Cust_8841")],
            "first_name": digest("mary ann"), "last_name": digest("obrien"), "zip_code": digest("94103"),
            "city": "sanfrancisco", "state": "ca", "country": "us", "ttclid": "E.C.P.x", "ttp": "2aBc",
            "ip": "198.51.100.24", "user_agent": "Mozilla/5.0", "locale": "sv-SE",
        },
        "page": {"url": "https://shop.example/done", "referrer": "https://shop.example/"},
        "properties": {
            "value": 1249.5, "currency": "SEK", "order_id": "70331", "num_items": 1, "content_type": "product",
            "content_ids": ["11"], "coupon": "XMAS", "plan_type": "annual", "tags": ["a", "b"],
            "contents": [{"content_id": "11", "content_name": "Lamp", "content_category": "L", "brand": "S", "price": 749.5,
                          "quantity": 1}],
        },
    }  # fmt: skip


@pytest.mark.parametrize("event_type", [one for one in EventType if one not in (EventType.CUSTOM, EventType.REFUND)])
def test_every_neutral_type_has_its_name(event_type: EventType) -> None:
    assert TIKTOK.EVENT_NAMES[event_type] == event(event_type.value)["event"]


@pytest.mark.parametrize(("name", "sent"), [("Lamp Configured", "Lamp Configured"), ("find location", "FindLocation")])
def test_custom_names(name: str, sent: str) -> None:
    assert sent == event(name)["event"]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [({}, None), ({"conversion.limited_data_use": True}, True), ({"conversion.limited_data_use": False}, False),
     ({"conversion.consent.ad_personalization": False}, True)],
)  # fmt: skip
def test_limited_data_use(attributes: dict[str, Any], expected: bool | None) -> None:
    assert expected is event(**attributes).get("limited_data_use")


def test_a_currency_that_tiktok_does_not_list_takes_its_value_with_it() -> None:
    assert "properties" not in event(value=5, currency="BGN")
    assert event(value=5, currency="BGN", items=[{"id": "a", "price": 5}])["properties"]["contents"] == [
        {"content_id": "a"}
    ]
    assert event(value=5, currency="EUR")["properties"] == {"value": 5, "currency": "EUR"}


OFFLINE = TikTokProvider("SET1", "t0ken", "offline")
APP = TikTokProvider("APP1", "t0ken", "app", app_id="com.shop")


def test_offline_events_carry_email_and_phone_only() -> None:
    made = event(
        "Purchase",
        OFFLINE,
        **{"conversion.action_source": "physical_store", "user.id": "x", "url.full": "https://x.se/"},
    )
    assert {"event", "event_time", "event_id", "user"} == made.keys()
    assert made["user"] == {"email": [EMAIL]}


def test_app_events_carry_the_app_and_the_device() -> None:
    made = event("Purchase", APP, **{"conversion.action_source": "app", "conversion.device.advertising_id": GAID,
                                     "conversion.device.vendor_id": IDFV})  # fmt: skip
    assert made["app"] == {"app_id": "com.shop"}
    assert made["user"] == {"email": [EMAIL], "gaid": GAID, "idfv": IDFV}


CRM = TikTokProvider("SET2", "t0ken", "crm")


@pytest.mark.parametrize("lead_id", [7123456789012345678, "7123456789012345678"])
def test_crm_events_carry_their_lead(lead_id: Any) -> None:
    """As a text, since TikTok refuses a number."""
    made = event("Lead", CRM, lead_id=lead_id, lead_event_source="Hub")
    assert made["lead"] == {"lead_id": "7123456789012345678", "lead_event_source": "Hub"}
    of_all = TikTokProvider("SET2", "t0ken", "crm", extra={"lead": {"lead_event_source": "Hub", "lead_id": "1"}})
    assert event("Lead", of_all)["lead"] == {}
    assert "lead" not in event("Lead", lead_id=lead_id)
    with pytest.raises(Unencodable, match="lead_id"):
        event("Lead", CRM)


def test_a_malformed_vendor_id_is_dropped_and_the_event_goes() -> None:
    assert event("Lead", APP, **{"conversion.device.vendor_id": "V"})["user"] == {"email": [EMAIL]}


@pytest.mark.parametrize(
    ("language", "locale"),
    [
        ("sv_SE", "sv-SE"),
        ("en", "en"),
        ("sv-SE,sv;q=0.9", "sv-SE"),
        ("en_US.UTF-8", "en-US"),
        ("POSIX", None),
        ("*", None),
    ],
)
def test_the_locale_is_one_language_tag(language: str, locale: str | None) -> None:
    assert locale == event(**{"browser.language": language})["user"].get("locale")


@pytest.mark.parametrize(
    ("key", "given", "sent"),
    [
        ("content_ids", "A1", ["A1"]),
        ("content_ids", [1, "b"], ["1", "b"]),
        ("content_type", "product_group", "product_group"),
        ("content_type", "article", None),
        ("description", 7, "7"),
        ("shop_id", 7, "7"),
        ("predicted_ltv", "12.5", 12.5),
        ("predicted_ltv", "high", None),
        ("predicted_ltv", "9" * 400, None),
        ("customer_type", "returning", "returning"),
        ("customer_type", "vip", None),
        ("delivery_category", "drone", None),
        ("my_number", 7, 7),
    ],
)
def test_documented_properties_get_their_type_or_are_left_out(key: str, given: Any, sent: Any) -> None:
    """TikTok would refuse the whole batch for a value of another type."""
    assert sent == event(**{key: given}).get("properties", {}).get(key)


@pytest.mark.parametrize(
    ("name", "provider", "attributes", "filtered"),
    [
        ("Refund", TIKTOK, {}, True),
        ("Lead", TIKTOK, {"conversion.action_source": "physical_store"}, True),
        ("Lead", TIKTOK, {"conversion.action_source": "app"}, True),
        ("Lamp configured", OFFLINE, {}, True),
        ("PageView", OFFLINE, {}, True),
        ("Lead", TIKTOK, {"user.email": None}, False),
        ("Lead", TIKTOK, {"user.email": None, "client.address": "198.51.100.24"}, False),
        ("Lead", OFFLINE, {"user.email": None, "user.id": "x"}, False),
    ],
)
def test_what_has_no_place_is_filtered_and_what_cannot_match_is_refused(
    name: str, provider: TikTokProvider, attributes: dict[str, Any], filtered: bool
) -> None:
    with pytest.raises(Unencodable) as problem:
        event(name, provider, **attributes)
    assert filtered is problem.value.filtered


def test_address_and_agent_together_are_enough_to_match() -> None:
    visitor = {"user.email": None, "client.address": "198.51.100.24", "user_agent.original": "M"}
    assert {"ip", "user_agent"} == event(**visitor)["user"].keys()


def test_the_request_keeps_its_secret_apart() -> None:
    provider = TikTokProvider("CPIX", "t0ken", test_code="TEST1")
    request = provider.request([Encoded({"n": 1})])
    assert request.url == "https://business-api.tiktok.com/open_api/v1.3/event/track/"
    assert body_of(provider, Encoded({"n": 1})) == {
        "event_source": "web", "event_source_id": "CPIX", "test_event_code": "TEST1", "data": [{"n": 1}],
    }  # fmt: skip
    assert request.secret_headers == {"Access-Token": Secret("t0ken")}
    assert "t0ken" not in repr(request) + repr(provider)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"event_source": "tv"}, "web, app, offline, crm"),
        ({"event_source": "app"}, "app_id"),
        ({"event_source": "app", "app_id": ""}, "app_id"),
        ({"event_source": "crm", "extra": {"lead": {"lead_id": 7123456789012345678}}}, "in quotes"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        TikTokProvider("CPIX", "t0ken", **settings)


BATCH = [Encoded({})] * 3


def answer(code: int, message: str = "", status: int = 200) -> Response:
    return Response(status, {"code": code, "message": message, "request_id": "r", "data": {}})


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (answer(0), Status.DELIVERED), (answer(20001), Status.DELIVERED), (answer(40002, "no"), Status.SUSPECT),
        (answer(40001), Status.UNAUTHORIZED), (answer(40105), Status.UNAUTHORIZED), (answer(40007), Status.UNAUTHORIZED),
        (answer(40100), Status.RETRY), (answer(40016), Status.RETRY), (answer(50000), Status.RETRY),
        (answer(40999), Status.SUSPECT), (answer(40999, status=503), Status.RETRY),
        (Response(200, None), Status.RETRY), (Response(202, {}), Status.RETRY), (Response(302), Status.RETRY),
        (Response(407), Status.UNAUTHORIZED), (Response(502, None), Status.RETRY), (Response(0, error="x"), Status.RETRY),
    ],
)  # fmt: skip
def test_the_bodys_code_decides(response: Response, status: Status) -> None:
    """HTTP 200 says nothing."""
    assert {status} == {outcome.status for outcome in TIKTOK.outcomes(response, BATCH)}


@pytest.mark.parametrize("message", ["data.1.user.email: Not a valid string.", "Batch.1.properties.value: x"])
def test_the_named_event_is_refused_and_the_rest_goes_again(message: str) -> None:
    """The reason never repeats TikTok's message, which can hold personal data."""
    outcomes = TIKTOK.outcomes(answer(40002, message), BATCH)
    assert [outcomes[0], outcomes[2]] == [NOT_THE_CULPRIT, NOT_THE_CULPRIT]
    assert (outcomes[1].status, outcomes[1].reason) == (Status.REFUSED, "TikTok 40002 (a key or value is not accepted)")

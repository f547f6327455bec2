"""Meta: what goes over the wire, and what an answer means."""

from __future__ import annotations

from typing import Any

import pytest

from eventflows.capture import Rules, capture, recognise
from eventflows.conversion import Conversion, EventType
from eventflows.errors import ConfigurationError
from eventflows.pii import digest
from eventflows.providers.base import NOT_THE_CULPRIT, Encoded, Outcome, Response, Status, Unencodable
from eventflows.providers.meta import MetaProvider
from eventflows.secret import bearer

from . import body_of

TIME = 1_795_455_900_123_456_789
META = MetaProvider("123", "t0ken")
PERSON = {"user.email": "Mara.Lind@Example.com"}
EM = digest("mara.lind@example.com")


def conversion(name: str = "Lead", **attributes: Any) -> Conversion:
    given = {"conversion.id": "c-1", **PERSON, **attributes}
    return capture(name, recognise(name, given, Rules()) or EventType.CUSTOM, given, TIME, Rules())


def event(name: str = "Lead", **attributes: Any) -> dict[str, Any]:
    return META.encode(conversion(name, **attributes)).event


def test_a_full_purchase() -> None:
    """Every field in its place, type and unit."""
    made = event(
        "Purchase",
        **{
            "conversion.id": "ord-70331", "order_id": 70331, "value": "1249.50", "currency": "sek", "coupon": "XMAS",
            "tax": 249.9,
            "items": [{"id": "LMP-11", "name": "Lamp", "price": 749.5, "quantity": 1, "brand": "S", "category": "L",
                       "variant": "v"}, {"id": 29, "price": 250}],
            "user.phone": ["+46 70 123 45 67", "+1 650 555 1212"], "user.first_name": "Anna-Maria",
            "user.last_name": "O'Brien",
            "user.date_of_birth": "1997-02-16", "user.gender": "female", "user.id": "Cust_8841", "user.city": "San Francisco",
            "user.state": "California", "user.zip": "94103-1234", "user.country": "us", "client.address": "198.51.100.24",
            "user_agent.original": "Mozilla/5.0", "url.full": "https://shop.example/done", "referrer": "https://shop.example/",
            "conversion.click.fbc": "fb.1.1795450000000.IwZXh0bgNhZW0", "conversion.click.fbp": "fb.1.1790000000123.1804412345",
            "plan_type": "annual", "tags": ["a", "b"], "deep": {"n": 1}, "content_ids": ["LMP-11"], "street": "Raw 1",
        },
    )  # fmt: skip
    assert made == {
        "event_name": "Purchase", "event_time": 1795455900, "event_id": "ord-70331", "action_source": "website",
        "event_source_url": "https://shop.example/done", "referrer_url": "https://shop.example/",
        "user_data": {
            "em": [EM], "ph": [digest("46701234567"), digest("16505551212")], "fn": [digest("annamaria")],
            "ln": [digest("obrien")], "db": [digest("19970216")], "ge": [digest("f")], "external_id": [digest("cust_8841")],
            "ct": [digest("sanfrancisco")], "st": [digest("ca")], "zp": [digest("94103")], "country": [digest("us")],
            "client_ip_address": "198.51.100.24", "client_user_agent": "Mozilla/5.0",
            "fbc": "fb.1.1795450000000.IwZXh0bgNhZW0", "fbp": "fb.1.1790000000123.1804412345",
        },
        "custom_data": {
            "value": 1249.5, "currency": "SEK", "order_id": "70331", "content_type": "product", "num_items": 2,
            "content_ids": ["LMP-11", "29"], "coupon": "XMAS", "tax": 249.9, "plan_type": "annual",
            "contents": [{"id": "LMP-11", "quantity": 1, "item_price": 749.5, "title": "Lamp", "brand": "S", "category": "L"},
                         {"id": "29", "quantity": 1, "item_price": 250}],
            "tags": '["a", "b"]', "deep": '{"n": 1}',
        },
    }  # fmt: skip


@pytest.mark.parametrize("event_type", [one for one in EventType if one is not EventType.CUSTOM])
def test_every_neutral_type_has_its_name(event_type: EventType) -> None:
    assert META.EVENT_NAMES[event_type] == event(event_type.value, value=1, currency="EUR")["event_name"]


@pytest.mark.parametrize(("name", "sent"), [("Lamp Configured", "Lamp Configured"), ("customize_product", "CustomizeProduct"),
                                            ("donate", "Donate"), ("x" * 60, "x" * 50)])  # fmt: skip
def test_custom_names(name: str, sent: str) -> None:
    """As given, but in Meta's spelling where it is one of its standard events."""
    assert sent == event(name, **{"conversion.type": "custom"})["event_name"]


@pytest.mark.parametrize(
    ("clicks", "fbc"),
    [
        ({"fbc": "fb.1.1795450000000.IwAR"}, "fb.1.1795450000000.IwAR"),
        ({"fbc": "fb.1.1795450000000.IwAR", "fbclid": "IwAR"}, "fb.1.1795450000000.IwAR"),
        ({"fbc": "fb.1.1795450000000.IwAR.AQYBAQIA", "fbclid": "IwAR"}, "fb.1.1795450000000.IwAR.AQYBAQIA"),
        ({"fbc": "fb.1.1795450000000.IwAR", "fbclid": "IwNew_-9"}, "fb.1.1795455900123.IwNew_-9"),
        ({"fbclid": "IwNew_-9"}, "fb.1.1795455900123.IwNew_-9"),
        ({"fbc": "garbage", "fbclid": "IwNew_-9"}, "fb.1.1795455900123.IwNew_-9"),
        ({"fbc": "garbage"}, None),
        ({"fbc": "fb.1.1795450000.IwAR"}, None),
    ],
)
def test_fbc_is_the_cookie_or_made_from_a_newer_fbclid(clicks: dict[str, str], fbc: str | None) -> None:
    made = event(**{f"conversion.click.{name}": value for name, value in clicks.items()})
    assert fbc == made["user_data"].get("fbc")


@pytest.mark.parametrize("fbp", ["fb.x", "fb.1.1795450000.18044"])
def test_a_malformed_fbp_is_dropped_and_the_event_goes(fbp: str) -> None:
    """Its time is in milliseconds; one in seconds is malformed, too."""
    assert event(**{"conversion.click.fbp": fbp})["user_data"] == {"em": [EM]}


LDU = {"data_processing_options": ["LDU"], "data_processing_options_country": 0, "data_processing_options_state": 0}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, {}),
        ({"conversion.limited_data_use": True}, LDU),
        ({"conversion.limited_data_use": False}, {"data_processing_options": []}),
        ({"conversion.consent.ad_personalization": "denied"}, {**LDU, "opt_out": True}),
        ({"conversion.consent.ad_personalization": "granted"}, {}),
    ],
)
def test_consent_becomes_limited_data_use(attributes: dict[str, Any], expected: dict[str, Any]) -> None:
    made = event(**attributes)
    assert expected == {key: made[key] for key in (*LDU, "opt_out") if key in made}


@pytest.mark.parametrize(
    ("name", "attributes", "expected"),
    [
        ("Refund", {"value": -5, "currency": "EUR"}, {"value": 5, "currency": "EUR"}),
        ("Lead", {"value": -5, "currency": "EUR"}, None),
        ("Lead", {"currency": "EUR"}, None),
        ("Lead", {"value": 0, "currency": "EUR"}, {"value": 0, "currency": "EUR"}),
        ("Search", {"search_term": "lamp"}, {"search_string": "lamp"}),
        ("Lead", {"search_term": "lamp"}, None),
        ("Lead", {"items": [{"name": "no id"}]}, {"num_items": 1}),
        ("Lead", {"content_name": "B2B", "predicted_ltv": 9.5}, {"content_name": "B2B", "predicted_ltv": 9.5}),
    ],
)
def test_custom_data(name: str, attributes: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert expected == event(name, **attributes).get("custom_data")


@pytest.mark.parametrize(
    ("key", "given", "sent"),
    [
        ("content_ids", "A1", ["A1"]),
        ("content_ids", [1, "b"], ["1", "b"]),
        ("content_name", 5, "5"),
        ("status", True, "true"),
        ("predicted_ltv", "12.5", 12.5),
        ("predicted_ltv", "high", None),
        ("predicted_ltv", "9" * 400, None),
        ("delivery_category", "curbside", "curbside"),
        ("delivery_category", "drone", None),
        ("customer_segmentation", "new_customer_to_business_line", "new_customer_to_business_line"),
        ("customer_segmentation", "vip", None),
        ("store_data", {"store_code": 7, "x": 1}, {"store_code": "7"}),
        ("store_data", "7", None),
        ("my_number", "12.5", "12.5"),
    ],
)
def test_documented_custom_data_gets_its_type_or_is_left_out(key: str, given: Any, sent: Any) -> None:
    """Meta would refuse the whole batch for a value of another type."""
    assert sent == event(**{key: given}).get("custom_data", {}).get(key)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (123456789012345, 123456789012345),
        ("12345678901234567", 12345678901234567),
        ("7123456789012345678", None),
        ("x", None),
    ],
)
def test_the_id_of_a_lead_form_of_meta_matches(given: Any, sent: int | None) -> None:
    assert sent == event(lead_id=given)["user_data"].get("lead_id")


@pytest.mark.parametrize("agent", ["x" * 23, "1-2", "x1"])
def test_a_partner_agent_that_meta_refuses_is_a_configuration_error(agent: str) -> None:
    with pytest.raises(ConfigurationError, match="partner_agent"):
        MetaProvider("123", "t0ken", partner_agent=agent)


APP = {"conversion.action_source": "app", "os.name": "iOS", "os.version": "18.1",
       "conversion.device.advertising_id": "6D92078A-8246-4BA4-AE5B-76104861E7DC"}  # fmt: skip


def test_app_events_carry_the_sixteen_positions() -> None:
    made = event(**APP)
    assert made["user_data"]["madid"] == "6D92078A-8246-4BA4-AE5B-76104861E7DC"
    extinfo = made["app_data"]["extinfo"]
    assert (len(extinfo), extinfo[0], extinfo[4]) == (16, "i2", "18.1")
    assert event(**{**APP, "os.version": 18})["app_data"]["extinfo"][4] == "18"
    assert event(**APP, locale="en_US.UTF-8")["app_data"]["extinfo"][6] == "en_US"


def test_app_data_of_the_configuration_keeps_the_vendor_id() -> None:
    """`extra` is merged in later; nothing else of ours may stand in its way."""
    provider = MetaProvider("123", "t0ken", extra={"app_data": {"advertiser_tracking_enabled": 1}})
    made = provider.encode(conversion(**{"conversion.action_source": "app", "conversion.device.vendor_id": "V"}))
    assert made.event["app_data"] == {"vendor_id": "V"}


@pytest.mark.parametrize(
    ("name", "attributes", "said"),
    [
        ("Purchase", {"currency": "EUR"}, "value and currency"),
        ("Purchase", {"value": 5}, "value and currency"),
        ("Purchase", {"value": -5, "currency": "EUR"}, "value and currency"),
        ("purchase", {"conversion.type": "custom"}, "value and currency"),
        ("Lead", {"user.email": None}, "nothing to match on"),
        ("Lead", {"user.email": None, "user_agent.original": "M", "user.country": "SE"}, "nothing to match on"),
        ("Lead", {"user.email": None, "user.first_name": "A", "user.gender": "f"}, "nothing to match on"),
        ("Lead", {"conversion.action_source": "app"}, "os.name"),
    ],
)
def test_what_meta_would_refuse_is_refused_before_it_sinks_its_batch(
    name: str, attributes: dict[str, Any], said: str
) -> None:
    with pytest.raises(Unencodable, match=said):
        event(name, **attributes)


def test_an_event_in_a_store_may_be_older() -> None:
    day = 24 * 3600 * 10**9
    assert 7 * day == META.max_age_ns(conversion())
    assert 62 * day == META.max_age_ns(conversion(**{"conversion.action_source": "physical_store"}))


def test_the_request_keeps_its_secret_apart() -> None:
    provider = MetaProvider("123", "t0ken", "v25.0", test_code="TEST1", partner_agent="shop-1")
    events = Encoded({"n": 1}), Encoded({"n": 2})
    request = provider.request(events)
    assert request.url == "https://graph.facebook.com/v25.0/123/events"
    assert body_of(provider, *events) == {
        "data": [{"n": 1}, {"n": 2}],
        "test_event_code": "TEST1",
        "partner_agent": "shop-1",
    }
    assert request.secret_headers == {"Authorization": bearer("t0ken")}
    assert "t0ken" not in repr(request) + repr(provider)


@pytest.mark.parametrize("version", ["v20.0", "v18.0", "26.0", "v26"])
def test_a_version_that_ended_is_a_configuration_error(version: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"allowed: v26\.0"):
        MetaProvider("123", "t0ken", version)


def test_a_newer_version_than_we_know_is_accepted() -> None:
    assert MetaProvider("123", "t0ken", "v27.0").api_version == "v27.0"


BATCH = [Encoded({})] * 3


def failed(code: int, subcode: int | None = None, status: int = 400, **more: Any) -> Response:
    return Response(status, {"error": {"code": code, "error_subcode": subcode, "message": "Invalid parameter", **more}})


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (Response(200, {"events_received": 3, "messages": []}), Status.DELIVERED),
        (Response(200, None), Status.RETRY),
        (Response(202, {}), Status.RETRY),
        (Response(302, None), Status.RETRY),
        (Response(407, None), Status.UNAUTHORIZED),
        (failed(190, status=401), Status.UNAUTHORIZED),
        (failed(190, status=500), Status.UNAUTHORIZED),
        (failed(100, 33), Status.UNAUTHORIZED),
        (failed(200, status=403), Status.UNAUTHORIZED),
        (failed(100, 2804003), Status.SUSPECT),
        (failed(100, 2804050), Status.SUSPECT),
        (failed(17, 2446079), Status.RETRY),
        (failed(80004, status=400), Status.RETRY),
        (failed(2, status=500), Status.RETRY),
        (failed(-3), Status.RETRY),
        (failed(100, 1, is_transient=True), Status.RETRY),
        (failed(9999, status=503), Status.RETRY),
        (failed(9999), Status.SUSPECT),
        (Response(502, None), Status.RETRY),
        (Response(429, None), Status.RETRY),
        (Response(0, error="no answer in time"), Status.RETRY),
    ],
)
def test_the_answers_code_decides_before_its_status(response: Response, status: Status) -> None:
    assert {status} == {outcome.status for outcome in META.outcomes(response, BATCH)}


def test_a_success_that_does_not_say_what_arrived_has_a_reason_that_tells_so() -> None:
    """`HTTP 200` alone would look like a delivery in a log or a dead letter."""
    assert META.outcomes(Response(200, None), BATCH)[0].reason == "HTTP 200 without the platform's answer"


def test_an_unknown_code_is_told() -> None:
    assert META.outcomes(failed(9999, 7), BATCH)[0] == Outcome(Status.SUSPECT, "Meta 9999/7")


@pytest.mark.parametrize("field", ["message", "error_user_msg"])
def test_the_named_event_is_refused_and_the_rest_goes_again(field: str) -> None:
    """The reason holds codes only, never Meta's text, which repeats values."""
    text = "Unexpected key \"index\" on param \"$['data'][1]['custom_data']\""
    outcomes = META.outcomes(failed(100, 2804019, **{field: text}), BATCH)
    refused = Outcome(Status.REFUSED, "Meta 100/2804019 (a key or value is not accepted)")
    assert [NOT_THE_CULPRIT, refused, NOT_THE_CULPRIT] == outcomes

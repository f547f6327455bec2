"""Reddit: what goes over the wire, and what an answer means."""

from __future__ import annotations

from typing import Any

import pytest

from eventflows.conversion import Consent, Conversion, Device, EventType, Identifiers, Item
from eventflows.conversion import Request as Visit
from eventflows.errors import ConfigurationError
from eventflows.pii import digest, seal_all
from eventflows.providers.base import NOT_THE_CULPRIT, Outcome, Response, Status, Unencodable
from eventflows.providers.reddit import RedditProvider
from eventflows.secret import bearer

from . import body_of

TIME = 1_795_455_900_123_456_789
REDDIT = RedditProvider("a2_f3x9k1", "t0ken")
UUID = "5d9b6c1e-3f0a-4a77-9a55-0d2f6f1c7b21"
IDFA = "6D92078A-8246-4BA4-AE5B-76104861E7DC"


def sealed(**raw: str | list[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for kind, values in raw.items():
        found |= seal_all(kind, [values] if isinstance(values, str) else values, None)[0]
    return found


SOMEONE = Identifiers(sealed(external_id="u1"))


def conversion(event_type: EventType = EventType.CUSTOM, name: str = "x", **fields: Any) -> Conversion:
    fields.setdefault("user", SOMEONE)
    return Conversion(id="c-1", type=event_type, name=name, time_unix_nano=TIME, **fields)


def event(given: Conversion) -> dict[str, Any]:
    return dict(REDDIT.encode(given).event)


PURCHASE = conversion(
    EventType.PURCHASE,
    "Purchase",
    value=1249.5,
    currency="SEK",
    order_id="70331",
    quantity=3,
    items=(
        Item(id="LMP-11", name="Opal lamp", category="Lighting", quantity=1, price=749.5, brand="Skagen"),
        Item(id="LMP-29", name="Bulb", category="Lighting", quantity=2, price=250.0),
    ),
    user=Identifiers(
        sealed(email=["Al.ice$+Apple@Example.Com", "b@x.example"], phone="+1 555 444 1234", external_id=" cust_8841 "),
        ("cust_8841",),
    ),
    request=Visit(
        client_address="198.51.100.24",
        user_agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
        url="https://shop.fjordlamp.example/checkout/done",
        referrer="https://www.reddit.com/",
    ),
    clicks={"rdt_cid": "3187742045291000001", "rdt_uuid": f"1790000000123.{UUID}"},
    properties={"plan_type": "annual"},
)


def test_a_purchase_has_exactly_this_body() -> None:
    """Custom properties have no place, and the hashes are those of Reddit's own examples."""
    assert body_of(REDDIT, REDDIT.encode(PURCHASE)) == {
        "data": {
            "events": [
                {
                    "event_at": 1_795_455_900_123,
                    "action_source": "WEBSITE",
                    "type": {"tracking_type": "PURCHASE"},
                    "click_id": "3187742045291000001",
                    "event_source_url": "https://shop.fjordlamp.example/checkout/done",
                    "referrer_url": "https://www.reddit.com/",
                    "user": {
                        "email": "ff8d9819fc0e12bf0d24892e45987e249a28dce836a85cad60e28eaaa8c6d976",
                        "phone_number": "e5b124c58580eb16bd959b8d0cac12b12c952e2ceae0203d416cff94f10b994a",
                        "external_id": digest("cust_8841"),
                        "ip_address": "198.51.100.24",
                        "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
                        "uuid": "1790000000123.5d9b6c1e-3f0a-4a77-9a55-0d2f6f1c7b21",
                    },
                    "metadata": {
                        "conversion_id": "c-1",
                        "order_id": "70331",
                        "currency": "SEK",
                        "value": 1249.5,
                        "item_count": 3,
                        "products": [
                            {
                                "id": "LMP-11",
                                "name": "Opal lamp",
                                "category": "Lighting",
                                "quantity": 1,
                                "item_price": 749.5,
                            },
                            {
                                "id": "LMP-29",
                                "name": "Bulb",
                                "category": "Lighting",
                                "quantity": 2,
                                "item_price": 250.0,
                            },
                        ],
                    },
                }
            ]
        }
    }


def test_a_lead_with_limited_data_use_has_exactly_this_event() -> None:
    lead = conversion(
        EventType.LEAD,
        user=Identifiers(sealed(email="a@x.example"), region="California", country="US"),
        request=Visit(client_address="198.51.100.24", user_agent="UA"),
        limited_data_use=True,
    )
    assert event(lead) == {
        "event_at": 1_795_455_900_123,
        "action_source": "WEBSITE",
        "type": {"tracking_type": "LEAD"},
        "user": {
            "email": digest("a@x.example"),
            "ip_address": "198.51.100.24",
            "user_agent": "UA",
            "data_processing_options": {"modes": ["LDU"], "country": "US", "region": "CA"},
        },
        "metadata": {"conversion_id": "c-1"},
    }


def test_a_custom_event_has_exactly_this_event() -> None:
    assert event(conversion(name="Lamp Configured")) == {
        "event_at": 1_795_455_900_123,
        "action_source": "WEBSITE",
        "type": {"tracking_type": "CUSTOM", "custom_event_name": "Lamp Configured"},
        "user": {"external_id": digest("u1")},
        "metadata": {"conversion_id": "c-1"},
    }


@pytest.mark.parametrize(
    ("event_type", "tracking_type", "custom_name"),
    [
        (EventType.PAGE_VIEW, "PAGE_VISIT", None),
        (EventType.VIEW_CONTENT, "VIEW_CONTENT", None),
        (EventType.SEARCH, "SEARCH", None),
        (EventType.ADD_TO_CART, "ADD_TO_CART", None),
        (EventType.ADD_TO_WISHLIST, "ADD_TO_WISHLIST", None),
        (EventType.INITIATE_CHECKOUT, "CUSTOM", "InitiateCheckout"),
        (EventType.ADD_PAYMENT_INFO, "CUSTOM", "AddPaymentInfo"),
        (EventType.PURCHASE, "PURCHASE", None),
        (EventType.LEAD, "LEAD", None),
        (EventType.SIGN_UP, "SIGN_UP", None),
        (EventType.SUBSCRIBE, "CUSTOM", "Subscribe"),
        (EventType.START_TRIAL, "CUSTOM", "StartTrial"),
        (EventType.CONTACT, "CUSTOM", "Contact"),
        (EventType.SCHEDULE, "CUSTOM", "Schedule"),
        (EventType.SUBMIT_APPLICATION, "CUSTOM", "SubmitApplication"),
        (EventType.DOWNLOAD, "CUSTOM", "Download"),
        (EventType.REFUND, "CUSTOM", "Refund"),
        (EventType.CUSTOM, "CUSTOM", "As it was given"),
    ],
)
def test_every_neutral_type_has_its_tracking_type(
    event_type: EventType, tracking_type: str, custom_name: str | None
) -> None:
    found = event(conversion(event_type, "As it was given"))["type"]
    assert found == {"tracking_type": tracking_type} | ({"custom_event_name": custom_name} if custom_name else {})


def test_a_custom_name_is_cut_to_64_characters() -> None:
    assert event(conversion(name="ä" * 80))["type"]["custom_event_name"] == "ä" * 64


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("website", "WEBSITE"), ("app", "APP"), ("physical_store", "PHYSICAL_STORE"), ("email", "OTHER"),
        ("phone_call", "OTHER"), ("chat", "OTHER"), ("system_generated", "OTHER"), ("other", "OTHER"),
    ],
)  # fmt: skip
def test_the_action_source_is_upper_case_and_only_a_website_has_a_url(given: str, sent: str) -> None:
    found = event(conversion(action_source=given, request=Visit(url="https://x.example/")))
    assert found["action_source"] == sent
    assert ("event_source_url" in found) == (sent == "WEBSITE")


def test_a_store_s_event_has_no_click_and_no_device() -> None:
    found = event(PURCHASE._replace(action_source="physical_store", device=Device(advertising_id=IDFA)))
    assert "click_id" not in found
    assert not {"uuid", "idfa", "aaid"} & found["user"].keys()
    assert {"email", "phone_number", "external_id"} <= found["user"].keys()


@pytest.mark.parametrize(
    ("cookie", "sent"),
    [
        (UUID, True),
        (UUID.upper(), True),
        (f"1790000000123.{UUID}", True),
        ("", False),
        ("1790000000123.", False),
        (f"1790000000.{UUID}", False),
        (f"x.{UUID}", False),
        (f"{UUID}0", False),
        ("11111111-2222-3333-4444-555555555555", False),
        ("not-a-uuid", False),
    ],
)
def test_a_uuid_that_would_sink_the_request_is_left_out(cookie: str, sent: bool) -> None:
    assert event(conversion(clicks={"rdt_uuid": cookie}))["user"].get("uuid") == (cookie if sent else None)


@pytest.mark.parametrize(
    ("advertising_id", "hashed"),
    [
        (IDFA, {"idfa": digest(IDFA)}),
        (IDFA.lower(), {"aaid": digest(IDFA.lower())}),
        ("00000000-0000-0000-0000-000000000000", {}),
        ("nonsense", {}),
    ],
)
def test_an_advertising_id_is_hashed_in_its_system_s_case(advertising_id: str, hashed: dict[str, str]) -> None:
    user = event(conversion(action_source="app", device=Device(advertising_id=advertising_id)))["user"]
    assert {key: value for key, value in user.items() if key in ("idfa", "aaid")} == hashed


@pytest.mark.parametrize(("system", "key"), [("iOS", "idfa"), ("iPadOS", "idfa"), ("Android", "aaid")])
@pytest.mark.parametrize("advertising_id", [IDFA, IDFA.lower()])
def test_the_operating_system_tells_whose_id_it_is(advertising_id: str, system: str, key: str) -> None:
    """The case does so only where nothing else does."""
    device = Device(advertising_id=advertising_id)
    user = event(conversion(action_source="app", device=device, properties={"os.name": system}))["user"]
    expected = digest(IDFA if key == "idfa" else IDFA.lower())
    assert {name: value for name, value in user.items() if name in ("idfa", "aaid")} == {key: expected}


@pytest.mark.parametrize(
    "fields",
    [
        {"user": Identifiers(sealed(email="a@x.example"))},
        {"user": Identifiers(sealed(phone="+15554441234"))},
        {"user": Identifiers(sealed(external_id="u1"))},
        {"user": Identifiers(), "clicks": {"rdt_cid": "318"}},
        {"user": Identifiers(), "clicks": {"rdt_uuid": UUID}},
        {"user": Identifiers(), "device": Device(advertising_id=IDFA)},
        {"user": Identifiers(), "request": Visit(client_address="198.51.100.1", user_agent="UA")},
    ],
)
def test_one_match_key_is_enough(fields: dict[str, Any]) -> None:
    assert event(conversion(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"request": Visit(client_address="198.51.100.1")},
        {"request": Visit(user_agent="UA")},
        {"clicks": {"rdt_uuid": "bad"}},
        {"clicks": {"rdt_cid": "318"}, "action_source": "physical_store"},
        {"user": Identifiers(sealed(first_name="Freja"), city="Uppsala", country="SE")},
    ],
)
def test_without_a_match_key_it_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Unencodable, match="nothing to match on") as caught:
        REDDIT.encode(conversion(**{"user": Identifiers(), **fields}))
    assert caught.value.filtered is False


@pytest.mark.parametrize(
    ("event_type", "sent"),
    [
        (EventType.PAGE_VIEW, set()),
        (EventType.SEARCH, set()),
        (EventType.VIEW_CONTENT, {"products"}),
        (EventType.LEAD, {"currency", "value", "products"}),
        (EventType.SIGN_UP, {"currency", "value", "products"}),
        (EventType.PURCHASE, {"currency", "value", "item_count", "products"}),
        (EventType.ADD_TO_CART, {"currency", "value", "item_count", "products"}),
        (EventType.ADD_TO_WISHLIST, {"currency", "value", "item_count", "products"}),
        (EventType.START_TRIAL, {"currency", "value", "item_count", "products"}),
        (EventType.CUSTOM, {"currency", "value", "item_count", "products"}),
    ],
)
def test_each_tracking_type_gets_only_the_metadata_it_takes(event_type: EventType, sent: set[str]) -> None:
    found = event(conversion(event_type, value=10, currency="EUR", quantity=2, items=(Item(id="1"),)))
    assert found["metadata"].keys() == sent | {"conversion_id"}


@pytest.mark.parametrize(
    ("event_type", "value", "sent"),
    [
        (EventType.REFUND, -49.0, 49.0),
        (EventType.REFUND, 49.0, 49.0),
        (EventType.PURCHASE, -49.0, None),
        (EventType.PURCHASE, 0, 0),
        (EventType.PURCHASE, None, None),
    ],
)
def test_a_value_is_never_negative(event_type: EventType, value: float | None, sent: float | None) -> None:
    assert event(conversion(event_type, value=value, currency="EUR"))["metadata"].get("value") == sent


def test_an_order_id_is_cut_to_100_characters_and_an_empty_product_is_left_out() -> None:
    found = event(conversion(EventType.PURCHASE, order_id="o" * 120, items=(Item(), Item(brand="b"), Item(id="1"))))
    assert found["metadata"] == {"conversion_id": "c-1", "order_id": "o" * 100, "products": [{"id": "1"}]}


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, None),
        ({"limited_data_use": False}, None),
        ({"consent": Consent(ad_personalization=True)}, None),
        ({"limited_data_use": True}, {"modes": ["LDU"], "country": "US"}),
        ({"consent": Consent(ad_personalization=False)}, {"modes": ["LDU"], "country": "US"}),
        ({"limited_data_use": True, "place": ("US-CA", "US")}, {"modes": ["LDU"], "country": "US", "region": "CA"}),
        ({"limited_data_use": True, "place": ("ca", "US")}, {"modes": ["LDU"], "country": "US", "region": "CA"}),
        ({"limited_data_use": True, "place": ("us-ca", None)}, {"modes": ["LDU"], "country": "US", "region": "CA"}),
        ({"limited_data_use": True, "place": ("C", "SE")}, {"modes": ["LDU"], "country": "SE", "region": "C"}),
        ({"limited_data_use": True, "place": ("Uppsala", "SE")}, {"modes": ["LDU"], "country": "SE"}),
        ({"limited_data_use": True, "place": ("US-CA", "SE")}, {"modes": ["LDU"], "country": "SE"}),
        ({"limited_data_use": True, "place": ("CA", None)}, {"modes": ["LDU"], "country": "US"}),
        ({"place": ("CA", "US")}, None),
    ],
)
def test_limited_data_use_is_asked_for_with_the_place_as_far_as_known(fields: dict[str, Any], options: Any) -> None:
    region, country = fields.pop("place", (None, None)) if "place" in fields else (None, None)
    user = SOMEONE._replace(region=region, country=country)
    assert event(conversion(user=user, **fields))["user"].get("data_processing_options") == options


def test_consent_to_ads_and_their_data_is_needed_to_send() -> None:
    assert RedditProvider.NEEDS_CONSENT == ("ad_storage", "ad_user_data")


@pytest.mark.parametrize(
    ("settings", "test_id"),
    [
        ({}, None),
        ({"test_mode": True}, "a2_f3x9k1"),
        ({"test_code": "t2_demo"}, "t2_demo"),
        ({"test_mode": True, "test_code": "t2_demo"}, "t2_demo"),
    ],
)
def test_a_test_is_marked_in_the_body(settings: dict[str, Any], test_id: str | None) -> None:
    provider = RedditProvider("a2_f3x9k1", "t0ken", **settings)
    data = body_of(provider, provider.encode(conversion()))["data"]
    assert data.get("test_id") == test_id
    assert data.keys() == {"events"} | ({"test_id"} if test_id else set())


@pytest.mark.parametrize(
    ("provider", "url"),
    [
        (REDDIT, "https://ads-api.reddit.com/api/v3/pixels/a2_f3x9k1/conversion_events"),
        (RedditProvider("p/2?", "t"), "https://ads-api.reddit.com/api/v3/pixels/p%2F2%3F/conversion_events"),
        (
            RedditProvider("t2_1", "t", endpoint="http://h:1/reddit"),
            "http://h:1/reddit/api/v3/pixels/t2_1/conversion_events",
        ),
    ],
)
def test_the_url_names_the_pixel(provider: RedditProvider, url: str) -> None:
    request = provider.request([provider.encode(conversion())])
    assert (request.method, request.url) == ("POST", url)


def test_the_token_is_a_secret_header_and_in_no_repr() -> None:
    request = REDDIT.request([REDDIT.encode(conversion())])
    assert request.secret_headers == {"Authorization": bearer("t0ken")}
    assert "t0ken" not in repr(REDDIT) + repr(request)
    assert not request.headers
    assert not request.secret_params


def test_events_of_different_people_share_a_request_and_may_be_repeated() -> None:
    encoded = [REDDIT.encode(PURCHASE), REDDIT.encode(conversion())]
    assert [one.envelope for one in encoded] == [{}, {}]
    assert all(one.repeatable for one in encoded)
    assert len(body_of(REDDIT, *encoded)["data"]["events"]) == 2


def test_the_limits_are_reddit_s() -> None:
    assert (REDDIT.MAX_BATCH, REDDIT.MAX_AGE_NS, REDDIT.MAX_AHEAD_NS) == (1000, 168 * 3600 * 10**9, 300 * 10**9)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"pixel_id": "", "access_token": "t"}, "pixel_id"),
        ({"pixel_id": "a2_1", "access_token": " "}, "access_token"),
        ({"pixel_id": "a2_1", "access_token": None}, "access_token"),
        ({"pixel_id": "a2_1", "access_token": "t", "test_mode": "yes"}, "test_mode"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=key):
        RedditProvider(**settings)


PAIR = [REDDIT.encode(PURCHASE), REDDIT.encode(conversion())]


def refusal(*fields: Any) -> dict[str, Any]:
    message = f"There were {len(fields)} invalid conversion events. None were processed."
    return {"error": {"code": 400, "message": message, "fields": list(fields)}}


def field(path: str, message: str = "invalid value a@x.example") -> dict[str, str]:
    return {"field": path, "message": message}


@pytest.mark.parametrize(
    ("response", "outcomes"),
    [
        (
            Response(400, refusal(field("$.data.events[0].action_source"))),
            [Outcome(Status.REFUSED, "refused at $.data.events[].action_source"), NOT_THE_CULPRIT],
        ),
        (
            Response(400, refusal(field("$.data.events[1].metadata.products[3].id"), field("$.data.events[1].x"))),
            [NOT_THE_CULPRIT, Outcome(Status.REFUSED, "refused at $.data.events[].metadata.products[].id")],
        ),
        (
            Response(400, refusal(field("$.data.events[0].user.UUID"), field("$.data.events[1].event_at"))),
            [
                Outcome(Status.REFUSED, "refused at $.data.events[].user.UUID"),
                Outcome(Status.REFUSED, "refused at $.data.events[].event_at"),
            ],
        ),
        (Response(400, refusal(field("$.data.events[0] a@x.example"))), [Outcome(Status.REFUSED, "refused"), NOT_THE_CULPRIT]),
        (Response(400, refusal(field("$.data.events[9].x"))), [Outcome(Status.SUSPECT, "HTTP 400")] * 2),
        (Response(400, refusal(field("$.data"))), [Outcome(Status.SUSPECT, "HTTP 400")] * 2),
        (Response(400, refusal("odd", None)), [Outcome(Status.SUSPECT, "HTTP 400")] * 2),
        (Response(400, {"error": {"code": 400, "message": "Bad Request"}}), [Outcome(Status.SUSPECT, "HTTP 400")] * 2),
        (Response(400, {"error": "x"}), [Outcome(Status.SUSPECT, "HTTP 400")] * 2),
        (Response(400), [Outcome(Status.SUSPECT, "HTTP 400")] * 2),
    ],
)  # fmt: skip
def test_a_400_refuses_the_events_it_names_and_halves_the_batch_otherwise(
    response: Response, outcomes: list[Outcome]
) -> None:
    """The reason is the field alone: the message repeats what was in it."""
    assert REDDIT.outcomes(response, PAIR) == outcomes


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (Response(200, {"data": {"message": "Successfully processed 2 conversion events."}}), Status.DELIVERED),
        (Response(200), Status.RETRY),
        (Response(200, []), Status.RETRY),
        (Response(200, {"error": {"code": 500, "message": "?"}}), Status.RETRY),
        (Response(401, {"error": {"code": 401, "message": "No bearer token provided."}}), Status.UNAUTHORIZED),
        (Response(403), Status.UNAUTHORIZED),
        (Response(404), Status.UNAUTHORIZED),
        (Response(413), Status.SUSPECT),
        (Response(429), Status.RETRY),
        (Response(500), Status.RETRY),
        (Response(503), Status.RETRY),
        (Response(0, error="timeout"), Status.RETRY),
        (Response(0, error="refused", sent=False), Status.RETRY),
    ],
)
def test_any_other_answer_decides_for_the_whole_request(response: Response, status: Status) -> None:
    assert [outcome.status for outcome in REDDIT.outcomes(response, PAIR)] == [status] * 2

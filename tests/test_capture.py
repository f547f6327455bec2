"""From attributes to a Conversion: every attribute, alias, recognition rule, and what is left out and why."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from ctypes import c_double
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eventflows import pii, values
from eventflows import semconv as sc
from eventflows.capture import _FIELDS, Rules, capture, conversion_of, recognise
from eventflows.conversion import Conversion, EventType, Identifiers, Item
from eventflows.conversion import Request as Visit
from eventflows.names import ByName
from eventflows.others import shown
from eventflows.sealing import Event, event_of, record, seal
from eventflows.stored import dump, load, pack, unpack
from eventflows.told import Told
from tests.conftest import CANARIES, PERSON

NOW = 1_795_455_900_123_456_789


def sealed(attributes: dict[str, Any], name: str = "Purchase") -> Event:
    event_type = recognise(name, attributes, Rules()) or EventType.CUSTOM
    return seal(event_of(record(name, attributes, NOW), event_type))


def captured(name: str = "Purchase", rules: Rules | None = None, **attributes: Any) -> Conversion:
    rules = rules or Rules()
    return capture(name, recognise(name, attributes, rules) or EventType.CUSTOM, attributes, NOW, rules)


@pytest.mark.parametrize("event_type", list(EventType))
def test_every_neutral_type_is_recognised_by_its_name(event_type: EventType) -> None:
    assert event_type is recognise(event_type.value, {}, Rules())
    assert event_type is recognise(event_type.value.replace("_", " ").title(), {}, Rules())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CompletePayment", EventType.PURCHASE), ("complete_payment", EventType.PURCHASE), ("PURCHASE", EventType.PURCHASE),
        ("generate_lead", EventType.LEAD), ("Generate-Lead", EventType.LEAD), ("SubmitForm", EventType.LEAD),
        ("CompleteRegistration", EventType.SIGN_UP), ("begin checkout", EventType.INITIATE_CHECKOUT),
        ("PAGE_VISIT", EventType.PAGE_VIEW), ("view_item", EventType.VIEW_CONTENT), ("Add To Cart", EventType.ADD_TO_CART),
        ("Donate", EventType.CUSTOM), ("view_cart", EventType.CUSTOM), ("cache.miss", None), ("exception", None),
    ],
)  # fmt: skip
def test_standard_names_are_recognised_in_any_case_and_separators(name: str, expected: EventType | None) -> None:
    assert expected is recognise(name, {}, Rules())


def test_the_events_map_and_conversion_type_decide_before_the_name() -> None:
    rules = Rules(events={sc.event_key("order.placed"): EventType.PURCHASE})
    assert EventType.PURCHASE is recognise("order.placed", {}, rules)
    assert EventType.PURCHASE is recognise("Order-Placed", {}, rules)
    assert EventType.LEAD is recognise("whatever", {"conversion.type": "lead"}, rules)
    assert EventType.LEAD is recognise("Purchase", {"conversion.type": "Generate Lead"}, rules)
    assert EventType.CUSTOM is recognise("whatever", {"conversion.type": "no such type"}, rules)
    assert None is recognise("whatever", {}, rules)


ATTRIBUTES: list[tuple[str, Any, str, Any]] = [
    ("conversion.id", "ORD-1", "id", "ORD-1"),
    ("conversion.id", 4711, "id", "4711"),
    ("conversion.value", "49.99", "value", 49.99),
    ("conversion.value", Decimal("49.90"), "value", 49.9),
    ("conversion.value", 0, "value", 0),
    ("conversion.currency", "usd", "currency", "USD"),
    ("conversion.order_id", 70331, "order_id", "70331"),
    ("conversion.quantity", "3", "quantity", 3),
    ("conversion.search_term", "opal lamp", "search_term", "opal lamp"),
    ("conversion.coupon", "XMAS", "coupon", "XMAS"),
    ("conversion.tax", 5, "tax", 5),
    ("conversion.shipping", 4.9, "shipping", 4.9),
    ("conversion.action_source", "Physical Store", "action_source", "physical_store"),
    ("conversion.limited_data_use", "true", "limited_data_use", True),
    ("conversion.providers", ["meta", "GA4"], "providers", frozenset({"meta", "ga4"})),
    ("conversion.exclude_providers", "reddit, tiktok", "exclude_providers", frozenset({"reddit", "tiktok"})),
    ("conversion.consent.ad_storage", "denied", "consent.ad_storage", False),
    ("conversion.consent.ad_user_data", True, "consent.ad_user_data", True),
    ("conversion.consent.analytics_storage", "GRANTED", "consent.analytics_storage", True),
    ("user.id", 8841, "user.user_id", ("8841",)),
    ("user.id", ["a", "b", "a"], "user.user_id", ("a", "b")),
    ("geo.locality.name", "Uppsala", "user.city", "Uppsala"),
    ("geo.region.iso_code", "SE-C", "user.region", "SE-C"),
    ("geo.postal_code", 75320, "user.postal_code", "75320"),
    ("geo.country.iso_code", "swe", "user.country", "SE"),
    ("client.address", "203.0.113.9:5123", "request.client_address", "203.0.113.9"),
    ("client.address", "[2001:db8::1]:443", "request.client_address", "2001:db8::1"),
    ("client.address", "::ffff:203.0.113.9", "request.client_address", "203.0.113.9"),
    ("user_agent.original", "Mozilla/5.0", "request.user_agent", "Mozilla/5.0"),
    ("url.full", "https://shop.example/x?order=1", "request.url", "https://shop.example/x?order=1"),
    ("http.request.header.referer", ["https://a.example/"], "request.referrer", "https://a.example/"),
    ("session.id", "s-1", "request.session_id", "s-1"),
    ("http.request.header.sec-gpc", ["1"], "request.global_privacy_control", True),
    ("user_agent.synthetic.type", "bot", "request.synthetic_type", "bot"),
    ("browser.language", "sv-SE", "request.language", "sv-SE"),
    ("page_title", "Thanks", "request.page_title", "Thanks"),
    ("conversion.device.advertising_id", "ABC", "device.advertising_id", "ABC"),
    ("conversion.device.vendor_id", "V", "device.vendor_id", "V"),
    ("conversion.app_instance_id", "A", "device.app_instance_id", "A"),
    ("conversion.partner_id", "P", "device.partner_id", "P"),
]


def field(conversion: Conversion, path: str) -> Any:
    found: Any = conversion
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("attribute", "given_value", "path", "expected"), ATTRIBUTES)
def test_each_attribute_has_its_place(attribute: str, given_value: Any, path: str, expected: Any) -> None:
    conversion = captured(**{attribute: given_value})
    assert expected == field(conversion, path)
    assert conversion.left_out == ()
    assert conversion.properties == {}


@pytest.mark.parametrize(("alias", "attribute"), sc.ALIASES.items())
def test_an_alias_is_read_and_the_attribute_itself_wins(alias: str, attribute: str) -> None:
    values = {name: value for name, value, _, _ in ATTRIBUTES} | {"conversion.items": [{"id": "A"}]}
    assert (
        captured("Lead", **{attribute: values[attribute], "event_id": "x"})
        == captured("Lead", **{alias: values[attribute], "event_id": "x"})
        or alias == "event_id"
    )
    both = captured(**{alias: "" if attribute == "conversion.items" else "zzz", attribute: values[attribute]})
    assert captured(**{attribute: values[attribute], "event_id": both.id}).left_out == both.left_out


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value": 1, "revenue": 2}, 1),
        ({"revenue": 2, "value": 1}, 2),
        ({"value": "much", "revenue": 2}, 2),
        ({"value": "", "revenue": 2}, 2),
        ({"revenue": 2, "conversion.value": 3}, 3),
        ({"revenue": 2, "conversion.value": None}, 2),
        ({"revenue": 2, "conversion.value": "much"}, 2),
    ],
)
def test_of_several_spellings_the_attribute_itself_counts_or_the_first_that_can_be_read(
    attributes: dict[str, Any], expected: int | None
) -> None:
    assert captured(**attributes).value == expected


@pytest.mark.parametrize("click", sc.CLICK_IDS)
def test_click_ids_and_cookies(click: str) -> None:
    """They are taken byte for byte."""
    assert {click: "AbC.-_"} == captured(**{f"conversion.click.{click}": "AbC.-_"}).clicks


def test_click_ids_stand_in_the_landing_url_too() -> None:
    clicks = captured(**{"url.full": "https://s.example/?fbclid=IwAR_x-1&ScCid=a%2Bb&utm=1"}).clicks
    assert clicks == {"fbclid": "IwAR_x-1", "sc_click_id": "a+b"}


ITEMS = [
    {"id": 11, "name": "Lamp", "price": "749.5", "quantity": 1},
    {"item_id": "29", "item_name": "Bulb", "price": 250},
]


@pytest.mark.parametrize("items", [ITEMS, json.dumps(ITEMS), [json.dumps(i) for i in ITEMS], tuple(ITEMS)])
def test_items_as_maps_or_as_json(items: Any) -> None:
    conversion = captured(items=items)
    assert (Item("11", "Lamp", 749.5, 1), Item("29", "Bulb", 250, None)) == conversion.items
    assert conversion.quantity == 2


def test_each_unusable_identifier_is_left_out_with_its_reason() -> None:
    given = {
        "user.email": "nope",
        "user.phone": ["+46701234567", "call me"],
        "user.id": [True, "u1"],
        "user.full_name": [],
    }
    assert dict(captured(**given).left_out).keys() == {"user.email", "user.phone", "user.id", "user.full_name"}
    assert captured(**given).user.user_id == ("u1",)


def test_the_same_event_is_known_by_its_type_or_else_by_its_name() -> None:
    assert sealed({"order_id": "1"}, "Purchase").key == sealed({"order_id": "1"}, "complete_payment").key
    assert sealed({"event_id": "1"}, "Tour").key != sealed({"event_id": "1"}, "Visit").key


def test_the_pieces_of_all_items_are_counted_unless_told() -> None:
    """An item without a quantity is one piece."""
    items = [{"id": "A", "quantity": 2}, {"id": "B"}, {"id": "C", "quantity": 0}]
    assert captured(items=items).quantity == 3
    assert captured(items=items, **{"conversion.quantity": 7}).quantity == 7


@pytest.mark.parametrize("nobody", ["", []])
def test_a_list_of_no_providers_means_none(nobody: Any) -> None:
    assert captured(**{"conversion.providers": nobody}).providers == frozenset()
    assert captured(**{"conversion.providers": None}).providers is None


def test_a_digest_that_came_along_stays_beside_the_one_made_here() -> None:
    sealed = captured(**{"user.email": "a@x.com", "conversion.sealed.email.lower": "b" * 64}).user.sealed
    assert set(sealed["email.lower"]) == {pii.digest("a@x.com"), "b" * 64}


def test_a_number_in_a_text_is_whole_where_it_is_written_so() -> None:
    whole, broken = captured(value="5").value, captured(value="5.0").value
    assert [(one, type(one)) for one in (whole, broken)] == [(5, int), (5.0, float)]


def test_what_is_no_item_costs_the_items_beside_it_nothing() -> None:
    conversion = captured(items=[5, {"id": "A", "price": "free"}, "no json"])
    assert conversion.items == (Item("A"),)


def test_a_consent_that_cannot_be_read_is_not_taken_for_a_yes() -> None:
    """Here, and in the process that gets the sealed record."""
    attributes = {"conversion.consent.ad_storage": "perhaps"}
    conversion = captured(**attributes)
    assert conversion.consent.ad_storage is False
    assert shown(sealed(attributes), "p")["conversion.consent.ad_storage"] == "denied"


def test_lists_of_people_are_sealed_each_once() -> None:
    sealed = captured(**{"user.email": ["a@x.com", "A@x.com ", "b@x.com", "no"], "user.phone": ("+46701234567",)})
    assert (pii.digest("a@x.com"), pii.digest("b@x.com")) == sealed.user.sealed["email.lower"]
    assert (pii.digest("+46701234567"),) == sealed.user.sealed["phone.e164"]
    assert sealed.left_out == (("user.email", "not an e-mail address"),)


def test_a_full_name_stands_in_for_missing_parts() -> None:
    assert (pii.digest("ada"),) == captured(**{"user.full_name": "Ada King"}).user.sealed["first_name.compact"]
    both = captured(**{"user.full_name": "Ada King", "user.first_name": "Augusta"}).user.sealed
    assert (pii.digest("augusta"),) == both["first_name.compact"]


def test_national_phone_numbers_need_the_default_country() -> None:
    assert "phone.e164" not in captured(**{"user.phone": "070-123 45 67"}).user.sealed
    swedish = captured(rules=Rules(default_country="SE"), **{"user.phone": "070-123 45 67"})
    assert (pii.digest("+46701234567"),) == swedish.user.sealed["phone.e164"]


class Colour(Enum):
    OPAL = "opal"


LEFT_OUT: list[tuple[str, Any]] = [
    ("value", "1,234"), ("value", float("nan")), ("value", True), ("currency", "dollars"), ("items", "not json"),
    ("quantity" if False else "num_items", 1.5), ("ip_address", "999.1.1.1"), ("user.country", "Sverige"),
    ("conversion.click.fbc", "has space"), ("conversion.consent.ad_storage", "perhaps"), ("email", "me@x.com"),
    ("first_name", "Ada"), ("note", "write to me@x.com"), ("deep", {"a": ["me@x.com"]}), ("inf", float("inf")),
    ("object", object()), ("bytes", b"x"), ("conversion.action_source", "moon"), ("order_id", "me@x.com"),
]  # fmt: skip


@pytest.mark.parametrize(("attribute", "bad"), LEFT_OUT)
def test_a_bad_field_is_left_out_with_a_reason_and_the_event_goes(attribute: str, bad: Any) -> None:
    conversion = captured(**{attribute: bad, "plan": "annual"})
    assert [attribute] == [name for name, _ in conversion.left_out]
    assert conversion.properties == {"plan": "annual"}
    assert "me@x.com" not in repr(conversion)


def test_custom_properties_become_plain_json() -> None:
    given_properties = {
        "colour": Colour.OPAL,
        "price_net": Decimal("9.5"),
        "tags": ("a", "b"),
        "deep": {"n": 1},
        "on": True,
    }
    expected = {"colour": "opal", "price_net": 9.5, "tags": ["a", "b"], "deep": {"n": 1}, "on": True}
    assert expected == captured(**given_properties).properties


class Tagged(str):
    __slots__ = ()


NESTED: list[tuple[Any, Any]] = [
    ([{"id": "a"}, ["b"]], [{"id": "a"}, ["b"]]),
    ({"a": [1]}, {"a": [1]}),
    (([1], {"b": [2]}), [[1], {"b": [2]}]),
    ([Decimal("9.5"), Colour.OPAL, [True]], [9.5, "opal", [True]]),
    ([Tagged("a"), {"b": Tagged("c")}], ["a", {"b": "c"}]),
    ([(1, 2), {3}], [[1, 2], [3]]),
    ([2**63 - 1, "é", None, 1.5], [2**63 - 1, "é", None, 1.5]),
]
"""Values, and what they are read as."""


@pytest.mark.parametrize(("value", "expected"), NESTED)
def test_what_an_app_changes_later_was_not_recorded(value: Any, expected: Any) -> None:
    given = deepcopy(value)
    recorded = record("Lead", {"deep": given, "conversion.id": "1"}, NOW)
    for part in (given, *given) if isinstance(given, (list, tuple)) else (given, *given.values()):
        if isinstance(part, (list, set, dict)):
            part.clear()
    for _ in range(2):
        event = event_of(recorded, EventType.LEAD)
        assert conversion_of(event).properties == conversion_of(seal(event)).properties == {"deep": expected}


@pytest.mark.parametrize(
    ("items", "kept"),
    [
        ([{"id": "a", "price": c_double(1.5)}, {"id": "b"}], (Item("a"), Item("b"))),
        ([{"id": "a", "quantity": bytearray(b"2"), "price": 5}], (Item("a", price=5),)),
        ([{"id": "a", "image": object()}, c_double(1.5), None], (Item("a"),)),
        ({"id": "a", "price": Decimal("NaN")}, (Item("a"),)),
    ],
)
def test_what_is_no_json_in_an_item_costs_only_itself(items: Any, kept: tuple[Item, ...]) -> None:
    """Numbers of numpy have a buffer, too, whose bytes nobody wants in the place of a price."""
    given = {"conversion.items": items}
    assert captured(**given).items == conversion_of(sealed(given)).items == kept


@pytest.mark.parametrize("items", [[[c_double(1.5)]], [object()], object()])
def test_items_without_any_are_left_out(items: Any) -> None:
    conversion = captured(**{"conversion.items": items})
    assert conversion.items == ()
    assert [name for name, _ in conversion.left_out] == ["conversion.items"]


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (Decimal("1249.50"), 1249.5),
        (Decimal("123456789012345678"), 123456789012345678),
        (Decimal("5E+3"), 5000),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, None),
        ("9" * 400, None),
        (Decimal("1E+400"), None),
        (Decimal("sNaN"), None),
        (Decimal("Infinity"), None),
    ],
)
def test_a_number_is_kept_to_its_last_digit_or_is_none_that_a_platform_reads(given: Any, value: float | None) -> None:
    conversion = captured(value=given, tax=given, items=[{"id": "a", "price": given}])
    assert conversion.value == conversion.tax == conversion.items[0].price == value
    assert type(conversion.value) is type(value)


@pytest.mark.parametrize(
    "given", [Decimal("12345678901234567"), 12345678901234567, "12345678901234567", Decimal(2**100), 2**100]
)
def test_an_id_is_kept_to_its_last_digit(given: Any) -> None:
    """As databases have them, which write whole numbers as decimals."""
    attributes = {"order_id": given, "items": [{"id": given}], "note": given}
    expected = str(int(given))
    for conversion in (captured(**attributes), conversion_of(sealed(attributes))):
        note = conversion.properties["note"]
        assert (conversion.order_id, conversion.items[0].id, str(note)) == (expected,) * 3
        assert isinstance(note, str) or abs(note) < 2**63


@pytest.mark.parametrize(
    "attribute", [sc.CITY, sc.REGION, sc.POSTAL_CODE, sc.USER_AGENT, "user_agent", "conversion.click.ttclid"]
)
def test_what_platforms_want_as_it_is_is_left_out_where_it_is_hashed_already(attribute: str) -> None:
    """None wants it hashed, or those that do would get it hashed twice."""
    for conversion in (captured(**{attribute: pii.digest("uppsala")}), conversion_of(sealed({attribute: "F" * 64}))):
        assert [name for name, _ in conversion.left_out] == [attribute]
        assert (conversion.user, conversion.request, conversion.clicks) == (Identifiers(), Visit(), {})


@pytest.mark.parametrize(
    ("given", "limited"), [("maybe", True), ([], True), (object(), True), ("no", True), (0, False)]
)
def test_a_choice_that_cannot_be_read_limits_the_use_of_the_data(given: Any, limited: bool) -> None:
    attributes = {sc.CONVERSION_LIMITED_DATA_USE: given}
    for conversion in (captured(**attributes), conversion_of(sealed(attributes))):
        assert conversion.limited_data_use is limited


@given(st.datetimes(datetime(2001, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone.utc)))
def test_a_datetime_is_exact(moment: datetime) -> None:
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)
    assert values.unix_nano(moment) == microseconds * 1000


class Key(str):
    """As numpy's, whose texts have a buffer, too: what `marshal` would write."""

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self.encode("utf-32"))


@pytest.mark.parametrize("kind", [lambda item: item, lambda item: [item], lambda item: [{"id": "B"}, item]])
def test_texts_of_other_libraries_are_keys(kind: Any) -> None:
    """Classes have a buffer since Python 3.12."""
    items = kind({Key("id"): "A", Key("price"): 2.5, Key("engraving"): "Z"})
    for event in (event_of(record("Lead", {"items": items}, NOW), EventType.LEAD), sealed({"items": items})):
        conversion = conversion_of(event)
        assert (conversion.items[-1].id, conversion.items[-1].price) == ("A", 2.5)
    (*_, item) = sealed({"items": items}).attributes["items"]
    assert item == {"id": "A", "price": 2.5, "engraving": "Z"}


class Price(float):
    """As numpy's, which are floats and something else as well."""


class Pieces(int):
    pass


@pytest.mark.parametrize(("price", "quantity"), [(Price(9.5), Pieces(2)), (Fraction(19, 2), 2), (Decimal("9.5"), 2.0)])
def test_numbers_of_other_libraries_are_numbers(price: Any, quantity: Any) -> None:
    conversion = captured(
        **{
            "conversion.value": price,
            "conversion.items": [{"id": "a", "price": price, "quantity": quantity}],
            "own": price,
        }
    )
    (item,) = conversion.items
    found = (conversion.value, item.price, item.quantity, conversion.properties["own"])
    assert found == (9.5, 9.5, 2, 9.5)
    assert [type(one) for one in found] == [float, float, int, float]
    assert conversion.left_out == ()


def test_what_waits_to_be_read_has_nothing_in_it_that_the_garbage_collector_goes_over() -> None:
    attributes = {**GIVEN, "items": [{"id": "a", "price": 1.5}], "deep": {"a": [1]}, "many": [[[[]]]]}
    recorded = record("Purchase", attributes, NOW)
    assert {type(value) for value in recorded.attributes.values()} <= values.IMMUTABLE | {bytes}


@pytest.mark.parametrize("value", [[b""], [b"meta"], ["meta", b""]])
def test_bytes_name_no_provider(value: Any) -> None:
    conversion = captured(**{"conversion.providers": value})
    assert conversion.providers is None
    assert [name for name, _ in conversion.left_out] == ["conversion.providers"]


@pytest.mark.parametrize(
    "mail", ["Zoe@example.com", "Zoe%40example.com", "%2Fmy%3Fmail%3DZoe%2540example.com", "Zoe%252540example.com"]
)
def test_an_email_in_a_url_is_cut_out_of_it(mail: str) -> None:
    """Also in a URL within the URL, as where to go after the login."""
    url = f"https://shop.example/thanks?order=1&mail={mail}&x=2"
    assert captured(**{"url.full": url}).request.url == "https://shop.example/thanks?order=1&x=2"


def test_a_user_id_that_is_an_email_is_only_used_hashed() -> None:
    conversion = captured(**{"user.id": "zoe@example.com"})
    assert conversion.user.user_id == ()
    assert (pii.digest("zoe@example.com"),) == conversion.user.sealed["external_id.trim"]


def test_the_default_id_is_the_same_on_every_route_when_there_is_an_order() -> None:
    assert (
        "purchase-70331" == captured("Purchase", order_id="70331").id == captured("CompletePayment", order_id=70331).id
    )
    assert captured("Gift Wrapped", order_id=7).id == "Gift Wrapped-7"
    assert captured().id != captured().id


class NoTime(datetime):
    """As `pandas.NaT` is."""

    def timestamp(self) -> float:
        return float("nan")


@pytest.mark.parametrize("timestamp", [NoTime(2026, 1, 1), datetime(1, 1, 1), "yesterday", -1, True, 1.5])
def test_a_time_that_cannot_be_read_is_now(timestamp: Any) -> None:
    before = time.time_ns()
    assert before <= values.unix_nano(timestamp) <= time.time_ns()


def test_nanoseconds_are_kept() -> None:
    assert captured().time_unix_nano == NOW


def test_nothing_raw_is_left_in_the_conversion_or_in_what_others_see() -> None:
    conversion = captured(**PERSON)
    for canary in CANARIES:
        assert canary not in repr(conversion).lower()
        assert canary not in repr(sealed(PERSON)).lower()


def test_what_others_see_makes_the_same_conversion_elsewhere() -> None:
    """A gateway that gets the sealed record over OTLP can build every payload."""
    attributes = {
        **PERSON,
        "user.id": "8841",
        "order_id": "1",
        "value": 5,
        "currency": "EUR",
        "items": ITEMS,
        "plan": "a",
    }
    event = sealed(attributes)
    here = conversion_of(event)
    assert here == captured(**shown(event, "p"))
    assert here == conversion_of(load(dump(event)))


VISITOR = {
    "client.address": "203.0.113.9",
    "user_agent.original": "Mozilla/5.0",
    "url.full": "https://shop.example/",
    "session.id": "s-1",
    "user.id": "u-1",
    "conversion.click.fbc": "fb.1.1795430000000.abc",
    "conversion.click.ttclid": "E.C.P.abc",
    "conversion.consent.ad_storage": False,
}
TELLING = st.sampled_from([*VISITOR, "ip_address", "user_agent", "url", "conversion.action_source"])
TEXTS = st.sampled_from(
    ["", " ", "x", "granted", "denied", "203.0.113.9", "198.51.100.4", "Mozilla/5.0", "website", "phone_call"]
)


@settings(max_examples=1000, deadline=None)
@given(
    st.dictionaries(
        TELLING, st.one_of(TEXTS, st.just("https://shop.example/?ttclid=own"), st.booleans(), st.lists(TEXTS))
    ),
    st.sets(st.sampled_from(list(VISITOR))),
)
def test_a_record_tells_of_the_visitor_what_the_conversion_takes_from_it(
    given: dict[str, Any], known: set[str]
) -> None:
    """Nothing where the request is another person's, and what the event has of its own only where that can be read."""
    assume(len({sc.ALIASES.get(key, key) for key in given}) == len(given))
    around = Told.of({key: VISITOR[key] for key in known})
    event = seal(event_of(record("Purchase", {**given, "order_id": "1"}, NOW, around), EventType.PURCHASE))
    here, there = conversion_of(event), captured(**shown(event, "p", around=True))
    assert here._replace(left_out=()) == there._replace(left_out=())


class Choice(Enum):
    CURRENCY = "EUR"
    BLANK = " "
    NUMBER = 5


TEXTS = (
    "", " ", "0", "1", "1234.5", "1,234", "EUR", " eur ", "granted", "no", "SE", "de", "meta,ga4", "website", "\ud800",
    "\u200b", "10.0.0.1", "https://shop.example/?a=b", "https://ada@shop.example/?a=ada%40x.com", "ada@x.com", "ab" * 32,
    '[{"id": "A"}]', '{"id": 1}',
)  # fmt: skip
OBJECTS = (
    *Choice,
    Key("EUR"),
    Key(""),
    Price(2.5),
    Decimal("1.5"),
    Decimal("NaN"),
    date(2026, 1, 1),
    UUID(int=5),
    10**400,
)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.sampled_from(TEXTS + OBJECTS)
)
item_keys = st.sampled_from(["id", "sku", "price", "item_price", "name", "quantity", "brand", "coupon"])
some_items = st.dictionaries(item_keys | item_keys.map(Key) | st.text(), leaves, max_size=3)
given_values = st.one_of(
    leaves,
    st.lists(leaves, max_size=2) | st.lists(leaves, max_size=2).map(tuple),
    st.lists(some_items, max_size=2) | some_items,
    st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
)
known_names = st.sampled_from([*sc.ALIASES, *_FIELDS, *sc.SEALED_ATTRIBUTES, "conversion.type", "user.id", "plan"])
some_attributes = st.dictionaries(known_names | st.text(), given_values, max_size=6)
SPELLINGS = [[name, *(one for one in sc.ALIASES if sc.ALIASES[one] == name)] for name in sorted({*sc.ALIASES.values()})]
several_spellings = (
    st.sampled_from(SPELLINGS)
    .flatmap(st.permutations)
    .flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, given_values)))
)
both = st.tuples(several_spellings, some_attributes).map(lambda two: two[0] | two[1])


@settings(max_examples=1000, deadline=None)
@given(some_attributes | several_spellings | both)
def test_no_attributes_whatsoever_raise(attributes: dict[str, Any]) -> None:
    """What comes out is JSON that any parser takes, and it is the same where the event was sealed and written down before."""
    event = event_of(record("Purchase", attributes, NOW), EventType.PURCHASE)
    conversion = conversion_of(event, "SE")
    json.dumps(conversion.properties, allow_nan=False)
    sealed_event = seal(event, "SE")
    for again in (sealed_event, load(dump(sealed_event)), unpack(pack(sealed_event))):
        assert conversion_of(again)._replace(left_out=()) == conversion._replace(left_out=())


@pytest.mark.parametrize("unusable", [[], (), [[]], False, " ", {}, b"x"])
def test_a_spelling_that_cannot_be_used_yields_to_another(unusable: Any) -> None:
    """In whatever order they are given, and also where the event was sealed before."""
    given = {"user_agent": ["0"], "user_agent.original": unusable}
    for attributes in (given, dict(reversed(given.items()))):
        assert captured(**attributes).request.user_agent == "0"
        assert conversion_of(sealed(attributes)).request.user_agent == "0"


GIVEN = {
    **{name: value for name, value, _, _ in ATTRIBUTES},
    **PERSON,
    "user.full_name": "Ada King",
    "user.id": ["u1", " ", "ada@x.com"],
    "conversion.click.gclid": "abc",
    "conversion.sealed.email.lower": "ab" * 32,
    "conversion.consent.ad_storage": "maybe",
    "plan": "annual",
    "phone": "070",
}


@pytest.mark.parametrize(
    "attribute", ["http.request.header.sec-gpc", "conversion.limited_data_use", "conversion.consent.ad_storage"]
)
@pytest.mark.parametrize("value", [["1"], [True, float("inf")], ["denied", "zoe@example.com"], "maybe", [], "granted"])
def test_a_flag_means_the_same_once_it_is_sealed(attribute: str, value: Any) -> None:
    event = event_of(record("Lead", {attribute: value, "event_id": "x"}, NOW), EventType.LEAD)
    assert conversion_of(seal(event)) == conversion_of(event)


@given(st.permutations(list(GIVEN)), st.integers(0, len(GIVEN)))
def test_the_order_of_attributes_decides_nothing_but_that_of_what_is_left_out(order: list[str], count: int) -> None:
    some = order[:count]
    one = captured(event_id="x", **{key: GIVEN[key] for key in some})
    other = captured(**{key: GIVEN[key] for key in sorted(some)}, event_id="x")
    assert sorted(one.left_out) == sorted(other.left_out)
    sealed_sets = [{form: set(found) for form, found in c.user.sealed.items()} for c in (one, other)]
    assert sealed_sets[0] == sealed_sets[1]
    without = [c._replace(left_out=(), user=c.user._replace(sealed={})) for c in (one, other)]
    assert without[0] == without[1]


@pytest.mark.parametrize("ids", [["u1", " "], ["\u200b", "u1"], "\u200b"])
def test_an_id_of_nothing_that_can_be_seen_costs_neither_the_event_nor_its_other_ids(ids: Any) -> None:
    conversion = captured(**{"user.id": ids})
    assert conversion.user.sealed.get("external_id.trim") == ((pii.digest("u1"),) if "u1" in ids else None)
    assert conversion == conversion_of(sealed({"user.id": ids}))._replace(
        id=conversion.id, left_out=conversion.left_out
    )


def test_equal_digests_are_one_object() -> None:
    found = captured(**{"user.email": "ada@x.com"}).user.sealed
    assert found["email.lower"] is found["email.gmail"] is found["email.alnum"]


def test_names_are_remembered_up_to_a_limit_and_never_with_an_email_in_them() -> None:
    asked: list[Any] = []
    decided = ByName(lambda name: asked.append(name) or len(asked))  # type: ignore[func-returns-value]
    assert decided["a", "b"] == decided["a", "b"] == 1
    for name in ("zoe@example.com", "zoe%40example.com", ("a", "zoe@example.com"), 1, tuple("a" * 1000)):
        assert decided[name] != decided[name]
    assert list(decided) == [("a", "b")]
    for number in range(5000):
        decided[str(number)]
    assert len(decided) < 5000


def test_an_email_as_an_attributes_name_is_shown_to_nobody() -> None:
    attributes = {"zoe@example.com": 1, "plan": "a"}
    conversion = captured(**attributes)
    assert "zoe@" not in repr(conversion) + repr(sealed(attributes))
    assert conversion.left_out == (("custom property", "an e-mail address in its name"),)
    assert captured(**{"zoe@example.com": object()}).left_out == (("custom property", "not a JSON value"),)
    sealed(attributes)
    assert sc.event_key("zoe@example.com") == "zoeexamplecom"
    assert "zoe@example.com" not in sc.event_key.__self__, "the name is kept"  # type: ignore[attr-defined]


def test_what_was_recorded_is_not_written_out() -> None:
    """Not even by what shows the variables of a stack, as error trackers do."""
    recorded = record("Lead", {"user.email": "zoe@example.com"}, 1)
    assert "zoe@" not in repr(recorded) + repr(event_of(recorded, EventType.LEAD))


@pytest.mark.parametrize("choice", [object(), b"granted", [object()], "perhaps"])
def test_a_choice_that_cannot_be_read_is_not_taken_for_a_yes(choice: object) -> None:
    attributes = {"conversion.consent.ad_storage": choice}
    assert captured(**attributes).consent.ad_storage is False
    assert sealed(attributes).attributes == {"conversion.consent.ad_storage": "denied"}


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ({"name": "for zoe@example.com"}, {}),
        ({"name": "for zoe%40example.com"}, {}),
        ({"name": "Opal @ 20 %"}, {"name": "Opal @ 20 %"}),
        ({"name": "\ud83d"}, {"name": "?"}),
        ({"price": float("nan")}, {}),
        ({"price": 2**63}, {"price": str(2**63)}),
    ],
)
def test_items_of_known_fields_alone_are_looked_through_as_well(field: dict[str, Any], shown: dict[str, Any]) -> None:
    """As most are, these are shown to others as they stand, but for what nobody may see or write."""
    item = {"id": "A", "quantity": 2}
    assert sealed({"items": [{**item, **field}, item]}).attributes["items"] == [{**item, **shown}, item]


@pytest.mark.parametrize(
    "field", [{"zoe@example.com": 1}, {"gift to": "zoe%40example.com"}, {"gift": ["zoe@example.com"]}]
)
def test_nobody_sees_an_email_in_an_item(field: dict[str, Any]) -> None:
    item = {"id": "A", "price": 2.5, "engraving": "Z"}
    assert sealed({"items": [{**item, **field}, item]}).attributes["items"] == [item, item]

"""The console: one JSON object for each conversion."""

from __future__ import annotations

import json
from typing import Any

import pytest

from eventflows.conversion import Consent, Conversion, Device, EventType, Identifiers, Item
from eventflows.conversion import Request as Visit
from eventflows.pii import seal
from eventflows.providers.base import DELIVERED, Response, Status
from eventflows.providers.console import ConsoleProvider

from . import body_of

CONSOLE = ConsoleProvider()


def conversion(**fields: Any) -> Conversion:
    return Conversion(
        id="c-1", type=EventType.PURCHASE, name="Purchase", time_unix_nano=1_795_455_900_000_000_000, **fields
    )


def test_only_what_is_present_is_printed() -> None:
    assert CONSOLE.encode(conversion()).event == {
        "event": "Purchase",
        "type": "purchase",
        "id": "c-1",
        "time": "2026-11-23T17:45:00Z",
        "action_source": "website",
    }


def test_everything_that_is_known_is_printed() -> None:
    email = seal("email", "a@x.example")
    full = conversion(
        action_source="app",
        value=49.99,
        currency="USD",
        order_id="o1",
        items=(Item(id="1", price=49.99, quantity=1),),
        quantity=1,
        search_term="lamp",
        coupon="MAY",
        tax=0,
        shipping=4.5,
        user=Identifiers(email, ("u1",), "Uppsala", "SE-C", "75320", "SE"),
        request=Visit(client_address="198.51.100.1", user_agent="UA"),
        device=Device(vendor_id="v1"),
        clicks={"fbc": "fb.1.2.3"},
        consent=Consent(ad_storage=True, ad_user_data=False),
        limited_data_use=False,
        providers=frozenset({"reddit", "meta"}),
        exclude_providers=frozenset({"ga4"}),
        properties={"plan": "annual", "tags": ("a", "b"), "map": {"k": {1}}, "blob": b"123", "nan": float("nan"), "o": 1j},
        left_out=(("user.phone", "not a phone number"),),
    )  # fmt: skip
    assert CONSOLE.encode(full).event == {
        "event": "Purchase",
        "type": "purchase",
        "id": "c-1",
        "time": "2026-11-23T17:45:00Z",
        "action_source": "app",
        "value": 49.99,
        "currency": "USD",
        "order_id": "o1",
        "items": [{"id": "1", "price": 49.99, "quantity": 1}],
        "quantity": 1,
        "search_term": "lamp",
        "coupon": "MAY",
        "tax": 0,
        "shipping": 4.5,
        "user": {
            **{form: [sha] for form, (sha,) in email.items()},
            "user_id": ["u1"],
            "city": "Uppsala",
            "region": "SE-C",
            "postal_code": "75320",
            "country": "SE",
        },
        "request": {"client_address": "198.51.100.1", "user_agent": "UA"},
        "device": {"vendor_id": "v1"},
        "clicks": {"fbc": "fb.1.2.3"},
        "consent": {"ad_storage": True, "ad_user_data": False},
        "limited_data_use": False,
        "providers": ["meta", "reddit"],
        "exclude_providers": ["ga4"],
        "properties": {
            "plan": "annual", "tags": ["a", "b"], "map": {"k": [1]}, "blob": "<3 bytes>", "nan": "nan", "o": "1j"
        },
        "left_out": {"user.phone": "not a phone number"},
    }  # fmt: skip
    json.dumps(CONSOLE.encode(full).event, allow_nan=False)


def test_a_fraction_of_a_second_is_kept() -> None:
    half = Conversion(id="c", type=EventType.CUSTOM, name="x", time_unix_nano=1_795_455_900_500_000_999)
    assert CONSOLE.encode(half).event["time"] == "2026-11-23T17:45:00.500000Z"


def test_a_request_prints_each_event_and_goes_nowhere() -> None:
    encoded = [CONSOLE.encode(conversion()), CONSOLE.encode(conversion(value=1))]
    request = ConsoleProvider(endpoint="http://127.0.0.1:8787").request(encoded)
    assert (request.method, request.url) == ("PRINT", "console:")
    assert body_of(CONSOLE, *encoded) == {"events": [one.event for one in encoded]}


def test_nothing_keeps_a_conversion_from_the_console() -> None:
    assert (CONSOLE.name, CONSOLE.NEEDS_CONSENT, CONSOLE.MAX_AGE_NS, CONSOLE.MAX_AHEAD_NS) == (
        "console",
        (),
        None,
        None,
    )


@pytest.mark.parametrize(("status", "outcome"), [(200, DELIVERED.status), (0, Status.RETRY), (500, Status.RETRY)])
def test_what_was_printed_is_delivered(status: int, outcome: Status) -> None:
    batch = [CONSOLE.encode(conversion())]
    assert [one.status for one in CONSOLE.outcomes(Response(status), batch)] == [outcome]

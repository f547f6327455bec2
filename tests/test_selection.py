"""Which conversions a provider gets, and under which names: filters, conditions, tenants, samples and renaming."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from opentelemetry._logs import get_logger_provider
from opentelemetry.propagate import get_global_textmap, set_global_textmap

import eventflows
from eventflows import ConfigurationError, ConsoleProvider, MetaProvider, config, running
from eventflows.capture import Rules, capture, recognise
from eventflows.conversion import Conversion, EventType
from eventflows.lookup import AttributesOf
from eventflows.mapping import NotSent, encode
from eventflows.routing import filtered
from eventflows.sandbox import Sandbox
from eventflows.selection import Rename, sampled

NOW = 1_795_455_900_000_000_000


def conversion(name: str = "Purchase", **attributes: Any) -> Conversion:
    given = {key.replace("__", "."): value for key, value in attributes.items()}
    return capture(name, recognise(name, given, Rules()) or EventType.CUSTOM, given, NOW, Rules())


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        (None, "Purchase Lead order.cancelled"),
        (["purchase"], "Purchase"),
        (["PURCHASE", "order cancelled"], "Purchase order.cancelled"),
        ({"include": ["lead"]}, "Lead"),
        ({"exclude": ["lead"]}, "Purchase order.cancelled"),
        ({"include": ["purchase", "custom"], "exclude": ["order.cancelled"]}, "Purchase"),
        ([], ""),
    ],
)
def test_events(events: Any, wanted: str) -> None:
    provider = ConsoleProvider(events=events)
    got = [name for name in ("Purchase", "Lead", "order.cancelled") if filtered(provider, conversion(name)) is None]
    assert got == wanted.split()


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ('plan == "pro"', None),
        ('plan == "free"', "the provider's condition does not hold"),
        ("conversion.value >= 10 and value < 11", None),
        ("user.email and not user.phone", None),
        ('user.email == "a@b.example"', "the provider's condition does not hold"),
        ('url.full starts_with "https://shop.example/"', None),
        ('event.name == "Purchase" and conversion.type == "purchase"', None),
        ('conversion.items in ["sku-2"]', None),
        ('conversion.click.fbclid == "abc"', None),
        ("conversion.consent.ad_storage == true", None),
        ('geo.country.iso_code == "DE" and user.country == "DE"', None),
        ('service.name == "shop"', None),
        ("service.version", "the provider's condition does not hold"),
        (lambda attributes: attributes["plan"] == "pro" and "nothing" not in attributes, None),
        (lambda attributes: attributes["nothing"], "the provider's condition failed (KeyError)"),
    ],
)
def test_when(when: Any, reason: str | None) -> None:
    told = conversion(
        plan="pro", value=10.5, currency="EUR", user__email="a@b.example", url__full="https://shop.example/?fbclid=abc",
        items=[{"id": "sku-1"}, {"id": "sku-2"}], conversion__consent__ad_storage="granted", user__country="DEU",
    )  # fmt: skip
    assert (
        filtered(ConsoleProvider(when=when), told, resource={"service.name": "shop", "plan": "of the resource"})
        == reason
    )


def test_all_attributes_can_be_listed() -> None:
    seen = dict(AttributesOf(conversion(plan="pro", order_id="1", user__email="a@b.example"), {"service.name": "shop"}))
    assert seen["plan"] == "pro"
    assert seen["conversion.order_id"] == "1"
    assert seen["service.name"] == "shop"
    assert "a@b.example" not in repr(seen)


def test_a_sample_is_the_same_share_everywhere() -> None:
    """What is in a small sample is in every larger one, and the id alone decides."""
    ids = [conversion(order_id=str(number)) for number in range(4000)]
    small = {one.id for one in ids if sampled(one, 0.1)}
    large = {one.id for one in ids if sampled(one, 0.5)}
    assert small < large
    assert 300 < len(small) < 500
    assert 1850 < len(large) < 2150
    assert all(sampled(one, 1.0) for one in ids)
    reasons = Counter(filtered(MetaProvider("1", "t", sample=0.1), one) for one in ids)
    assert reasons == {None: len(small), "not in the sample": 4000 - len(small)}


def body(provider: Any, told: Conversion) -> dict[str, Any]:
    written = encode(provider, told, NOW)
    assert not isinstance(written, NotSent), written
    event: dict[str, Any] = json.loads(written.content)
    return event


def test_renaming() -> None:
    told = conversion("sign_up", plan_type="annual", note="secret", kept=1, user__email="a@b.example")
    rename = {"events": {"Sign Up": "Lead"}, "properties": {"plan_type": "plan", "note": None, "missing": "x"}}
    event = body(MetaProvider("1", "t", rename=rename), told)
    assert event["event_name"] == "Lead"  # a standard name changes the type
    assert event["custom_data"] == {"plan": "annual", "kept": 1}
    custom = body(MetaProvider("1", "t", rename={"events": {"sign_up": "Registrierung"}}), told)
    assert custom["event_name"] == "Registrierung"
    assert body(MetaProvider("1", "t"), told)["event_name"] == "CompleteRegistration"


def test_renaming_goes_by_the_name_before_the_type() -> None:
    rename = Rename({"lead": "by type", "GenerateLead": "by name"})
    assert rename.apply(conversion("generate_lead")).name == "by name"
    assert rename.apply(conversion("Lead")).name == "by type"
    untouched = conversion("Purchase")
    assert rename.apply(untouched) is untouched


TENANTS = {
    "meta": {
        "test_code": "T1",
        "tenants": {
            "attribute": "shop.id",
            "values": {
                "a": {"pixel_id": "1", "access_token": "ta"},
                "b": {"pixel_id": "2", "access_token": "tb", "test_code": "T2"},
            },
        },
    }
}


def test_tenants_are_providers_with_credentials_of_their_own() -> None:
    one, other = config.settings(TENANTS).providers
    assert (one.name, one.test_code, other.name, other.test_code) == ("meta/a", "T1", "meta/b", "T2")
    assert filtered(one, conversion(shop__id="a")) is None
    assert filtered(one, conversion(shop__id="b")) == "another shop.id"
    assert filtered(one, conversion(shop__id="c")) == "unknown shop.id"
    assert filtered(one, conversion()) == "no shop.id"
    assert filtered(one, conversion(), resource={"shop.id": "a"}) is None
    assert filtered(one, conversion(shop__id="b"), resource={"shop.id": "a"}) == "another shop.id"


def test_each_shops_orders_arrive_at_its_own_pixel(sandbox: Sandbox) -> None:
    pipeline = eventflows.configure(TENANTS, endpoint=sandbox.url, timeout="20s")
    for number, shop in enumerate(["a", "b", "b", "c", None]):
        attributes = {"value": 1, "currency": "EUR", "order_id": str(number), "user.email": "a@b.example"}
        pipeline.record("Purchase", {**attributes, **({"shop.id": shop} if shop else {})})
    assert pipeline.force_flush(20_000)
    accounts = Counter(entry["account"] for entry in sandbox.events("meta"))
    assert accounts == {"1": 1, "2": 2}, sandbox.refused()
    stats = pipeline.stats()
    assert stats["meta/a"].filtered == {"another shop.id": 2, "unknown shop.id": 1, "no shop.id": 1}
    assert stats["meta/b"].filtered == {"another shop.id": 1, "unknown shop.id": 1, "no shop.id": 1}


RESOURCE = """
file_format: "1.0"
resource: {attributes: [{name: shop.id, value: b}]}
logger_provider:
  processors:
    - simple:
        exporter:
          eventflows:
            endpoint: "%s"
            providers:
              meta:
                tenants:
                  attribute: shop.id
                  values: {a: {pixel_id: "1", access_token: ta}, b: {pixel_id: "2", access_token: tb}}
              console: {when: 'shop.id == "a"'}
"""


def test_the_resource_says_whose_an_app_is(sandbox: Sandbox, tmp_path: Path) -> None:
    """Also from OpenTelemetry's file, where the pipeline is made before the resource is known to it."""
    otel = pytest.importorskip(
        "opentelemetry.configuration", reason="needs opentelemetry-configuration, from SDK 1.44 on"
    )
    (tmp_path / "otel.yaml").write_text(RESOURCE % sandbox.url)
    propagator = get_global_textmap()
    try:
        otel.configure_sdk(otel.load_config_file(str(tmp_path / "otel.yaml")))
    finally:
        set_global_textmap(propagator)
    attributes = {"value": 1, "currency": "EUR", "order_id": "1", "user.email": "a@b.example"}
    get_logger_provider().get_logger("app").emit(event_name="Purchase", attributes=attributes)
    assert eventflows.force_flush(20_000)
    assert [entry["account"] for entry in sandbox.events("meta")] == ["2"]
    pipeline = running.current()
    assert pipeline is not None
    assert pipeline.stats()["meta/a"].filtered == {"another shop.id": 1}
    assert pipeline.stats()["console"].filtered == {"the provider's condition does not hold": 1}


@pytest.mark.parametrize("name", ["value", "conversion.value", "currency", "items", "url.full"])
def test_a_property_cannot_become_an_attribute(name: str) -> None:
    """Whose types the platforms insist on, and which other providers would not get."""
    with pytest.raises(ConfigurationError, match=f"rename.properties: {name}: the name of an attribute"):
        MetaProvider("1", "t", rename={"properties": {"amount": name}})

"""Consent: an explicit denial is obeyed always, an unknown choice counts as configured, and Sec-GPC as well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import eventflows
from eventflows import ConfigurationError, GA4Provider, MetaProvider, RedditProvider, TikTokProvider, config, render
from eventflows.consent import STRICTER, ConsentPolicy, Regime
from eventflows.conversion import Consent, Conversion, EventType
from eventflows.providers.console import ConsoleProvider
from tests.conftest import four

BASE = {"value": 5, "currency": "EUR", "order_id": "1", "user.email": "zoe@example.com", "client.address": "198.51.100.24",
        "user_agent.original": "Mozilla/5.0", "url.full": "https://shop.example/"}  # fmt: skip
DENIED_ADS = "consent: ad_storage denied"


def reasons(consent: dict[str, Any] | None, **attributes: Any) -> dict[str, str]:
    """Provider → why it does not get the event."""
    eventflows.configure(four(), consent=consent)
    try:
        return {one.provider: one.reason for one in render("Purchase", {**BASE, **attributes}) if one.status != "ready"}
    finally:
        eventflows.shutdown(1_000)


ADS = ("meta", "tiktok", "reddit")
ALL = (*ADS, "ga4")
GPC_IN_CALIFORNIA = {"regions": {"US-CA": {"sec_gpc": "denied"}}}


@pytest.mark.parametrize(
    ("consent", "attributes", "filtered"),
    [
        (None, {}, ()),
        (None, {"conversion.consent.ad_storage": "denied"}, ADS),
        (None, {"conversion.consent.analytics_storage": False}, ("ga4",)),
        ({"default": "denied"}, {}, ALL),
        ({"default": "denied"}, {f"conversion.consent.{p}": "granted" for p in ("ad_storage", "ad_user_data")}, ("ga4",)),
        ({"default": {"ad_storage": "denied"}}, {}, ADS),
        ({"default": "granted"}, {"conversion.consent.ad_storage": "denied"}, ADS),
        ({"regions": {"EEA": "denied"}}, {"user.country": "DE"}, ALL),
        ({"regions": {"EEA": "denied"}}, {"user.country": "NO"}, ALL),
        ({"regions": {"EU": "denied"}}, {"user.country": "NO"}, ()),
        ({"regions": {"EEA": "denied"}}, {"user.country": "US"}, ()),
        ({"regions": {"EEA": "denied"}}, {}, ()),
        ({"regions": {"CA": "denied"}}, {"geo.region.iso_code": "California"}, ()),  # not Canada
        ({"regions": {"CA": "denied"}}, {"geo.region.iso_code": "CA-QC"}, ALL),
        ({"default": "denied", "regions": {"US": "granted"}}, {"user.country": "US"}, ()),
        ({"regions": {"EEA": "denied", "SE": "granted"}}, {"user.country": "SE"}, ()),
        ({"regions": {"US": "granted", "US-CA": {"ad_user_data": "denied"}}}, {"geo.region.iso_code": "US-CA"}, ADS),
        ({"regions": {"US-CA": {"ad_user_data": "denied"}}}, {"user.country": "US", "user.state": "California"}, ADS),
        ({"regions": {"US-CA": "denied"}}, {"user.country": "US", "user.state": "TX"}, ()),
        ({"sec_gpc": "denied"}, {"http.request.header.sec-gpc": "1"}, ADS),
        ({"sec_gpc": "denied"}, {"http.request.header.sec_gpc": ["1"]}, ADS),
        ({"sec_gpc": "denied"}, {}, ()),
        ({"sec_gpc": "ignore"}, {"http.request.header.sec-gpc": "1"}, ()),
        ({"regions": {"US-CA": {"sec_gpc": "denied"}}}, {"http.request.header.sec-gpc": "1", "user.country": "SE"}, ()),
        ({"regions": {"US-CA": {"sec_gpc": "denied"}}}, {"http.request.header.sec-gpc": "1", "geo.region.iso_code": "US-CA"},
        ADS),
    ],
)  # fmt: skip
def test_which_providers_get_it(consent: Any, attributes: dict[str, Any], filtered: tuple[str, ...]) -> None:
    found = reasons(consent, **attributes)
    assert set(found) == set(filtered)
    assert all(reason.startswith("consent: ") and reason.endswith(" denied") for reason in found.values())


def bodies(consent: dict[str, Any] | None, **attributes: Any) -> dict[str, Any]:
    eventflows.configure(four(), consent=consent)
    try:
        return {one.provider: one.body for one in render("Purchase", {**BASE, **attributes})}
    finally:
        eventflows.shutdown(1_000)


def test_sec_gpc_is_limited_data_use_where_configured() -> None:
    """Each API is told in its own words."""
    found = bodies({"sec_gpc": "limited_data_use"}, **{"http.request.header.sec-gpc": "1"})
    assert found["meta"]["data"][0]["data_processing_options"] == ["LDU"]
    assert found["tiktok"]["data"][0]["limited_data_use"] is True
    assert found["reddit"]["data"]["events"][0]["user"]["data_processing_options"]["modes"] == ["LDU"]
    assert found["ga4"]["consent"]["ad_personalization"] == "DENIED"
    told = bodies({"sec_gpc": "limited_data_use"})
    assert "data_processing_options" not in told["meta"]["data"][0]
    assert "consent" not in told["ga4"]


def test_a_regions_default_is_told_to_ga4() -> None:
    found = bodies(
        {"regions": {"DE": {"ad_personalization": "denied", "ad_user_data": "granted"}}}, **{"user.country": "DE"}
    )
    assert found["ga4"]["consent"] == {"ad_user_data": "GRANTED", "ad_personalization": "DENIED"}


def test_a_providers_purposes_can_be_configured() -> None:
    eventflows.configure(
        [
            MetaProvider("1", "t", needs_consent=["analytics_storage"]),
            GA4Provider("G-1", "s", needs_consent=[]),
            TikTokProvider("C", "t"),
            RedditProvider("a2_1", "t"),
        ],
        consent={"default": {"analytics_storage": "denied"}},
    )
    found = {one.provider: one.status for one in render("Purchase", BASE)}
    assert found == {"meta": "filtered", "ga4": "ready", "tiktok": "ready", "reddit": "ready"}


def test_it_is_decided_again_when_the_event_is_sent() -> None:
    """What was recorded under a milder rule is not sent under a stricter one."""
    pipeline = eventflows.configure(
        [ConsoleProvider(needs_consent=["ad_storage"])], sending_queue={"flush_interval": "10m"}
    )
    eventflows.get_tracer("app").add_event("Purchase", {"order_id": "1"})
    (lane,) = pipeline._lanes
    assert pipeline.stats()["console"].pending == 1
    lane.given = replace(
        lane.given, consent=config.settings([ConsoleProvider()], consent={"default": "denied"}).consent
    )
    assert eventflows.force_flush(5_000)
    assert pipeline.stats()["console"].filtered == {DENIED_ADS: 1}


@pytest.mark.parametrize(
    ("former", "present", "event", "goes"),
    [
        ({}, {"default": {"ad_personalization": "denied"}}, {}, False),
        ({}, {"default": {"ad_personalization": "denied"}}, {"conversion.consent.ad_personalization": "granted"}, True),
        ({"default": {"ad_personalization": "denied"}}, {}, {}, True),
        ({}, {"sec_gpc": "limited_data_use"}, {"http.request.header.sec-gpc": "1"}, False),
        ({}, {"sec_gpc": "limited_data_use"}, {}, True),
        (
            {},
            {"regions": {"US-CA": {"ad_personalization": "denied"}}},
            {"user.country": "US", "user.state": "CA"},
            False,
        ),
        (
            {},
            {"regions": {"US-CA": {"ad_personalization": "denied"}}},
            {"user.country": "US", "user.state": "WA"},
            True,
        ),
    ],
)
def test_what_waits_does_not_go_without_a_denial_that_holds_by_now(
    former: Any, present: Any, event: dict[str, Any], goes: bool
) -> None:
    """It is written already, and the platform would have to be told."""
    options: Any = {"sending_queue": {"flush_interval": "10m"}}
    pipeline = eventflows.configure([ConsoleProvider()], consent=former, **options)
    eventflows.get_tracer("app").add_event("Purchase", {"order_id": "1", **event})
    assert pipeline.stats()["console"].pending == 1
    pipeline.reload([ConsoleProvider()], consent=present, **options)
    assert eventflows.force_flush(5_000)
    stats = pipeline.stats()["console"]
    assert (stats.delivered, dict(stats.filtered)) == ((1, {}) if goes else (0, {STRICTER: 1}))


def test_a_policy_makes_nothing_new_where_the_visitor_has_said_all() -> None:
    strict = ConsentPolicy(Regime(absent=Consent(False, False, False, False)))
    silent = Conversion("c-1", EventType.LEAD, "lead", 0)
    said = silent._replace(consent=Consent(True, True, False, True))
    assert strict.effective(said) is said
    assert strict.effective(silent).consent == Consent(False, False, False, False)
    assert ConsentPolicy(Regime(absent=Consent(ad_storage=True))).effective(silent).consent == Consent(ad_storage=True)
    assert silent.consent == Consent()


@pytest.mark.parametrize(
    ("consent", "message"),
    [
        ({"default": "perhaps"}, "consent.default: 'perhaps' is neither granted nor denied"),
        ({"default": {"adstorage": "denied"}}, "did you mean consent.default.ad_storage"),
        ({"default": {"ad_storage": "maybe"}}, "consent.default.ad_storage: 'maybe' is neither granted nor denied"),
        ({"regions": {"Europe": "denied"}}, "consent.regions.Europe: neither a country"),
        ({"sec_gpc": "yes"}, "consent.sec_gpc: 'yes' is not one of ignore, limited_data_use, denied"),
        ({"region": {}}, "did you mean consent.regions"),
        ("denied", "consent: must be a mapping"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(consent: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        config.settings(four(), consent=consent)
    assert message in str(raised.value)


def test_a_provider_that_needs_an_unknown_purpose_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="needs_consent: 'marketing' is not one of ad_storage"):
        MetaProvider("1", "t", needs_consent=["marketing"])


def test_the_environment_says_the_same_as_code() -> None:
    found = config.from_environment(
        {
            "OTEL_EXPORTER_EVENTFLOWS_CONSOLE_ENABLED": "true",
            "OTEL_EXPORTER_EVENTFLOWS_CONSENT_DEFAULT": "granted",
            "OTEL_EXPORTER_EVENTFLOWS_CONSENT_REGIONS": "EEA=denied, US-CA=granted",
            "OTEL_EXPORTER_EVENTFLOWS_CONSENT_SEC_GPC": "limited_data_use",
        }
    )
    told = {"default": "granted", "regions": {"EEA": "denied", "US-CA": "granted"}, "sec_gpc": "limited_data_use"}
    assert found == config.settings([ConsoleProvider()], consent=told)


@pytest.mark.parametrize("kind", ["bot", "test"])
def test_bots_and_tests_are_filtered_unless_wanted(kind: str) -> None:
    attributes = {**BASE, "user_agent.synthetic.type": kind}
    pipeline = eventflows.configure([ConsoleProvider()])
    eventflows.get_tracer("app").add_event("Purchase", attributes)
    assert pipeline.stats()["console"].filtered == {f"user_agent.synthetic.type is {kind}": 1}
    eventflows.shutdown(1_000)
    pipeline = eventflows.configure([ConsoleProvider()], send_synthetic=True)
    eventflows.get_tracer("app").add_event("Purchase", attributes)
    assert eventflows.force_flush(5_000)
    assert pipeline.stats()["console"].delivered == 1

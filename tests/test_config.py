"""Wrong settings: one clear error at start that names the key and what is allowed. Right ones: the same from every side."""

from __future__ import annotations

from typing import Any

import pytest

import eventflows
from eventflows import ConfigurationError, ConsoleProvider, GA4Provider, MetaProvider, RedditProvider, config
from eventflows.conversion import EventType

META = {"pixel_id": "123", "access_token": "abc"}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "providers: none configured"),
    ({"providers": []}, "console, ga4, meta, reddit, tiktok"),
    ({"providers": {"metta": META}}, "no provider of type 'metta'"),
    ({"providers": {"meta": {**META, "pixelid": 1}}}, "did you mean providers.meta.pixel_id?"),
    ({"providers": {"meta": {"pixel_id": "123"}}}, "providers.meta.access_token: required"),
    ({"providers": [object()]}, "object is not a Provider"),
    ({"providers": [ConsoleProvider(), ConsoleProvider()]}, "two are named 'console'"),
    ({"provider": {}}, "did you mean providers?"),
    ({"providers": {"console": {}}, "timeout": "soon"}, "timeout: 'soon' is not a duration"),
    ({"providers": {"console": {}}, "timeout": 0}, "timeout: 0 is not a duration"),
    ({"providers": {"console": {}}, "sending_queue": {"queue_size": 0}}, "sending_queue.queue_size: 0"),
    ({"providers": {"console": {}}, "sending_queue": {"size": 1}}, "sending_queue.size: no such setting"),
    ({"providers": {"console": {}}, "retry_on_failure": []}, "retry_on_failure: must be a mapping"),
    ({"providers": {"console": {}}, "default_country": "Sverige"}, "default_country: 'Sverige'"),
    (
        {"providers": {"console": {}}, "events": {"order.placed": "bought"}},
        "events.order.placed: 'bought' is not one of page_view",
    ),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_a_wrong_setting_is_one_clear_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as problem:
        config.settings(**given)
    assert said in str(problem.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MetaProvider("", "abc"), "providers.meta.pixel_id: required"),
        (lambda: MetaProvider("123", "  "), "providers.meta.access_token: required"),
        (lambda: MetaProvider("123", "abc", api_version="v19.0"), "v19.0"),
        (lambda: MetaProvider("123", "abc", endpoint="localhost:1"), "providers.meta.endpoint: 'localhost:1' must be a URL"),
        (lambda: MetaProvider("123", "abc", endpoint="http://x:99999"), "'http://x:99999' must be a URL with a host"),
        (lambda: MetaProvider("123", "abc", endpoint="http://x:abc"), "'http://x:abc' must be a URL with a host"),
        (lambda: MetaProvider("123", "abc", endpoint="http://[::1"), "'http://[::1' must be a URL with a host"),
        (lambda: MetaProvider("123", "abc", endpoint="http://:80"), "'http://:80' must be a URL with a host"),
        (lambda: MetaProvider("123", "abc", events="purchase"), "providers.meta.events: 'purchase' must be a list"),
        (lambda: MetaProvider("123", "abc", name="bad name"), "name must look like 'meta'"),
        (lambda: GA4Provider(api_secret="x"), "measurement_id"),
        (lambda: GA4Provider("G-1"), "api_secret"),
        (lambda: GA4Provider("G-1", "x", region="mars"), "region"),
        (lambda: RedditProvider("a2_1", ""), "providers.reddit.access_token: required"),
    ],
)  # fmt: skip
def test_a_wrong_provider_is_one_clear_error(make: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=r".+") as problem:
        make()
    assert said in str(problem.value)


def variables(**settings: str) -> dict[str, str]:
    return {config.PREFIX + key: value for key, value in settings.items()}


def test_an_unknown_variable_is_named_with_the_nearest_right_one() -> None:
    with pytest.raises(ConfigurationError, match="did you mean OTEL_EXPORTER_EVENTFLOWS_META_PIXEL_ID"):
        config.from_environment(variables(META_PIXELID="1"))
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_EVENTFLOWS_NONSENSE: no such setting"):
        config.from_environment(variables(NONSENSE="1"))


def test_two_accounts_of_one_platform() -> None:
    names = [p.name for p in config.settings({"meta": META, "meta/eu": META}).providers]
    assert names == ["meta", "meta/eu"]


def test_the_events_map() -> None:
    rules = config.settings([ConsoleProvider()], events={"order.placed": "purchase"}).rules
    assert rules.events == {"orderplaced": EventType.PURCHASE}


def test_configuring_twice_says_so() -> None:
    eventflows.configure([ConsoleProvider()])
    with pytest.raises(ConfigurationError, match="configured already"):
        eventflows.configure([ConsoleProvider()])
    eventflows.shutdown(1_000)
    eventflows.configure([ConsoleProvider()])


def test_secrets_are_masked_in_every_repr() -> None:
    built = config.settings({"meta": META, "ga4": {"measurement_id": "G-1", "api_secret": "abc"}})
    assert "abc" not in repr(built)
    assert "access_token=***" in repr(built)

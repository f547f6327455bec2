"""Live or test by `deployment.environment.name`: staging never reports a sale, and a missing name is no guess."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import date
from typing import Any

import pytest
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

import eventflows
from eventflows import (
    ConfigurationError,
    ConsoleProvider,
    EventFlowsLogRecordExporter,
    GA4Provider,
    MetaProvider,
    RedditProvider,
    TikTokProvider,
    config,
)
from eventflows.diagnosis import Wiring, diagnose
from eventflows.sandbox import Sandbox
from tests.conftest import PERSON, environment

TABLE = {"production": "live", "*": "test"}
NOT_SENT = {"test environment: logged, not sent": 1}
PURCHASE: dict[str, Any] = {
    "value": 5, "currency": "EUR", "order_id": "1", "client.address": "198.51.100.24", "user_agent": "Mozilla/5.0", **PERSON,
    "url.full": "https://shop.example/",
}  # fmt: skip


def logs_of(name: str | None, key: str = "deployment.environment.name") -> LoggerProvider:
    return LoggerProvider(resource=Resource({key: name} if name else {}))


def providers(url: str) -> list[Any]:
    """Meta has a test code, GA4 its validation server, Reddit a test id; TikTok's code is not configured."""
    return [
        MetaProvider("123", "abc", endpoint=f"{url}/meta", test_code="TEST1"),
        GA4Provider("G-123", "abc", endpoint=f"{url}/ga4"),
        RedditProvider("a2_123", "abc", endpoint=f"{url}/reddit", test_code="t2_x"),
        TikTokProvider("CPIX", "abc", endpoint=f"{url}/tiktok"),
        ConsoleProvider(),
    ]


def test_in_test_mode_platforms_get_tests_or_nothing(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """The test code or the debug endpoint where there is one; else the request is logged, sealed, and not sent."""
    caplog.set_level(logging.INFO, "eventflows")
    pipeline = eventflows.configure(providers(sandbox.url), environments=TABLE, logger_provider=logs_of("staging"))
    eventflows.get_tracer("app").add_event("Purchase", PURCHASE)
    assert eventflows.force_flush(10_000)
    assert pipeline.mode == "test"
    paths = sorted((entry["provider"], entry["path"].partition("?")[0]) for entry in sandbox.requests)
    assert [path for provider, path in paths if provider == "ga4"] == ["/ga4/debug/mp/collect"]
    assert {provider for provider, _ in paths} == {"meta", "ga4", "reddit"}
    stats = pipeline.stats()
    assert (stats["tiktok"].filtered, stats["tiktok"].delivered) == (NOT_SENT, 0)
    assert stats["console"].delivered == 1
    (logged,) = (record.getMessage() for record in caplog.records if "not sent" in record.getMessage())
    assert "CompletePayment" in logged or "Purchase" in logged
    assert "zoe.canary" not in caplog.text.lower()
    assert "abc" not in logged
    assert "(test)" in caplog.text


@pytest.mark.parametrize("key", ["deployment.environment.name", "deployment.environment"])
def test_production_is_live(key: str, sandbox: Sandbox) -> None:
    logs = logs_of("production", key)
    pipeline = eventflows.configure(providers(sandbox.url), environments=TABLE, logger_provider=logs)
    eventflows.get_tracer("app").add_event("Purchase", PURCHASE)
    assert eventflows.force_flush(10_000)
    assert pipeline.mode == "live"
    assert sorted(entry["provider"] for entry in sandbox.events()) == ["ga4", "meta", "reddit", "tiktok"]


@pytest.mark.parametrize(
    ("table", "name", "message"),
    [
        (TABLE, None, "the resource has no deployment.environment.name"),
        ({"production": "live"}, "staging", "'staging' is not listed: production; add it, or '*'"),
        ({"production": "on"}, "production", "environments.production: 'on' is not one of live, test"),
    ],
)
def test_what_the_table_cannot_say_is_an_error_at_start(table: Any, name: str | None, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        eventflows.configure([ConsoleProvider()], environments=table, logger_provider=logs_of(name))
    assert message in str(raised.value)
    assert eventflows.running.current() is None


def test_a_missing_attribute_is_resolved_by_configuration() -> None:
    options: Any = {"environments": TABLE, "environment": "production", "logger_provider": logs_of(None)}
    assert eventflows.configure([ConsoleProvider()], **options).mode == "live"


def test_without_a_table_everything_is_live() -> None:
    assert eventflows.configure([ConsoleProvider()], logger_provider=logs_of(None)).mode == "live"


def test_a_provider_added_later_is_tested_as_well(sandbox: Sandbox) -> None:
    pipeline = eventflows.configure([ConsoleProvider()], environments=TABLE, logger_provider=logs_of("ci"))
    pipeline.add_provider(MetaProvider("123", "abc", endpoint=f"{sandbox.url}/meta"))
    eventflows.get_tracer("app").add_event("Purchase", PURCHASE)
    assert eventflows.force_flush(10_000)
    assert pipeline.stats()["meta"].filtered == NOT_SENT


@pytest.mark.parametrize(("name", "filtered"), [("production", {}), ("staging", NOT_SENT), (None, NOT_SENT)])
def test_an_exporter_made_before_its_provider_finds_the_environment_with_the_first_event(
    name: str | None, filtered: dict[str, int], sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """As the declarative file makes it. Where the name is missing nothing is sent, and a log line says why."""
    settings = {"tiktok": {"pixel_code": "CPIX", "access_token": "abc"}}
    exporter = EventFlowsLogRecordExporter(settings, endpoint=sandbox.url, environments=TABLE)
    logs = logs_of(name)
    logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    set_logger_provider(logs)
    logs.get_logger("app").emit(event_name="Purchase", attributes=PURCHASE)
    assert eventflows.force_flush(10_000)
    pipeline = eventflows.running.current()
    assert pipeline is not None
    assert pipeline.stats()["tiktok"].filtered == filtered
    assert ("the resource has no deployment.environment.name" in caplog.text) is (name is None)


PROGRAM = """
from opentelemetry._logs import get_logger
get_logger("app").emit(event_name="Purchase", attributes={"order_id": "1", "user.email": "zoe@example.com"})
"""


@pytest.mark.parametrize(("name", "events"), [("production", 1), ("dev", 0)])
def test_by_environment_variables_alone(name: str, events: int, sandbox: Sandbox) -> None:
    variables = environment(
        OTEL_LOGS_EXPORTER="eventflows",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        OTEL_RESOURCE_ATTRIBUTES=f"deployment.environment.name={name}",
        OTEL_EXPORTER_EVENTFLOWS_ENVIRONMENTS="production=live,*=test",
        OTEL_EXPORTER_EVENTFLOWS_ENDPOINT=sandbox.url,
        OTEL_EXPORTER_EVENTFLOWS_REDDIT_PIXEL_ID="a2_1",
        OTEL_EXPORTER_EVENTFLOWS_REDDIT_ACCESS_TOKEN="abc",
    )
    done = subprocess.run(
        ["opentelemetry-instrument", sys.executable, "-c", PROGRAM],
        env=variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(sandbox.events("reddit")) == events


def test_the_environment_variables_say_the_same_as_code() -> None:
    prefix = "OTEL_EXPORTER_EVENTFLOWS_"
    found = config.from_environment(
        {
            prefix + "CONSOLE_ENABLED": "true",
            prefix + "COMMIT": "span_ok",
            prefix + "COMMIT_TIMEOUT": "90s",
            prefix + "ENVIRONMENT": "staging",
            prefix + "SEND_SYNTHETIC": "true",
            prefix + "PRIVACY_STRICT": "true",
            prefix + "VISITOR_TRUSTED_PROXIES": "10.0.0.0/8, loopback",
            prefix + "VISITOR_BAGGAGE": "true",
            prefix + "VISITOR_BAGGAGE_HOSTS": "orders.internal, .svc.cluster.local",
        }
    )
    assert found == config.settings(
        [ConsoleProvider()],
        commit="span_ok",
        commit_timeout=90_000,
        environment="staging",
        send_synthetic=True,
        privacy={"strict": True},
        visitor={
            "trusted_proxies": ["10.0.0.0/8", "loopback"],
            "baggage": True,
            "baggage_hosts": ["orders.internal", ".svc.cluster.local"],
        },
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"visitor": {"trusted_proxy": []}}, "did you mean visitor.trusted_proxies"),
        ({"visitor": {"trusted_proxies": ["ten"]}}, "trusted_proxies"),
        ({"visitor": {"baggage": "yes"}}, "visitor.baggage: 'yes' must be true or false"),
        ({"privacy": {"strict": 1}}, "privacy.strict: 1 must be true or false"),
        ({"commit_timeout": "soon"}, "commit_timeout: 'soon' is not a duration"),
        ({"enviroments": {}}, "did you mean environments"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        config.settings([ConsoleProvider()], **options)
    assert message in str(raised.value)


def test_a_providers_own_environments_go_before_the_table() -> None:
    """For the lanes, the command line and the diagnosis alike."""
    settings = config.settings(
        [
            MetaProvider("1", "t"),
            MetaProvider("2", "t", name="meta/staging", environments={"staging": "live", "*": "test"}),
        ],
        environments={"production": "live", "*": "test"},
        environment="staging",
    )
    assert [settings.mode(one, "staging") for one in settings.providers] == ["test", "live"]
    assert [settings.mode(one, "production") for one in settings.providers] == ["live", "test"]
    found = diagnose(settings, "test", "staging", Wiring(known=False), date(2026, 11, 25))
    assert [one.mode for one in found.destinations] == ["logged only", "live"]

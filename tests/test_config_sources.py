"""The same settings from code, the environment, a file of our own and OpenTelemetry's file make the same pipeline."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.propagate import get_global_textmap, set_global_textmap

import eventflows
from eventflows import ConfigurationError, ConsoleProvider, GA4Provider, MetaProvider, config, running
from eventflows.config_file import read_file
from eventflows.variables import PREFIX, variable

YAML = """\
# yaml-language-server: $schema=https://example.invalid/eventflows.schema.json
providers:
  console:
  ga4: {measurement_id: G-1, api_secret: "${GA4_SECRET}", region: eu, debug_mode: true}
  meta:
    pixel_id: ${PIXEL}
    access_token: ${TOKEN}
    test_code: ${UNSET:-T1}
    events: {include: [purchase, lead], exclude: [order.cancelled]}
    when: 'plan == "pro"'
    sample: 0.5
    rename: {events: {sign_up: Registration}, properties: {plan_type: plan}}
    extra: {opt_out: false}
    timeout: 5s
    retry_on_failure: {max_interval: 1m}
    sending_queue: {queue_size: 50}
  meta/eu: {pixel_id: "456", access_token: "${TOKEN}", needs_consent: [ad_storage]}
events: {order.placed: purchase}
default_country: SE
endpoint: http://127.0.0.1:8787/
timeout: ${TIMEOUT:-20s}
sending_queue: {queue_size: 5000, flush_interval: 500ms, num_consumers: 4, retention: 7d}
retry_on_failure: {initial_interval: 2s, max_interval: 30s, multiplier: 1.5, max_elapsed_time: 15m}
tls: {insecure_skip_verify: true}
proxy_url: http://user:password@127.0.0.1:3128
visitor: {trusted_proxies: [private, 203.0.113.7], baggage: true, baggage_hosts: [Orders.internal]}
consent: {default: granted, regions: {"NO": denied}, sec_gpc: limited_data_use}
privacy: {strict: true, omit_request: true}
commit: span_ok
commit_timeout: 90s
environments: {production: live, "*": test}
environment: production
send_synthetic: true
telemetry: false
"""
ENVIRON = {"GA4_SECRET": "s3cret", "PIXEL": "123", "TOKEN": "t0ken"}


def of_code() -> config.Settings:
    return config.settings(
        [
            ConsoleProvider(),
            GA4Provider("G-1", "s3cret", region="eu", debug_mode=True),
            MetaProvider(
                "123",
                "t0ken",
                test_code="T1",
                events={"include": ["purchase", "lead"], "exclude": ["order.cancelled"]},
                when='plan == "pro"',
                sample=0.5,
                rename={"events": {"sign_up": "Registration"}, "properties": {"plan_type": "plan"}},
                extra={"opt_out": False},
                timeout=5000,
                retry_on_failure={"max_interval": "60s"},
                sending_queue={"queue_size": 50},
            ),
            MetaProvider("456", "t0ken", name="meta/eu", needs_consent=["ad_storage"]),
        ],
        events={"order.placed": "purchase"},
        default_country="swe",
        endpoint="http://127.0.0.1:8787",
        timeout="20s",
        sending_queue={"queue_size": 5000, "flush_interval": 500, "num_consumers": 4, "retention": "7d"},
        retry_on_failure={
            "initial_interval": "2s", "max_interval": "30s", "multiplier": 1.5, "max_elapsed_time": "15m",
        },
        tls={"insecure_skip_verify": True},
        proxy_url="http://user:password@127.0.0.1:3128",
        visitor={"trusted_proxies": ["private", "203.0.113.7"], "baggage": True, "baggage_hosts": ["orders.internal"]},
        consent={"default": "granted", "regions": {"NO": "denied"}, "sec_gpc": "limited_data_use"},
        privacy={"strict": True, "omit_request": True},
        commit="span_ok",
        commit_timeout=90_000,
        environments={"production": "live", "*": "test"},
        environment="production",
        send_synthetic=True,
        telemetry=False,
    )  # fmt: skip


VARIABLES = {
    "CONSOLE_ENABLED": "true",
    "GA4_MEASUREMENT_ID": "G-1",
    "GA4_API_SECRET": "s3cret",
    "GA4_REGION": "eu",
    "GA4_DEBUG_MODE": "True",
    "META_PIXEL_ID": "123",
    "META_ACCESS_TOKEN": "t0ken",
    "META_TEST_CODE": "T1",
    "META_EVENTS_INCLUDE": "purchase, lead",
    "META_EVENTS_EXCLUDE": "order.cancelled",
    "META_WHEN": 'plan == "pro"',
    "META_SAMPLE": "0.5",
    "META_RENAME_EVENTS": "sign_up=Registration",
    "META_RENAME_PROPERTIES": '{"plan_type": "plan"}',
    "META_EXTRA": '{"opt_out": false}',
    "META_TIMEOUT": "5000",
    "META_RETRY_ON_FAILURE_MAX_INTERVAL": "60000",
    "META_SENDING_QUEUE_QUEUE_SIZE": "50",
    "META_EU_PIXEL_ID": "456",
    "META_EU_ACCESS_TOKEN": "t0ken",
    "META_EU_NEEDS_CONSENT": "ad_storage",
    "EVENTS": "order.placed=purchase",
    "DEFAULT_COUNTRY": "se",
    "ENDPOINT": "http://127.0.0.1:8787",
    "TIMEOUT": "20000",
    "SENDING_QUEUE_QUEUE_SIZE": "5000",
    "SENDING_QUEUE_FLUSH_INTERVAL": "500",
    "SENDING_QUEUE_NUM_CONSUMERS": "4",
    "SENDING_QUEUE_RETENTION": "7d",
    "RETRY_ON_FAILURE_INITIAL_INTERVAL": "2000",
    "RETRY_ON_FAILURE_MAX_INTERVAL": "30s",
    "RETRY_ON_FAILURE_MULTIPLIER": "1.5",
    "RETRY_ON_FAILURE_MAX_ELAPSED_TIME": "15m",
    "TLS_INSECURE_SKIP_VERIFY": "true",
    "PROXY_URL": "http://user:password@127.0.0.1:3128",
    "VISITOR_TRUSTED_PROXIES": "private, 203.0.113.7",
    "VISITOR_BAGGAGE": "true",
    "VISITOR_BAGGAGE_HOSTS": "Orders.internal",
    "CONSENT_DEFAULT": "granted",
    "CONSENT_REGIONS": "NO=denied",
    "CONSENT_SEC_GPC": "limited_data_use",
    "PRIVACY_STRICT": "true",
    "PRIVACY_OMIT_REQUEST": "true",
    "COMMIT": "span_ok",
    "COMMIT_TIMEOUT": "90000",
    "ENVIRONMENTS": "production=live,*=test",
    "ENVIRONMENT": "production",
    "SEND_SYNTHETIC": "true",
    "TELEMETRY": "false",
    "REDDIT_PIXEL_ID": "",
}


def variables(**settings: str) -> dict[str, str]:
    return {PREFIX + key: value for key, value in settings.items()}


def lanes(settings: config.Settings) -> list[Any]:
    return [settings.lane(provider) for provider in settings.providers]


def test_code_and_environment_give_the_same_settings() -> None:
    found = config.from_environment(variables(**VARIABLES))
    assert found == of_code()
    assert lanes(found) == lanes(of_code())


@pytest.mark.parametrize("ending", [".yaml", ".json"])
def test_a_file_of_our_own_gives_the_same_settings(tmp_path: Path, ending: str) -> None:
    import yaml

    file = tmp_path / f"eventflows{ending}"
    file.write_text(YAML if ending == ".yaml" else json.dumps(yaml.safe_load(YAML)))
    found = config.from_environment({**ENVIRON, config.CONFIG: str(file)})
    assert found == of_code()
    assert lanes(found) == lanes(of_code())


def test_opentelemetrys_file_gives_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    otel = pytest.importorskip(
        "opentelemetry.configuration", reason="needs opentelemetry-configuration, from SDK 1.44 on"
    )
    inner = "".join(f"            {line}\n" for line in YAML.splitlines())
    inner = inner.replace("pixel_id: ${PIXEL}", 'pixel_id: "${PIXEL}"')
    file = tmp_path / "otel.yaml"
    file.write_text(
        'file_format: "1.0"\nlogger_provider:\n  processors:\n    - simple:\n        exporter:\n          eventflows:\n'
        + inner
    )
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(PREFIX + "TIMEOUT", "nonsense, which does not count here")
    propagator = get_global_textmap()
    try:
        otel.configure_sdk(otel.load_config_file(str(file)))
    finally:
        set_global_textmap(propagator)
    pipeline = running.current()
    assert pipeline is not None
    assert pipeline.settings == of_code()
    assert lanes(pipeline.settings) == lanes(of_code())


def test_configure_takes_the_file_as_well(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"providers": {"console": {}}, "timeout": "3s"}')
    pipeline = eventflows.configure(config=tmp_path / "c.json")
    assert pipeline.settings == config.settings([ConsoleProvider()], timeout=3000)


def test_a_file_and_settings_beside_it_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="config: contradicts providers, timeout"):
        config.settings([ConsoleProvider()], config=tmp_path / "c.json", timeout=1)


def test_with_a_file_the_other_variables_count_only_where_it_refers_to_them(tmp_path: Path, caplog: Any) -> None:
    """As OpenTelemetry's own file has it; and it is said which those are."""
    caplog.set_level(logging.INFO, "eventflows")
    file = tmp_path / "c.yaml"
    file.write_text(f"providers: {{console: }}\nendpoint: ${{{PREFIX}ENDPOINT}}\n")
    environ = {config.CONFIG: str(file), **variables(ENDPOINT="http://127.0.0.1:1", TIMEOUT="soon", NONSENSE="1")}
    found = config.from_environment(environ)
    assert found == config.settings([ConsoleProvider()], endpoint="http://127.0.0.1:1")
    assert f"{PREFIX}NONSENSE, {PREFIX}TIMEOUT" in caplog.text


def test_variables_that_do_nothing_beside_settings_in_code_are_named(monkeypatch: Any, caplog: Any) -> None:
    """Who sets the endpoint of a sandbox must not learn from the ad account that it did nothing. A value is never told."""
    monkeypatch.setenv(f"{PREFIX}ENDPOINT", "http://127.0.0.1:8787")
    monkeypatch.setenv(f"{PREFIX}META_ACCESS_TOKEN", "t0ken")
    monkeypatch.setenv(f"{PREFIX}TIMEOUT", " ")
    eventflows.configure([ConsoleProvider()])
    (warning,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert warning.getMessage().endswith(f" do nothing: {PREFIX}ENDPOINT, {PREFIX}META_ACCESS_TOKEN")


def test_variables_that_make_the_settings_are_not_warned_of(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"providers": {"console": {}}}')
    monkeypatch.setenv(f"{PREFIX}CONSOLE_ENABLED", "true")
    for options in ({}, {"config": str(file)}):
        eventflows.configure(**options)
        eventflows.shutdown()
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_a_named_account_in_the_environment() -> None:
    """The longest setting's name wins, so that a setting of several words is never read as an account."""
    found = config.from_environment(
        variables(
            META_PIXEL_ID="1", META_ACCESS_TOKEN="a", META_EU_WEST_PIXEL_ID="2", META_EU_WEST_ACCESS_TOKEN="b",
            META_EU_WEST_RENAME_EVENTS="lead=Kontakt", META_EU_WEST_SENDING_QUEUE_QUEUE_SIZE="7",
            GA4_APP_FIREBASE_APP_ID="1:2:android:3", GA4_APP_API_SECRET="c",
        )
    )  # fmt: skip
    assert [one.name for one in found.providers] == ["ga4/app", "meta", "meta/eu_west"]
    west = found.providers[2]
    assert west == MetaProvider(
        "2", "b", name="meta/eu_west", rename={"events": {"lead": "Kontakt"}}, sending_queue={"queue_size": 7}
    )


def test_every_setting_has_one_variable() -> None:
    from eventflows.model import SETTINGS, leaves

    names = [variable(path) for path, _ in leaves(SETTINGS)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("NO", "NO"), ("yes", "yes"), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("12", 12), ("-3", -3), ("0123", "0123"), ("0x1F", "0x1F"), ("1_000", "1_000"), ("1.50", 1.5), ("1e3", "1e3"),
        ("2026-11-25", "2026-11-25"), ("'12'", "12"), ('"true"', "true"), ("12:30:00", "12:30:00"), ("G-1", "G-1"),
    ],
)  # fmt: skip
def test_yaml_is_read_as_version_1_2_has_it(tmp_path: Path, text: str, value: Any) -> None:
    """So `NO` is Norway, and an id with a leading zero keeps it."""
    file = tmp_path / "c.yaml"
    file.write_text(f"a: {text}\n")
    assert read_file(file, {}).settings == {"a": value}


def test_anchors_and_merges(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "x: &base {pixel_id: '1', access_token: a}\n"
        "meta: {<<: *base, test_code: T}\nmeta/eu:\n  <<: [{pixel_id: '2'}, *base]\n  access_token: b\nagain: *base\n"
    )
    base = {"pixel_id": "1", "access_token": "a"}
    assert read_file(file, {}).settings == {
        "x": base, "meta": {**base, "test_code": "T"}, "meta/eu": {"pixel_id": "2", "access_token": "b"}, "again": base,
    }  # fmt: skip


def test_yaml_without_its_parser_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "c.yaml").write_text("providers: {console: }\n")
    (tmp_path / "c.json").write_text('{"providers": {"console": null}}')
    with pytest.raises(ConfigurationError, match=r"pip install .*\[config\]"):
        config.from_file(tmp_path / "c.yaml")
    assert config.from_file(tmp_path / "c.json") == config.settings([ConsoleProvider()])

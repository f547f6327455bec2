"""`eventflows.render` and `eventflows render`: the same code path as a send, no network, nothing secret."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import eventflows
from eventflows import ConfigurationError, MetaProvider
from eventflows.conversion import EventType
from eventflows.sandbox import Sandbox
from tests.conftest import CANARIES, PERSON, environment, five, four

NOW = 1_795_455_900_000_000_000
ATTRIBUTES: dict[str, Any] = {
    "value": 49.99, "currency": "USD", "order_id": "1", "url.full": "https://shop.example/", "client.address": "198.51.100.24",
    "user_agent.original": "M", "items": [{"id": "A", "price": 49.99, "quantity": 1, "name": "Lamp"}], **PERSON,
}  # fmt: skip


def test_each_provider_shows_what_it_would_send() -> None:
    rendered = eventflows.render("Purchase", ATTRIBUTES, now=NOW, providers=five())
    assert [r.provider for r in rendered] == ["meta", "ga4", "tiktok", "reddit", "console"]
    assert {"ready"} == {r.status for r in rendered}
    shown = repr(rendered)
    assert "abc" not in shown
    assert "Authorization': 'Bearer ***'" in shown
    assert not [canary for canary in CANARIES if canary in shown.lower()]
    assert rendered[0].body["data"][0]["event_time"] == NOW // 10**9


@pytest.mark.parametrize("event_type", list(EventType))
def test_every_neutral_type_renders_for_every_provider(event_type: EventType) -> None:
    """Only what a platform has no place for is filtered, and then with a reason."""
    rendered = eventflows.render(event_type.value, ATTRIBUTES, now=NOW, providers=five())
    assert {"ready"} == {r.status for r in rendered if (r.provider, event_type) != ("tiktok", EventType.REFUND)}
    assert all(bool(r.reason) == (r.status != "ready") for r in rendered)


def test_a_rendered_body_is_what_is_sent(sandbox: Sandbox) -> None:
    """Byte for byte the same event arrives at each platform."""
    now = time.time_ns()
    rendered = eventflows.render("Purchase", ATTRIBUTES, timestamp=now, providers=four(sandbox.url))
    pipeline = eventflows.configure(four(sandbox.url))
    pipeline.record("Purchase", ATTRIBUTES, now)
    assert eventflows.force_flush(10_000)
    arrived = {entry["provider"]: entry["event"] for entry in sandbox.events()}
    bodies = {r.provider: r.body for r in rendered}
    assert bodies["meta"]["data"] == [arrived["meta"]]
    assert bodies["ga4"]["events"] == [arrived["ga4"]]
    assert bodies["tiktok"]["data"] == [arrived["tiktok"]]
    assert bodies["reddit"]["data"]["events"] == [arrived["reddit"]]


def test_too_old_and_from_the_future_are_refused_before_sending() -> None:
    for age_days, refused in (
        (2, set()),
        (4, {"ga4"}),
        (8, {"ga4", "meta", "reddit"}),
        (30, {"ga4", "meta", "reddit", "tiktok"}),
    ):
        at = NOW - age_days * 86_400 * 10**9
        rendered = eventflows.render("Purchase", ATTRIBUTES, timestamp=at, now=NOW, providers=four())
        assert refused == {r.provider for r in rendered if r.status == "refused"}
    soon = eventflows.render("Purchase", ATTRIBUTES, timestamp=NOW + 60 * 10**9, now=NOW, providers=four())
    assert {"ready"} == {r.status for r in soon}
    assert soon[0].body["data"][0]["event_time"] == NOW // 10**9
    later = eventflows.render("Purchase", ATTRIBUTES, timestamp=NOW + 3600 * 10**9, now=NOW, providers=four())
    assert {"meta", "tiktok", "reddit"} == {r.provider for r in later if r.status == "refused"}


def test_extra_is_deep_merged_into_the_event() -> None:
    provider = MetaProvider("123", "abc", extra={"custom_data": {"delivery_category": "in_store"}, "opt_out": True})
    event = eventflows.render("Purchase", ATTRIBUTES, now=NOW, providers=[provider])[0].body["data"][0]
    assert (
        event["custom_data"]["delivery_category"], event["custom_data"]["value"], event["opt_out"],
    ) == ("in_store", 49.99, True)  # fmt: skip


def test_without_providers_the_running_pipeline_or_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="none configured"):
        eventflows.render("Purchase", ATTRIBUTES)
    monkeypatch.setenv("OTEL_EXPORTER_EVENTFLOWS_CONSOLE_ENABLED", "true")
    assert [r.provider for r in eventflows.render("Purchase", ATTRIBUTES)] == ["console"]
    eventflows.configure([MetaProvider("123", "abc")])
    assert [r.provider for r in eventflows.render("Purchase", ATTRIBUTES)] == ["meta"]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from eventflows.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=30, check=False
    )  # fmt: skip


def test_the_command_prints_the_same(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(
        json.dumps({"name": "Purchase", "attributes": {**ATTRIBUTES, "note": "a@x.com"}, "timestamp": NOW})
    )
    done = run("render", str(event), "--now", str(NOW), "--json", OTEL_EXPORTER_EVENTFLOWS_META_PIXEL_ID="123",
               OTEL_EXPORTER_EVENTFLOWS_META_ACCESS_TOKEN="abc")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (shown,) = json.loads(done.stdout)
    (expected,) = eventflows.render(
        "Purchase", ATTRIBUTES, timestamp=NOW, now=NOW, providers=[MetaProvider("123", "abc")]
    )
    assert (expected.url, expected.body) == (shown["url"], shown["body"])
    text = run("render", str(event), "--now", str(NOW))
    assert text.returncode == 0
    assert "POST https://graph.facebook.com/v26.0/1234567890/events" in text.stdout
    assert "left out: note: holds an e-mail address" in text.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "not JSON"), ("[]", "must be an object"), ('{"name": "a", "attribute": {}}', "'attribute'")],
)
def test_a_bad_event_file_is_one_clear_line(content: str, said: str, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(content)
    done = run("render", str(event))
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_and_version_work() -> None:
    assert "render" in run("--help").stdout
    assert run("version").stdout.strip()
    assert run("nonsense").returncode == 2

"""`eventflows check` and `eventflows send`, against the sandbox, as a person with new credentials runs them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from eventflows.cli import main
from eventflows.sandbox import Sandbox
from tests.conftest import CANARIES, PERSON, environment

PREFIX = "OTEL_EXPORTER_EVENTFLOWS_"
FOUR = {
    "META_PIXEL_ID": "123", "META_ACCESS_TOKEN": "sekret-m", "META_TEST_CODE": "TEST1",
    "GA4_MEASUREMENT_ID": "G-123", "GA4_API_SECRET": "sekret-g",
    "TIKTOK_PIXEL_CODE": "CPIX", "TIKTOK_ACCESS_TOKEN": "sekret-t", "TIKTOK_TEST_CODE": "TEST2",
    "REDDIT_PIXEL_ID": "a2_123", "REDDIT_ACCESS_TOKEN": "sekret-r", "REDDIT_TEST_MODE": "true",
    "ENVIRONMENTS": "staging=test", "ENVIRONMENT": "staging",
}  # fmt: skip


@pytest.fixture
def configured(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    for name, value in {**FOUR, "ENDPOINT": sandbox.url}.items():
        monkeypatch.setenv(PREFIX + name, value)
    return sandbox


def run(capsys: Any, *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(argv)
    out = capsys.readouterr()
    said = (out.out + out.err).lower()
    assert not [text for text in (*CANARIES, "sekret") if text in said]
    return code, out.out, out.err


def run_json(capsys: Any, *argv: str) -> tuple[int, Any]:
    code, out, _ = run(capsys, *argv, "--json")
    return code, json.loads(out)


def results(found: Any) -> dict[str, str]:
    return {one["provider"]: one["result"] for one in found["credentials"]}


def test_good_credentials_are_told_by_each_platforms_test_facility(configured: Sandbox, capsys: Any) -> None:
    code, found = run_json(capsys, "check")
    assert (code, results(found)) == (0, {**dict.fromkeys(("meta", "tiktok", "reddit"), "good"), "ga4": "unproven"})
    assert found["environment"] == "staging (test)"
    assert configured.refused() == []
    paths = {one["provider"]: one["path"].partition("?")[0] for one in configured.requests}
    assert paths["ga4"] == "/ga4/debug/mp/collect"
    marks = [
        mark
        for one in configured.requests
        for key, mark in one["envelope"].items()
        if key in ("test_event_code", "test_id")
    ]
    assert sorted(marks) == ["TEST1", "TEST2", "a2_123"]
    names = {one["event"].get("event_name") or one["event"].get("event") for one in configured.events()} - {None}
    assert names == {"EventFlowsCheck"}


def test_what_ga4_cannot_verify_is_said(configured: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its validation server takes any secret."""
    monkeypatch.setenv(PREFIX + "GA4_API_SECRET", "wrong-sekret")
    code, out, _ = run(capsys, "check", "--provider", "ga4")
    assert code == 0
    assert "does not prove: api_secret and the stream's id" in out


@pytest.mark.parametrize("provider", ["meta", "tiktok", "reddit"])
def test_wrong_credentials_are_found(
    provider: str, configured: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}{provider.upper()}_ACCESS_TOKEN", "expired-sekret")
    code, found = run_json(capsys, "check")
    assert (code, results(found)[provider]) == (1, "wrong")
    assert {name: result for name, result in results(found).items() if result != "good"} == {
        provider: "wrong",
        "ga4": "unproven",
    }


def test_a_platform_that_does_not_answer_is_a_problem(configured: Sandbox, capsys: Any) -> None:
    configured.fault("tiktok", status=503)
    code, found = run_json(capsys, "check")
    assert (code, results(found)["tiktok"]) == (1, "no answer")


def test_without_a_test_code_nothing_is_sent(configured: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer says how to get one; and `--test-code` gives one for this check only."""
    monkeypatch.delenv(PREFIX + "META_TEST_CODE")
    code, found = run_json(capsys, "check", "--provider", "meta")
    assert (code, results(found)) == (0, {"meta": "untested"})
    assert "Test Events" in found["credentials"][0]["told"]
    assert configured.requests == []
    code, found = run_json(capsys, "check", "--provider", "meta", "--test-code", "meta=TEST9")
    assert (code, results(found)) == (0, {"meta": "good"})
    assert run(capsys, "check", "--test-code", "nobody=1")[0] == 2


def test_offline_sends_nothing(configured: Sandbox, capsys: Any) -> None:
    code, out, _ = run(capsys, "check", "--offline")
    assert (code, configured.requests) == (0, [])
    assert "from" in out


def test_a_version_that_ends_soon_is_a_problem(
    configured: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eventflows.providers import meta

    monkeypatch.setenv(PREFIX + "META_API_VERSION", "v21.0")
    monkeypatch.setitem(meta.VERSIONS, "v21.0", meta.date(2020, 1, 1))  # type: ignore[index, arg-type]
    code, out, _ = run(capsys, "check", "--offline")
    assert code == 1
    assert "meta: API v21.0 has ended on 2020-01-01" in out


def test_storage_that_cannot_be_written_is_a_problem(
    configured: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for folder, expected in (
        (tmp_path / "new" / "folder", 0),
        (tmp_path / "file", 1),
        (tmp_path / "file" / "below", 1),
    ):
        monkeypatch.setenv(PREFIX + "SENDING_QUEUE_STORAGE", str(folder))
        assert run(capsys, "check", "--offline")[0] == expected, folder
    assert not (tmp_path / "new").exists()


def test_wrong_settings_are_told_and_nothing_is_sent(
    configured: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + "META_PIXEL_IDD", "1")
    code, out, err = run(capsys, "check")
    assert (code, out) == (2, "")
    assert "META_PIXEL_IDD" in err
    assert configured.requests == []


def test_everything_that_needs_settings_takes_a_file(
    sandbox: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its secrets come from the environment, its storage folder is the one that is read."""
    monkeypatch.setenv("META_TOKEN", "sekret")
    file = tmp_path / "eventflows.yaml"
    file.write_text(
        "providers:\n  meta: {pixel_id: '123', access_token: '${META_TOKEN}', test_code: T1}\n"
        f"endpoint: {sandbox.url}\nsending_queue: {{storage: {tmp_path / 'storage'}}}\n"
    )
    given = ("--config", str(file))
    code, found = run_json(capsys, "check", *given)
    assert (code, results(found)) == (1, {"meta": "good"})  # a test code where it is live
    assert found["storage"] == str(tmp_path / "storage")
    assert run_json(capsys, "send", "Lead", "-a", "user.email=a@b.example", *given)[0] == 0
    assert run(capsys, "render", "Lead", "-a", "user.email=a@b.example", *given)[0] == 0
    (tmp_path / "storage").mkdir()
    assert run(capsys, "dead-letters", "list", *given) == (0, "There are no dead letters.\n", "")
    assert run(capsys, "show", "1", *given)[0] == 1
    file.write_text("providers:\n  meta: {pixel: '123'}\n")
    code, out, err = run(capsys, "check", *given)
    assert (code, out) == (2, "")
    assert "eventflows.yaml, line 2: providers.meta.pixel" in err
    code, found = run_json(capsys, "check", *given)
    assert code == 2
    assert {(one["path"], one["line"]) for one in found["problems"]} >= {("providers.meta.pixel", 2)}


def test_without_any_settings_it_says_how_to_give_some(capsys: Any) -> None:
    for command in (("check",), ("send", "Lead")):
        code, _, err = run(capsys, *command)
        assert code == 2
        assert "--config FILE" in err


# --- send


def attributes(**given: Any) -> list[str]:
    listed = {**PERSON, "url": "https://shop.example/", "client.address": "203.0.113.7", "user_agent": "x", **given}
    return [part for key, value in listed.items() for part in ("-a", f"{key}={value}")]


@pytest.fixture
def live(configured: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    for name in ("META_TEST_CODE", "TIKTOK_TEST_CODE", "REDDIT_TEST_MODE", "ENVIRONMENTS", "ENVIRONMENT"):
        monkeypatch.delenv(PREFIX + name)
    return configured


def test_send_prints_each_platforms_answer(live: Sandbox, capsys: Any) -> None:
    code, found = run_json(capsys, "send", "Purchase", *attributes(value=49.99, currency="EUR", order_id="0070331"))
    assert (code, found["id"]) == (0, "purchase-0070331")
    told = {one["provider"]: one for one in found["results"]}
    assert {name: (one["status"], one["attempts"]) for name, one in told.items()} == dict.fromkeys(
        ("meta", "ga4", "tiktok", "reddit"), ("delivered", 1)
    )
    assert told["meta"]["answer"]["events_received"] == 1
    assert told["ga4"]["http_status"] == 204
    (event,) = live.events("meta")
    assert event["event"]["custom_data"]["value"] == 49.99
    code, out, _ = run(capsys, "send", "Lead", *attributes(), "--provider", "meta")
    assert code == 0
    assert '"events_received": 1' in out


def test_send_goes_on_where_a_platform_says_not_now(live: Sandbox, capsys: Any) -> None:
    live.fault("meta", status=503, times=1)
    live.fault("reddit", status=503, times=10)
    code, found = run_json(capsys, "send", "Lead", *attributes(), "--timeout", "3s")
    told = {one["provider"]: one for one in found["results"]}
    assert (code, told["meta"]["status"], told["meta"]["attempts"]) == (1, "delivered", 2)
    assert (told["reddit"]["status"], told["reddit"]["reason"]) == ("not sent", "HTTP 503")


def test_send_tells_what_is_filtered_refused_and_left_out(
    live: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + "META_ACCESS_TOKEN", "expired-sekret")
    given = attributes(value=5, currency="crowns", **{"conversion.exclude_providers": '["tiktok"]'})
    code, out, _ = run(capsys, "send", "Purchase", *given, "--provider", "meta", "--provider", "tiktok")
    assert code == 1
    assert "in conversion.exclude_providers" in out
    assert "a purchase needs value and currency" in out
    assert "left out: currency: not an ISO 4217 code" in out
    code, found = run_json(capsys, "send", "Lead", *attributes(), "--provider", "meta")
    assert (code, found["results"][0]["status"], found["results"][0]["http_status"]) == (1, "not sent", 401)


def test_send_from_a_file_and_by_the_test_facilities(live: Sandbox, capsys: Any, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(json.dumps({"name": "Lead", "attributes": {"user.email": "a@b.example", "event_id": "e1"}}))
    code, found = run_json(capsys, "send", str(file), "--test")
    told = {one["provider"]: one for one in found["results"]}
    assert (code, found["id"], told["ga4"]["status"], told["meta"]["status"]) == (1, "e1", "delivered", "not sent")
    assert {one["path"].partition("?")[0] for one in live.requests} == {"/ga4/debug/mp/collect"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("Lead", "not JSON"),
        ('["Lead"]', "must be an object such as"),
        ('{"attributes": {}}', "must be an object such as"),
        ('{"name": "Lead", "atributes": {}}', "no such key 'atributes'; allowed: name, attributes, timestamp"),
        ('{"name": "Lead", "attributes": []}', "attributes must be an object"),
        ('{"name": "Lead", "timestamp": "soon"}', "timestamp must be Unix time in nanoseconds"),
    ],
)
def test_an_event_that_is_none_is_one_clear_error(content: str, told: str, capsys: Any, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(content)
    assert main(["render", str(file)]) == 2
    assert f"eventflows: {file}: {told}" in capsys.readouterr().err


def test_an_answer_that_repeats_the_secret_is_masked(live: Sandbox, capsys: Any) -> None:
    live.fault("meta", status=400, body={"error": {"message": "bad token sekret-m", "code": 190}})
    code, found = run_json(capsys, "send", "Lead", *attributes(), "--provider", "meta")
    assert (code, found["results"][0]["answer"]["error"]["message"]) == (1, "bad token ***")


def test_send_and_render_know_the_resource(
    live: Sandbox, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A condition on it decides as in the app."""
    file = tmp_path / "c.yaml"
    file.write_text(
        f"endpoint: {live.url}\nproviders:\n  meta:\n    pixel_id: '1'\n    access_token: x\n"
        "    when: 'service.name == \"shop\"'\n"
    )
    for name, expected in (("shop", ("delivered", "ready")), ("blog", ("filtered", "filtered"))):
        monkeypatch.setenv("OTEL_SERVICE_NAME", name)
        sent = run_json(capsys, "send", "Lead", *attributes(), "--config", str(file))[1]["results"][0]["status"]
        shown = run_json(capsys, "render", "Lead", *attributes(), "--config", str(file))[1][0]["status"]
        assert (sent, shown) == expected


DECLARATIVE = """
file_format: "1.0"
logger_provider:
  processors:
    - simple:
        exporter:
          eventflows:
            providers:
              ga4: {{measurement_id: G-1, api_secret: sekret, endpoint: "{url}/ga4"}}
tracer_provider:
  sampler: {{always_off: }}
  processors:
    - simple: {{exporter: {{console: }}}}
instrumentation/development:
  python:
    eventflows: {{}}
"""


def test_under_opentelemetry_instrument_the_wiring_is_known(sandbox: Sandbox, tmp_path: Path) -> None:
    """Also with OpenTelemetry's declarative file, where the environment holds no setting of ours."""
    pytest.importorskip("opentelemetry.configuration", reason="needs opentelemetry-configuration, from SDK 1.44 on")
    (tmp_path / "otel.yaml").write_text(DECLARATIVE.format(url=sandbox.url))
    done = subprocess.run(
        ["opentelemetry-instrument", "eventflows", "check", "--json"],
        env=environment(OTEL_CONFIG_FILE=str(tmp_path / "otel.yaml")),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert results(found) == {"ga4": "unproven"}
    assert any("on all spans, by the instrumentor" in way for way in found["ways_in"])

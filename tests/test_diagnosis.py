"""The diagnosis at start: what is said of settings, wiring and API versions, and where it is said."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import date, timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased

import eventflows
from eventflows import (
    ConsoleProvider,
    EventFlowsInstrumentor,
    EventFlowsLogRecordExporter,
    GA4Provider,
    MetaProvider,
    RedditProvider,
    TikTokProvider,
    config,
    running,
)
from eventflows.diagnosis import WARN_DAYS, Diagnosis, Wiring, diagnose
from eventflows.providers.base import Provider
from eventflows.providers.meta import VERSIONS
from eventflows.sandbox import Sandbox
from eventflows.survey import diagnosis_of
from tests.conftest import environment

TODAY = date(2026, 11, 25)
CLEAN = Wiring(logs="processor", spans="processor", instrumentor=True, sampler="AlwaysOnSampler")


def diagnosed(
    *providers: Provider, mode: str = "live", wiring: Wiring = CLEAN, today: date = TODAY, **options: Any
) -> Diagnosis:
    built = config.settings(list(providers) or [ConsoleProvider()], **options)
    return diagnose(built, mode, None, wiring, today)


def warnings(found: Diagnosis) -> list[str]:
    return [one.text for one in found.findings if one.level == "warning"]


def test_a_clean_set_up_has_nothing_to_mend() -> None:
    found = diagnosed(MetaProvider("1", "sekret"), GA4Provider("G-1", "sekret"), sending_queue={"storage": "/tmp/x"})  # noqa: S108
    assert found.findings == ()
    text = "\n".join(found.lines())
    assert "meta  API v26.0, live" in text
    assert "/tmp/x" in text  # noqa: S108
    assert "sekret" not in text + str(found.as_json())


@pytest.mark.parametrize(
    ("days", "said"),
    [(WARN_DAYS + 1, None), (WARN_DAYS, "in 90 days"), (1, "in 1 days"), (0, "has ended"), (-400, "has ended")],
)
def test_the_end_of_an_api_version_is_told_in_time(days: int, said: str | None) -> None:
    ends = VERSIONS["v22.0"]
    assert ends is not None
    found = warnings(diagnosed(MetaProvider("1", "x", api_version="v22.0"), today=ends - timedelta(days)))
    if said is None:
        assert found == []
    else:
        (warning,) = found
        assert said in warning
        assert "meta: API v22.0" in warning
        assert "set api_version to v26.0" in warning


def test_the_version_and_its_end_are_shown() -> None:
    (destination,) = diagnosed(MetaProvider("1", "x", api_version="v25.0")).destinations
    assert destination.api == "API v25.0 until 2028-07-29"


def test_what_the_sampler_drops_is_lost_without_the_instrumentor() -> None:
    wired = Wiring(logs="processor", spans="processor", sampler="TraceIdRatioBased{0.1}")
    (warning,) = warnings(diagnosed(wiring=wired))
    assert "TraceIdRatioBased{0.1}" in warning
    assert warnings(diagnosed(wiring=Wiring(logs="processor", spans="processor", sampler="AlwaysOnSampler"))) == []


def test_short_attribute_limits_cut_digests() -> None:
    def limited(length: int) -> list[str]:
        return [
            one.level for one in diagnosed(wiring=Wiring(instrumentor=True, length_limits=(("x", length),))).findings
        ]

    assert [limited(length) for length in (63, 64, 1023, 1024)] == [["warning"], ["note"], ["note"], []]


@pytest.mark.parametrize("proxies", ["0.0.0.0/0", "::/0"])
def test_proxies_that_are_everybody(proxies: str) -> None:
    (warning,) = warnings(diagnosed(visitor={"trusted_proxies": [proxies]}))
    assert proxies in warning
    assert warnings(diagnosed(visitor={"trusted_proxies": ["private"]})) == []


def test_tests_in_a_live_environment_and_none_in_a_test_environment() -> None:
    testing = [MetaProvider("1", "x", test_code="T"), GA4Provider("G-1", "x", test_mode=True)]
    assert [text.partition(":")[0] for text in warnings(diagnosed(*testing))] == ["meta", "ga4"]
    found = diagnosed(*testing, TikTokProvider("c", "x"), RedditProvider("a", "x", test_mode=True), mode="test")
    assert warnings(found) == []
    assert {one.provider: one.mode for one in found.destinations} == {
        "meta": "test", "ga4": "test", "tiktok": "logged only", "reddit": "test",
    }  # fmt: skip
    assert ["tiktok: set test_code" in one.text for one in found.findings] == [True]


# --- in a process


def test_configure_tells_it_as_one_block_and_its_warnings_by_themselves(caplog: pytest.LogCaptureFixture) -> None:
    trace.set_tracer_provider(TracerProvider(sampler=TraceIdRatioBased(0.5)))
    with caplog.at_level(logging.INFO, "eventflows"):
        eventflows.configure([MetaProvider("1", "sekret"), ConsoleProvider()])
        (block,) = (one for one in caplog.records if "environment:" in one.getMessage())
        assert block.name == "eventflows"
        assert block.getMessage().count("\n") >= 5
        caplog.clear()
        EventFlowsInstrumentor().instrument()
        try:
            (line,) = (one.getMessage() for one in caplog.records)
            assert line == "EventFlows takes conversions from span.add_event: on all spans, by the instrumentor"
        finally:
            EventFlowsInstrumentor().uninstrument()
    assert "sekret" not in caplog.text


def test_what_the_instrumentor_mends_is_a_warning_once_a_conversion_came_without_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may be switched on in the line after `configure`, and then there is nothing to mend."""
    trace.set_tracer_provider(TracerProvider(sampler=TraceIdRatioBased(0.5)))

    def record() -> None:
        for _ in range(2):
            eventflows.get_tracer("app").add_event("Lead", {"user.id": "u1"})
            assert eventflows.force_flush(5_000)

    eventflows.configure([ConsoleProvider()])
    EventFlowsInstrumentor().instrument()
    try:
        record()
    finally:
        EventFlowsInstrumentor().uninstrument()
    assert "sampler" not in caplog.text
    eventflows.shutdown()
    eventflows.configure([ConsoleProvider()])
    assert "sampler" not in caplog.text
    record()
    assert caplog.text.count("sampler drops") == 1


@pytest.mark.parametrize(("kind", "way"), [(SimpleLogRecordProcessor, "simple"), (BatchLogRecordProcessor, "batch")])
def test_an_exporter_is_found_behind_its_processor(kind: Any, way: str) -> None:
    logs = LoggerProvider()
    logs.add_log_record_processor(kind(EventFlowsLogRecordExporter(providers={"console": {}})))
    set_logger_provider(logs)
    pipeline = running.current()
    assert pipeline is not None
    found = diagnosis_of(pipeline)
    assert any(f"behind a {way} processor" in one for one in found.ways_in)
    assert any("behind a batch processor" in one for one in warnings(found)) == (way == "batch")
    logs.shutdown()


def test_limits_of_the_sdk_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "32")
    set_logger_provider(LoggerProvider())
    trace.set_tracer_provider(
        TracerProvider(sampler=ParentBased(ALWAYS_ON), span_limits=SpanLimits(max_attribute_length=40))
    )
    found = diagnosis_of(eventflows.configure([ConsoleProvider()]))
    said = sorted(warnings(found))
    assert [text[:48] for text in said] == [
        "the length limit of log attributes is 32: it cut",
        "the length limit of span attributes is 40: it cu",
    ]


def test_the_environments_name_comes_from_the_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    pipeline = eventflows.configure([GA4Provider("G-1", "x")], environments={"staging": "test"})
    assert diagnosis_of(pipeline).environment == "staging (test)"


def test_the_block_waits_for_somebody_who_reads_it(caplog: pytest.LogCaptureFixture) -> None:
    """Under opentelemetry-instrument the app sets up its logging later."""
    caplog.set_level(logging.WARNING, "eventflows")
    eventflows.configure([ConsoleProvider()])
    assert "environment:" not in caplog.text
    caplog.set_level(logging.INFO, "eventflows")
    for _ in range(2):
        eventflows.get_tracer("app").add_event("Lead", {"user.email": "a@b.example"})
        assert eventflows.force_flush(5_000)
    assert caplog.text.count("environment:") == 1


def test_the_block_comes_again_when_the_settings_have_changed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "eventflows")
    pipeline = eventflows.configure([ConsoleProvider()])
    for times in (1, 2):
        for _ in range(2):
            EventFlowsInstrumentor().instrument()
            EventFlowsInstrumentor().uninstrument()
            assert caplog.text.count("environment:") == times
        pipeline.reload([ConsoleProvider(), ConsoleProvider(name="console/other")])


APP = """
import logging
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
from opentelemetry import trace
with trace.get_tracer("a").start_as_current_span("x") as span:
    span.add_event("Purchase", {"value": 1, "currency": "EUR", "user.email": "a@b.example"})
"""


def test_with_nothing_but_environment_variables(sandbox: Sandbox) -> None:
    """opentelemetry-instrument: the app's log has the block, and the instrumentor catches what the sampler drops."""
    env = environment(
        OTEL_LOGS_EXPORTER="eventflows", OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none",
        OTEL_TRACES_SAMPLER="always_off", OTEL_EXPORTER_EVENTFLOWS_ENDPOINT=sandbox.url,
        OTEL_EXPORTER_EVENTFLOWS_META_PIXEL_ID="1", OTEL_EXPORTER_EVENTFLOWS_META_ACCESS_TOKEN="sekret",
    )  # fmt: skip
    argv = ["opentelemetry-instrument", sys.executable, "-c", APP]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "INFO eventflows: EventFlows " in done.stderr
    assert "meta  API v26.0, live" in done.stderr
    assert "on all spans, by the instrumentor" in done.stderr
    assert "WARNING" not in done.stderr
    assert "sekret" not in done.stderr
    assert len(sandbox.events("meta")) == 1

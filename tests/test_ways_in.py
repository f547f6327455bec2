"""Every way in, through real SDK pipelines and real sockets: each conversion arrives once at each platform, and sealed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import get_logger, get_logger_provider, set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import eventflows
from eventflows import EventFlowsInstrumentor, EventType
from eventflows.instrumentation import EventFlowsTracer
from eventflows.pipeline import Pipeline
from eventflows.sandbox import Sandbox
from tests.conftest import CANARIES, PERSON, environment, five, four

PURCHASE: dict[str, Any] = {
    "value": 49.99,
    "currency": "USD",
    "order_id": "70331",
    "url.full": "https://shop.example/thanks",
    "client.address": "198.51.100.24",
    "user_agent.original": "Mozilla/5.0",
    "plan_type": "annual",
    **PERSON,
}


def arrived(sandbox: Sandbox) -> dict[str, int]:
    """How many events each platform accepted; none may have been refused."""
    assert sandbox.refused() == []
    counts: dict[str, int] = {}
    for entry in sandbox.events():
        counts[entry["provider"]] = counts.get(entry["provider"], 0) + 1
    return counts


ONE_EACH = {"meta": 1, "ga4": 1, "tiktok": 1, "reddit": 1}


def by_tracer() -> None:
    eventflows.get_tracer(__name__).add_event("Purchase", PURCHASE)


def by_log_record() -> None:
    get_logger("app").emit(event_name="Purchase", attributes=PURCHASE)


def by_span_event() -> None:
    with trace.get_tracer("app").start_as_current_span("order") as span:
        span.add_event("Purchase", PURCHASE)


def by_tracker() -> None:
    assert eventflows.tracker.track("Purchase", properties=PURCHASE)


@pytest.mark.parametrize("way", [by_tracer, by_log_record, by_span_event, by_tracker])
def test_each_way_delivers_once_to_each_platform(
    way: Any, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = eventflows.configure(five(sandbox.url))
    way()
    assert eventflows.force_flush(10_000)
    assert arrived(sandbox) == ONE_EACH
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert all((s.captured, s.delivered, s.pending) == (1, 1, 0) for s in pipeline.stats().values())


def test_the_same_conversion_by_four_ways_counts_once(sandbox: Sandbox) -> None:
    """The order id makes the id, which is the same on every way."""
    pipeline = eventflows.configure(four(sandbox.url))
    for way in (by_span_event, by_tracer, by_log_record, by_tracker):
        way()
    assert eventflows.force_flush(10_000)
    assert arrived(sandbox) == ONE_EACH
    assert pipeline.duplicates == 3


def test_an_apps_own_providers_are_used_and_others_see_only_sealed_records(sandbox: Sandbox) -> None:
    """Our log processor goes first, although the app's exporter was registered before."""
    records, spans = InMemoryLogRecordExporter(), InMemorySpanExporter()
    logs, traces = LoggerProvider(), TracerProvider()
    logs.add_log_record_processor(SimpleLogRecordProcessor(records))
    traces.add_span_processor(SimpleSpanProcessor(spans))
    set_logger_provider(logs)
    trace.set_tracer_provider(traces)
    eventflows.configure(four(sandbox.url))
    assert get_logger_provider() is logs
    by_tracer()
    get_logger("app").emit(event_name="Lead", attributes=PURCHASE)
    get_logger("app").emit(event_name="cache.miss", attributes={"key": "v"})
    assert eventflows.force_flush(10_000)
    assert arrived(sandbox) == dict.fromkeys(ONE_EACH, 2)
    finished = records.get_finished_logs()
    assert [r.log_record.event_name for r in finished] == ["Purchase", "Lead", "cache.miss"]
    assert dict(finished[2].log_record.attributes or {}) == {"key": "v"}
    shown = "".join(record.to_json() for record in finished).lower()
    assert "conversion.sealed.email.lower" in shown
    assert not [canary for canary in CANARIES if canary in shown]


def test_the_instrumentor_catches_span_events_that_sampling_drops(sandbox: Sandbox) -> None:
    """And gives add_event to tracers made before it; `uninstrument` restores everything."""
    trace.set_tracer_provider(TracerProvider(sampler=ALWAYS_OFF))
    before = trace.get_tracer("before")
    eventflows.configure(four(sandbox.url))
    originals = (trace.NonRecordingSpan.add_event, hasattr(trace.Tracer, "add_event"))
    EventFlowsInstrumentor().instrument()
    try:
        by_span_event()
        before.add_event("Lead", PURCHASE)  # type: ignore[attr-defined]
        with before.start_as_current_span("x") as span:
            span.add_event("cache.miss", {"key": 1})
    finally:
        EventFlowsInstrumentor().uninstrument()
    assert (trace.NonRecordingSpan.add_event, hasattr(trace.Tracer, "add_event")) == originals
    assert eventflows.force_flush(10_000)
    assert arrived(sandbox) == dict.fromkeys(ONE_EACH, 2)


def test_the_instrumentor_seals_conversions_on_recorded_spans(sandbox: Sandbox) -> None:
    spans = InMemorySpanExporter()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(traces)
    eventflows.configure(four(sandbox.url))
    EventFlowsInstrumentor().instrument()
    try:
        by_span_event()
    finally:
        EventFlowsInstrumentor().uninstrument()
    assert eventflows.force_flush(10_000)
    assert arrived(sandbox) == ONE_EACH
    shown = "".join(span.to_json() for span in spans.get_finished_spans()).lower()
    assert "conversion.sealed.email.lower" in shown
    assert not [canary for canary in CANARIES if canary in shown]


def test_a_tracer_with_add_event_is_an_ordinary_tracer() -> None:
    tracer = eventflows.get_tracer("app", "1.0")
    assert isinstance(tracer, trace.Tracer)
    assert isinstance(tracer, EventFlowsTracer)
    with tracer.start_as_current_span("works") as span:
        assert span is trace.get_current_span()


def test_without_configuration_an_event_is_lost_with_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        eventflows.get_tracer("app").add_event("Purchase", PURCHASE)
    assert sum("configure" in record.message for record in caplog.records) <= 1


def test_the_classic_facade_as_the_documentation_writes_it(sandbox: Sandbox) -> None:
    for provider in four(sandbox.url):
        eventflows.tracker.add_provider(provider)
    assert eventflows.tracker.track(
        name="ProSubscription",
        event_type=EventType.PURCHASE,
        user_data={"email": " User@Example.com ", "ip_address": "192.168.1.1"},
        properties={"value": 49.99, "currency": "USD", "plan_type": "annual"},
        event_id="ORD-9999",
        exclude_providers=["reddit"],
    )
    assert eventflows.tracker.flush(10_000)
    assert eventflows.tracker.shutdown(10_000)
    assert arrived(sandbox) == {"meta": 1, "ga4": 1, "tiktok": 1}
    meta = sandbox.events("meta")[0]["event"]
    assert (
        meta["event_name"],
        meta["event_id"],
        meta["custom_data"]["plan_type"],
    ) == ("Purchase", "ORD-9999", "annual")


@pytest.mark.parametrize("user_data", [None, {}, {"email": 5}, {"nonsense": "x"}, {"email": object()}, 7])
def test_track_returns_a_bool_and_never_raises(user_data: Any, sandbox: Sandbox) -> None:
    eventflows.configure(four(sandbox.url))
    assert isinstance(eventflows.tracker.track("Purchase", user_data=user_data, properties={"value": 1}), bool)


def test_what_track_is_not_told_of_the_user_is_taken_from_the_properties(sandbox: Sandbox) -> None:
    eventflows.configure(four(sandbox.url))
    eventflows.tracker.track("Lead", user_data={"email": None}, properties=PURCHASE, providers="meta")
    assert eventflows.force_flush(10_000)
    assert sandbox.events("meta")[0]["event"]["user_data"]["em"]


def test_tracks_providers_may_be_one_string(sandbox: Sandbox) -> None:
    eventflows.configure(four(sandbox.url))
    eventflows.tracker.track("Lead", properties=PURCHASE, exclude_providers="meta, ga4", event_id="1")
    eventflows.tracker.track("Lead", properties=PURCHASE, providers="meta", event_id="2")
    assert eventflows.force_flush(10_000)
    assert arrived(sandbox) == {"tiktok": 1, "reddit": 1, "meta": 1}


def test_destinations_are_filtered_per_event_and_per_provider(sandbox: Sandbox) -> None:
    """By id or by type, with the reason counted."""
    from dataclasses import replace

    providers = four(sandbox.url)
    providers[1] = replace(providers[1], events=["purchase", "LampConfigured"])
    pipeline: Pipeline = eventflows.configure(providers)
    tracer = eventflows.get_tracer("app")
    tracer.add_event("Lead", {**PURCHASE, "conversion.providers": ["meta", "ga4"]})
    tracer.add_event("Lamp configured", {**PURCHASE, "conversion.exclude_providers": ["TIKTOK"]})
    tracer.add_event("Contact", {**PURCHASE, "conversion.consent.ad_user_data": "denied"})
    assert eventflows.force_flush(10_000)
    assert arrived(sandbox) == {"meta": 2, "ga4": 1, "reddit": 1}
    stats = pipeline.stats()
    assert stats["ga4"].filtered == {"not among the provider's events": 2}
    assert stats["meta"].filtered == {"consent: ad_user_data denied": 1}
    assert sum(stats["tiktok"].filtered.values()) == 3


PROGRAM = """
import sys
from opentelemetry._logs import get_logger
from opentelemetry import trace
attributes = {"value": 5, "currency": "EUR", "order_id": "1", "user.email": "zoe@example.com",
              "client.address": "198.51.100.24", "user_agent.original": "Mozilla/5.0", "url.full": "https://shop.example/"}
get_logger("app").emit(event_name="Purchase", attributes=attributes)
with trace.get_tracer("app").start_as_current_span("x") as span:
    span.add_event("Purchase", attributes)
    span.add_event("Lead", attributes)
"""


@pytest.mark.parametrize("signals", [["logs", "traces"], ["traces"], ["logs"]])
def test_opentelemetry_instrument_with_nothing_but_environment_variables(signals: list[str], sandbox: Sandbox) -> None:
    """The exporters are found by their entry points, share one pipeline, and deliver before the process ends."""
    exporters = {
        f"OTEL_{s.upper()}_EXPORTER": "eventflows" if s in signals else "none" for s in ("logs", "traces", "metrics")
    }
    variables = environment(
        **exporters,
        OTEL_EXPORTER_EVENTFLOWS_ENDPOINT=sandbox.url,
        OTEL_EXPORTER_EVENTFLOWS_META_PIXEL_ID="123",
        OTEL_EXPORTER_EVENTFLOWS_META_ACCESS_TOKEN="abc",
        OTEL_EXPORTER_EVENTFLOWS_REDDIT_PIXEL_ID="a2_1",
        OTEL_EXPORTER_EVENTFLOWS_REDDIT_ACCESS_TOKEN="abc",
    )
    done = subprocess.run(
        ["opentelemetry-instrument", sys.executable, "-c", PROGRAM],
        env=variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = sorted(entry["event"]["event_name"] for entry in sandbox.events("meta"))
    assert names == ["Lead", "Purchase"], json.dumps(sandbox.refused()) + done.stderr
    assert len(sandbox.events("reddit")) == 2


def test_a_conversion_that_cannot_be_captured_shows_nobody(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail closed: other exporters then see the event without its person."""
    records, spans = InMemoryLogRecordExporter(), InMemorySpanExporter()
    logs, traces = LoggerProvider(), TracerProvider()
    logs.add_log_record_processor(SimpleLogRecordProcessor(records))
    traces.add_span_processor(SimpleSpanProcessor(spans))
    eventflows.configure(four(sandbox.url), logger_provider=logs, tracer_provider=traces)
    trace.set_tracer_provider(traces)
    EventFlowsInstrumentor().instrument()

    def broken(*_: Any) -> None:
        raise KeyError("inside")

    monkeypatch.setattr("eventflows.reader.seal", broken)
    try:
        logs.get_logger("app").emit(event_name="Purchase", attributes=PURCHASE)
        by_span_event()
    finally:
        EventFlowsInstrumentor().uninstrument()
    shown = "".join(
        [r.to_json() for r in records.get_finished_logs()] + [s.to_json() for s in spans.get_finished_spans()]
    )
    assert shown.count("annual") == 2
    assert not [canary for canary in CANARIES if canary in shown.lower()]


ACME = """
from dataclasses import dataclass
from eventflows.providers.base import Encoded, Provider, Request, Status, all_of

@dataclass(frozen=True, repr=False)
class AcmeProvider(Provider):
    key: str
    TYPE, URL, REQUIRED, SECRETS = "acme", "https://acme.invalid", ("key",), ("key",)
    STANDARD_EVENTS = frozenset({"lamp_lit"})

    def encode(self, conversion):
        return Encoded({"name": conversion.name})

    def request(self, batch):
        return Request("POST", self.base_url + "/v1", {}, ["events"])

    def outcomes(self, response, batch):
        return all_of(batch, Status.DELIVERED)
"""


def test_another_packages_provider_is_found_by_its_entry_point(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is configured by its type, and its standard events are recognised."""
    (tmp_path / "acme_eventflows.py").write_text(ACME)
    (tmp_path / "acme-1.dist-info").mkdir()
    (tmp_path / "acme-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (tmp_path / "acme-1.dist-info" / "entry_points.txt").write_text(
        "[eventflows_provider]\nacme = acme_eventflows:AcmeProvider\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    pipeline = eventflows.configure({"acme": {"key": "k", "events": ["purchase"]}})
    assert pipeline.record("Lamp lit", {}) is not None
    assert pipeline.record("cache.miss", {}) is None
    monkeypatch.setenv("OTEL_EXPORTER_EVENTFLOWS_ACME_KEY", "k")
    from eventflows import config

    assert [provider.name for provider in config.from_environment().providers] == ["acme"]


DECLARATIVE = """
file_format: "1.0"
resource:
  attributes:
    - {name: deployment.environment.name, value: production}
tracer_provider:
  sampler: {always_off: {}}
  processors:
    - simple: {exporter: {console: {}}}
logger_provider:
  processors:
    - simple: {exporter: {console: {}}}
    - simple:
        exporter:
          eventflows:
            providers:
              meta: {pixel_id: "123", access_token: "${TOKEN}"}
              reddit: {pixel_id: a2_1, access_token: "${TOKEN}"}
            endpoint: "${SANDBOX}"
            environments: {production: live, "*": test}
            visitor: {trusted_proxies: [private]}
instrumentation/development:
  python:
    eventflows: {frameworks: true}
"""


def test_opentelemetrys_declarative_file_alone(sandbox: Sandbox, tmp_path: Any) -> None:
    """Exporter and instrumentor from the file: every way is caught at 0 % sampling, and the console before us sees digests."""
    pytest.importorskip("opentelemetry.configuration", reason="needs opentelemetry-configuration, from SDK 1.44 on")
    (tmp_path / "otel.yaml").write_text(DECLARATIVE)
    variables = environment(OTEL_CONFIG_FILE=str(tmp_path / "otel.yaml"), SANDBOX=sandbox.url, TOKEN="abc")
    done = subprocess.run(
        ["opentelemetry-instrument", sys.executable, "-c", PROGRAM],
        env=variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = sorted(entry["event"]["event_name"] for entry in sandbox.events("meta"))
    assert names == ["Lead", "Purchase"], json.dumps(sandbox.refused()) + done.stderr
    assert len(sandbox.events("reddit")) == 2
    assert "conversion.sealed.email.lower" in done.stdout
    assert "zoe@example.com" not in done.stdout + done.stderr


def test_a_wrong_option_in_the_declarative_file_says_so(tmp_path: Any) -> None:
    pytest.importorskip("opentelemetry.configuration", reason="needs opentelemetry-configuration, from SDK 1.44 on")
    (tmp_path / "otel.yaml").write_text(
        DECLARATIVE.replace("frameworks: true", "framework: true").replace("pixel_id: a2_1", "pixel: a2_1")
    )
    variables = environment(OTEL_CONFIG_FILE=str(tmp_path / "otel.yaml"), SANDBOX="http://127.0.0.1:9", TOKEN="abc")
    done = subprocess.run(
        ["opentelemetry-instrument", sys.executable, "-c", "print('app runs')"],
        env=variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "providers.reddit.pixel: no such setting, did you mean providers.reddit.pixel_id?" in done.stderr

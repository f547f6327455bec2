"""The pipeline over real sockets: accounting, retries, isolation, deadlines, overflow, fork and process exit."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import eventflows
from eventflows import GA4Provider, MetaProvider
from eventflows.conversion import Conversion
from eventflows.pipeline import Pipeline
from eventflows.providers.base import Encoded
from eventflows.sandbox import Sandbox
from eventflows.sealing import Event
from eventflows.stats import ProviderStats
from tests.conftest import CANARIES, PERSON, environment, four

LEAD = {"user.email": "zoe@example.com", "client.address": "198.51.100.24", "user_agent.original": "M"}
FAST = {"initial_interval": "20ms", "max_interval": "100ms"}


def adds_up(stats: ProviderStats) -> bool:
    lost = sum(sum(r.values()) for r in (stats.filtered, stats.refused, stats.expired, stats.dropped))
    return stats.captured == stats.delivered + stats.pending + lost


def meta_only(sandbox: Sandbox, **options: Any) -> Pipeline:
    provider = MetaProvider("123", "abc", endpoint=f"{sandbox.url}/meta")
    return eventflows.configure([provider], **{"retry_on_failure": FAST, **options})


def record(count: int = 1, name: str = "Lead", **attributes: Any) -> None:
    tracer = eventflows.get_tracer("test")
    for _ in range(count):
        tracer.add_event(name, {**LEAD, **attributes})


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_failing_platform_is_tried_again_until_it_answers(status: int, sandbox: Sandbox) -> None:
    pipeline = meta_only(sandbox)
    sandbox.fault("meta", status=status, times=3)
    record(5)
    assert eventflows.force_flush(10_000)
    assert len(sandbox.events("meta")) == 5
    assert (pipeline.stats()["meta"].delivered, pipeline.stats()["meta"].attempts) == (5, 4)


def test_retry_after_is_a_minimum(sandbox: Sandbox) -> None:
    meta_only(sandbox)
    sandbox.fault("meta", status=429, retry_after=1)
    started = time.monotonic()
    record()
    assert eventflows.force_flush(10_000)
    assert time.monotonic() - started >= 1


def test_what_never_succeeds_is_given_up_and_counted(sandbox: Sandbox) -> None:
    pipeline = meta_only(sandbox, retry_on_failure={**FAST, "max_elapsed_time": "300ms"})
    sandbox.fault("meta", status=500, times=1000)
    record(2)
    assert eventflows.force_flush(10_000)
    stats = pipeline.stats()["meta"]
    assert sum(stats.dropped.values()) == 2
    assert adds_up(stats)


class Poisoned(MetaProvider):
    """Sends what Meta refuses for the event with this id."""

    poison: ClassVar[str] = ""

    def encode(self, conversion: Conversion) -> Encoded:
        encoded = super().encode(conversion)
        if conversion.id == self.poison:
            encoded.event["unknown_key"] = 1
        return encoded


@pytest.mark.parametrize("poison", [0, 7, 40])
def test_a_refused_batch_is_sent_again_without_its_poison(poison: int, sandbox: Sandbox) -> None:
    """The good ones arrive exactly once, wherever the bad one stands."""
    Poisoned.poison = f"e{poison}"
    pipeline = eventflows.configure([Poisoned("123", "abc", endpoint=f"{sandbox.url}/meta")])
    for index in range(41):
        record(event_id=f"e{index}")
    assert eventflows.force_flush(10_000)
    stats = pipeline.stats()["meta"]
    assert (stats.delivered, sum(stats.refused.values())) == (40, 1)
    assert {f"e{i}" for i in range(41) if i != poison} == {e["event"]["event_id"] for e in sandbox.events("meta")}
    assert len(sandbox.events("meta")) == 40


def test_a_slow_platform_does_not_delay_the_others(sandbox: Sandbox) -> None:
    pipeline = eventflows.configure(four(sandbox.url))
    sandbox.fault("meta", delay=3, times=5)
    record(3)
    assert not eventflows.force_flush(2_000)
    stats = pipeline.stats()
    assert {name: s.delivered for name, s in stats.items()} == {"meta": 0, "ga4": 3, "tiktok": 3, "reddit": 3}
    assert stats["meta"].pending == 3


@pytest.mark.parametrize("stop", [eventflows.force_flush, eventflows.shutdown])
def test_flush_and_shutdown_return_within_their_timeout_whatever_the_network_does(stop: Any, sandbox: Sandbox) -> None:
    """And shutdown counts what it left as dropped."""
    pipeline = eventflows.configure(four(sandbox.url))
    for name in ("meta", "ga4", "tiktok", "reddit"):
        sandbox.fault(name, delay=5, times=5)
    record(3)
    started = time.monotonic()
    assert not stop(500)
    assert time.monotonic() - started < 1.5  # not a speed limit: without a deadline it takes 20 s
    assert all(adds_up(stats) for stats in pipeline.stats().values())
    if stop is eventflows.shutdown:
        assert {3} == {sum(stats.dropped.values()) for stats in pipeline.stats().values()}


def test_shutdown_interrupts_a_back_off_and_tries_once_more(sandbox: Sandbox) -> None:
    pipeline = meta_only(sandbox, retry_on_failure={"initial_interval": "60s", "max_interval": "60s"})
    sandbox.fault("meta", status=429, retry_after=60)
    record()
    eventflows.force_flush(1_000)
    assert len(sandbox.events("meta")) == 0
    assert eventflows.shutdown(5_000)
    assert 1 == len(sandbox.events("meta")) == pipeline.stats()["meta"].delivered


def test_overflow_drops_the_newest_with_a_count_and_one_log_line(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = meta_only(sandbox, sending_queue={"queue_size": 10, "flush_interval": "10s"})
    for index in range(25):
        record(event_id=f"e{index}")
    assert pipeline.stats()["meta"].dropped == {"queue full": 15}
    assert eventflows.force_flush(10_000)
    assert {f"e{i}" for i in range(10)} == {e["event"]["event_id"] for e in sandbox.events("meta")}
    assert sum("queue full" in line.message for line in caplog.records) == 1


def test_wrong_credentials_pause_the_lane_say_so_once_and_lose_nothing(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events wait until the credentials are right again."""
    monkeypatch.setattr("eventflows.retry.PAUSE_SECONDS", 0.05)
    provider = MetaProvider("123", "token", endpoint=f"{sandbox.url}/meta")
    pipeline = eventflows.configure([provider, replace(provider, name="meta/eu", pixel_id="456")])
    denied = {"error": {"message": "Invalid OAuth access token", "type": "OAuthException", "code": 190}}
    sandbox.fault("meta", status=400, body=denied, times=10)
    record(3)
    assert not eventflows.force_flush(300)
    assert {3} == {stats.pending for stats in pipeline.stats().values()}
    assert eventflows.force_flush(10_000)
    assert {3} == {stats.delivered for stats in pipeline.stats().values()}
    assert sum("credentials refused" in line.message for line in caplog.records) == 2
    assert "token" not in "".join(line.message for line in caplog.records if "credentials" not in line.message)


def test_a_platform_that_is_not_there_loses_nothing_until_it_is(sandbox: Sandbox) -> None:
    """Connections are refused at first; the same events arrive once the server is up."""
    pipeline = meta_only(sandbox)
    port = int(sandbox.url.rpartition(":")[2])
    sandbox.stop()
    record(3)
    assert not eventflows.force_flush(300)
    with Sandbox(port=port) as back:
        assert eventflows.force_flush(10_000)
        assert 3 == len(back.events("meta")) == pipeline.stats()["meta"].delivered


def test_numbers_add_up_at_any_moment_under_many_threads(sandbox: Sandbox) -> None:
    pipeline = eventflows.configure(four(sandbox.url))
    sandbox.fault("meta", status=500, times=2)
    wrong: list[ProviderStats] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            wrong.extend(stats for stats in pipeline.stats().values() if not adds_up(stats))

    watcher = threading.Thread(target=watch)
    watcher.start()
    writers = [threading.Thread(target=record, args=(100,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert eventflows.force_flush(30_000)
    done.set()
    watcher.join()
    assert wrong == []
    assert {400} == {stats.delivered for stats in pipeline.stats().values()}
    assert len(sandbox.events("reddit")) == 400


def test_ga4_groups_by_client_and_keeps_to_25_events(sandbox: Sandbox) -> None:
    pipeline = eventflows.configure([GA4Provider("G-1", "abc", endpoint=f"{sandbox.url}/ga4")])
    for _ in range(30):
        record(**{"conversion.click.ga_client_id": "1.1"})
    for index in range(5):
        record(**{"conversion.click.ga_client_id": f"2.{index + 1}"})
    assert eventflows.force_flush(10_000)
    assert (pipeline.stats()["ga4"].delivered, pipeline.stats()["ga4"].attempts) == (35, 7)
    assert len(sandbox.events("ga4")) == 35


def test_own_requests_are_not_traced_and_carry_no_trace_context(sandbox: Sandbox) -> None:
    from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor

    spans = InMemorySpanExporter()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(spans))
    URLLib3Instrumentor().instrument(tracer_provider=traces)
    try:
        eventflows.configure(four(sandbox.url), tracer_provider=traces)
        with traces.get_tracer("app").start_as_current_span("request"):
            record()
        assert eventflows.force_flush(5_000)
    finally:
        URLLib3Instrumentor().uninstrument()
    # By the app's instrumentation of `urllib3`, that is; our own spans are told apart by their scope.
    traced = [span.name for span in spans.get_finished_spans() if span.instrumentation_scope.name != "eventflows"]
    assert traced == ["request"]
    assert len(sandbox.requests) == 4
    assert not [r for r in sandbox.requests if {"traceparent", "baggage"} & set(r["headers"])]


def test_no_secret_and_no_person_in_logs_reprs_and_statistics(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """Even at debug level, with failures and refusals on the way."""
    caplog.set_level(logging.DEBUG)
    providers = [
        MetaProvider("123", "sekret-token", endpoint=f"{sandbox.url}/meta"),
        GA4Provider("G-1", "sekret-token", endpoint=f"{sandbox.url}/ga4"),
    ]
    pipeline = eventflows.configure(providers, retry_on_failure=FAST)
    sandbox.fault("ga4", status=500)
    tracer = eventflows.get_tracer("app")
    tracer.add_event("Purchase", {**PERSON, "note": PERSON["user.email"], "order_id": "1"})
    tracer.add_event("Lead", {**LEAD, **PERSON})
    assert eventflows.force_flush(10_000)
    assert pipeline.stats()["meta"].refused == {"a purchase needs value and currency": 1}
    said = caplog.text + repr(providers) + repr(pipeline.stats()) + repr(pipeline.settings) + repr(pipeline.left_out)
    for canary in (*CANARIES, "sekret-token"):
        assert canary not in said.lower()
    bodies = repr(sandbox.events()).lower()
    assert not [canary for canary in CANARIES if canary in bodies]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_delivers_its_own_and_the_parent_its_own(sandbox: Sandbox) -> None:
    """The parent's queue is not delivered twice, and the child does not share the parent's connection."""
    meta_only(sandbox, sending_queue={"flush_interval": "10s"})
    record(event_id="warm")
    assert eventflows.force_flush(5_000)
    record(event_id="parent")
    child = os.fork()
    if child == 0:
        record(event_id="child")
        delivered = eventflows.shutdown(5_000)
        os._exit(0 if delivered else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    record(event_id="after")
    assert eventflows.force_flush(5_000)
    assert sorted(e["event"]["event_id"] for e in sandbox.events("meta")) == ["after", "child", "parent", "warm"]


PROGRAM = """
import eventflows
from eventflows import MetaProvider
eventflows.configure([MetaProvider("123", "abc")], endpoint={url!r})
for index in range(50):
    eventflows.get_tracer("script").add_event("Lead", {{"user.email": f"a{{index}}@x.com"}})
"""


def test_a_script_that_just_ends_has_delivered(sandbox: Sandbox) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(url=sandbox.url)],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(sandbox.events("meta")) == 50


def test_events_after_shutdown_are_counted_and_do_not_raise(sandbox: Sandbox) -> None:
    pipeline = meta_only(sandbox)
    assert pipeline.shutdown(5_000)
    assert pipeline.shutdown(5_000)
    record()
    assert pipeline.stats()["meta"].dropped == {"recorded after shutdown": 1}


def test_the_threads_start_with_the_first_conversion(sandbox: Sandbox) -> None:
    before = set(threading.enumerate())
    pipeline = meta_only(sandbox)
    pipeline.record("cache.miss", {})
    assert not [thread.name for thread in set(threading.enumerate()) - before if "EventFlows" in thread.name]
    pipeline.record("Lead", LEAD)
    assert [thread.name for thread in set(threading.enumerate()) - before if "EventFlows" in thread.name]


def test_a_provider_can_be_added_to_the_classic_facade_later(sandbox: Sandbox) -> None:
    meta, ga4, *_ = four(sandbox.url)
    eventflows.tracker.add_provider(meta)
    assert eventflows.tracker.track("Lead", {"email": "a@x.com"})
    eventflows.tracker.add_provider(ga4)
    assert eventflows.tracker.track("Lead", {"email": "a@x.com"})
    assert eventflows.tracker.shutdown(10_000)
    assert (len(sandbox.events("meta")), len(sandbox.events("ga4"))) == (2, 1)


EXIT_PROGRAM = """
import atexit, eventflows
from eventflows import MetaProvider
pipeline = eventflows.configure([MetaProvider("123", "abc")], endpoint={url!r})
atexit.register(lambda: eventflows.get_tracer("script").add_event("Lead", {{"user.email": "a@x.com"}}))
"""


def test_the_first_conversion_of_an_exit_handler_is_delivered(sandbox: Sandbox) -> None:
    """Also where Python starts no more threads at that time (3.12 and newer)."""
    done = subprocess.run(
        [sys.executable, "-c", EXIT_PROGRAM.format(url=sandbox.url)],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(sandbox.events("meta")) == 1


ENDING_PROGRAM = """
import eventflows
from eventflows import MetaProvider
from eventflows.pipeline import Pipeline

def told(name, call):
    def telling(*args):
        print(name)
        return call(*args)
    return telling

Pipeline.force_flush, Pipeline.shutdown = told("flush", Pipeline.force_flush), told("shutdown", Pipeline.shutdown)
eventflows.configure([MetaProvider("123", "abc")], endpoint={url!r})
eventflows.get_tracer("script").add_event("Lead", {{"user.email": "a@x.com"}})  # with providers made after `configure`
"""


def test_at_the_end_of_a_process_a_pipeline_waits_once(sandbox: Sandbox) -> None:
    """And not once for each provider that it is attached to, which have exit handlers as well: in an outage that adds up."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING_PROGRAM.format(url=sandbox.url)],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    calls = done.stdout.split()
    assert (done.returncode, set(calls)) == (0, {"shutdown"})
    assert len(sandbox.events("meta")) == 1


SIGNAL_PROGRAM = """
import signal, time, eventflows
from eventflows import MetaProvider
pipeline = eventflows.configure([MetaProvider("123", "abc")], endpoint={url!r}, sending_queue={{"queue_size": 100}})
tracer = eventflows.get_tracer("script")
tracer.add_event("Lead", {{"user.email": "a@x.com"}})
signal.signal(signal.SIGALRM, lambda *_: tracer.add_event("Lead", {{"user.email": "b@x.com"}}))
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
until = time.monotonic() + 1.5
while time.monotonic() < until:
    tracer.add_event("Lead", {{"user.email": "c@x.com"}})
signal.setitimer(signal.ITIMER_REAL, 0)
eventflows.force_flush(10_000)
stats = pipeline.stats()["meta"]
assert stats.captured == stats.delivered + sum(stats.dropped.values()), stats
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGALRM")
def test_a_conversion_recorded_in_a_signal_handler_never_deadlocks(sandbox: Sandbox) -> None:
    """The handler may interrupt the very same call, wherever it is."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_PROGRAM.format(url=sandbox.url)],
        env=environment(), capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_event_that_cannot_be_read_costs_only_itself(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with it or with us; and it is counted."""
    read = eventflows.offering.conversion_of

    def failing(event: Event, country: str | None) -> Conversion:
        if event.id == "bad":
            raise KeyError("inside")
        return read(event, country)

    monkeypatch.setattr("eventflows.offering.conversion_of", failing)
    pipeline = meta_only(sandbox)
    for event_id in ("good", "bad", "better"):
        pipeline.record("Lead", {**LEAD, "event_id": event_id})
    assert pipeline.force_flush(10_000)
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered, stats.dropped) == (3, 2, {"internal error (KeyError)": 1})

"""Start and end: configuring in threads, again and after a fork, and OpenTelemetry's providers that end one after the other."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import get_logger, set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

import eventflows
from eventflows import (
    ConfigurationError,
    ConsoleProvider,
    EventFlowsInstrumentor,
    EventFlowsLogRecordExporter,
    EventFlowsSpanExporter,
    MetaProvider,
    config,
    lifecycle,
    processor,
)
from eventflows.facade import Tracker
from eventflows.pipeline import Pipeline
from eventflows.sandbox import Sandbox
from tests.conftest import environment

from .test_storage import until

LEAD = {"user.email": "zoe@example.com", "client.address": "198.51.100.24", "user_agent.original": "M"}
FAST = {"initial_interval": "20ms", "max_interval": "100ms"}


def meta_only(sandbox: Sandbox) -> Pipeline:
    return eventflows.configure([MetaProvider("123", "abc", endpoint=f"{sandbox.url}/meta")], retry_on_failure=FAST)


def test_the_next_pipeline_takes_over_the_processors_and_exporters_of_one_that_was_shut_down(
    sandbox: Sandbox,
) -> None:
    """None of the old one goes on counting or delivering."""
    logs, spans = LoggerProvider(), TracerProvider()
    set_logger_provider(logs)
    trace.set_tracer_provider(spans)
    old = meta_only(sandbox)
    logs.add_log_record_processor(SimpleLogRecordProcessor(EventFlowsLogRecordExporter(pipeline=old)))
    spans.add_span_processor(SimpleSpanProcessor(EventFlowsSpanExporter(pipeline=old)))
    assert eventflows.shutdown(5_000)
    new = meta_only(sandbox)
    get_logger("app").emit(event_name="Lead", attributes={**LEAD, "event_id": "e1"})
    with trace.get_tracer("app").start_as_current_span("page") as span:
        span.add_event("Lead", {**LEAD, "event_id": "e2"})
    assert eventflows.force_flush(5_000)
    assert (old.stats()["meta"].captured, new.stats()["meta"].delivered) == (0, 2)
    assert len(sandbox.events("meta")) == 2
    logs.shutdown()
    assert not new.is_shut_down
    spans.shutdown()
    assert new.is_shut_down


def test_what_one_pipeline_had_is_not_taken_by_the_next_from_an_exporter_behind_a_queue(sandbox: Sandbox) -> None:
    spans = TracerProvider()
    trace.set_tracer_provider(spans)
    old = meta_only(sandbox)
    spans.add_span_processor(BatchSpanProcessor(EventFlowsSpanExporter(pipeline=old), schedule_delay_millis=3_600_000))

    def record(event_id: str) -> None:
        with trace.get_tracer("app").start_as_current_span("page") as span:
            span.add_event("Lead", {**LEAD, "event_id": event_id})

    record("raw on its span")
    EventFlowsInstrumentor().instrument()
    try:
        record("sealed on its span")
        assert eventflows.shutdown(5_000)
        record("too late")
        new = meta_only(sandbox)
        spans.force_flush()
        assert eventflows.force_flush(5_000)
    finally:
        EventFlowsInstrumentor().uninstrument()
    assert (old.stats()["meta"].captured, new.stats()["meta"].captured) == (3, 0)


def test_an_exporter_beside_a_processor_takes_nothing_a_second_time(sandbox: Sandbox) -> None:
    """Not even what has no id of its own."""
    spans = TracerProvider()
    trace.set_tracer_provider(spans)
    pipeline = meta_only(sandbox)
    spans.add_span_processor(SimpleSpanProcessor(EventFlowsSpanExporter(pipeline=pipeline)))
    with trace.get_tracer("app").start_as_current_span("page") as span:
        span.add_event("Lead", LEAD)
    assert eventflows.force_flush(5_000)
    assert pipeline.stats()["meta"].captured == 1


def test_one_of_two_threads_configures_and_the_other_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    build = config.settings

    def slowly(*args: Any, **options: Any) -> Any:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        return build(*args, **options)

    monkeypatch.setattr(config, "settings", slowly)
    told: list[object] = []

    def configure() -> None:
        try:
            told.append(eventflows.configure([ConsoleProvider()]))
        except ConfigurationError as problem:
            told.append(problem)

    threads = [threading.Thread(target=configure) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(isinstance(one, ConfigurationError) for one in told) == [False, True]


def test_two_threads_that_track_first_share_the_facades_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    both, build, tracker = threading.Barrier(2), config.settings, Tracker()
    tracker.add_provider(ConsoleProvider())
    eventflows.configure([ConsoleProvider()])

    def slowly(*args: Any, **options: Any) -> Any:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        return build(*args, **options)

    monkeypatch.setattr(config, "settings", slowly)
    threads = [threading.Thread(target=tracker.track, args=("Lead", {"user_id": "u1"})) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    pipeline = tracker._own
    assert tracker.shutdown(5_000)
    assert pipeline is not None
    assert pipeline.stats()["console"].delivered == 2


def test_a_child_that_is_forked_while_a_thread_configures_can_configure() -> None:
    """As where a resource detector asks the network."""
    code = """
import os, signal, threading, time
import eventflows
from eventflows import ConsoleProvider, config

begun, build = threading.Event(), config.settings
def slowly(*given, **options):
    begun.set()
    time.sleep(3600)
config.settings = slowly
threading.Thread(target=eventflows.configure, args=([ConsoleProvider()],), daemon=True).start()
assert begun.wait(10)
if (child := os.fork()) == 0:
    signal.alarm(10)  # rather than to stay for ever
    config.settings = build
    eventflows.configure([ConsoleProvider()])
    os._exit(0)
os._exit(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), timeout=20, check=False)
    assert done.returncode == 0


def test_a_pipeline_that_was_shut_down_before_a_fork_is_so_in_the_child(sandbox: Sandbox) -> None:
    code = f"""
import os
import eventflows
from eventflows import MetaProvider

def configure():
    return eventflows.configure([MetaProvider("123", "abc", endpoint="{sandbox.url}/meta")])

old = configure()
tracer = eventflows.get_tracer("app")
tracer.add_event("Lead", {{"user.id": "u", "event_id": "1"}})
assert eventflows.shutdown(5_000)
if (child := os.fork()) == 0:
    tracer.add_event("Lead", {{"user.id": "u", "event_id": "2"}})
    assert old.stats()["meta"].dropped == {{"recorded after shutdown": 1}}, old.stats()
    new = configure()
    tracer.add_event("Lead", {{"user.id": "u", "event_id": "3"}})
    assert eventflows.force_flush(5_000)
    assert new.stats()["meta"].delivered == 1, new.stats()
    os._exit(0)
raise SystemExit(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60, check=False)
    assert done.returncode == 0
    assert [one["event"]["event_id"] for one in sandbox.events("meta")] == ["1", "3"]


def test_the_shutdown_of_one_of_several_providers_does_not_wait_for_an_outage(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is for the one that comes last: each would take its 30 seconds."""
    monkeypatch.setattr(processor, "SECONDS_FOR_ONE_OF_SEVERAL", 0.2)
    logs, spans = LoggerProvider(), TracerProvider()
    set_logger_provider(logs)
    trace.set_tracer_provider(spans)
    sandbox.fault("meta", status=503, times=1_000)
    pipeline = meta_only(sandbox)
    waited: list[float] = []
    flush = Pipeline.force_flush

    def flushed(pipeline: Pipeline, timeout_millis: float) -> bool:
        waited.append(timeout_millis)
        return flush(pipeline, timeout_millis)

    monkeypatch.setattr(Pipeline, "force_flush", flushed)
    eventflows.get_tracer("app").add_event("Lead", LEAD)
    logs.shutdown()
    assert waited == [200]
    assert not pipeline.is_shut_down
    sandbox.reset()
    spans.shutdown()
    assert pipeline.stats()["meta"].delivered == 1


@pytest.mark.parametrize("what", ["shutdown", "reload"])
def test_a_signal_handler_may_call_what_its_thread_is_in_the_midst_of(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Pipeline):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if interrupting and (name, value) in (("is_shut_down", True), ("settings", self.settings)):
                interrupting.pop()()

    interrupting: list[Callable[[], object]] = []
    pipeline = Interrupted(config.settings([ConsoleProvider()]))
    call = pipeline.shutdown if what == "shutdown" else partial(pipeline.reload, [ConsoleProvider()])
    monkeypatch.delitem(lifecycle._watched, pipeline)  # else what hangs here hangs the end of the run as well
    interrupting.append(call)
    calling = threading.Thread(target=call, daemon=True)
    calling.start()
    calling.join(10)
    assert not calling.is_alive()
    assert not interrupting
    pipeline.shutdown()


def test_a_second_shutdown_waits_for_the_first(sandbox: Sandbox) -> None:
    """As that of an exit handler may be: what is on its way would be lost with the process."""
    pipeline = meta_only(sandbox)
    sandbox.fault("meta", delay=0.5)
    eventflows.get_tracer("app").add_event("Lead", LEAD)
    first = threading.Thread(target=pipeline.shutdown)
    first.start()
    until(lambda: pipeline.is_shut_down)
    assert not pipeline.shutdown(1)
    assert pipeline.shutdown(10_000)
    assert pipeline.stats()["meta"].delivered == 1
    first.join(10)
    assert pipeline.shutdown(0)


def test_pipelines_that_were_shut_down_are_gone() -> None:
    """But for the latest, which goes on sealing; nor does a self-test at start leave one."""

    def begin_and_end() -> None:
        eventflows.configure([ConsoleProvider()])
        EventFlowsInstrumentor().instrument()
        EventFlowsInstrumentor().uninstrument()
        eventflows.shutdown()

    def pipelines() -> int:
        gc.collect()
        return sum(isinstance(one, Pipeline) for one in gc.get_objects())

    begin_and_end()
    before = pipelines()
    for _ in range(3):
        begin_and_end()
    assert pipelines() == before

"""Other settings without a restart: nothing is lost, nothing comes twice, and what did not change is left alone."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import eventflows
from eventflows import ConfigurationError, ConsoleProvider, MetaProvider, RedditProvider, journals
from eventflows.pipeline import Pipeline
from eventflows.sandbox import Sandbox
from tests.conftest import environment
from tests.servers.running import free_port

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")

FAST = "retry_on_failure: {initial_interval: 50ms, max_interval: 200ms}\nsending_queue: {flush_interval: 50ms, %s}\n"


def purchase(order: object, **extra: Any) -> dict[str, Any]:
    return {"value": 1, "currency": "EUR", "order_id": str(order), "user.email": "a@b.example", **extra}


class File:
    """A configuration file that tests change."""

    def __init__(self, path: Path, url: str, queue: str = "queue_size: 10000") -> None:
        self.path, self._head = path, f"endpoint: {url}\n" + FAST % queue

    def write(self, providers: str, more: str = "") -> None:
        self.path.write_text(f"{self._head}{more}\nproviders:\n{providers}")

    def start(self, providers: str, more: str = "") -> Pipeline:
        self.write(providers, more)
        return eventflows.configure(config=self.path)


@pytest.fixture
def file(tmp_path: Path, sandbox: Sandbox) -> File:
    return File(tmp_path / "c.yaml", sandbox.url)


@pytest.fixture
def stored(tmp_path: Path, sandbox: Sandbox) -> File:
    return File(tmp_path / "c.yaml", sandbox.url, f"storage: {tmp_path}/journals")


@pytest.fixture(params=["memory", "storage"])
def either(request: pytest.FixtureRequest, tmp_path: Path, sandbox: Sandbox) -> File:
    queue = "queue_size: 10000" if request.param == "memory" else f"storage: {tmp_path}/journals"
    return File(tmp_path / "c.yaml", sandbox.url, queue)


META = "  meta: {pixel_id: '1', access_token: right}\n"
REDDIT = "  reddit: {pixel_id: a2_1, access_token: right}\n"


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def orders(sandbox: Sandbox, provider: str = "meta") -> Counter[str]:
    return Counter(entry["event"]["custom_data"]["order_id"] for entry in sandbox.events(provider))


def adds_up(pipeline: Pipeline) -> bool:
    return all(
        one.captured
        == one.delivered
        + one.pending
        + sum(n for found in (one.filtered, one.refused, one.expired, one.dropped) for n in found.values())
        for one in pipeline.stats().values()
    )


def test_a_provider_is_added_and_one_is_taken_away(either: File, sandbox: Sandbox) -> None:
    """The one that is gone delivers what it owes and keeps its numbers; it comes back with them."""
    pipeline = either.start(META)
    pipeline.record("Purchase", purchase(1))
    either.write(REDDIT)
    pipeline.reload()
    pipeline.record("Purchase", purchase(2))
    assert pipeline.force_flush(20_000)
    assert orders(sandbox) == {"1": 1}
    assert len(sandbox.events("reddit")) == 1
    stats = pipeline.stats()
    assert (stats["meta"].captured, stats["meta"].delivered, stats["reddit"].captured) == (1, 1, 1)
    either.write(META + REDDIT)
    pipeline.reload()
    pipeline.record("Purchase", purchase(3))
    assert pipeline.force_flush(20_000)
    assert orders(sandbox) == {"1": 1, "3": 1}
    assert pipeline.stats()["meta"].captured == 2
    assert adds_up(pipeline)


def test_what_waits_goes_with_the_new_credentials(either: File, sandbox: Sandbox) -> None:
    """The lane was paused, as the platform refused the old ones."""
    pipeline = either.start(META)
    pipeline.record("Purchase", purchase(0))
    assert pipeline.force_flush(20_000)  # the first token seen is the right one
    either.write(META.replace("right", "wrong"))
    pipeline.reload()
    for order in range(1, 6):
        pipeline.record("Purchase", purchase(order))
    assert not pipeline.force_flush(500)
    assert pipeline.stats()["meta"].pending == 5
    either.write(META)
    pipeline.reload()
    assert pipeline.force_flush(20_000)
    assert orders(sandbox) == {str(order): 1 for order in range(6)}
    assert adds_up(pipeline)


def test_a_back_off_ends_with_the_reload(either: File, sandbox: Sandbox) -> None:
    """A new endpoint gets at once what waited for the old one."""
    elsewhere = META.replace(
        "}", ", endpoint: 'http://127.0.0.1:9', retry_on_failure: {initial_interval: 10m, max_interval: 10m}}"
    )
    pipeline = either.start(elsewhere)
    for order in range(20):
        pipeline.record("Purchase", purchase(order))
    until(lambda: pipeline.stats()["meta"].attempts > 0)
    either.write(META)
    pipeline.reload()
    assert pipeline.force_flush(20_000)
    assert orders(sandbox) == {str(order): 1 for order in range(20)}


def test_filters_and_names_hold_for_what_is_recorded_from_then_on(file: File, sandbox: Sandbox) -> None:
    """What waits was routed and written when it was recorded; only where it goes, and with which credentials, is new."""
    sandbox.fault("meta", status=503, retry_after=600, times=1)
    pipeline = file.start(META)
    pipeline.record("Purchase", purchase(1, plan="free"))
    until(lambda: pipeline.stats()["meta"].attempts > 0)
    file.write(
        "  meta: {pixel_id: '2', access_token: right, when: plan == 'pro', rename: {properties: {plan: tier}}}\n"
    )
    pipeline.reload()
    pipeline.record("Purchase", purchase(2, plan="free"))
    pipeline.record("Purchase", purchase(3, plan="pro"))
    assert pipeline.force_flush(20_000)
    data = [(entry["account"], entry["event"]["custom_data"]) for entry in sandbox.events("meta")]
    assert {(account, one["order_id"], one.get("plan"), one.get("tier")) for account, one in data} == {
        ("2", "1", "free", None),
        ("2", "3", None, "pro"),
    }
    assert pipeline.stats()["meta"].filtered == {"the provider's condition does not hold": 1}


def test_a_request_under_way_ends_as_it_began_and_counts_once(either: File, sandbox: Sandbox) -> None:
    sandbox.fault("meta", delay=1.0, times=1)
    pipeline = either.start(META)
    pipeline.record("Purchase", purchase(1))
    until(lambda: pipeline.stats()["meta"].attempts == 1)
    either.write(META.replace("'1'", "'2'"))
    pipeline.reload()
    pipeline.record("Purchase", purchase(2))
    assert pipeline.force_flush(20_000)
    accounts = {entry["event"]["custom_data"]["order_id"]: entry["account"] for entry in sandbox.events("meta")}
    assert accounts == {"1": "1", "2": "2"}
    assert orders(sandbox) == {"1": 1, "2": 1}
    assert (pipeline.stats()["meta"].delivered, pipeline.stats()["meta"].pending) == (2, 0)


def test_lanes_whose_settings_did_not_change_are_left_alone(file: File) -> None:
    pipeline = file.start(META + REDDIT)
    pipeline.record("Purchase", purchase(1))
    assert pipeline.force_flush(20_000)
    before = {lane.provider.name: (lane, lane._outbox, lane._transport) for lane in pipeline._lanes}
    file.write(META + REDDIT.replace("right", "renewed"))
    pipeline.reload()
    after = {lane.provider.name: (lane, lane._outbox, lane._transport) for lane in pipeline._lanes}
    assert after["meta"] == before["meta"]
    assert after["reddit"][0] is before["reddit"][0]
    assert after["reddit"][1] is not before["reddit"][1]


@pytest.mark.parametrize(
    ("providers", "more", "said"),
    [
        ("  meta: {pixelid: '1'}\n", "", "did you mean providers.meta.pixel_id"),
        ("  meta: {\n", "", "not YAML"),
        (META, "telemetry: false", "telemetry: cannot be changed without a restart"),
        (META, "environments: {production: live}", "environments: the resource has no"),
        ("", "", "providers: none configured"),
    ],
)
def test_a_wrong_file_is_refused_and_the_old_one_goes_on(
    file: File, sandbox: Sandbox, providers: str, more: str, said: str
) -> None:
    pipeline = file.start(META)
    settings = pipeline.settings
    file.write(providers, more)
    with pytest.raises(ConfigurationError) as error:
        pipeline.reload()
    assert said in str(error.value)
    assert pipeline.settings is settings
    pipeline.record("Purchase", purchase(1))
    assert pipeline.force_flush(20_000)
    assert orders(sandbox) == {"1": 1}


def test_without_a_file_there_is_nothing_to_read_again_but_settings_may_be_given(sandbox: Sandbox) -> None:
    pipeline = eventflows.configure([MetaProvider("1", "t", endpoint=f"{sandbox.url}/meta")])
    with pytest.raises(ConfigurationError, match="no configuration file to read again"):
        pipeline.reload()
    pipeline.reload([ConsoleProvider(), RedditProvider("a2_1", "t", endpoint=f"{sandbox.url}/reddit")])
    pipeline.record("Purchase", purchase(1))
    assert pipeline.force_flush(20_000)
    assert [name for name, one in pipeline.stats().items() if one.delivered] == ["console", "reddit"]


def test_what_was_recorded_before_is_read_by_the_rules_of_its_time(
    file: File, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although `tracer.add_event` leaves the reading to the intake."""
    monkeypatch.setattr("eventflows.intake.GATHER_SECONDS", 600)
    pipeline = file.start(META, "events: {order.placed: purchase}")
    eventflows.get_tracer("app").add_event("order.placed", purchase(1))
    file.write(META)
    pipeline.reload()
    eventflows.get_tracer("app").add_event("order.placed", purchase(2))
    assert pipeline.force_flush(20_000)
    assert [entry["event"]["event_name"] for entry in sandbox.events("meta")] == ["Purchase", "order.placed"]


def test_the_rules_of_capture_change_as_well(file: File, sandbox: Sandbox) -> None:
    """A name that was none of our business is a conversion from now on, also where that was remembered."""
    pipeline = file.start(META)
    from opentelemetry._logs import get_logger_provider

    log = get_logger_provider().get_logger("app")
    log.emit(event_name="order.placed", attributes=purchase(1))
    file.write(META, "events: {order.placed: purchase}")
    pipeline.reload()
    log.emit(event_name="order.placed", attributes=purchase(2))
    assert pipeline.force_flush(20_000)
    assert orders(sandbox) == {"2": 1}


def test_an_environment_of_one_provider(file: File, sandbox: Sandbox, caplog: Any) -> None:
    """Meta is tested in staging, GA4 has an account of its own there; and a reload may change that."""
    meta = "  meta: {pixel_id: '1', access_token: right%s}\n"
    ga4 = "  ga4: {measurement_id: G-1, api_secret: x, environments: {'*': live}}\n"
    more = "environments: {production: live, '*': test}\nenvironment: staging"
    pipeline = file.start(meta % "" + ga4, more)
    visit = {"conversion.click.ga_client_id": "123.456"}
    pipeline.record("Purchase", purchase(1, **visit))
    assert pipeline.force_flush(20_000)
    assert pipeline.stats()["meta"].filtered == {"test environment: logged, not sent": 1}
    assert len(sandbox.events("ga4")) == 1
    file.write(meta % ", environments: {staging: live}" + ga4, more)
    pipeline.reload()
    pipeline.record("Purchase", purchase(2, **visit))
    assert pipeline.force_flush(20_000)
    assert orders(sandbox) == {"2": 1}


def test_nothing_is_lost_or_doubled_while_many_threads_record_and_settings_change(
    either: File, sandbox: Sandbox
) -> None:
    """Tokens, accounts, filters and queues change, providers come and go, and the platform fails in between."""
    variants = [
        META + REDDIT,
        META.replace("}", ", timeout: 3s}"),
        META.replace("}", ", sending_queue: {queue_size: 5000, num_consumers: 2}}") + REDDIT,
        META.replace("}", ", extra: {opt_out: false}}"),
        META + REDDIT.replace("}", ", retry_on_failure: {initial_interval: 20ms}}"),
    ]
    pipeline = either.start(variants[0])
    stop, recorded = threading.Event(), [0, 0, 0]

    def work(number: int) -> None:
        while not stop.is_set():
            pipeline.record("Purchase", purchase(f"{number}-{recorded[number]}"))
            recorded[number] += 1
            time.sleep(0.0005)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(25):
        if turn % 5 == 2:
            sandbox.fault("meta", status=503, times=2)
        either.write(variants[turn % len(variants)])
        pipeline.reload()
        assert adds_up(pipeline)
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert pipeline.force_flush(60_000)
    arrived = orders(sandbox)
    assert arrived == {f"{number}-{index}": 1 for number in range(3) for index in range(recorded[number])}
    stats = pipeline.stats()
    assert stats["meta"].captured == stats["meta"].delivered == sum(recorded)
    assert stats["reddit"].captured == stats["reddit"].delivered == len(sandbox.events("reddit"))
    assert adds_up(pipeline)


def test_the_journal_owes_each_event_to_those_who_were_configured_when_it_was_recorded(
    stored: File, sandbox: Sandbox, tmp_path: Path
) -> None:
    pipeline = stored.start(META)
    pipeline.record("Purchase", purchase(1))
    stored.write(REDDIT + "  meta/eu: {pixel_id: '1', access_token: right}\n")  # meta is renamed
    pipeline.reload()
    pipeline.record("Purchase", purchase(2))
    assert pipeline.force_flush(20_000)
    told = {one.order_id: dict.fromkeys(one.outcomes) for one in journals.told(tmp_path / "journals")}
    assert {order: sorted(names) for order, names in told.items()} == {"1": ["meta"], "2": ["meta/eu", "reddit"]}
    assert orders(sandbox) == {"1": 1, "2": 1}


PROGRAM = """
import os, signal, sys, threading, time, eventflows
if "--chain" in sys.argv:
    signal.signal(signal.SIGHUP, lambda *_: print("chained", flush=True))
pipeline = eventflows.configure(config=sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    attributes = {"value": 1, "currency": "EUR", "order_id": line.strip(), "user.email": "a@b.example"}
    eventflows.get_tracer("app").add_event("Purchase", attributes)
    print(eventflows.force_flush(10_000), flush=True)
eventflows.shutdown()
print("former" if signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL else "default", flush=True)
"""


@pytest.fixture
def program(file: File) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        code = "import logging; logging.basicConfig(level=20)\n" + PROGRAM
        command = [sys.executable, "-u", "-c", code, str(file.path), *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, env=environment(), **pipes)  # type: ignore[call-overload]
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def says(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    while (line := process.stderr.readline()) and text not in line:
        pass
    assert text in line


def tells(process: subprocess.Popen[str], order: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{order}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_sighup_reads_the_file_again_and_a_wrong_one_is_refused_loudly(
    program: Callable[..., subprocess.Popen[str]], file: File, sandbox: Sandbox
) -> None:
    """In a real process; the handler that was there before is called as well, and is back at the end."""
    file.write(META, "reload_on_sighup: true")
    process = program("--chain")
    assert tells(process, "1") == "True"
    file.write("  meta: {pixelid: 1}\n", "reload_on_sighup: true")
    os.kill(process.pid, signal.SIGHUP)
    assert process.stdout is not None
    assert process.stdout.readline() == "chained\n"
    says(process, "the new configuration is refused, and the old one goes on")
    assert tells(process, "2") == "True"
    file.write(META.replace("'1'", "'2'"), "reload_on_sighup: true")
    os.kill(process.pid, signal.SIGHUP)
    says(process, "EventFlows goes by new settings: renewed meta")
    assert process.stdout.readline() == "chained\n"
    assert tells(process, "3") == "True"
    out, _ = process.communicate(timeout=20)
    assert out.splitlines()[-1] == "former"
    assert {entry["event"]["custom_data"]["order_id"]: entry["account"] for entry in sandbox.events("meta")} == {
        "1": "1", "2": "1", "3": "2",
    }  # fmt: skip


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_without_the_setting_sighup_means_what_it_always_meant(
    program: Callable[..., subprocess.Popen[str]], file: File
) -> None:
    file.write(META)
    process = program()
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait(20) == -signal.SIGHUP


def test_off_the_main_thread_it_says_that_there_can_be_no_handler(file: File, caplog: Any) -> None:
    caplog.set_level(logging.ERROR, "eventflows")
    thread = threading.Thread(target=lambda: file.start(META, "reload_on_sighup: true"))
    thread.start()
    thread.join()
    assert "call eventflows.configure on the main thread" in caplog.text


GUNICORN = """
import os, eventflows
pipeline = eventflows.configure(config=os.environ["FILE"])
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {','.join(pipeline.stats())}".encode()]
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_a_worker_of_gunicorn_reloads_by_its_own_sighup(file: File, tmp_path: Path) -> None:
    """Its master's goes on to replace the workers."""
    pytest.importorskip("gunicorn")
    (tmp_path / "wsgi.py").write_text(GUNICORN)
    file.write(META, "reload_on_sighup: true")
    port = free_port()
    command = ["gunicorn", "wsgi:application", "-w", "1", "-b", f"127.0.0.1:{port}", "--chdir", str(tmp_path)]
    process = subprocess.Popen(command, env=environment(FILE=str(file.path)), stderr=subprocess.DEVNULL)

    def answer() -> tuple[int, str]:
        try:
            pid, names = requests.get(f"http://127.0.0.1:{port}/", timeout=5).text.split()
        except requests.RequestException:
            return 0, ""
        return int(pid), names

    try:
        until(lambda: answer()[1] == "meta")
        worker, _ = answer()
        file.write(META + REDDIT, "reload_on_sighup: true")
        os.kill(worker, signal.SIGHUP)
        until(lambda: answer() == (worker, "meta,reddit"))
        process.send_signal(signal.SIGHUP)
        until(lambda: answer()[0] not in (0, worker) and answer()[1] == "meta,reddit")
    finally:
        process.terminate()
        process.wait(20)


def test_what_is_owed_to_a_provider_that_is_configured_no_more_is_said_at_start(
    stored: File, sandbox: Sandbox, caplog: Any
) -> None:
    """It waits in the storage, and is delivered once the provider is there again."""
    sandbox.fault("meta", status=503, times=1000)
    pipeline = stored.start(META + REDDIT)
    pipeline.record("Purchase", purchase(1))
    pipeline.record("Purchase", purchase(2))
    until(lambda: pipeline.stats()["meta"].attempts > 0)
    eventflows.shutdown(3_000)
    stored.start(REDDIT)
    until(
        lambda: "meta: 2 conversions in the storage are owed to this provider, which is not configured" in caplog.text
    )
    eventflows.shutdown(3_000)
    with Sandbox() as fresh:
        stored._head = stored._head.replace(sandbox.url, fresh.url)
        pipeline = stored.start(META)
        until(lambda: orders(fresh) == {"1": 1, "2": 1})

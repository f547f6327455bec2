"""With storage nothing is lost: not by kill -9, restart, overflow, a full disk, or a process that dies beside a living one."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import eventflows
from eventflows import MetaProvider, history, holding, journal, journals, outbox, storage
from eventflows.conversion import EventType
from eventflows.pipeline import Pipeline
from eventflows.sandbox import Sandbox
from eventflows.sealing import Event
from eventflows.spool import Spool
from tests.conftest import CANARIES, PERSON, environment, four

from .test_pipeline import FAST, LEAD, adds_up


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage looks after its folder every moment."""
    monkeypatch.setattr(storage, "SCAN_SECONDS", 0.05)


def start(url: str, folder: Path, **queue: Any) -> Pipeline:
    provider = MetaProvider("123", "abc", endpoint=f"{url}/meta")
    queue = {"storage": str(folder), "flush_interval": "50ms", **queue}
    return eventflows.configure([provider], sending_queue=queue, retry_on_failure=FAST)


def record(*ids: str) -> None:
    for one in ids:
        eventflows.get_tracer("app").add_event("Lead", {**LEAD, "event_id": one})


def arrived(sandbox: Sandbox) -> list[str]:
    return sorted(entry["event"]["event_id"] for entry in sandbox.events("meta"))


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def outcomes(folder: Path) -> dict[str, str]:
    """Event id → its outcome at Meta, from the journals."""
    return {told.id: told.outcomes["meta"][0] for told in journals.told(folder)}


PROGRAM = """
import os, signal, sys
import eventflows
from eventflows import MetaProvider, intake, storage
storage.SCAN_SECONDS = 0.05
url, folder, first, count, end = sys.argv[1:]
if end == "kill-at-once":
    intake.Intake._start = lambda self: None  # before the intake has run
eventflows.configure([MetaProvider("123", "abc", endpoint=url + "/meta")],
                     sending_queue={"storage": folder, "flush_interval": "50ms"},
                     retry_on_failure={"initial_interval": "20ms", "max_interval": "100ms"})
tracer = eventflows.get_tracer("app")
for number in range(int(first), int(first) + int(count)):
    tracer.add_event("Lead", {"user.email": "zoe.canary@example.com", "event_id": f"e{number:05}"})
print("recorded", flush=True)
if end.startswith("kill"):
    os.kill(os.getpid(), signal.SIGKILL)
elif end == "wait":
    sys.stdin.read()
elif end == "flush":
    print(eventflows.force_flush(10_000), flush=True)
"""


def run(sandbox_url: str, folder: Path, first: int, count: int, end: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, sandbox_url, str(folder), str(first), str(count), end],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("queue_size", [4, 10_000])
def test_a_flush_right_after_the_start_is_for_what_was_left_as_well(
    queue_size: int, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes to find and to read it, and also where it does not fit into memory at once."""
    sandbox.fault("meta", status=500, times=10_000)
    start(sandbox.url, tmp_path)
    record(*(f"e{number}" for number in range(20)))
    assert not eventflows.shutdown(200)
    sandbox.reset()
    monkeypatch.setattr(storage, "SCAN_SECONDS", 5.0)
    for owner, name in ((holding, "take"), (journal.Journal, "pending")):
        slowly(monkeypatch, owner, name)
    start(sandbox.url, tmp_path, queue_size=queue_size)
    assert eventflows.force_flush(20_000)
    assert len(arrived(sandbox)) == 20


@pytest.mark.parametrize("renewed", [False, True])
def test_an_answer_after_the_timeout_of_shutdown_is_written_down(
    renewed: bool, sandbox: Sandbox, tmp_path: Path
) -> None:
    """So that the next pipeline does not send again what the platform has; also where a reload came meanwhile."""
    sandbox.fault("meta", delay=0.7)
    pipeline = start(sandbox.url, tmp_path)
    record("e1")
    pipeline.force_flush(300)
    if renewed:
        pipeline.reload(
            [MetaProvider("123", "other", endpoint=f"{sandbox.url}/meta")], sending_queue={"storage": str(tmp_path)}
        )
    assert not eventflows.shutdown(100)
    until(lambda: outcomes(tmp_path) == {"e1": "delivered"}, 5)
    assert pipeline.stats()["meta"].delivered == 1
    start(sandbox.url, tmp_path)
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["e1"]


def slowly(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    found = getattr(owner, name)

    def wrapped(*given: Any, **named: Any) -> Any:
        time.sleep(0.1)
        return found(*given, **named)

    monkeypatch.setattr(owner, name, wrapped)


def test_what_a_killed_process_had_recorded_is_delivered_by_the_next(sandbox: Sandbox, tmp_path: Path) -> None:
    """Killed with everything queued, and the platform down; each arrives once, also what is recorded afterwards."""
    sandbox.fault("meta", status=500, times=100_000)
    done = run(sandbox.url, tmp_path, 0, 300, "kill")
    assert done.returncode == -signal.SIGKILL
    assert arrived(sandbox) == []
    sandbox.reset()
    pipeline = start(sandbox.url, tmp_path)
    record("new")
    until(lambda: len(arrived(sandbox)) >= 301)
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == [f"e{n:05}" for n in range(300)] + ["new"]
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered) == (301, 301)
    assert set(outcomes(tmp_path).values()) == {"delivered"}


def test_a_restart_without_a_new_event_delivers_what_was_left(sandbox: Sandbox, tmp_path: Path) -> None:
    run("http://127.0.0.1:9", tmp_path, 0, 20, "kill")
    start(sandbox.url, tmp_path)
    until(lambda: len(arrived(sandbox)) == 20)


def test_what_was_delivered_is_not_sent_again_after_a_crash(sandbox: Sandbox, tmp_path: Path) -> None:
    done = run(sandbox.url, tmp_path, 0, 50, "flush")
    assert "True" in done.stdout, done.stderr
    run("http://127.0.0.1:9", tmp_path, 50, 10, "kill")
    start(sandbox.url, tmp_path)
    until(lambda: len(arrived(sandbox)) >= 60)
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == [f"e{n:05}" for n in range(60)]


def test_a_living_process_takes_over_from_a_dead_one_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """Two living ones compete for it, beside their own events."""
    pipeline = start(sandbox.url, tmp_path)
    record("mine")
    other = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, sandbox.url, str(tmp_path), "1000", "5", "wait"],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "recorded\n"
    run("http://127.0.0.1:9", tmp_path, 0, 100, "kill")
    until(lambda: len(arrived(sandbox)) >= 106)
    time.sleep(0.3)
    other.communicate("")
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == sorted(
        [f"e{n:05}" for n in range(100)] + [f"e{n:05}" for n in range(1000, 1005)] + ["mine"]
    )
    assert adds_up(pipeline.stats()["meta"])


def test_a_queue_that_overflows_spills_and_loses_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """Fifty fit into memory; the others are on disk until there is room, and count as pending."""
    pipeline = start(sandbox.url, tmp_path, queue_size=50)
    sandbox.fault("meta", status=503, times=5)
    ids = [f"e{n:05}" for n in range(2000)]
    record(*ids)
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.dropped) == (2000, {})
    assert adds_up(stats)
    assert eventflows.force_flush(30_000)
    assert arrived(sandbox) == ids
    assert pipeline.stats()["meta"].delivered == 2000


def test_shutdown_leaves_the_rest_in_the_journal(sandbox: Sandbox, tmp_path: Path) -> None:
    """As a function does that has 500 ms: what is not delivered by then is for the next one."""
    sandbox.fault("meta", delay=5, times=1)
    pipeline = start(sandbox.url, tmp_path)
    record("a", "b")
    started = time.monotonic()
    assert not eventflows.shutdown(300)
    assert time.monotonic() - started < 1.5
    stats = pipeline.stats()["meta"]
    assert (stats.pending, stats.dropped) == (2, {})
    assert adds_up(stats)
    sandbox.reset()
    start(sandbox.url, tmp_path)
    until(lambda: set(arrived(sandbox)) == {"a", "b"})


def test_nothing_raw_is_on_the_disk(tmp_path: Path) -> None:
    pipeline = start("http://127.0.0.1:9", tmp_path)
    eventflows.get_tracer("app").add_event("Lead", {**LEAD, **PERSON, "note": PERSON["user.email"]})
    eventflows.shutdown(200)
    assert pipeline.stats()["meta"].pending == 1
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).lower()
    assert b"email.lower" in written
    assert not [canary for canary in CANARIES if canary.encode() in written]


@pytest.mark.parametrize(
    ("what", "method", "problem"),
    [
        (Spool, "write", OSError(errno.ENOSPC, "No space left on device")),
        (journal.Journal, "take_in", sqlite3.OperationalError("database or disk is full")),
    ],
)
def test_a_disk_that_takes_nothing_degrades_to_memory_loudly_and_recovers(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: type,
    method: str,
    problem: Exception,
) -> None:
    monkeypatch.setattr(storage, "REFUSED_SECONDS", 0.2)
    works, full = getattr(what, method), [True]

    def failing(*given: Any) -> Any:
        if full[0]:
            raise problem
        return works(*given)

    monkeypatch.setattr(what, method, staticmethod(failing) if what is Spool else failing)
    pipeline = start(sandbox.url, tmp_path)
    record(*(f"m{n}" for n in range(20)))
    assert eventflows.force_flush(5_000)
    assert pipeline.stats()["meta"].delivered == 20
    assert sum("kept in memory only" in line.message for line in caplog.records) == 1
    full[0] = False
    time.sleep(0.25)
    record("again")
    assert eventflows.force_flush(5_000)
    assert "takes conversions again" in caplog.text
    assert outcomes(tmp_path)["again"] == "delivered"


def test_a_folder_that_cannot_be_made_is_no_reason_to_lose_anything(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    pipeline = start(sandbox.url, tmp_path / "file")
    record("a")
    assert eventflows.force_flush(5_000)
    assert pipeline.stats()["meta"].delivered == 1


def test_a_damaged_journal_is_put_aside(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "1-old.journal").write_bytes(b"this is no database" * 100)
    pipeline = start(sandbox.url, tmp_path)
    record("a")
    assert eventflows.force_flush(5_000)
    assert pipeline.stats()["meta"].delivered == 1
    assert (tmp_path / "1-old.damaged").exists()


def test_outcomes_that_cannot_be_written_are_written_later(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, failures = journal.Journal.settle, [3]

    def failing(self: Any, provider: str, rows: Any) -> None:
        if failures[0] > 0:
            failures[0] -= 1
            raise sqlite3.OperationalError("disk I/O error")
        settle(self, provider, rows)

    monkeypatch.setattr(journal.Journal, "settle", failing)
    start(sandbox.url, tmp_path)
    record("a", "b")
    assert eventflows.force_flush(5_000)
    until(lambda: outcomes(tmp_path) == {"a": "delivered", "b": "delivered"})
    assert arrived(sandbox) == ["a", "b"]


def test_the_history_tells_what_became_of_each_event_at_each_provider(sandbox: Sandbox, tmp_path: Path) -> None:
    """Delivered ones lose their body; refused and expired ones keep it, as dead letters."""
    pipeline = eventflows.configure(four(sandbox.url), sending_queue={"storage": str(tmp_path)}, retry_on_failure=FAST)
    sandbox.fault("tiktok", status=503, times=1)
    tracer = eventflows.get_tracer("app")
    tracer.add_event(
        "Purchase", {**LEAD, "order_id": "4711", "value": 5, "currency": "EUR", "conversion.providers": "meta,tiktok"}
    )
    tracer.add_event("Purchase", {**LEAD, "order_id": "4712", "conversion.providers": "meta"})
    tracer.add_event("Lead", {**LEAD, "event_id": "old"}, time.time_ns() - 8 * 86_400 * 10**9)
    assert eventflows.force_flush(10_000)
    told = {one.id: one for one in journals.told(tmp_path)}
    first = told["purchase-4711"]
    assert {name: outcome[0] for name, outcome in first.outcomes.items()} == {
        "meta": "delivered", "tiktok": "delivered", "ga4": "filtered", "reddit": "filtered",
    }  # fmt: skip
    assert first.outcomes["tiktok"][3] == 2
    assert (first.order_id, first.body) == ("4711", None)
    status, reason, *_ = told["purchase-4712"].outcomes["meta"]
    assert (status, reason) == ("refused", "a purchase needs value and currency")
    assert json.loads(told["purchase-4712"].body or "")["attributes"]["order_id"] == "4712"
    late = {name: outcome[0] for name, outcome in told["old"].outcomes.items()}
    assert late == {"meta": "expired", "ga4": "expired", "reddit": "expired", "tiktok": "delivered"}
    assert pipeline.stats()["reddit"].expired == {"too old: reddit takes events of the last 7 days": 1}


def test_what_is_old_and_settled_is_forgotten(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(sandbox.url, tmp_path, retention="200ms")
    record("a")
    assert eventflows.force_flush(5_000)
    monkeypatch.setattr(storage, "TIDY_SECONDS", 0.05)
    until(lambda: outcomes(tmp_path) == {})


def test_a_clock_that_is_set_makes_nothing_be_forgotten(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be set back the next minute. Only what is set for good counts, after a while."""
    real, ahead, looks = time.time_ns, [0], threading.Semaphore(0)
    forget = holding.forget

    def look(*given: Any) -> None:
        forget(*given)
        looks.release()

    monkeypatch.setattr(time, "time_ns", lambda: real() + ahead[0])
    monkeypatch.setattr(holding, "forget", look)
    monkeypatch.setattr(storage, "TIDY_SECONDS", 0.05)
    monkeypatch.setattr(storage, "DOUBT_SECONDS", 600)
    start(sandbox.url, tmp_path)
    record("old")
    assert eventflows.force_flush(5_000)
    assert looks.acquire(timeout=10)
    ahead[0] = 60 * 86_400 * 10**9
    threading.Event().wait(0.3)
    while looks.acquire(blocking=False):  # one may have been under way
        pass
    assert not looks.acquire(timeout=0.3)
    assert outcomes(tmp_path) == {"old": "delivered"}
    assert eventflows.shutdown(5_000)
    start(sandbox.url, tmp_path)  # which knows the clock only as it is
    until(lambda: outcomes(tmp_path) == {})


def settled(folder: Path, count: int, status: str = "delivered") -> journal.Journal:
    """A journal with events that have their outcome."""
    held = holding.create(folder)
    events = [Event(f"e{n}", EventType.LEAD, "Lead", 1, {}, sealed=True) for n in range(count)]
    held.take_in([(event, held.spool.line("meta")) for event in events])
    held.settle("meta", [journal.Row(seq, status, "why") for seq in range(1, count + 1)])
    return held


def test_the_retention_keeps_up_with_any_number_of_events(tmp_path: Path) -> None:
    held = settled(tmp_path, 2_500)
    held.tidy(0.0)
    assert outcomes(tmp_path) == {}
    holding.give_back(held)


def test_what_is_old_is_forgotten_in_journals_that_no_process_needs_any_more(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of the workers that there were before there were fewer: dead letters hold sealed personal data."""
    monkeypatch.setattr(storage, "TIDY_SECONDS", 0.05)
    for held in [settled(tmp_path, 3, "refused") for _ in range(3)]:
        holding.give_back(held)
    start(sandbox.url, tmp_path, retention="10ms")
    until(lambda: outcomes(tmp_path) == {})


def test_a_log_that_has_grown_is_brought_into_the_file_while_nobody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite begins it anew only if nothing was written meanwhile: under a load that never paused it grew without end."""
    held = settled(tmp_path, 10)
    really, writers, written = held._reader, [], []

    class Busy:
        def execute(self, statement: str) -> None:
            writers.append(threading.Thread(target=held.settle, args=("meta", [journal.Row(1, "delivered", "")])))
            writers[-1].start()
            writers[-1].join(0.2)
            written.append(not writers[-1].is_alive())
            really.execute(statement)

    monkeypatch.setattr(held, "_reader", Busy())
    held.tidy(None)
    monkeypatch.setattr(journal, "LOG_BYTES", 1_000)
    held.tidy(None)
    assert written == [True, True, False]
    writers[-1].join(10)
    monkeypatch.undo()
    holding.give_back(held)


def test_what_a_person_was_erased_from_is_not_sent(sandbox: Sandbox, tmp_path: Path) -> None:
    """Also where it waits in memory at that moment."""
    start(sandbox.url, tmp_path, flush_interval="10m")
    record("a", "b")
    assert journals.erase(tmp_path, lambda conversion: conversion.id == "a") == 1
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["b"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_a_damaged_journal_has_lost_is_not_taken_for_erased(sandbox: Sandbox, tmp_path: Path) -> None:
    """As where a page of the file went wrong while the app ran: what is in memory is delivered all the same."""
    pipeline = start(sandbox.url, tmp_path, flush_interval="10m")
    record("a", "b")
    assert pipeline.stats()["meta"].pending == 2
    db = sqlite3.connect(journals.files(tmp_path)[0])
    db.execute("DELETE FROM event")
    db.commit()
    db.close()
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["a", "b"]


def test_no_outcome_is_kept_of_what_was_erased(tmp_path: Path) -> None:
    """It comes when the event is gone, as from a request that was under way."""
    held = settled(tmp_path, 1)
    (event, line) = Event("gone", EventType.LEAD, "Lead", 1, {}, sealed=True), held.spool.line("meta")
    held.take_in([(event, line)])
    assert journals.erase(tmp_path, lambda event: event.id == "gone") == 1
    held.settle("meta", [journal.Row(line.seq, "delivered", "")])
    assert held._reader.execute("SELECT seq FROM outcome").fetchall() == [(1,)]
    holding.give_back(held)


def test_who_is_erased_while_requests_wait_for_their_first_turn_is_in_none_of_them(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an outage one request probes, and the others are ready to go."""
    monkeypatch.setattr(outbox, "FRESH_SECONDS", 0.01)
    sandbox.fault("meta", status=503, times=10_000)
    pipeline = start(sandbox.url, tmp_path, flush_interval="5ms")
    person = {"user.email": "gone@example.com"}
    for number in range(outbox.BREAK_AFTER + 5):
        eventflows.get_tracer("app").add_event("Lead", {**person, "event_id": f"gone{number}"})
        record(f"kept{number}")
        until(lambda now=number: pipeline._lanes.named("meta").tally().exporting > 2 * now)
    assert journals.erase(tmp_path, history.is_of(*history.digests_of(person.values(), None))) == 10
    sandbox.reset()
    assert eventflows.force_flush(20_000)
    assert arrived(sandbox) == sorted(f"kept{number}" for number in range(10))


def test_a_forked_child_has_a_journal_of_its_own(sandbox: Sandbox, tmp_path: Path) -> None:
    """What it leaves when it is killed is delivered by its parent, once."""
    start(sandbox.url, tmp_path)
    record("parent")
    assert eventflows.force_flush(5_000)
    child = os.fork()
    if child == 0:
        sandbox_gone = eventflows.running.current()
        assert sandbox_gone is not None
        for lane in sandbox_gone._lanes:
            lane.given = replace(lane.given, queue=replace(lane.given.queue, flush_interval=600))
        record("child")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    until(lambda: arrived(sandbox) == ["child", "parent"])
    record("after")
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["after", "child", "parent"]
    assert len(journals.files(tmp_path)) == 2


def test_without_storage_there_is_no_file(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    eventflows.configure([MetaProvider("123", "abc", endpoint=f"{sandbox.url}/meta")])
    record("a")
    assert eventflows.force_flush(5_000)
    assert list(tmp_path.iterdir()) == []

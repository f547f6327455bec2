"""Folders, disks and journals that are full, damaged, removed or edited while events wait in them cost none and double none."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import eventflows
from eventflows import backlog as backlog_module
from eventflows import holding, journal, journals, storage
from eventflows import offering as offering_module
from eventflows.backlog import Backlog
from eventflows.capture import conversion_of
from eventflows.conversion import Conversion, EventType
from eventflows.mapping import Entry, Source
from eventflows.processor import EventFlowsSpanProcessor
from eventflows.sandbox import Sandbox
from eventflows.sealing import Event
from eventflows.spool import Line, Spool
from tests.conftest import environment, four

from .test_pipeline import LEAD, adds_up
from .test_storage import arrived, outcomes, record, run, start, until

FULL = sqlite3.OperationalError("database or disk is full")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage looks after its folder every moment, and tries a bad one again at once."""
    monkeypatch.setattr(storage, "SCAN_SECONDS", 0.05)
    monkeypatch.setattr(storage, "REFUSED_SECONDS", 0.01)


def test_a_journal_that_cannot_be_opened_for_now_is_not_put_aside(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart on a full disk: it holds events, and is delivered once there is room."""
    run("http://127.0.0.1:9", tmp_path, 0, 20, "kill")
    connect, refusals = journal.connect, [5]

    def failing(path: Path, **given: Any) -> sqlite3.Connection:
        if refusals[0] > 0:
            refusals[0] -= 1
            raise FULL
        return connect(path, **given)

    monkeypatch.setattr(journal, "connect", failing)
    start(sandbox.url, tmp_path)
    until(lambda: len(arrived(sandbox)) == 20)
    assert not list(tmp_path.glob("*.damaged"))


def test_a_journal_with_damaged_pages_keeps_nobody_from_the_others(
    sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is put aside, said so, and those beside it are taken over."""
    run("http://127.0.0.1:9", tmp_path / "one", 0, 300, "kill")
    holding.bring_in(tmp_path / "one")
    (bad,) = journals.files(tmp_path / "one")
    db = journal.connect(bad)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    content = bytearray(bad.read_bytes())
    content[3 * 4096 : len(content) - 4096] = b"\xa5" * (len(content) - 4 * 4096)
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / f"0{bad.name}").write_bytes(content)
    run("http://127.0.0.1:9", tmp_path / "all" / "other", 1000, 5, "kill")
    for part in (tmp_path / "all" / "other").iterdir():
        part.rename(tmp_path / "all" / part.name)
    start(sandbox.url, tmp_path / "all")
    until(lambda: arrived(sandbox) == [f"e{n:05}" for n in range(1000, 1005)])
    assert len(list((tmp_path / "all").glob("*.damaged"))) == 1
    assert "is damaged" in caplog.text


def test_a_journal_that_cannot_be_made_leaves_nothing_behind(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a full disk would get more files with every attempt."""

    def failing(path: Path, **_: Any) -> sqlite3.Connection:
        path.touch()
        raise FULL

    monkeypatch.setattr(journal, "connect", failing)
    pipeline = start(sandbox.url, tmp_path)
    for number in range(5):
        record(f"m{number}")
        threading.Event().wait(0.02)
    assert eventflows.force_flush(5_000)
    assert pipeline.stats()["meta"].delivered == 5
    until(lambda: list(tmp_path.iterdir()) == [])  # but for the moment of another attempt


def test_what_is_delivered_but_cannot_be_written_down_is_not_loaded_again(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue overflows, so the journal is read again, where those still seem to be pending."""
    write, full = journal.Journal._write, [True]

    def failing(self: Any, together: Any) -> None:
        if full[0]:
            raise FULL
        write(self, together)

    load = Backlog.load
    monkeypatch.setattr(journal.Journal, "_write", failing)
    monkeypatch.setattr(Backlog, "load", lambda *_: None)
    pipeline = start(sandbox.url, tmp_path, queue_size=5)
    record(*(f"m{number}" for number in range(8)))  # three of them stay on disk
    until(lambda: len(arrived(sandbox)) == 5)
    record("m8", "m9")  # there is room for these
    until(lambda: len(arrived(sandbox)) == 7)
    monkeypatch.setattr(Backlog, "load", load)
    until(lambda: len(arrived(sandbox)) >= 10)
    assert eventflows.force_flush(5_000)
    full[0] = False
    everything = [f"m{number}" for number in range(10)]
    until(lambda: outcomes(tmp_path) == dict.fromkeys(everything, "delivered"))
    assert arrived(sandbox) == everything
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered, stats.pending) == (10, 10, 0)


def test_what_comes_while_the_last_of_the_backlog_is_read_is_not_forgotten(tmp_path: Path) -> None:
    """The queue is full again before the loader is done, so that one more entry stays on disk only."""
    held = holding.create(tmp_path)
    lock = threading.Condition(threading.RLock())
    backlog = Backlog("meta", lock)
    backlog.leave(held, 0)

    def written(_conversion: Conversion, source: Source, _now: int) -> Entry:
        return Entry(source, b"{}")

    backlog.load(lambda: 10, written, lambda *_: backlog.leave(held, 7))
    assert backlog.waits
    backlog.load(lambda: 10, written, lambda *_: None)
    assert not backlog.waits
    holding.give_back(held)


def test_what_finds_no_room_any_more_when_it_was_loaded_is_loaded_again(tmp_path: Path) -> None:
    """Others took the room between the question for it and the offer."""
    held = holding.create(tmp_path)
    for number in range(4):
        event = Event(f"e{number}", EventType.LEAD, "Lead", 1, {}, sealed=True)
        line = held.spool.line("meta")
        held.take_in([(event, line)])
        held.spool.offered(line.seq)
    backlog = Backlog("meta", threading.Condition(threading.RLock()))
    backlog.leave(held, 0)
    loaded: list[list[int]] = []

    def offer(sources: Sequence[Source], _entries: object) -> None:
        loaded.append([source.seq for source in sources])
        if len(loaded) == 1:
            for source in sources[1:]:
                backlog.leave(held, source.seq - 1)

    backlog.load(lambda: 4, lambda _conversion, source, _now: Entry(source, b"{}"), offer)
    assert loaded == [[1, 2, 3, 4], [2, 3, 4]]
    assert not backlog.waits
    holding.give_back(held)


def test_what_nobody_can_read_is_counted_as_that(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(event: Event, country: str | None = None) -> Conversion:
        if event.id == "bad":
            raise OverflowError
        return conversion_of(event, country)

    for module in (backlog_module, offering_module):
        monkeypatch.setattr(module, "conversion_of", failing)
    pipeline = start(sandbox.url, tmp_path)
    record("good", "bad")
    assert eventflows.force_flush(10_000)
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered, stats.dropped) == (2, 1, {"unreadable in the storage": 1})
    assert outcomes(tmp_path) == {"good": "delivered", "bad": "dropped"}


HALF = "\ud800"
"""Half of a surrogate pair, as a cut text or a broken client brings it."""


@pytest.mark.parametrize("commit", ["always", "span_ok"])
def test_half_a_character_costs_nothing_but_itself(sandbox: Sandbox, tmp_path: Path, commit: str) -> None:
    pipeline = start(sandbox.url, tmp_path)
    tracer = eventflows.get_tracer("app", tracer_provider=(spans := TracerProvider()))
    spans.add_span_processor(EventFlowsSpanProcessor(pipeline))
    with tracer.start_as_current_span("order"):
        for one in ("first", f"half{HALF}", "last"):
            tracer.add_event("Lead", {**LEAD, "event_id": one, "conversion.commit": commit})
        tracer.add_event(f"lamp{HALF}", {**LEAD, "order_id": HALF, "event_id": "lamp", "conversion.commit": commit})
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["first", "half?", "lamp", "last"]
    assert outcomes(tmp_path) == dict.fromkeys(["first", "half?", "lamp", "last"], "delivered")


def test_what_cannot_be_kept_at_the_end_of_its_work_is_lost_alone(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is one of a span of the app, or the shutdown."""
    line, calls = Spool.line, count()

    def failing(self: Spool, owed: str) -> Line:
        if next(calls) == 1:
            raise OverflowError
        return line(self, owed)

    monkeypatch.setattr(Spool, "line", failing)
    pipeline = start(sandbox.url, tmp_path)
    tracer = eventflows.get_tracer("app", tracer_provider=(spans := TracerProvider()))
    spans.add_span_processor(EventFlowsSpanProcessor(pipeline))
    with tracer.start_as_current_span("order"):
        for one in ("first", "bad", "last"):
            tracer.add_event("Lead", {**LEAD, "event_id": one, "conversion.commit": "span_ok"})
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["first", "last"]
    assert pipeline.left_out == {("event", "OverflowError"): 1}


def test_who_is_erased_while_the_event_is_on_disk_only_is_not_waited_for(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.fault("meta", status=500, times=100_000)
    pipeline = start(sandbox.url, tmp_path, queue_size=2)
    record(*(f"m{number}" for number in range(10)))
    until(lambda: pipeline.stats()["meta"].attempts > 0)
    assert journals.erase(tmp_path, lambda event: event.id not in ("m0", "m1", "m5")) == 7
    sandbox.reset()
    assert eventflows.force_flush(10_000)
    assert arrived(sandbox) == ["m0", "m1", "m5"]
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered, stats.filtered) == (10, 3, {"erased": 7})
    assert adds_up(stats)


def test_nobody_waits_while_the_storage_is_searched_for_a_person(sandbox: Sandbox, tmp_path: Path) -> None:
    """What the app records meanwhile is on disk as ever, and at once."""
    start(sandbox.url, tmp_path, flush_interval="10m")
    record("hers")
    seconds: list[float] = []

    def matches(event: Event) -> bool:
        before = time.monotonic()
        record("meanwhile")
        seconds.append(time.monotonic() - before)
        return event.id == "hers"

    assert journals.erase(tmp_path, matches) == 1
    assert max(seconds) < journal.BUSY_SECONDS / 2
    assert outcomes(tmp_path) == {"meanwhile": "pending"}


def test_what_waits_longer_than_the_retention_is_still_delivered(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "TIDY_SECONDS", 0.05)
    sandbox.fault("meta", status=500, times=100_000)
    start(sandbox.url, tmp_path, queue_size=2, retention="100ms")
    record(*(f"m{number}" for number in range(10)))
    threading.Event().wait(0.5)
    sandbox.reset()
    until(lambda: arrived(sandbox) == [f"m{number}" for number in range(10)])


def test_a_folder_that_is_removed_is_made_again(
    sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "journals"
    start(sandbox.url, folder)
    record("before")
    assert eventflows.force_flush(5_000)
    shutil.rmtree(folder)
    until(lambda: "was removed" in caplog.text)
    record("after")
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["after", "before"]
    assert outcomes(folder) == {"after": "delivered"}


@pytest.mark.parametrize("where", ["number", "write"])
def test_a_signal_handler_may_record_while_its_thread_writes(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Both are in the journal, each with a number of its own."""
    start(sandbox.url, tmp_path)
    record("first")
    assert eventflows.force_flush(5_000)
    (held,) = storage_of(eventflows.running.current()).journals()
    within = [True]

    def interrupt() -> None:
        if within:
            within.clear()
            record("from the handler")

    class Numbers:
        """As the handler may come when the number is taken already."""

        def __next__(self) -> int:
            number = next(real_numbers)
            interrupt()
            return number

    def write(line: Line, event: Event) -> None:
        interrupt()
        real_write(line, event)

    real_write, real_numbers = Spool.write, held.spool._numbers
    if where == "number":
        monkeypatch.setattr(held.spool, "_numbers", Numbers())
    else:
        monkeypatch.setattr(Spool, "write", staticmethod(write))
    record("interrupted")
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["first", "from the handler", "interrupted"]
    assert {told.id: told.seq for told in journals.told(tmp_path)}.keys() == {
        "first",
        "from the handler",
        "interrupted",
    }


LATE = """
import atexit, sys
import eventflows
from eventflows import MetaProvider
def last():
    for number in range(3):
        eventflows.running.latest().record("Lead", {"user.id": "u1", "event_id": f"late{number}"})
atexit.register(last)
eventflows.configure([MetaProvider("123", "abc", endpoint=sys.argv[1] + "/meta")], sending_queue={"storage": sys.argv[2]})
eventflows.get_tracer("app").add_event("Lead", {"user.id": "u1", "event_id": "in time"})
"""


def test_what_is_recorded_after_the_end_is_delivered_by_the_next_process(sandbox: Sandbox, tmp_path: Path) -> None:
    """As by an exit handler that runs after ours."""
    subprocess.run([sys.executable, "-c", LATE, sandbox.url, str(tmp_path)], env=environment(), timeout=60, check=True)
    assert arrived(sandbox) == ["in time"]
    start(sandbox.url, tmp_path)
    until(lambda: arrived(sandbox) == ["in time", "late0", "late1", "late2"])


def storage_of(pipeline: Any) -> storage.Storage:
    found = pipeline._storage
    assert isinstance(found, storage.Storage)
    return found


def test_a_folder_stays_where_it_was_when_the_app_changes_its_directory(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that becomes a daemon. Its events are on disk all the same, and in one place."""
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    start(sandbox.url, Path("store"))
    record("before")
    assert eventflows.force_flush(5_000)
    monkeypatch.chdir(elsewhere)
    record("after")
    assert eventflows.force_flush(5_000)
    eventflows.shutdown(5_000)
    assert outcomes(tmp_path / "store") == {"before": "delivered", "after": "delivered"}
    assert list(elsewhere.iterdir()) == []


def test_what_is_taken_over_while_the_pipeline_shuts_down_is_given_back(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody could deliver it as long as this process lives."""
    run("http://127.0.0.1:9", tmp_path, 0, 5, "kill")
    take, taking, shut_down = holding.take, threading.Event(), threading.Event()

    def late(*given: Any) -> Any:
        taking.set()
        assert shut_down.wait(10)
        return take(*given)

    with monkeypatch.context() as patched:
        patched.setattr(holding, "take", late)
        pipeline = start(sandbox.url, tmp_path)
        assert taking.wait(10)
        eventflows.shutdown(100)
        shut_down.set()
        storing = pipeline._storage
        assert storing is not None
        assert storing._thread is not None
        storing._thread.join(10)
    start(sandbox.url, tmp_path)
    until(lambda: len(arrived(sandbox)) == 5)


def test_a_provider_that_comes_with_a_reload_waits_for_no_journal_that_was_given_back(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told of the journals that are held; one of them owes nothing, and is given back before it looks there."""
    run("http://127.0.0.1:9", tmp_path, 0, 5, "kill")
    monkeypatch.setattr(storage, "SCAN_SECONDS", 3_600)
    pipeline = start(sandbox.url, tmp_path)
    assert eventflows.force_flush(5_000)
    storing = pipeline._storage
    assert storing is not None
    assert len(storing.journals()) == 1
    meta, ga4, *_ = four(sandbox.url)
    pipeline.reload([meta, ga4], sending_queue={"storage": str(tmp_path)})
    storing._adopt()
    assert storing.journals() == []
    pipeline._tend()
    record("e1")
    assert eventflows.force_flush(5_000)


def test_an_outcome_whose_writing_is_interrupted_is_written_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler ends the thread that writes for several: what the platform has is not sent again for that."""

    class Ended(BaseException):
        pass

    def ending(*_: object) -> None:
        monkeypatch.undo()
        raise Ended

    held = holding.create(tmp_path)
    for number in range(2):
        event = Event(f"e{number}", EventType.LEAD, "Lead", 1, {}, sealed=True)
        held.take_in([(event, held.spool.line("meta"))])
    others = threading.Thread(target=held.settle, args=("meta", [journal.Row(2, "delivered", "")]))
    with held._writing:
        others.start()
        until(lambda: len(held._outcomes) == 1)
        monkeypatch.setattr(journal, "_settle", ending)
        with pytest.raises(Ended):
            held.settle("meta", [journal.Row(1, "delivered", "")])
    others.join(10)
    assert outcomes(tmp_path) == {"e0": "delivered", "e1": "delivered"}
    holding.give_back(held)


def test_what_is_recorded_amid_the_shutdown_keeps_no_journal(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first event, and its thread was about to open the storage."""
    pipeline = start(sandbox.url, tmp_path)
    storing = pipeline._storage
    assert storing is not None
    really = storage.Storage._open

    def late(self: storage.Storage) -> journal.Journal:
        eventflows.shutdown(1_000)
        return really(self)

    monkeypatch.setattr(storage.Storage, "_open", late)
    record("late")
    assert holding._held == set()
    assert outcomes(tmp_path) == {"late": "pending"}


FOREIGN = """
import os, sys
import eventflows, eventflows.startup, eventflows.pipeline, eventflows.instrumentation, eventflows.wiring
from eventflows import ConsoleProvider
from opentelemetry.sdk import _logs, metrics, trace
pipeline = eventflows.configure([ConsoleProvider()], sending_queue={"storage": sys.argv[1]})
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
eventflows.get_tracer("x").add_event("Lead", {"user.id": "1", "event_id": "e1"})
print(len(pipeline._storage.journals()))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_a_journal_of_another_user_keeps_nobody_from_a_journal_of_his_own(tmp_path: Path) -> None:
    """As where the app was started by root once. It is left alone, and said so."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    try:
        holding.give_back(holding.create(folder))
        done = subprocess.run(
            [sys.executable, "-c", FOREIGN, str(folder)],
            env=environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stdout.splitlines()[0] == "1", done.stderr
        assert "cannot be opened now" in done.stderr
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")
def test_no_file_of_the_storage_is_somebody_elses_to_read(sandbox: Sandbox, tmp_path: Path) -> None:
    """Also in a folder that others may look into."""
    tmp_path.chmod(0o755)
    start(sandbox.url, tmp_path)
    record("e1")
    assert eventflows.force_flush(5_000)
    files = {file.suffix.partition("-")[0]: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert files.keys() >= {".journal", ".lock"}
    assert set(files.values()) == {0o600}

"""What the app's thread has written is safe before the journal has it: it comes in once, whole, and is known to who asks."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

import eventflows
from eventflows import intake, journal, journals, spool, storage
from eventflows.conversion import EventType
from eventflows.sandbox import Sandbox
from eventflows.sealing import Event

from .test_pipeline import adds_up
from .test_storage import arrived, outcomes, record, run, start, until

SEALED = Event("e1", EventType.LEAD, "Lead", 1, {"order_id": "4711"}, sealed=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage looks after its folder every moment."""
    monkeypatch.setattr(storage, "SCAN_SECONDS", 0.05)


def left_behind(folder: Path, *events: Event) -> Path:
    """A journal whose process died after it wrote these; returns the file of its spool."""
    held = storage.create(folder)
    for event in events:
        held.spool.write(held.spool.line(event, "meta"))
    storage.give_back(held)
    (found,) = spool.files(held.path)
    return found


def test_what_only_the_spool_holds_is_told_and_delivered(sandbox: Sandbox, tmp_path: Path) -> None:
    """The process is killed before its intake runs at all; the next delivers each once."""
    done = run(sandbox.url, tmp_path, 0, 50, "kill-at-once")
    assert done.returncode == -signal.SIGKILL, done.stderr
    (path,) = journals.files(tmp_path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM event").fetchone() == (0,)
    db.close()
    assert outcomes(tmp_path) == {f"e{n:05}": "pending" for n in range(50)}
    pipeline = start(sandbox.url, tmp_path)
    until(lambda: len(arrived(sandbox)) >= 50)
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == [f"e{n:05}" for n in range(50)]
    assert adds_up(pipeline.stats()["meta"])
    until(lambda: set(outcomes(tmp_path).values()) == {"delivered"})
    assert spool.files(path) == []


def test_a_line_that_was_cut_off_costs_no_other(tmp_path: Path) -> None:
    file = left_behind(tmp_path, SEALED, SEALED._replace(id="e2"), SEALED._replace(id="e3"))
    first, second, third = [line for line in file.read_bytes().split(b"\n") if line]
    file.write_bytes(b"\n" + first + b"\n" + b"\n" + second[:40] + b"\n" + third + b"\n" + b"\n" + second[:-1])
    assert [told.id for told in journals.told(tmp_path)] == ["e1", "e3"]
    storage.bring_in(tmp_path)
    assert [told.id for told in journals.told(tmp_path)] == ["e1", "e3"]
    assert not file.exists()


def test_nonsense_in_the_spool_costs_itself(tmp_path: Path) -> None:
    file = left_behind(tmp_path, SEALED)
    with file.open("ab") as out:
        out.write(b'\n2 17 meta {"id": 5}\n\n\xff\xfe\n\nx y z {}\n\n3 17 meta {not json}\n')
    storage.bring_in(tmp_path)
    assert [told.id for told in journals.told(tmp_path)] == ["e1"]


def test_what_the_journal_took_in_does_not_come_again(tmp_path: Path) -> None:
    """Not even where it was delivered and forgotten meanwhile, and the process died before the file was removed."""
    held = storage.create(tmp_path)
    lines = [
        (one, held.spool.line(one, "meta")) for one in (SEALED, SEALED._replace(id="e2"), SEALED._replace(id="e3"))
    ]
    for _, line in lines:
        held.spool.write(line)
    held.take_in(lines[1:])  # out of their order, as the threads of an app come
    held.take_in(lines[:1])
    held.settle("meta", [journal.Row(line.seq, "delivered", "") for _, line in lines])
    (file,) = spool.files(held.path)
    written = file.read_bytes()
    assert written.count(b'"order_id":"4711"') == 3
    held.tidy(0.0)
    storage.give_back(held)
    assert spool.files(held.path) == []
    file.write_bytes(written)
    storage.bring_in(tmp_path)
    assert list(journals.told(tmp_path)) == []


def test_what_was_overtaken_is_not_taken_for_taken(tmp_path: Path) -> None:
    """One thread has its number and is slow; the others' events are in the journal when the process dies."""
    held = storage.create(tmp_path)
    slow = held.spool.line(SEALED, "meta")
    quick = [SEALED._replace(id=f"q{number}") for number in range(5)]
    lines = [(one, held.spool.line(one, "meta")) for one in quick]
    for line in (slow, *(line for _, line in lines)):
        held.spool.write(line)
    held.take_in(lines)
    storage.give_back(held)
    assert sorted(told.id for told in journals.told(tmp_path)) == ["e1", "q0", "q1", "q2", "q3", "q4"]
    storage.bring_in(tmp_path)
    assert sorted(told.id for told in journals.told(tmp_path)) == ["e1", "q0", "q1", "q2", "q3", "q4"]


def test_numbers_are_not_given_twice(tmp_path: Path) -> None:
    """Else an event would be taken for one that is known, after all of the first were forgotten."""
    held = storage.create(tmp_path)
    line = held.spool.line(SEALED, "meta")
    held.take_in([(SEALED, line)])
    held.settle("meta", [journal.Row(line.seq, "delivered", "")])
    held.tidy(0.0)
    storage.give_back(held)
    again = storage.take(tmp_path)
    assert again is not None
    assert again.spool.line(SEALED, "meta").seq > line.seq
    storage.give_back(again)


def test_an_app_waits_for_nobody_who_holds_the_journal(sandbox: Sandbox, tmp_path: Path) -> None:
    """Another program has the database locked; the event is on disk and queued all the same."""
    start(sandbox.url, tmp_path, flush_interval="10m")
    record("before")
    until(lambda: outcomes(tmp_path) == {"before": "pending"})
    (path,) = journals.files(tmp_path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    record("meanwhile")
    assert other.in_transaction
    assert any(b'"meanwhile"' in file.read_bytes() for file in spool.files(path))
    other.execute("ROLLBACK")
    other.close()
    assert eventflows.force_flush(10_000)
    assert arrived(sandbox) == ["before", "meanwhile"]


def test_files_are_removed_once_the_journal_holds_what_they_held(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what is on disk does not grow, and holds nobody's digests longer than a moment."""
    monkeypatch.setattr(spool, "GROWN_BYTES", 2_000)
    monkeypatch.setattr(storage, "SCAN_SECONDS", 3_600)
    start(sandbox.url, tmp_path)
    for round_ in range(20):
        record(*(f"m{round_}-{number}" for number in range(20)))
        assert eventflows.force_flush(5_000)
    (path,) = journals.files(tmp_path)
    assert len(spool.files(path)) <= 2
    (held,) = eventflows.running.current()._storage.journals()  # type: ignore[union-attr]
    held.tidy(None)
    assert spool.size(path) == 0


def test_a_person_is_erased_from_the_spool_of_the_dead_and_of_the_living(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(tmp_path, SEALED, SEALED._replace(id="e2"))
    monkeypatch.setattr(storage, "SCAN_SECONDS", 3_600)
    monkeypatch.setattr(intake, "GATHER_SECONDS", 0.5)
    start(sandbox.url, tmp_path / "living", flush_interval="10m")
    record("e1", "e3")
    for folder, others in ((tmp_path, {"e2"}), (tmp_path / "living", {"e3"})):
        assert journals.erase(folder, lambda event: event.id == "e1") == 1
        assert set(outcomes(folder)) == others
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["e3"]


def test_the_spool_of_a_damaged_journal_is_kept(tmp_path: Path) -> None:
    file = left_behind(tmp_path, SEALED)
    (path,) = journals.files(tmp_path)
    for part in (path, Path(f"{path}-wal")):
        if part.exists():
            part.write_bytes(b"this is no database" * 100)
    storage.bring_in(tmp_path)
    assert [told.id for told in journals.told(tmp_path)] == ["e1"]
    assert path.with_suffix(".damaged").exists()
    assert not file.exists()


def test_a_full_queue_goes_to_the_journal(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in memory of what found no room, and all of it arrives."""
    monkeypatch.setattr(intake, "GATHER_SECONDS", 0.2)
    pipeline = start(sandbox.url, tmp_path, queue_size=3)
    record(*(f"m{number}" for number in range(30)))
    until(lambda: len(arrived(sandbox)) >= 30)
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == sorted(f"m{number}" for number in range(30))
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered) == (30, 30)
    until(lambda: set(outcomes(tmp_path).values()) == {"delivered"})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_writes_to_no_file_of_its_parent(sandbox: Sandbox, tmp_path: Path) -> None:
    start(sandbox.url, tmp_path, flush_interval="10m")
    record("parent")
    (path,) = journals.files(tmp_path)
    (file,) = spool.files(path)
    child = os.fork()
    if child == 0:
        try:
            record("child")
            here = [one for one in spool.files(path) if b'"child"' in one.read_bytes()]
            os._exit(1 if here else 0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert b'"child"' not in (file.read_bytes() if file.exists() else b"")
    eventflows.shutdown()
    until(lambda: {"child", "parent"} <= set(outcomes(tmp_path)))


def test_the_spool_holds_no_person_and_is_nobody_elses_to_read(sandbox: Sandbox, tmp_path: Path) -> None:
    start(sandbox.url, tmp_path, flush_interval="10m")
    record("mine")
    (path,) = journals.files(tmp_path)
    (file, *_) = spool.files(path)
    assert file.stat().st_mode & 0o077 == 0
    lines = [line for one in spool.files(path) for line in spool.lines(one)]
    assert [json.loads(line.body)["id"] for line in lines] == ["mine"]
    assert b"@" not in lines[0].body
    assert lines[0].captured_at <= time.time_ns()


def test_a_number_that_is_never_used_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception of a signal handler ended its thread; what overtakes it is not remembered for ever."""
    monkeypatch.setattr(spool, "_MOST_AHEAD", 10)
    held = storage.create(tmp_path)
    held.spool.line(SEALED, "meta")
    lines = [held.spool.line(SEALED, "meta") for _ in range(20)]
    assert [held.spool.take([line]) for line in lines][-1] == lines[-1].seq
    storage.give_back(held)

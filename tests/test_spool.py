"""What the app's thread has written is safe before the journal has it: it comes in once, whole, and is known to who asks."""

from __future__ import annotations

import marshal
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

import eventflows
from eventflows import holding, intake, journal, journals, offering, spool, storage
from eventflows import pipeline as pipeline_module
from eventflows.conversion import EventType
from eventflows.sandbox import Sandbox
from eventflows.sealing import Event
from eventflows.stored import unpack

from .test_pipeline import adds_up
from .test_storage import arrived, outcomes, record, run, start, until

SEALED = Event("e1", EventType.LEAD, "Lead", 1, {"order_id": "4711"}, sealed=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage looks after its folder every moment."""
    monkeypatch.setattr(storage, "SCAN_SECONDS", 0.05)


def left_behind(folder: Path, *events: Event) -> Path:
    """A journal whose process died after it wrote these; returns the file of its spool."""
    held = holding.create(folder)
    for event in events:
        held.spool.write(held.spool.line("meta"), event)
    holding.give_back(held)
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
    whole = file.read_bytes()
    heads = [head.start() for head in spool._HEAD.finditer(whole)]
    first, second, third = (whole[at:end] for at, end in zip(heads, [*heads[1:], len(whole)], strict=True))
    file.write_bytes(first + second[:-20] + third + second[:-1])
    assert [told.id for told in journals.told(tmp_path)] == ["e1", "e3"]
    holding.bring_in(tmp_path)
    assert [told.id for told in journals.told(tmp_path)] == ["e1", "e3"]
    assert not file.exists()


def test_nonsense_in_the_spool_costs_itself(tmp_path: Path) -> None:
    file = left_behind(tmp_path, SEALED)
    with file.open("ab") as out:
        for seq, packed in enumerate(
            [b"N", b"(", b"", b"(\x01\x00\x00\x00N", marshal.dumps((1, "lead")), b"\xff" * 99], 2
        ):
            out.write(b"\n%d 17 meta %d %d\n" % (seq, len(packed), crc32(packed)) + packed)
        out.write(b"\n9 17 meta 3 17\nabc\n\xff\xfe\n\nx y z {}\n")
    holding.bring_in(tmp_path)
    assert [told.id for told in journals.told(tmp_path)] == ["e1"]


def test_what_the_journal_took_in_does_not_come_again(tmp_path: Path) -> None:
    """Not even where it was delivered and forgotten meanwhile, and the process died before the file was removed."""
    held = holding.create(tmp_path)
    lines = [(one, held.spool.line("meta")) for one in (SEALED, SEALED._replace(id="e2"), SEALED._replace(id="e3"))]
    for event, line in lines:
        held.spool.write(line, event)
    held.take_in(lines[1:])  # out of their order, as the threads of an app come
    held.take_in(lines[:1])
    held.settle("meta", [journal.Row(line.seq, "delivered", "") for _, line in lines])
    (file,) = spool.files(held.path)
    written = file.read_bytes()
    assert written.count(b"4711") == 3
    held.tidy(0.0)
    holding.give_back(held)
    assert spool.files(held.path) == []
    file.write_bytes(written)
    holding.bring_in(tmp_path)
    assert list(journals.told(tmp_path)) == []


def test_what_was_overtaken_is_not_taken_for_taken(tmp_path: Path) -> None:
    """One thread has its number and is slow; the others' events are in the journal when the process dies."""
    held = holding.create(tmp_path)
    slow = held.spool.line("meta")
    quick = [SEALED._replace(id=f"q{number}") for number in range(5)]
    lines = [(one, held.spool.line("meta")) for one in quick]
    for event, line in ((SEALED, slow), *lines):
        held.spool.write(line, event)
    held.take_in(lines)
    holding.give_back(held)
    assert sorted(told.id for told in journals.told(tmp_path)) == ["e1", "q0", "q1", "q2", "q3", "q4"]
    holding.bring_in(tmp_path)
    assert sorted(told.id for told in journals.told(tmp_path)) == ["e1", "q0", "q1", "q2", "q3", "q4"]


def test_numbers_are_not_given_twice(tmp_path: Path) -> None:
    """Else an event would be taken for one that is known, after all of the first were forgotten."""
    held = holding.create(tmp_path)
    line = held.spool.line("meta")
    held.take_in([(SEALED, line)])
    held.settle("meta", [journal.Row(line.seq, "delivered", "")])
    held.tidy(0.0)
    holding.give_back(held)
    again = holding.take(tmp_path)
    assert again is not None
    assert again.spool.line("meta").seq > line.seq
    holding.give_back(again)


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
    assert any(b"meanwhile" in file.read_bytes() for file in spool.files(path))
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
    holding.bring_in(tmp_path)
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
            here = [one for one in spool.files(path) if b"child" in one.read_bytes()]
            os._exit(1 if here else 0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert b"child" not in (file.read_bytes() if file.exists() else b"")
    eventflows.shutdown()
    until(lambda: {"child", "parent"} <= set(outcomes(tmp_path)))


def test_the_spool_holds_no_person_and_is_nobody_elses_to_read(sandbox: Sandbox, tmp_path: Path) -> None:
    start(sandbox.url, tmp_path, flush_interval="10m")
    record("mine")
    (path,) = journals.files(tmp_path)
    (file, *_) = spool.files(path)
    assert file.stat().st_mode & 0o077 == 0
    ((line, packed),) = (found for one in spool.files(path) for found in spool.lines(one))
    assert unpack(packed).id == "mine"
    assert b"example.com" not in packed
    assert line.captured_at <= time.time_ns()


# --- signal handlers that raise, as one of Celery's does when a task takes too long


class TooLong(Exception):
    """What a signal handler raises at any line."""


def raising(times: int = 1) -> Callable[..., Any]:
    """Put in place of a function: it is interrupted so many times."""
    left = [times]

    def interrupted(real: Callable[..., Any], *given: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise TooLong
        return real(*given)

    return interrupted


@pytest.mark.parametrize("where", ["before", "within", "committing", "after"])
@pytest.mark.parametrize("killed", [True, False])
def test_a_flush_that_is_interrupted_leaves_to_the_next_process_what_it_had(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, killed: bool
) -> None:
    """Before, while and after it comes into the journal; and others come after it."""
    monkeypatch.setattr(intake, "GATHER_SECONDS", 3_600)
    start(sandbox.url, tmp_path)
    record("m0", "m1")
    with monkeypatch.context() as patched:
        interrupted = raising()
        if where == "before":
            taken_in = storage.Storage._taken_in
            patched.setattr(storage.Storage, "_taken_in", lambda *given: interrupted(taken_in, *given))
        elif where == "within":
            row = journal._row
            patched.setattr(journal, "_row", lambda *given: interrupted(row, *given))
        elif where == "committing":
            take = spool.Spool.take
            patched.setattr(spool.Spool, "take", lambda *given: (take(*given), interrupted(take))[0])
        else:
            release = spool.Spool.release
            patched.setattr(spool.Spool, "release", staticmethod(lambda *given: interrupted(release, *given)))
        with pytest.raises(TooLong):
            eventflows.force_flush(5_000)
    record(*(f"n{number}" for number in range(100)))
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == sorted(f"n{number}" for number in range(100))
    if killed:  # as far as the folder goes
        copy = tmp_path / "copy"
        copy.mkdir()
        for file in tmp_path.glob("*.*"):
            shutil.copy(file, copy)
    else:
        copy = tmp_path
    eventflows.shutdown(5_000)
    start(sandbox.url, copy)
    until(lambda: len(arrived(sandbox)) >= 102)
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["m0", "m1", *sorted(f"n{number}" for number in range(100))]


def test_a_number_that_is_never_used_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """Its thread was ended by an exception. What comes after it is delivered, and forgotten for good."""
    held = holding.create(tmp_path)
    held.spool.line("meta")
    for number in range(20):
        event = SEALED._replace(id=f"e{number}")
        line = held.spool.line("meta")
        held.spool.write(line, event)
        held.take_in([(event, line)])
        held.spool.offered(line.seq)
    assert held.spool.offered_through() == 0
    for _ in range(2):
        held.tidy(3_600)
    assert held.spool.offered_through() == 21
    held.settle("meta", [journal.Row(seq, "delivered", "") for seq in range(2, 22)])
    held.tidy(0.0)
    holding.give_back(held)
    assert list(journals.told(tmp_path)) == []
    holding.bring_in(tmp_path)
    assert list(journals.told(tmp_path)) == []


def test_what_comes_after_all_is_under_way_until_the_lanes_know_it(tmp_path: Path) -> None:
    """Else a lane could find it in the journal a moment before it is offered it, and send it twice."""
    held = holding.create(tmp_path)
    late, other = held.spool.line("meta"), held.spool.line("meta")
    held.take_in([(SEALED, other)])
    held.spool.offered(other.seq)
    for _ in range(2):
        held.tidy(3_600)
    assert held.spool.offered_through() == other.seq
    held.take_in([(SEALED, late)])
    assert held.spool.offered_through() < late.seq
    holding.give_back(held)


@pytest.mark.parametrize("where", ["reading", "taken in"])
def test_what_is_interrupted_on_its_way_to_the_lanes_holds_up_nothing_behind_it(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As by a time limit of Celery's, which ends a flush, and the worker goes on: also with what finds no room in memory."""
    monkeypatch.setattr(intake, "GATHER_SECONDS", 3_600)
    pipeline = start(sandbox.url, tmp_path, queue_size=10)
    record("m0", "m1")
    with monkeypatch.context() as patched:
        interrupted = raising()
        owner, name = (offering, "_read") if where == "reading" else (offering, "offer")
        real = getattr(owner, name)
        patched.setattr(
            offering if where == "reading" else pipeline_module, name, lambda *given: interrupted(real, *given)
        )
        with pytest.raises(TooLong):
            eventflows.force_flush(5_000)
    for _ in range(2):
        (held,) = pipeline._storage.journals() if pipeline._storage is not None else ()
        held.tidy(3_600)
    sandbox.fault("meta", status=503, times=2)
    record(*(f"n{number}" for number in range(50)))
    assert eventflows.force_flush(10_000)
    here = [] if where == "taken in" else ["m0", "m1"]
    assert arrived(sandbox) == [*here, *sorted(f"n{number}" for number in range(50))]
    assert adds_up(pipeline.stats()["meta"])
    eventflows.shutdown(5_000)
    start(sandbox.url, tmp_path)
    until(lambda: len(arrived(sandbox)) >= 52)


# --- files


@pytest.mark.parametrize("end", ["leave", "close"])
def test_a_file_that_is_left_is_not_written_to(tmp_path: Path, end: str) -> None:
    """Another thread leaves it, or closes all, when this one has chosen it and not said so yet: it may be removed by then."""
    held = holding.create(tmp_path)
    first = held.spool.line("meta")
    held.spool.write(first, SEALED)
    held.take_in([(SEALED, first)])
    (file,) = spool.files(held.path)

    class Noting(set[int]):
        def add(self, seq: int) -> None:
            held.spool._file.unwritten = set()  # type: ignore[union-attr]
            getattr(held.spool, end)()
            super().add(seq)

    held.spool._file.unwritten = Noting()  # type: ignore[union-attr]
    late = SEALED._replace(id="late")
    if end == "close":
        with pytest.raises(OSError, match="closed"):
            held.spool.line("meta")
    else:
        held.spool.write(held.spool.line("meta"), late)
    assert not file.exists()
    holding.give_back(held)
    assert {told.id for told in journals.told(tmp_path)} == {"e1"} | ({"late"} if end == "leave" else set())


def test_what_the_journal_cannot_hold_is_not_left_in_the_spool(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is delivered from memory, and would be once more by the next process if this one were killed later."""
    monkeypatch.setattr(storage, "SCAN_SECONDS", 3_600)
    start(sandbox.url, tmp_path)
    record("before")
    assert eventflows.force_flush(5_000)
    (path,) = journals.files(tmp_path)

    def full(_db: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "transaction", full)
        record("meanwhile")
        until(lambda: arrived(sandbox) == ["before", "meanwhile"])
    assert b"meanwhile" not in b"".join(file.read_bytes() for file in spool.files(path))


def test_a_journal_that_takes_nothing_is_not_asked_for_each_portion(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would wait for it, while the queue fills."""
    monkeypatch.setattr(intake, "GATHER_SECONDS", 3_600)
    monkeypatch.setattr(storage, "REFUSED_SECONDS", 3_600)
    start(sandbox.url, tmp_path)
    tried = []

    def full(*_: object) -> None:
        tried.append(1)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(journal.Journal, "take_in", full)
    record(*(f"m{number}" for number in range(200)))
    assert eventflows.force_flush(5_000)
    assert len(arrived(sandbox)) == 200
    assert len(tried) == 1


def test_a_spool_that_cannot_be_read_keeps_nobody_from_the_others(sandbox: Sandbox, tmp_path: Path) -> None:
    """It waits until it can be."""
    now = SEALED._replace(time_unix_nano=time.time_ns())
    file = left_behind(tmp_path / "0", now)
    (bad,) = journals.files(tmp_path / "0")
    left_behind(tmp_path, now._replace(id="e2"))
    for part in (tmp_path / "0").iterdir():
        part.rename(tmp_path / f"0{part.name}")
    file = tmp_path / f"0{file.name}"
    content = file.read_bytes()
    file.unlink()
    file.mkdir()
    start(sandbox.url, tmp_path)
    until(lambda: outcomes(tmp_path) == {"e2": "refused"})
    file.rmdir()
    file.write_bytes(content)
    until(lambda: outcomes(tmp_path) == {"e1": "refused", "e2": "refused"})
    assert (tmp_path / f"0{bad.name}").exists()


def test_a_file_that_cannot_be_removed_does_not_bring_its_events_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where somebody reads it."""
    file = left_behind(tmp_path, SEALED)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError("in use")))
        held = holding.take(tmp_path)
    assert held is not None
    held.settle("meta", [journal.Row(1, "delivered", "")])
    held.tidy(0.0)
    holding.give_back(held)
    assert file.exists()
    assert list(journals.told(tmp_path)) == []
    holding.bring_in(tmp_path)
    assert list(journals.told(tmp_path)) == []
    assert not file.exists()


def test_a_person_is_erased_from_what_its_process_does_not_bring_in(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands still, or has lost it, so nobody waits for it; it comes back neither there nor in the next process."""
    monkeypatch.setattr(storage, "SCAN_SECONDS", 3_600)
    monkeypatch.setattr(intake, "GATHER_SECONDS", 3_600)
    pipeline = start(sandbox.url, tmp_path, flush_interval="10m")
    record("hers", "his")
    assert journals.erase(tmp_path, lambda event: event.id == "hers") == 1
    assert set(outcomes(tmp_path)) == {"his"}
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in tmp_path.glob("*.*"):
        shutil.copy(part, copy)
    holding.bring_in(copy)
    assert set(outcomes(copy)) == {"his"}
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["his"]
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered, stats.filtered) == (2, 1, {"erased": 1})
    assert set(outcomes(tmp_path)) == {"his"}


def test_a_number_that_was_erased_is_given_to_another_event_later(tmp_path: Path) -> None:
    left_behind(tmp_path, SEALED)
    (path,) = journals.files(tmp_path)
    db = sqlite3.connect(path)
    db.execute("INSERT INTO erased VALUES (1), (2)")
    db.commit()
    db.close()
    held = holding.take(tmp_path)
    assert held is not None
    for _ in range(3):
        line = held.spool.line("meta")
        held.take_in([(SEALED, line)])
    assert held.count_pending() == 3
    holding.give_back(held)


def test_a_journal_that_was_removed_is_held_while_its_events_are_on_their_way(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(intake, "GATHER_SECONDS", 3_600)
    folder = tmp_path / "journals"
    start(sandbox.url, folder)
    record("before")
    shutil.rmtree(folder)
    until(lambda: "was removed" in caplog.text)
    time.sleep(0.3)
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["before"]
    assert "takes nothing" not in caplog.text

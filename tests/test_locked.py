"""Another program has the journal locked, as a back-up may for long: nobody waits for it, and nothing is lost or doubled."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import eventflows
from eventflows import intake, journal, journals, spool, storage
from eventflows import outcomes as writing
from eventflows.pipeline import Pipeline
from eventflows.sandbox import Sandbox

from .test_deadlines import MARGIN
from .test_pipeline import LEAD, adds_up
from .test_storage import arrived, outcomes, record, run, start, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage looks after its folder every moment."""
    monkeypatch.setattr(storage, "SCAN_SECONDS", 0.05)


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """A program has the only journal of the folder for itself, until the end or until the function given is called."""
    (path,) = journals.files(folder)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield other.close
    finally:
        other.close()


def numbered(first: int, count: int) -> list[str]:
    return [f"m{number:03}" for number in range(first, first + count)]


def begin(sandbox: Sandbox, folder: Path, **queue: Any) -> Any:
    """A pipeline that has delivered an event."""
    pipeline = start(sandbox.url, folder, **queue)
    record("before")
    assert eventflows.force_flush(5_000)
    until(lambda: outcomes(folder) == {"before": "delivered"})
    return pipeline


def test_the_app_does_not_touch_the_database_however_full_the_queue_is(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What finds no room in memory is on disk already, and comes from there in its turn."""
    pipeline = begin(sandbox, tmp_path, queue_size=3)
    monkeypatch.setattr(spool, "GROWN_BYTES", 5_000)  # several files
    writers: set[threading.Thread] = set()
    transaction = journal.transaction

    def noting(db: sqlite3.Connection) -> Any:
        writers.add(threading.current_thread())
        return transaction(db)

    with locked(tmp_path):
        with monkeypatch.context() as patched:
            patched.setattr(journal, "transaction", noting)
            record(*numbered(0, 100))
            assert threading.current_thread() not in writers
        assert arrived(sandbox) == ["before"]
    until(lambda: len(arrived(sandbox)) >= 101)
    assert eventflows.force_flush(10_000)
    assert arrived(sandbox) == ["before", *numbered(0, 100)]
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered) == (101, 101)
    until(lambda: set(outcomes(tmp_path).values()) == {"delivered"})
    assert len(outcomes(tmp_path)) == 101


def counts(pipeline: Pipeline) -> tuple[int, int, int]:
    stats = pipeline.stats()["meta"]
    return (stats.captured, stats.delivered, stats.pending)


@pytest.mark.parametrize("queue_size", [3, 10_000])
def test_flush_shutdown_and_numbers_keep_their_time_and_the_next_process_delivers(
    queue_size: int, sandbox: Sandbox, tmp_path: Path
) -> None:
    pipeline = begin(sandbox, tmp_path, queue_size=queue_size)
    with locked(tmp_path):
        record(*numbered(0, 100))
        for ask, seconds in ((pipeline.stats, 0.0), (lambda: pipeline.force_flush(300), 0.3)):
            started = time.monotonic()
            ask()
            assert time.monotonic() - started < seconds + MARGIN
        started = time.monotonic()
        assert not eventflows.shutdown(300)
        assert time.monotonic() - started < 0.3 + MARGIN
        # A portion that is being tried at that moment is counted a little later.
        until(lambda: counts(pipeline) == (101, 1, 100))
        assert arrived(sandbox) == ["before"]
    start(sandbox.url, tmp_path)
    until(lambda: len(arrived(sandbox)) >= 101)
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["before", *numbered(0, 100)]
    assert adds_up(pipeline.stats()["meta"])


def test_a_flush_uses_its_time_to_try_again(sandbox: Sandbox, tmp_path: Path) -> None:
    begin(sandbox, tmp_path)
    with locked(tmp_path) as let_go:
        record("meanwhile")
        threading.Timer(0.5, let_go).start()
        assert eventflows.force_flush(10_000)
    assert arrived(sandbox) == ["before", "meanwhile"]


def test_the_first_event_does_not_wait_for_a_dead_processs_journal(sandbox: Sandbox, tmp_path: Path) -> None:
    """Whoever has it locked lets nobody read it either. It is taken over once it is free."""
    run("http://127.0.0.1:9", tmp_path, 0, 3, "kill")
    (path,) = journals.files(tmp_path)
    other = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "COMMIT"):
        other.execute(statement)
    started = time.monotonic()
    start(sandbox.url, tmp_path)
    time.sleep(0.1)  # its storage looks at the folder
    record("first")
    assert time.monotonic() - started < MARGIN
    assert eventflows.force_flush(5_000)
    assert arrived(sandbox) == ["first"]
    other.close()
    until(lambda: len(arrived(sandbox)) >= 4)
    assert arrived(sandbox) == ["e00000", "e00001", "e00002", "first"]


def test_others_are_told_of_an_event_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """However often it is tried to bring it into the journal."""
    pipeline = begin(sandbox, tmp_path)
    told: list[str] = []
    with locked(tmp_path) as let_go:
        pipeline.leave("Lead", {**LEAD, "event_id": "meanwhile"}, tell=lambda event: told.append(event.id))
        assert not pipeline.force_flush(300)
        let_go()
        assert pipeline.force_flush(10_000)
    assert told == ["meanwhile"]


def test_an_outcome_that_could_not_be_written_is_written_before_the_end(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next process would send again what the platform has; a lock may be held longer than a disk is waited for."""
    monkeypatch.setattr(writing, "DISK_SECONDS", 0.05)
    begin(sandbox, tmp_path, flush_interval="10m")
    record("meanwhile")
    until(lambda: outcomes(tmp_path).get("meanwhile") == "pending")
    until(lambda: not spool_of(tmp_path))
    monkeypatch.setattr(storage, "SCAN_SECONDS", 3_600)
    with locked(tmp_path) as let_go:
        assert eventflows.force_flush(5_000)
        assert arrived(sandbox) == ["before", "meanwhile"]
        threading.Timer(0.5, let_go).start()
        assert eventflows.shutdown(5_000)
    assert outcomes(tmp_path) == {"before": "delivered", "meanwhile": "delivered"}


def spool_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for path in journals.files(folder) for file in spool.files(path))


def test_what_can_be_read_from_the_spool_no_more_is_counted_with_a_reason(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has removed it."""
    pipeline = begin(sandbox, tmp_path, queue_size=3)
    monkeypatch.setattr(intake, "GATHER_SECONDS", 3_600)
    record(*numbered(0, 10))
    (path,) = journals.files(tmp_path)
    for file in spool.files(path):
        file.unlink()
    assert eventflows.force_flush(5_000)
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered, stats.dropped) == (11, 4, {"unreadable in the storage": 7})


def test_what_finds_no_room_in_memory_nor_on_disk_is_dropped_as_that(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = begin(sandbox, tmp_path, queue_size=3)
    monkeypatch.setattr(intake, "GATHER_SECONDS", 3_600)

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(spool, "pack", full)
    monkeypatch.setattr(storage, "REFUSED_SECONDS", 0)
    record(*numbered(0, 10))
    assert eventflows.force_flush(5_000)
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered, stats.dropped) == (11, 4, {"queue full": 7})
    monkeypatch.undo()
    eventflows.shutdown(5_000)
    (path,) = journals.files(tmp_path)
    assert spool.files(path) == []

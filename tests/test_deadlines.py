"""`force_flush` and `shutdown` keep their timeout, and say whether all was settled, whatever the network does."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import eventflows
from eventflows import GA4Provider, MetaProvider
from eventflows.pipeline import Pipeline

MARGIN = 1.0
"""Over the timeout, on a busy machine. What is meant is a tenth of a second."""


class Tarpit:
    """A server that takes connections and lets its client wait, in one of several ways."""

    def __init__(self, way: str) -> None:
        self._way = way
        self._over = threading.Event()
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        # Without room in the backlog a client hangs in connect.
        self._listener.listen(0 if way == "connect" else 64)
        self._fillers: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        if way == "connect":
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                with suppress(BlockingIOError):
                    filler.connect(("127.0.0.1", self.port))
                self._fillers.append(filler)
        else:
            threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._over.is_set():
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        dribble = {
            "dribbles the head": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX: " + b"x" * 10_000,
            "dribbles the body": b"{" * 10_000,
        }.get(self._way, b"")
        with suppress(OSError):
            if dribble:
                connection.recv(65_536)
            if self._way == "dribbles the body":
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n"
                )
            for byte in dribble:
                connection.sendall(bytes([byte]))
                if self._over.wait(0.05):
                    return
            self._over.wait(60)
        connection.close()

    def close(self) -> None:
        self._over.set()
        self._listener.close()
        for filler in self._fillers:
            filler.close()


@contextmanager
def tarpit(way: str) -> Iterator[str]:
    running = Tarpit(way)
    try:
        yield f"{'https' if way == 'TLS' else 'http'}://127.0.0.1:{running.port}"
    finally:
        running.close()


def start(url: str, **options: Any) -> Pipeline:
    return eventflows.configure([MetaProvider("123", "abc", endpoint=url)], **options)


def record(count: int = 3, **attributes: str) -> None:
    for number in range(count):
        eventflows.get_tracer("app").add_event("Lead", {"user.email": f"z{number}@example.com", **attributes})


WAYS = ("connect", "TLS", "answer", "dribbles the head", "dribbles the body")


@pytest.mark.parametrize("storage", [False, True], ids=["", "storage"])
@pytest.mark.parametrize("way", WAYS)
def test_a_network_that_hangs(way: str, storage: bool, tmp_path: Path) -> None:
    with tarpit(way) as url:
        pipeline = start(url, **({"sending_queue": {"storage": str(tmp_path)}} if storage else {}))
        record()
        for stop in (eventflows.force_flush, eventflows.shutdown):
            started = time.monotonic()
            assert not stop(300)
            assert time.monotonic() - started < 0.3 + MARGIN
        stats = pipeline.stats()["meta"]
        assert stats.captured == 3
        assert (stats.pending, sum(stats.dropped.values())) == ((3, 0) if storage else (0, 3))


@pytest.mark.parametrize("way", WAYS[1:])
def test_a_request_ends_however_slowly_it_is_answered(way: str) -> None:
    """The setting `timeout` is for the whole answer, not for each byte of it: else the sender would wait for ever."""
    with tarpit(way) as url:
        pipeline = start(url, timeout="300ms", retry_on_failure={"initial_interval": "10ms", "max_interval": "10ms"})
        record()
        deadline = time.monotonic() + 10
        while pipeline.stats()["meta"].attempts < 2:
            assert time.monotonic() < deadline, "the first attempt has no end"
            time.sleep(0.02)


def test_a_journal_that_another_process_has_locked(tmp_path: Path) -> None:
    """As the command line does for a moment, or a back-up for longer."""
    with tarpit("answer") as url:
        start(url, sending_queue={"storage": str(tmp_path)})
        record()
        assert not eventflows.force_flush(300)
        (path,) = tmp_path.glob("*.journal")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        assert not eventflows.shutdown(300)
        assert time.monotonic() - started < 0.3 + MARGIN
        other.close()


def test_the_thread_that_ends_the_process_waits_for_two_requests_of_a_platform(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no thread can start any more (exit handlers in Python 3.12 and newer), it sends itself."""

    def too_late(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with tarpit("connect") as url:
        pipeline = eventflows.configure([GA4Provider("G-1", "abc", endpoint=url)], timeout="1s")
        monkeypatch.setattr(threading.Thread, "start", too_late)
        for number in range(10):  # each of another client, hence in a request of its own
            record(1, **{"conversion.click.ga_client_id": f"1.{number + 1}"})
        started = time.monotonic()
        assert not eventflows.shutdown(100)
        assert time.monotonic() - started < 2 + MARGIN
        assert sum(pipeline.stats()["ga4"].dropped.values()) == 10


def test_a_shutdown_that_does_not_wait_for_what_is_being_read_does_not_say_that_all_is_settled() -> None:
    """The intake's thread has taken the event from the queue, and comes to closed lanes with it."""
    pipeline = eventflows.configure([MetaProvider("123", "abc", endpoint="http://127.0.0.1:9")])
    reading, on = threading.Event(), threading.Event()

    def first() -> None:
        reading.set()
        on.wait(5)

    pipeline.at_first = first
    eventflows.get_tracer("app").add_event("Lead", {"user.id": "u1"})
    assert reading.wait(5)
    started = time.monotonic()
    settled = pipeline.shutdown(0)
    took = time.monotonic() - started
    on.set()
    assert not settled
    assert took < MARGIN


def test_a_flush_after_the_shutdown_does_not_wait_for_what_is_left_in_the_journal(tmp_path: Path) -> None:
    pipeline = eventflows.configure(
        [MetaProvider("123", "abc", endpoint="http://127.0.0.1:9")], sending_queue={"storage": str(tmp_path)}
    )
    eventflows.get_tracer("app").add_event("Lead", {"user.id": "u1"})
    assert not pipeline.shutdown(100)
    before = time.monotonic()
    assert not pipeline.force_flush(30_000)
    assert time.monotonic() - before < 10

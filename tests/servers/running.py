"""Running a server, asking it, and the accounting: each conversion that an answered request recorded is somewhere, once."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from eventflows.sandbox import Sandbox
from tests.conftest import ROOT, environment
from tests.torture.accounting import arrived

from .recording import PROVIDERS

SECONDS = 30.0
"""To wait for anything; nothing here is a speed limit."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], told: Callable[[], str] = lambda: "", seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about in time: {told()}"
        time.sleep(0.02)


@dataclass
class Running:
    """A server, and what was recorded there.

    Attributes:
        recorded: Conversion → the process that recorded it.
        unsure: Conversions of requests that were not answered, as where a worker was killed meanwhile.
    """

    process: subprocess.Popen[bytes]
    port: int
    sandbox: Sandbox
    log: Path
    recorded: dict[str, int] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    asked: int = 0

    def ask(self, order: str = "") -> int | None:
        """Record this order; returns the process that answered, or None where none did."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/{order}")
            answer = connection.getresponse()
            pid = int(answer.read())
            assert answer.status == 200
        except (OSError, http.client.HTTPException):
            if order:
                self.unsure.add(order)
            return None
        finally:
            connection.close()
        if order:
            self.recorded[order] = pid
        return pid

    def ask_many(self, name: str, count: int, at_once: int = 4) -> set[int]:
        """Record so many orders; returns the processes that answered."""
        first = self.asked
        self.asked += count
        with ThreadPoolExecutor(at_once) as pool:
            pids = set(pool.map(self.ask, [f"{name}-{number:04}" for number in range(first, first + count)]))
        return {pid for pid in pids if pid is not None}

    def ready(self, without: Iterable[int] = (), workers: int = 2) -> None:
        """Record until so many workers answer, and those are gone.

        What is still starting, or ending, may miss a signal or be ended at once by it; that is the servers' own affair.
        """
        former = set(without)
        until(
            lambda: not living(former) and len(self.ask_many("ready", 10) - former) == workers,
            lambda: f"{former} gone, {workers} there\n{self.said()}",
        )

    def workers(self) -> set[int]:
        """The processes that have recorded something."""
        return set(self.recorded.values())

    def recycle(self) -> None:
        """Record until a worker has been replaced."""
        before = len(self.workers())
        until(lambda: bool(self.ask_many("more", 20)) and len(self.workers()) > max(before, 2), self.said)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.send(number)
        self.process.wait(SECONDS)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def missing(self) -> dict[str, set[str]]:
        """Per provider, what was recorded and has not arrived."""
        return {name: set(self.recorded) - set(arrived(self.sandbox, name)) for name in PROVIDERS}

    def all_arrive(self) -> None:
        """Wait until everything that was recorded by now has arrived everywhere."""
        until(lambda: not any(self.missing().values()), lambda: f"missing {self.missing()}\n{self.said()}")

    def ended_ones_delivered(self) -> None:
        """What processes recorded that are gone by now has arrived, and what is queued in the others has not."""
        gone = self.workers() - living(self.workers())
        of_gone = {order for order, pid in self.recorded.items() if pid in gone}
        assert of_gone, "no process is gone"
        missing = self.missing()
        assert not any(lost & of_gone for lost in missing.values()), f"missing {missing}\n{self.said()}"
        assert all(missing.values()), "nothing was queued any more"
        self.nothing_more()

    def accounted(self, *, again: Sequence[str] = ()) -> None:
        """All is there, nothing twice (but `again`), and nothing that nobody recorded."""
        assert not any(self.missing().values()), f"missing {self.missing()}\n{self.said()}"
        self.nothing_more(again=again)

    def nothing_more(self, *, again: Sequence[str] = ()) -> None:
        for name in PROVIDERS:
            there = arrived(self.sandbox, name)
            assert set(there) <= set(self.recorded) | self.unsure
            assert {order for order, times in there.items() if times > 1} <= set(again), Counter(there).most_common(5)


@contextmanager
def starting(
    command: Sequence[str], port: int, sandbox: Sandbox, folder: Path, *, storage: bool, **extra: str
) -> Iterator[Running]:
    """Start a Python module, or a program by its whole path, and see that it is gone at the end."""
    settings = {"SHOP_SANDBOX": sandbox.url, "PYTHONPATH": str(ROOT), "HOME": str(folder), **extra}
    if storage:
        settings["SHOP_STORAGE"] = str(folder / "storage")
    log = folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command] if not os.path.isabs(command[0]) else command,
            env=environment(**settings), cwd=folder, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield Running(process, port, sandbox, log)
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
        end_session(process.pid)


@contextmanager
def serving(
    command: Sequence[str], port: int, sandbox: Sandbox, folder: Path, *, storage: bool, **extra: str
) -> Iterator[Running]:
    """As `starting`, for a server that is asked over HTTP, once it answers."""
    with starting(command, port, sandbox, folder, storage=storage, **extra) as running:
        until(lambda: running.ask() is not None or running.process.poll() is not None, running.said)
        assert running.process.poll() is None, running.said()
        yield running


def living(pids: Iterable[int]) -> set[int]:
    """Those of these processes that are still there."""
    found = set()
    for pid in pids:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        found.add(pid)
    return found


def end_session(group: int) -> None:
    """End what a killed server has left of its session, which is its own."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return

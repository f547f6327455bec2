"""Celery's pool processes run no exit handlers: what their tasks record arrives, however they end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eventflows.sandbox import Sandbox

from .recording import PROVIDERS
from .running import Running, living, starting, until

celery = pytest.importorskip("celery")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


SETTLING = 2
"""Seconds in which the pool replaces the children that ended. One that is starting may miss that the worker ends, or be
killed by it, which is Celery's own affair."""


class Tasks:
    """A Celery worker, and the tasks sent to it."""

    def __init__(self, folder: Path, server: Running) -> None:
        self._folder = folder
        self.server = server
        self._app = celery.Celery("client", broker="filesystem://")
        self._app.conf.broker_transport_options = {
            "data_folder_in": str(folder / "queue"),
            "data_folder_out": str(folder / "sent"),
            "control_folder": str(folder / "control"),
        }

    def send(self, name: str, count: int, *, die: bool = False) -> None:
        """Have so many orders recorded, and wait until they are.

        Args:
            die: Kill the child after it, in the midst of the task: one that waits for a task holds a lock of Celery's.
        """
        for number in range(count):
            self._app.send_task("buy", [f"{name}-{number:04}", die])
        for message in (self._folder / "sent").iterdir():
            message.rename(self._folder / "queue" / message.name)  # whole, as the worker may look at any moment
        expected = len(self.server.recorded) + count
        until(lambda: len(self._done()) == expected, self.server.said)
        self.server.recorded = {path.name: int(path.read_text()) for path in self._done()}

    def _done(self) -> list[Path]:
        return [path for path in (self._folder / "done").iterdir() if path.read_text()]


@contextmanager
def worker(sandbox: Sandbox, folder: Path, *options: str, storage: bool = False, **extra: str) -> Iterator[Tasks]:
    for name in ("sent", "queue", "done"):
        (folder / name).mkdir()
    command = ["celery", "-A", "tests.servers.tasks", "worker", "-P", "prefork", "-c", "2", "-l", "WARNING"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", *options]
    with starting([*command, *quiet], 0, sandbox, folder, storage=storage, SHOP_BROKER=str(folder), **extra) as server:
        yield Tasks(folder, server)


def test_a_child_that_is_recycled_delivers_what_it_has_queued(sandbox: Sandbox, tmp_path: Path) -> None:
    """Without storage, as nothing else is sent for ten minutes; the last ones at the end of the worker."""
    with worker(sandbox, tmp_path, "--max-tasks-per-child", "5", SHOP_FLUSH_INTERVAL="10m") as tasks:
        tasks.send("recycled", 22)
        server = tasks.server
        until(lambda: len(server.workers() - living(server.workers())) >= 2, server.said)
        server.ended_ones_delivered()
        time.sleep(SETTLING)
        server.stop()
        server.accounted()


def test_a_living_child_takes_over_from_a_killed_one(sandbox: Sandbox, tmp_path: Path) -> None:
    """With storage, and all it had recorded still in its queue, as the platforms were not there."""
    for name in PROVIDERS:
        sandbox.fault(name, status=503, times=100_000)
    with worker(sandbox, tmp_path, storage=True) as tasks:
        tasks.send("queued", 20)
        tasks.send("killed", 1, die=True)
        tasks.send("later", 20)
        sandbox.reset()
        tasks.server.all_arrive()
        tasks.server.stop()
        tasks.server.accounted()

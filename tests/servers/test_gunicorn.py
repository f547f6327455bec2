"""gunicorn: what its workers record arrives, however they end."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from eventflows.sandbox import Sandbox

from .recording import PROVIDERS
from .running import Running, free_port, serving

pytest.importorskip("gunicorn")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
APP = "tests.servers.shop:application"


def gunicorn(
    worker: str,
    sandbox: Sandbox,
    folder: Path,
    *options: str,
    workers: int = 2,
    storage: bool = False,
    **extra: str,
) -> AbstractContextManager[Running]:
    if worker == "gevent":
        pytest.importorskip("gevent")
    port = free_port()
    command = [
        "gunicorn",
        APP,
        "--graceful-timeout",
        "5",
        "-b",
        f"127.0.0.1:{port}",
        "-w",
        str(workers),
        "-k",
        worker,
        *options,
    ]
    if worker == "gthread":
        command += ["--threads", "3"]
    return serving(command, port, sandbox, folder, storage=storage, **extra)


@pytest.mark.parametrize(
    ("worker", "preload"),
    [
        pytest.param("sync", False, id="sync"),
        pytest.param("sync", True, id="sync-preload", marks=pytest.mark.long),
        pytest.param("gthread", False, id="gthread", marks=pytest.mark.long),
        pytest.param("gthread", True, id="gthread-preload"),
        pytest.param("gevent", False, id="gevent"),
        pytest.param("gevent", True, id="gevent-preload"),
    ],
)
def test_everything_arrives_once(worker: str, preload: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    """Without storage: while it runs, when it is reloaded, and at the end."""
    with gunicorn(worker, sandbox, tmp_path, *(["--preload"] if preload else [])) as server:
        server.ask_many("first", 30)
        server.all_arrive()
        before = server.workers()
        server.send(signal.SIGHUP)
        server.ask_many("reloading", 30)
        server.ready(without=before)
        server.ask_many("last", 20)
        server.stop()
        server.accounted()


@pytest.mark.parametrize("worker", ["sync", pytest.param("gthread", marks=pytest.mark.long), "gevent"])
def test_a_worker_that_is_recycled_delivers_what_it_has_queued(worker: str, sandbox: Sandbox, tmp_path: Path) -> None:
    """By its exit handler, as nothing else is sent for ten minutes."""
    options = ["--max-requests", "25", "--preload"]
    with gunicorn(worker, sandbox, tmp_path, *options, workers=1, SHOP_FLUSH_INTERVAL="10m") as server:
        server.recycle()
        server.ended_ones_delivered()


@pytest.mark.parametrize(
    ("worker", "preload"),
    [
        pytest.param("sync", False, id="sync"),
        pytest.param("sync", True, id="sync-preload", marks=pytest.mark.long),
        pytest.param("gevent", False, id="gevent", marks=pytest.mark.long),
        pytest.param("gevent", True, id="gevent-preload"),
    ],
)
def test_a_living_worker_takes_over_from_a_killed_one(
    worker: str, preload: bool, sandbox: Sandbox, tmp_path: Path
) -> None:
    """With storage, and all it had recorded still in its queue, as the platforms were not there."""
    for name in PROVIDERS:
        sandbox.fault(name, status=503, times=100_000)
    with gunicorn(worker, sandbox, tmp_path, *(["--preload"] if preload else []), storage=True) as server:
        server.ready()
        killed = server.ask("killed")
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        server.ready(without=[killed])
        sandbox.reset()
        server.all_arrive()
        server.stop()
        server.accounted()


def test_without_storage_a_killed_worker_costs_what_it_had_queued_and_no_more(sandbox: Sandbox, tmp_path: Path) -> None:
    with gunicorn("sync", sandbox, tmp_path, SHOP_FLUSH_INTERVAL="10m") as server:
        server.ready()
        killed = server.ask("killed")
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        server.ready(without=[killed])
        server.stop()
        lost = {order for order, pid in server.recorded.items() if pid == killed}
        assert server.missing() == {"meta": lost, "reddit": lost}
        server.nothing_more()


CONFIGURATION = """
from tests.servers.recording import configure, record
preload_app = True
configure()
record("master")
"""


@pytest.mark.parametrize("storage", [False, True], ids=["", "storage"])
def test_configured_and_recorded_before_the_fork(storage: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    """The master delivers what it recorded itself, and no worker does."""
    (tmp_path / "gunicorn.conf.py").write_text(CONFIGURATION)
    with gunicorn("sync", sandbox, tmp_path, storage=storage) as server:
        server.recorded["master"] = server.process.pid
        server.ask_many("first", 20)
        server.all_arrive()
        server.ask_many("last", 20)
        server.stop()
        server.accounted()

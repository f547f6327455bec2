"""uWSGI, which forks without Python's hooks: what its workers record arrives, however they end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from eventflows.sandbox import Sandbox

from .recording import PROVIDERS
from .running import Running, free_port, serving

UWSGI = shutil.which("uwsgi", path=os.path.dirname(sys.executable))
pytestmark = pytest.mark.skipif(UWSGI is None, reason="needs uwsgi, or pyuwsgi")


def uwsgi(
    sandbox: Sandbox, folder: Path, *options: str, threads: bool = True, storage: bool = False, **extra: str
) -> AbstractContextManager[Running]:
    port = free_port()
    command = [
        str(UWSGI), "--http-socket", f"127.0.0.1:{port}", "--module", "tests.servers.shop:application", "--master",
        "--processes", "2", "--need-app", "--die-on-term", "--hook-master-start", "unix_signal:15 gracefully_kill_them_all",
        "--master-fifo", str(folder / "orders"), "--min-worker-lifetime", "1", "--disable-logging",
        "--worker-reload-mercy", "5", "--reload-mercy", "5",
        *(["--enable-threads"] if threads else []), *options,
    ]  # fmt: skip
    return serving(command, port, sandbox, folder, storage=storage, **extra)


def reload_workers(folder: Path) -> None:
    """By uWSGI's pipe for orders; SIGHUP would also start uWSGI itself anew, which the wheel of it cannot."""
    (folder / "orders").write_text("w")


@pytest.mark.parametrize("lazy", [False, True], ids=["", "lazy-apps"])
def test_everything_arrives_once(lazy: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    """Without storage: while it runs, when its workers are reloaded, and at the end."""
    with uwsgi(sandbox, tmp_path, *(["--lazy-apps"] if lazy else [])) as server:
        server.ask_many("first", 30)
        server.all_arrive()
        server.ready()
        before = server.workers()
        reload_workers(tmp_path)
        server.ready(without=before)
        server.ask_many("last", 20)
        server.stop()
        server.accounted()


def test_a_worker_that_is_recycled_delivers_what_it_has_queued(sandbox: Sandbox, tmp_path: Path) -> None:
    """By its exit handler, as nothing else is sent for ten minutes."""
    with uwsgi(sandbox, tmp_path, "--max-requests", "25", SHOP_FLUSH_INTERVAL="10m") as server:
        server.recycle()
        server.ended_ones_delivered()


@pytest.mark.parametrize(
    "lazy", [pytest.param(False, id=""), pytest.param(True, id="lazy-apps", marks=pytest.mark.long)]
)
def test_a_living_worker_takes_over_from_a_killed_one(lazy: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    """With storage, and all it had recorded still in its queue, as the platforms were not there."""
    for name in PROVIDERS:
        sandbox.fault(name, status=503, times=100_000)
    with uwsgi(sandbox, tmp_path, *(["--lazy-apps"] if lazy else []), storage=True) as server:
        server.ready()
        killed = server.ask("killed")
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        server.ready(without=[killed])
        sandbox.reset()
        server.all_arrive()
        server.stop()
        server.accounted()


def test_without_threads_conversions_wait_for_the_end_of_the_worker(sandbox: Sandbox, tmp_path: Path) -> None:
    """And a log line says so."""
    with uwsgi(sandbox, tmp_path, threads=False) as server:
        server.ready()
        server.stop()
        assert "Set enable-threads" in server.said()
        server.accounted()

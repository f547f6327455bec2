"""uvicorn, whose workers end by a signal and run no exit handlers: what they record arrives all the same."""

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

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
APPS = {
    "middleware": "tests.servers.shop:asgi",  # of an app that knows no lifespan, as Django's
    "fastapi": "tests.servers.fastapi_shop:app",
}


def uvicorn(
    app: str, sandbox: Sandbox, folder: Path, *options: str, storage: bool = False, **extra: str
) -> AbstractContextManager[Running]:
    if app == "fastapi":
        pytest.importorskip("fastapi")
    port = free_port()
    command = ["uvicorn", APPS[app], "--port", str(port), "--no-access-log", *options]
    return serving(command, port, sandbox, folder, storage=storage, **extra)


@pytest.mark.parametrize(
    ("app", "workers"),
    [
        ("middleware", "2"),
        ("fastapi", "1"),
        pytest.param("middleware", "1", marks=pytest.mark.long),
        pytest.param("fastapi", "2", marks=pytest.mark.long),
    ],
)
def test_what_a_worker_has_queued_is_delivered_at_its_end(
    app: str, workers: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Without storage, and without code in the app, as nothing else is sent for ten minutes."""
    with uvicorn(app, sandbox, tmp_path, "--workers", workers, SHOP_FLUSH_INTERVAL="10m") as server:
        server.ready(workers=int(workers))
        assert all(server.missing().values())
        server.stop()
        server.accounted()


def test_everything_arrives_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """While it runs, when its workers are restarted (SIGHUP), and at the end."""
    with uvicorn("middleware", sandbox, tmp_path, "--workers", "2") as server:
        server.ask_many("first", 30)
        server.all_arrive()
        server.ready()
        before = server.workers()
        server.send(signal.SIGHUP)
        server.ready(without=before)
        server.ask_many("last", 20)
        server.stop()
        server.accounted()


def test_a_living_worker_takes_over_from_a_killed_one(sandbox: Sandbox, tmp_path: Path) -> None:
    """With storage, and all it had recorded still in its queue, as the platforms were not there."""
    for name in PROVIDERS:
        sandbox.fault(name, status=503, times=100_000)
    with uvicorn("middleware", sandbox, tmp_path, "--workers", "2", storage=True) as server:
        server.ready()
        killed = server.ask("killed")
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        server.ready(without=[killed])
        sandbox.reset()
        server.all_arrive()
        server.stop()
        server.accounted()


def test_without_lifespan_storage_keeps_what_was_queued(sandbox: Sandbox, tmp_path: Path) -> None:
    """`--lifespan off` leaves nobody to tell of the end; the next start delivers it."""
    with uvicorn(
        "middleware", sandbox, tmp_path, "--lifespan", "off", storage=True, SHOP_FLUSH_INTERVAL="10m"
    ) as server:
        server.ask_many("left", 10)
        server.stop()
        assert all(server.missing().values())
    with uvicorn("middleware", sandbox, tmp_path, storage=True) as again:
        again.recorded = server.recorded
        again.all_arrive()
        again.stop()
        again.accounted()

"""What is lost and what comes twice when things go wrong, beside the peers, each with its own defaults.

Every fault meets all libraries at once, each with a sink of its own. `python -m benchmarks.outage <job>` is the app: it
records events, and ends as the library documents, unless it is killed.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from . import environments, workloads
from .measure import child_environment, tag, tell
from .peers import PEERS
from .sink import ROOT, Sink

SUBJECTS = ("eventflows", "eventflows-storage", "otel-log", "original", "posthog", "segment", "rudder", "snowplow")
RATE = 200
PATIENCE = 30.0
"""Seconds that the app is given to end."""


# --- the app's process


class Lines(logging.Handler):
    """Counts what a library has to say."""

    count = 0

    def emit(self, _record: logging.LogRecord) -> None:
        Lines.count += 1


def app(job: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.WARNING, handlers=[Lines()], force=True)
    peer = PEERS[job["peer"]]
    options = json.loads(json.dumps(peer.options).replace("{folder}", job["folder"]))
    client = peer.start(job["sink"], False, **options)
    say = os.fdopen(os.dup(1), "w", buffering=1).write
    say("ready\n")
    sys.stdin.readline()
    due = time.monotonic()
    for order in islice(workloads.orders(job["tag"]), job["count"]):
        client.purchase(order)
        say(f"{order.id}\n")
        if job["rate"]:
            due += 1 / job["rate"]
            time.sleep(max(0.0, due - time.monotonic()))
    say("recorded\n")
    sys.stdin.readline()
    began = time.monotonic()
    client.stop()
    say(f"{json.dumps({'seconds': time.monotonic() - began, 'lines': Lines.count})}\n")


# --- ours


class App:
    """The app's process: `recorded` is what its calls have come back for."""

    def __init__(self, peer: str, sink: Sink, folder: str, count: int, rate: int = 0) -> None:
        job = {"peer": peer, "sink": sink.url, "folder": folder, "count": count, "rate": rate, "tag": tag()}
        self._process = subprocess.Popen(
            [str(environments.python(PEERS[peer].environment)), "-m", "benchmarks.outage", json.dumps(job)],
            cwd=ROOT,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._out, self._in = self._process.stdout, self._process.stdin
        self.recorded: list[str] = []
        self._out.readline()  # it is ready

    def go(self) -> None:
        """Start recording, or, when that is done, end."""
        self._in.write("\n")
        self._in.flush()

    def record(self, until: float = float("inf")) -> None:
        """Follow the recording to its end, or until this time."""
        while (line := self._out.readline()) not in ("recorded\n", ""):
            self.recorded.append(line.strip())
            if time.monotonic() > until:
                break

    def end(self) -> dict[str, Any]:
        """End as documented; how long that took, and how many lines the library logged."""
        self.go()
        try:
            out, _ = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return {"seconds": PATIENCE, "lines": 0}
        found: dict[str, Any] = json.loads(out.strip().splitlines()[-1]) if out.strip() else {"seconds": 0, "lines": 0}
        return found

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        out, _ = self._process.communicate()
        self.recorded.extend(line for line in out.split() if workloads.is_id(line))


def outage(peer: str, sink: Sink, folder: str, mode: dict[str, Any]) -> tuple[App, dict[str, Any]]:
    """Twelve seconds, five of them in the mode."""
    running = App(peer, sink, folder, 12 * RATE, RATE)
    began = time.monotonic()
    running.go()
    running.record(began + 3)
    sink.control.mode(**mode)
    running.record(began + 8)
    sink.control.mode()
    running.record()
    return running, running.end()


def slow_exit(peer: str, sink: Sink, folder: str) -> tuple[App, dict[str, Any]]:
    """A thousand events and the end, while each answer takes two seconds."""
    sink.control.mode(delay=2.0)
    running = App(peer, sink, folder, 1_000)
    running.go()
    running.record()
    return running, running.end()


def killed(peer: str, sink: Sink, folder: str) -> tuple[App, dict[str, Any]]:
    """Killed three seconds into an outage, and started again, with nothing new to record, when that is over."""
    running = App(peer, sink, folder, 100 * RATE, RATE)
    began = time.monotonic()
    running.go()
    running.record(began + 2)
    sink.control.mode(down=True)
    running.record(began + 5)
    running.kill()
    sink.control.mode()
    return running, start_again(running, peer, sink, folder, 10)


def start_again(before: App, peer: str, sink: Sink, folder: str, patience: float = PATIENCE) -> dict[str, Any]:
    """Another process of the app, with nothing new to record, for so many seconds or until everything is there."""
    again = App(peer, sink, folder, 0)
    again.go()
    again.record()
    sink.control.wait(len(before.recorded), patience)
    return again.end()


def overflow(peer: str, sink: Sink, folder: str) -> tuple[App, dict[str, Any]]:
    """A burst of 50,000 in an outage, which then ends."""
    sink.control.mode(down=True)
    running = App(peer, sink, folder, 50_000)
    running.go()
    running.record()
    sink.control.mode()
    end = running.end()
    if any(Path(folder).iterdir()):  # what is in the storage waits for the next process
        start_again(running, peer, sink, folder)
    return running, end


@dataclass(frozen=True, slots=True)
class Fault:
    title: str
    run: Callable[..., tuple[App, dict[str, Any]]]
    more: tuple[Any, ...] = ()


FAULTS = {
    "outage": Fault("outage of 5 s, of 2,400", outage, ({"down": True},)),
    "500": Fault("HTTP 500 for 5 s, of 2,400", outage, ({"status": 500},)),
    "exit": Fault("end while answers take 2 s, of 1,000", slow_exit),
    "kill": Fault("kill -9 in an outage, of 1,000", killed),
    "overflow": Fault("burst in an outage, of 50,000", overflow),
}


def compare(names: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Fault → library → what was recorded, lost and came twice, how long the end took, and the lines it logged."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for key, fault in FAULTS.items():
        tell(f"outage: {fault.title}")
        with ThreadPoolExecutor(max(1, len(names))) as pool:
            results = pool.map(lambda name, fault=fault: _meet(fault, name), names)
            found[key] = dict(zip(names, results, strict=True))
    tell("")
    return found


def _meet(fault: Fault, peer: str) -> dict[str, Any]:
    with Sink() as sink, tempfile.TemporaryDirectory() as folder:
        running, end = fault.run(peer, sink, folder, *fault.more)
        time.sleep(1)
        lost = len(sink.control.missing(running.recorded))
        return {"recorded": len(running.recorded), "lost": lost, "twice": sink.control.report()["twice"], **end}


if __name__ == "__main__":
    app(json.loads(sys.argv[1]))

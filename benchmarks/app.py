"""The Flask example under the highest load that it sustains, with and without EventFlows.

`with_eventflows` and `without` make the app for gunicorn, in its process. `measure` is ours: it starts both, one worker with
eight threads each, and loads them in turns of a second. Both have the same core to themselves, one after the other; who loads
them and what they deliver to have the rest, where the machine has more than one.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from . import environments
from .figures import Samples
from .measure import child_environment, tag, tell
from .ours import destinations
from .sink import ROOT, Sink

THREADS = 8
CONNECTIONS = 16
TURN = 1.0
"""Seconds for which one server is loaded before it is the other's turn."""
SETTLES = 0.5
"""Seconds without an event after which all are taken to be delivered."""
MIXES = {"every request an order": 1, "one request in 20 an order": 20}
VARIANTS = {"without EventFlows": "without()", "with EventFlows": "with_eventflows('{sink}')"}
ORDER = {"email": "mara@example.com", "phone": "+46 70 123 45 67", "items": {"LMP-11": 1, "LMP-29": 2}}
OTHER = json.dumps({**ORDER, "order_id": "0", "items": {"unknown": 1}})
"""An order of what the shop does not have is answered with 400, and is no conversion."""


# --- in gunicorn's process


def without() -> Any:
    """The shop with OpenTelemetry as ever, in which recording a conversion does nothing."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    import eventflows

    class Silent:
        def add_event(self, *_: Any) -> None:
            """Nothing."""

    eventflows.get_tracer = lambda *_: Silent()
    trace.set_tracer_provider(traces := TracerProvider())
    return shop(traces)


def with_eventflows(sink: str) -> Any:
    """The shop as in the example, with Meta, TikTok and Reddit."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    import eventflows

    trace.set_tracer_provider(traces := TracerProvider())
    app = shop(traces)
    eventflows.configure(
        destinations(sink, ["meta", "tiktok", "reddit"]),
        default_country="SE",
        visitor={"trusted_proxies": ["loopback"]},
        commit="span_ok",
    )
    eventflows.EventFlowsInstrumentor().instrument()
    return app


def shop(traces: Any) -> Any:
    """The Flask example, whose requests are spans of this TracerProvider."""
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    sys.path.insert(0, str(ROOT / "examples"))
    from flask_shop import create_app

    app = create_app()
    FlaskInstrumentor().instrument_app(app, tracer_provider=traces)
    return app


# --- in ours


def measure(sink: Sink, rounds: int, turns: int) -> Samples:
    """What each variant does in each turn, under each mix. Servers are new in each round, as none is like another."""
    samples: Samples = {}
    with apart(sink) as core:
        for number in range(rounds):
            for mix, every in MIXES.items():
                tell(f"app: round {number + 1} of {rounds}: {mix}")
                sink.control.mode()
                sink.control.forget()
                with ExitStack() as stack:
                    servers = {
                        variant: stack.enter_context(serving(factory.format(sink=sink.url), core))
                        for variant, factory in VARIANTS.items()
                    }
                    for turn in range(-1, turns):  # the first is for the servers to get warm
                        for variant in servers if turn % 2 == 0 else reversed(servers):
                            found = _turn(sink, *servers[variant], every)
                            if turn >= 0:
                                samples.setdefault(f"{mix}, {variant}", []).append(found)
    tell("")
    return samples


def _turn(sink: Sink, port: int, server: int, every: int) -> dict[str, float]:
    """One server under load, until what it has queued is delivered."""
    before, used = sink.control.report()["arrived"], processor_seconds(server)
    per_second = load(port, every, TURN)
    arrived = _settled(sink, before) - before
    cpu = (processor_seconds(server) - used) * 1e6 / (per_second * TURN)
    return {"rate": per_second, "cpu": cpu, "delivered": arrived / TURN}


def _settled(sink: Sink, arrived: int) -> int:
    """How many events have arrived, once no more come."""
    while (now := int(sink.control.report()["arrived"])) > arrived:
        arrived = now
        time.sleep(SETTLES)
    return arrived


@contextmanager
def apart(sink: Sink) -> Iterator[set[int]]:
    """The core of the servers, off which everything else is kept; all of them where there is only one."""
    if not hasattr(os, "sched_setaffinity") or len(cores := os.sched_getaffinity(0)) < 2:
        yield set()
        return
    core = {min(cores)}
    try:
        for process in (0, sink.process):
            os.sched_setaffinity(process, cores - core)
        yield core
    finally:
        for process in (0, sink.process):
            os.sched_setaffinity(process, cores)


@contextmanager
def serving(factory: str, core: set[int]) -> Iterator[tuple[int, int]]:
    """Port and process id of the worker of a running server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = str(environments.python("eventflows"))
    bind = ["--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", str(THREADS), "--log-level", "error"]
    server = subprocess.Popen(
        [python, "-m", "gunicorn", *bind, f"benchmarks.app:{factory}"], cwd=ROOT, env=child_environment()
    )
    if core:
        os.sched_setaffinity(server.pid, core)
    try:
        for _ in range(200):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("GET", "/")
                connection.getresponse().read()
                break
            except OSError:
                time.sleep(0.05)
            finally:
                connection.close()
        (worker,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii").split()
        yield port, int(worker)
    finally:
        server.terminate()
        server.wait(60)


def processor_seconds(process: int) -> float:
    """Of a process so far, by the clock that Linux has for each."""
    return time.clock_gettime((~process << 3) | 2)


def load(port: int, every: int, seconds: float) -> float:
    """Answered requests per second at the highest load, of which each `every`-th is an order."""
    name = tag()
    return _wrk(port, every, seconds, name) if shutil.which("wrk") else _threads(port, every, seconds, name)


LUA = """
local number, thread = 0, 0
function setup(one) one:set("id", thread); thread = thread + 1 end
function request()
  number = number + 1
  local body = [[{other}]]
  if number % {every} == 0 then
    body = string.format([[{order}]], id * 1000000 + number)
  end
  return wrk.format("POST", "/orders", {{["Content-Type"] = "application/json"}}, body)
end
"""


def _wrk(port: int, every: int, seconds: float, name: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "load.lua")
        order = json.dumps({**ORDER, "order_id": f"ev-{name}-%07d"})
        script.write_text(LUA.format(other=OTHER, order=order, every=every), encoding="utf-8")
        size = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s"]
        done = subprocess.run(
            ["wrk", *size, "-s", str(script), f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True
        )
    return float(re.search(r"Requests/sec: *([\d.]+)", done.stdout)[1])  # type: ignore[index]


def _threads(port: int, every: int, seconds: float, name: str) -> float:
    """Where there is no wrk: as many threads as connections, which takes more of the processor than wrk does."""
    deadline, answered = time.monotonic() + seconds, [0] * CONNECTIONS

    def work(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while time.monotonic() < deadline:
            sent = answered[number] + 1
            order = json.dumps({**ORDER, "order_id": f"ev-{name}-{number * 100_000 + sent:07d}"})
            body = order if sent % every == 0 else OTHER
            connection.request("POST", "/orders", body, {"Content-Type": "application/json"})
            connection.getresponse().read()
            answered[number] = sent
        connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answered) / seconds

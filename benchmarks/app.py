"""The Flask example under the highest load that it sustains, with and without EventFlows.

`with_eventflows` and `without` make the app for gunicorn, in its process. `measure` is ours: it starts both in turn, one worker
with eight threads, and loads each for a while.
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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import environments
from .figures import Samples
from .measure import child_environment, tag, tell
from .ours import destinations
from .sink import ROOT, Sink

THREADS = 8
CONNECTIONS = 16
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


def measure(sink: Sink, rounds: int, seconds: float) -> Samples:
    """Requests per second of each variant under each mix; the variants take turns."""
    samples: Samples = {}
    for number in range(rounds):
        for mix, every in MIXES.items():
            order = list(VARIANTS.items())
            for variant, factory in order if number % 2 == 0 else reversed(order):
                tell(f"app: round {number + 1} of {rounds}: {mix}, {variant}")
                sink.control.mode()
                sink.control.forget()
                with serving(factory.format(sink=sink.url)) as (port, server):
                    load(port, every, min(1.0, seconds))
                    before, used = sink.control.report()["arrived"], processor_seconds(server)
                    per_second = load(port, every, seconds)
                    time.sleep(1.5)
                    arrived = sink.control.report()["arrived"] - before
                    cpu = (processor_seconds(server) - used) * 1e6 / (per_second * seconds)
                found = {"rate": per_second, "cpu": cpu, "delivered": arrived / seconds}
                samples.setdefault(f"{mix}, {variant}", []).append(found)
    tell("")
    return samples


@contextmanager
def serving(factory: str) -> Iterator[tuple[int, int]]:
    """Port and process id of a running server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = str(environments.python("eventflows"))
    bind = ["--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", str(THREADS), "--log-level", "error"]
    server = subprocess.Popen(
        [python, "-m", "gunicorn", *bind, f"benchmarks.app:{factory}"], cwd=ROOT, env=child_environment()
    )
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait(60)


def processor_seconds(server: int) -> float:
    """Of the server's worker so far."""
    workers = Path(f"/proc/{server}/task/{server}/children").read_text(encoding="ascii").split()
    fields = [Path(f"/proc/{worker}/stat").read_text(encoding="utf-8").rpartition(")")[2].split() for worker in workers]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


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

"""Processor instructions of a call and of a delivered event, counted by valgrind: the same on a busy machine as on an idle one.

Two runs of different length are compared, so that start and imports drop out. The calls' own are those of the main thread.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from . import environments, workloads
from .client import Client
from .measure import child_environment, tag, tell
from .peers import PEERS
from .sink import ROOT, Control, Sink

REFERENCE = Path(__file__).with_name("instructions.json")
SUBJECTS = ("eventflows", "eventflows-storage", "otel-log")
FEW, MANY = 100, 1_100
WARN_ABOVE = 1.10


# --- in the library's process, under valgrind


def run(client: Client, control: Control, name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Record so many purchases, and wait until they have arrived."""
    expected = params["count"] * client.copies
    for order in list(islice(workloads.orders(name), params["count"])):
        client.purchase(order)
    flusher = threading.Thread(target=client.flush)  # not on the thread whose instructions are the calls'
    flusher.start()
    flusher.join()
    return {"lost": expected - control.wait(expected, 300)["arrived"]}


# --- in ours


def count(names: list[str]) -> dict[str, dict[str, float]]:
    """Instructions per call and per delivered event of each peer; empty where valgrind is not installed."""
    if shutil.which("valgrind") is None:
        print("instructions: skipped, as valgrind is not installed", file=sys.stderr)
        return {}
    found = {}
    for name in names:
        tell(f"instructions: {name}")
        with ThreadPoolExecutor(2) as pool:
            few, many = pool.map(lambda events, peer=name: _counted(peer, events), (FEW, MANY))
        found[name] = {key: round((many[key] - few[key]) / (MANY - FEW)) for key in few}
    tell("")
    return found


def _counted(name: str, events: int) -> dict[str, int]:
    with Sink() as sink, tempfile.TemporaryDirectory() as folder:
        job = {"scenario": "instructions", "peer": name, "tag": tag(), "params": {"count": events}}
        description = json.dumps({**job, "sink": sink.url, "control": sink.control.port})
        valgrind = ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={folder}/out"]
        python = str(environments.python(PEERS[name].environment))
        done = subprocess.run(
            [*valgrind, python, "-m", "benchmarks.child", description],
            cwd=ROOT,
            env=child_environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode or json.loads(done.stdout or "{}").get("lost") != 0:
            raise RuntimeError(f"valgrind: {name}: {done.stdout}{done.stderr[-2000:]}")
        threads = {path.name: _total(path) for path in Path(folder).glob("out*")}
    return {"call": threads["out-01"], "event": sum(threads.values())}


def _total(path: Path) -> int:
    return sum(int(found) for found in re.findall(r"^totals: (\d+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def compare(found: dict[str, dict[str, float]]) -> list[str]:
    """A line for each figure that has grown by more than a tenth since the reference, which is of one release of Python."""
    reference = json.loads(REFERENCE.read_text(encoding="utf-8")) if REFERENCE.is_file() else {}
    if reference.get("python") != ".".join(platform.python_version_tuple()[:2]):
        return []
    before: dict[str, dict[str, float]] = reference["instructions"]
    return [
        f"WARNING: {name}, instructions per {key}: {value:,.0f}, where the reference has {before[name][key]:,.0f}"
        for name, figures in found.items()
        for key, value in figures.items()
        if name in before and value > before[name][key] * WARN_ABOVE
    ]


def write_reference(found: dict[str, dict[str, float]]) -> None:
    version = ".".join(platform.python_version_tuple()[:2])
    REFERENCE.write_text(json.dumps({"python": version, "instructions": found}, indent=1) + "\n", encoding="utf-8")

"""Running measurements: each in a fresh process, round robin over all that take part.

So a slow minute of the machine meets all of them alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from . import environments
from .figures import Samples
from .sink import ROOT, Sink

_tags = count()
_told: set[str] = set()


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement to be repeated.

    Attributes:
        name: Of the result.
        scenario: The module that does it.
        environment: The virtual environment it runs in.
        peer: The library, where one is started for it.
        mode: Of the sink meanwhile.
    """

    name: str
    scenario: str
    environment: str
    peer: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    mode: dict[str, Any] = field(default_factory=dict)


def rounds(jobs: Sequence[Job], sink: Sink, repeats: int, title: str) -> Samples:
    """Each job once per round; the order turns, so that none always follows the same other."""
    samples: Samples = defaultdict(list)
    for repeat in range(repeats):
        turned = [*jobs[repeat % max(1, len(jobs)) :], *jobs[: repeat % max(1, len(jobs))]]
        for number, job in enumerate(turned, start=1):
            tell(f"{title}: round {repeat + 1} of {repeats}, {number} of {len(jobs)}: {job.name}")
            samples[job.name].append(once(job, sink))
    tell("")
    return samples


def tell(progress: str) -> None:
    """What is going on: on one line of a terminal, or once for each part in a log."""
    part = progress.partition(":")[0]
    if sys.stderr.isatty():
        print(f"\r{progress:<110}\r", end="", file=sys.stderr, flush=True)
    elif part and part not in _told:
        _told.add(part)
        print(f"measuring {part} ...", file=sys.stderr, flush=True)


def once(job: Job, sink: Sink, timeout: float = 600) -> dict[str, Any]:
    """Run a job in a fresh process; where that fails the result has an `error`."""
    sink.control.mode(**job.mode)
    sink.control.forget()
    description = json.dumps(
        {
            "scenario": job.scenario,
            "peer": job.peer,
            "sink": sink.url,
            "control": sink.control.port,
            "tag": tag(),
            "params": job.params,
        }
    )
    command = [str(environments.python(job.environment)), "-m", "benchmarks.child", description]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result after {timeout:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def child_environment() -> dict[str, str]:
    """Nothing of ours that could configure a library, and the same hashes in each process."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    return {**kept, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}


def tag() -> str:
    """Of the ids of one process."""
    return f"t{next(_tags)}"

"""python -m benchmarks [part ...] [--quick] [--only peer,peer] [--repeats n] [--cdnow file] [--output file] [--write]

Measures EventFlows beside its peers on this machine, prints tables and writes the figures as JSON. Without a part: all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from . import documents, environments, instructions, report
from .parts import LONG, PARTS, Options, calls, environments_of
from .peers import PEERS
from .sink import ROOT, Sink

RESULTS = ROOT / "results"


def main(arguments: list[str]) -> int:
    every = ["caller", "delivered", *PARTS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(every)}; default all of them")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and calls: under three minutes")
    parser.add_argument("--only", default="", help="peers, separated by commas: " + ", ".join(PEERS))
    parser.add_argument("--repeats", type=int, default=0, help="rounds, instead of each part's own number")
    parser.add_argument("--cdnow", default="", help="the whole CDNOW data set, instead of its first thousand rows")
    parser.add_argument("--output", type=Path, default=RESULTS / "benchmark.json", help="where the figures go")
    parser.add_argument(
        "--write", action="store_true", help="renew the figures and plots in README.md and docs/performance.md"
    )
    given = parser.parse_args(arguments)
    options = Options(given.quick, tuple(filter(None, given.only.split(","))), given.repeats, given.cdnow)
    for name in (one for one in options.only if one not in PEERS):
        parser.error(f"--only: {name!r} is none of {', '.join(PEERS)}")
    for name in (one for one in given.parts if one not in every):
        parser.error(f"{name!r} is none of {', '.join(every)}")
    if given.write and (given.quick or given.only):
        parser.error("--write is for full runs of all peers")
    parts = given.parts or [one for one in every if not (given.quick and one in LONG)]

    started = time.monotonic()
    environments.prepare(environments_of(parts, options))
    results: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "peers": environments.versions(sorted({peer.environment for peer in PEERS.values()})),
        "options": {"quick": options.quick, "parts": parts},
    }
    with Sink() as sink:
        if {"caller", "delivered"} & set(parts):
            results["calls"] = calls(sink, options, caller="caller" in parts, delivered="delivered" in parts)
        for name in (one for one in parts if one in PARTS):
            results[name] = PARTS[name](sink, options)
    given.output.parent.mkdir(exist_ok=True)
    given.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if given.write:
        documents.write(results, parts)
    for title, tables in report.sections(results, parts):
        print(f"{title}\n\n{report.for_terminal(tables)}\n")
    for line in instructions.compare(results.get("instructions", {})):
        print(line)
    print(f"{time.monotonic() - started:.0f} s; the figures of each round: {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

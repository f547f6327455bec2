"""Putting the figures where people read them: the marked blocks of README.md and docs/performance.md, and the plots.

The JSON that they were made from is kept beside this file.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import environments, instructions, report
from .sink import ROOT

REFERENCE = Path(__file__).with_name("reference.json")
PLOTS = ROOT / "docs" / "performance"
BLOCK = re.compile(r"(<!-- benchmarks:begin -->\n).*?(<!-- benchmarks:end -->)", re.DOTALL)


def write(results: dict[str, Any], parts: Sequence[str]) -> None:
    """Renew the documents with these parts; what was not measured stays as it was."""
    known = json.loads(REFERENCE.read_text(encoding="utf-8")) if REFERENCE.is_file() else {}
    known |= results
    REFERENCE.write_text(json.dumps(rounded(known)) + "\n", encoding="utf-8")
    if "instructions" in parts:
        instructions.write_reference(known["instructions"])
    environments.prepare({"plots"})
    plot = [str(environments.python("plots")), "-m", "benchmarks.plots", str(REFERENCE), str(PLOTS)]
    subprocess.run(plot, cwd=ROOT, check=True)
    measured = [
        part for part in report.TABLES if part in known or (part in ("caller", "delivered") and "calls" in known)
    ]
    for path, make in DOCUMENTS.items():
        text = path.read_text(encoding="utf-8")
        made = make(known, measured)
        if not BLOCK.search(text):
            raise RuntimeError(f"{path} has no block between <!-- benchmarks:begin --> and <!-- benchmarks:end -->")
        path.write_text(BLOCK.sub(lambda match, made=made: f"{match[1]}{made}\n{match[2]}", text), encoding="utf-8")


def rounded(value: Any) -> Any:
    """Five digits are more than a figure is good for."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def readme(results: dict[str, Any], parts: Sequence[str]) -> str:
    found = [
        "![A call, and a delivered event, beside the peers](docs/performance/calls.svg)",
        f"Microseconds, medians of rounds in which all took turns ({report.machine(results)}):",
        report.summary(results),
    ]
    if "outage" in parts:
        found += ["Events lost, each library with its own defaults:", report.outages(results).partition("\n\n")[2]]
    return "\n\n".join(found)


def page(results: dict[str, Any], parts: Sequence[str]) -> str:
    found = [
        f"{report.machine(results)}. A figure is the median of its rounds, with the least and the greatest; × is the median of "
        "the ratios within the same round.",
        "![A call, and a delivered event, beside the peers](performance/calls.svg)",
        "![Growth](performance/growth.svg)",
    ]
    for title, tables in report.sections(results, parts):
        found += [f"### {title}", tables]
    return "\n\n".join([*found, "### Releases and settings", report.settings()])


DOCUMENTS: dict[Path, Callable[[dict[str, Any], Sequence[str]], str]] = {
    ROOT / "README.md": readme,
    ROOT / "docs" / "performance.md": page,
}

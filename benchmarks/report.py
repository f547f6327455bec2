"""Tables in Markdown from the results, for the terminal and for the marked blocks of the documentation."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from .measure import Samples, values
from .peers import BASELINE, PEERS


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    lines.extend("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join(lines)


def for_terminal(markdown: str) -> str:
    """The same with aligned columns and without HTML."""
    lines = markdown.replace("<sub>", "(").replace("</sub>", ")").splitlines()
    found: list[str] = []
    for is_table, group in groupby(lines, key=lambda line: line.startswith("|")):
        if not is_table:
            found.extend(group)
            continue
        rows = [[one.strip() for one in line.strip("|").split("|")] for line in group]
        widths = [max(len(row[at]) for row in rows if "--" not in row[at]) for at in range(len(rows[0]))]
        for row in rows:
            if row[-1] != "--:":
                cells = (
                    one.ljust(width) if at == 0 else one.rjust(width)
                    for at, (one, width) in enumerate(zip(row, widths, strict=True))
                )
                found.append("  ".join(cells).rstrip())
    return "\n".join(found)


def number(value: float) -> str:
    """Three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(found: Iterable[float]) -> str:
    """The median, and from where to where the rounds went."""
    ordered = sorted(found)
    if not ordered:
        return ""
    middle = number(statistics.median(ordered))
    if len(ordered) == 1:
        return middle
    return f"{middle} <sub>{number(ordered[0])}–{number(ordered[-1])}</sub>"


def ratio(samples: Samples, name: str, *path: str, to: str = BASELINE) -> str:
    """To the baseline of the same round: the median over the rounds."""
    pairs = [
        mine / theirs
        for one, other in zip(samples.get(name, []), samples.get(to, []), strict=False)
        for mine, theirs in zip(values([one], *path), values([other], *path), strict=False)
        if theirs
    ]
    return f"{statistics.median(pairs):.2f}" if pairs else ""


def void(samples: Sequence[dict[str, Any]]) -> str:
    """Why the figures of a peer do not count, if so."""
    errors = [sample["error"] for sample in samples if "error" in sample]
    if errors:
        return f"failed: {errors[0][:80]}"
    lost = sum(sample.get("lost", 0) for sample in samples)
    twice = sum(sample.get("twice", 0) for sample in samples)
    return f"void: {lost} events did not arrive, {twice} came twice" if lost or twice else ""


def calls_table(samples: Samples, columns: Sequence[tuple[str, tuple[str, ...]]], ratio_of: tuple[str, ...]) -> str:
    """One row per peer; a figure whose events did not all arrive is replaced by the reason."""
    rows = []
    for name, peer in PEERS.items():
        mine = samples.get(name)
        if not mine:
            continue
        if reason := void(mine):
            rows.append([peer.title, reason, *[""] * len(columns)])
            continue
        cells = [cell(values(mine, *path)) for _, path in columns]
        if any(cells):
            rows.append([peer.title, *cells, ratio(samples, name, *ratio_of)])
    base = PEERS[BASELINE].title.partition(",")[0]
    return table(["", *[title for title, _ in columns], f"× {base}"], rows)


CALLER = tuple(
    (f"{mode} {place}", (phase, place))
    for phase, mode in (
        ("paced", "paced"),
        ("burst", "burst"),
        ("paced-8", "paced, 8 threads"),
        ("burst-8", "burst, 8 threads"),
    )
    for place in ("p50", "p99", "p99.9")
)
DELIVERED = (
    ("purchase, CPU", ("purchase", "cpu")),
    ("time", ("purchase", "wall")),
    ("page view, CPU", ("page_view", "cpu")),
    ("CDNOW, CPU", ("cdnow", "cpu")),
    ("time", ("cdnow", "wall")),
)


def caller(results: dict[str, Any]) -> str:
    samples: Samples = results["calls"]
    seen = [column for column in CALLER if any(next(values(one, *column[1]), None) for one in samples.values())]
    return "Microseconds per call on the app's thread\n\n" + calls_table(samples, seen, ("burst", "p50"))


def delivered(results: dict[str, Any]) -> str:
    samples: Samples = results["calls"]
    seen = [column for column in DELIVERED if any(next(values(one, *column[1]), None) for one in samples.values())]
    return "Microseconds per delivered event\n\n" + calls_table(samples, seen, ("purchase", "cpu"))


def everything(results: dict[str, Any], parts: Sequence[str]) -> str:
    """The tables of these parts."""
    return "\n\n".join(TABLES[part](results) for part in parts if part in TABLES) + "\n"


TABLES = {"caller": caller, "delivered": delivered}

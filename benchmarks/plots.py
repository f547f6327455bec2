"""The plots of the documentation: `python -m benchmarks.plots results.json folder`, in the environment that has matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .figures import Samples, median
from .peers import PEERS

OURS, THEIRS, LIMIT = "#0b6e4f", "#8a8f98", "#d9a441"
SKIPPED = {"eventflows-span", "floor-orjson"}
matplotlib.rcParams.update(
    {
        "svg.hashsalt": "eventflows",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def colour(name: str) -> str:
    return OURS if name.startswith("eventflows") else LIMIT if name.startswith("floor") else THEIRS


def bars(axes: Axes, samples: Samples, path: tuple[str, str], title: str) -> None:
    """One bar per peer, longest at the bottom; what is off the scale is cut and says its value."""
    found = {
        name: value
        for name in PEERS
        if name not in SKIPPED and (value := median(samples.get(name, []), *path)) is not None
    }
    names = sorted(found, key=lambda name: -found[name])
    scale = sorted(found.values())[max(0, len(found) - 3)] * 1.15
    axes.barh(
        [PEERS[name].title for name in names],
        [min(found[name], scale) for name in names],
        color=list(map(colour, names)),
    )
    for at, name in enumerate(names):
        axes.text(
            min(found[name], scale),
            at,
            f" {found[name]:,.3g}" if found[name] < 1000 else f" {found[name]:,.0f}",
            va="center",
        )
    axes.set_xlim(0, scale * 1.12)
    axes.set_title(title, loc="left")


def calls(results: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    bars(left, results["calls"], ("burst", "p50"), "a call on the app's thread, median, µs")
    bars(right, results["calls"], ("purchase", "cpu"), "CPU per delivered event, µs")
    save(figure, path)


def growth(results: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    (events, queue), (journal, providers) = figure.subplots(2, 2)
    curves = results["growth"]
    for axes, name, title, label in (
        (events, "events", "CPU per delivered event, µs", "events so far"),
        (queue, "queue", "a call, median, µs", "share of the queue that is full"),
        (journal, "journal", "a call with storage, median, µs", "journal, MB"),
    ):
        points = curves[name][0]["points"]
        axes.plot([x for x, _ in points], [y for _, y in points], color=OURS, marker="." if len(points) < 20 else "")
        axes.set_title(title, loc="left")
        axes.set_xlabel(label)
        axes.set_ylim(0, max(y for _, y in points) * 1.4)
    events.set_xscale("log")
    samples: Samples = results["providers"]
    costs = {int(many): median(found, "purchase", "cpu") or 0 for many, found in samples.items()}
    providers.plot(list(costs), list(costs.values()), color=OURS, marker=".")
    providers.set_title("CPU per event, delivered to all, µs", loc="left")
    providers.set_xlabel("batch providers")
    providers.set_ylim(0)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def main() -> None:
    results = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(sys.argv[2])
    folder.mkdir(exist_ok=True)
    if "calls" in results:
        calls(results, folder / "calls.svg")
    if "growth" in results and "providers" in results:
        growth(results, folder / "growth.svg")


if __name__ == "__main__":
    main()

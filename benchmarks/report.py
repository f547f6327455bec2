"""Tables in Markdown from the results, for the terminal and for the marked blocks of the documentation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from .measure import Samples, values
from .outage import FAULTS
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


def limits(results: dict[str, Any]) -> str:
    samples = results["limits"]["limits"]
    columns = ("json", "orjson", "requests", "urllib3", "http.client")
    rows = [
        [f"{title}, of 1,000, per event", *[cell(values(samples, platform, column)) for column in columns]]
        for platform, title in (("meta", "Meta"), ("tiktok", "TikTok"), ("reddit", "Reddit"))
    ]
    rows.append(["GA4, of one event", "", "", *[cell(values(samples, "one", column)) for column in columns[2:]]])
    return "The limit: microseconds of processor time to encode or post a body that is ready\n\n" + table(
        ["body", *columns], rows
    )


def providers(results: dict[str, Any]) -> str:
    samples: Samples = results["providers"]
    first = _median(samples["1"], "purchase", "cpu")
    rows = []
    for many, found in samples.items():
        more = int(many) - 1
        added = (_median(found, "purchase", "cpu") - first) / more if more else None
        rows.append(
            [
                many,
                void(found) or cell(values(found, "purchase", "cpu")),
                "" if added is None else number(added),
                ratio(samples, many, "purchase", "cpu", to="1"),
                cell(1e6 / wall for wall in values(found, "purchase", "wall")),
            ]
        )
    head = ["batch providers", "CPU per event, µs", "each further one adds, µs", "× one", "events per second, to all"]
    text = "Delivery to several providers\n\n" + table(head, rows)
    if "limits" in results and "3" in samples:
        ready = results["limits"]["limits"]
        body = sum(_median(ready, one, "json") + _median(ready, one, "urllib3") for one in ("tiktok", "reddit")) / 2
        added = (_median(samples["3"], "purchase", "cpu") - first) / 2
        text += f"\n\nTikTok and Reddit add {added / body:.2f} × what encoding (json) and posting (urllib3) their bodies costs."
    return text


def single(results: dict[str, Any]) -> str:
    rows = []
    for name, found in results["single"].items():
        phase = "cdnow" if "CDNOW" in name else "purchase"
        rate = cell(1e6 / wall for wall in values(found, phase, "wall"))
        rows.append([name, void(found) or cell(values(found, phase, "cpu")), rate])
    return "GA4, one client per request\n\n" + table(["", "CPU per event, µs", "events per second"], rows)


def memory(results: dict[str, Any]) -> str:
    samples: Samples = results["memory"]
    rows = [
        [
            peer.title,
            *[cell(one / 1000 for one in values(samples[f"{name} {kind}"], kind)) for kind in ("rss", "traced")],
        ]
        for name, peer in PEERS.items()
        if f"{name} rss" in samples and f"{name} traced" in samples
    ]
    rows += [
        [PEERS[name].title, cell(one / 1000 for one in values(found, "rss")), ""]
        for name, found in ((key.removesuffix(" rss"), found) for key, found in samples.items())
        if f"{name} rss" in samples and f"{name} traced" not in samples
    ]
    head = ["", "kB of the process per waiting event", "kB of Python's objects"]
    return "Memory, while the platform does not answer\n\n" + table(head, rows)


def starting(results: dict[str, Any]) -> str:
    rows = [
        [name, cell(values(found, "ms")), number(_median(found, "modules")), f"{_median(found, 'threads'):.0f}"]
        for name, found in results["start"].items()
    ]
    return "Start\n\n" + table(["", "ms", "modules", "threads"], rows)


def app(results: dict[str, Any]) -> str:
    samples: Samples = results["app"]
    rows = []
    for mix in dict.fromkeys(name.rpartition(", ")[0] for name in samples):
        without, with_ours = samples[f"{mix}, without EventFlows"], samples[f"{mix}, with EventFlows"]
        pairs = zip(values(with_ours, "rate"), values(without, "rate"), strict=False)
        lost = cell((1 - mine / theirs) * 100 for mine, theirs in pairs)
        rates = [cell(values(found, "rate")) for found in (without, with_ours)]
        rows.append([mix, *rates, lost, cell(values(with_ours, "delivered"))])
    head = ["the Flask example", "requests/s without", "with EventFlows", "lost, %", "events/s delivered, 3 providers"]
    return "The app under the highest load\n\n" + table(head, rows)


def spans(results: dict[str, Any]) -> str:
    samples = results["spans"]["spans"]
    rows = []
    for name in samples[0]:
        without, with_it = (_median(samples, name, when) for when in ("without", "with"))
        rows.append([name, number(without), number(with_it), number(with_it - without)])
    head = ["microseconds", "without the instrumentor", "with", "adds"]
    return "What the instrumentor adds to other span events and spans\n\n" + table(head, rows)


def growth(results: dict[str, Any]) -> str:
    samples: Samples = results["growth"]
    parts = []
    for name, head in (
        ("events", ["events so far", "CPU per delivered event, µs"]),
        ("queue", ["share of the queue that is full", "call, µs"]),
        ("journal", ["journal, MB", "call, µs"]),
    ):
        for sample in samples.get(name, [])[:1]:
            if "error" in sample:
                parts.append(f"{name}: failed: {sample['error']}")
                continue
            points = sample["points"]
            shown = points[:: max(1, len(points) // 8)]
            label = "{:,.0%}" if name == "queue" else "{:,.0f}"
            parts.append(table(head, [[label.format(x), number(y)] for x, y in shown]))
            if name == "journal":
                for size, cost in sample["delivered"]:
                    parts.append(f"Delivered from a journal of {size:,.0f} MB: {number(cost)} µs of CPU per event.")
                parts.append(
                    f"On disk: {sample['waiting']:,.0f} bytes per waiting event, {sample['done']:,.0f} per delivered."
                )
    return "Growth\n\n" + "\n\n".join(parts)


def instructions(results: dict[str, Any]) -> str:
    rows = [
        [PEERS[name].title, f"{found['call']:,}", f"{found['event']:,}"]
        for name, found in results["instructions"].items()
    ]
    return "Processor instructions\n\n" + table(["", "per call", "per delivered event"], rows)


def outages(results: dict[str, Any]) -> str:
    found = results["outage"]
    rows = []
    for name in next(iter(found.values())):
        row = [PEERS[name].title]
        for fault in found:
            one = found[fault][name]
            twice = f", {one['twice']:,} twice" if one["twice"] else ""
            row.append(f"{one['lost']:,}{twice}")
        row += [f"{found['exit'][name]['seconds']:.0f} s", f"{found['overflow'][name]['lines']:,}"]
        rows.append(row)
    head = [
        "lost",
        *(FAULTS[fault].title for fault in found),
        "the end with slow answers takes",
        "log lines of the overflow",
    ]
    return "Lost events, each library with its own defaults\n\n" + table(head, rows)


def _median(samples: Sequence[dict[str, Any]], *path: str) -> float:
    found = list(values(samples, *path))
    return statistics.median(found) if found else math.nan


def everything(results: dict[str, Any], parts: Sequence[str]) -> str:
    """The tables of these parts."""
    return "\n\n".join(TABLES[part](results) for part in parts) + "\n"


TABLES = {
    "caller": caller,
    "delivered": delivered,
    "limits": limits,
    "providers": providers,
    "single": single,
    "memory": memory,
    "start": starting,
    "app": app,
    "spans": spans,
    "growth": growth,
    "instructions": instructions,
    "outage": outages,
}

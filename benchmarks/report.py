"""Tables in Markdown from the results, for the terminal and for the marked blocks of the documentation."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from . import environments
from .budgets import added_per_provider, body_cost, budgets
from .figures import Samples, median, paired, values
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
    return _cell(ordered, ordered[:1], ordered[-1:])


def turns(found: Iterable[float]) -> str:
    """The median of many short turns, and its quartiles."""
    ordered = sorted(found)
    quartiles = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else ordered
    return _cell(ordered, quartiles[:1], quartiles[-1:])


def _cell(found: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
    if not found:
        return ""
    middle = number(statistics.median(found))
    return middle if len(found) == 1 else f"{middle} <sub>{number(low[0])}–{number(high[0])}</sub>"


def ratio(samples: Samples, name: str, *path: str, to: str = BASELINE) -> str:
    found = paired(samples, name, to, *path)
    return "" if found is None else f"{found:.2f}"


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


STAGES = (
    ("Main", "the call, on the app's thread"),
    ("intake", "reading, once; mapping and writing for each provider"),
    ("OtelBatch", "putting events into requests"),
    ("-send", "posting, reading the answer, counting"),
)
"""Part of a thread's name → what it does."""


def where(results: dict[str, Any]) -> str:
    """The delivered purchase of one provider, by the threads of EventFlows."""
    samples: Samples = results["calls"]
    columns = [name for name in ("eventflows", "eventflows-orjson", "eventflows-storage") if name in samples]
    rows = []
    for part, title in STAGES:
        cells = [cell(_spent(samples[name], part)) for name in columns]
        rows.append([title, *cells])
    return "Where it is spent\n\n" + table(["µs of CPU per purchase", *[PEERS[name].title for name in columns]], rows)


def _spent(samples: Sequence[dict[str, Any]], part: str) -> list[float]:
    rounds = [sample["purchase"].get("threads", {}) for sample in samples if "purchase" in sample]
    return [sum(spent for name, spent in threads.items() if part in name) for threads in rounds if threads]


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
    rows = [
        [
            many,
            void(found) or cell(values(found, "purchase", "cpu")),
            ratio(samples, many, "purchase", "cpu", to="1"),
            cell(1e6 / wall for wall in values(found, "purchase", "wall")),
        ]
        for many, found in samples.items()
    ]
    head = ["batch providers", "CPU per event, µs", "× one", "events per second, to all"]
    text = "Several providers\n\n" + table(head, rows)
    if (added := added_per_provider(results)) and (body := body_cost(results)):
        text += (
            f"\n\nTikTok and Reddit each add {number(added)} µs to an event. Encoding (json) and posting (requests) what they "
            f"get takes {number(body)} µs."
        )
    return text


def single(results: dict[str, Any]) -> str:
    rows = []
    for name, found in results["single"].items():
        phase = "cdnow" if "CDNOW" in name else "purchase"
        rate = cell(1e6 / wall for wall in values(found, phase, "wall"))
        rows.append([name, void(found) or cell(values(found, phase, "cpu")), rate])
    return "GA4, one client per request\n\n" + table(["", "CPU per event, µs", "events per second"], rows)


WAYS = {
    "paced": "the process, at 5,000 events a second",
    "burst": "the process, after a burst",
    "traced": "Python's objects",
}


def memory(results: dict[str, Any]) -> str:
    samples: Samples = results["memory"]
    ways = [way for way in WAYS if any(name.endswith(f" {way}") for name in samples)]
    rows = [
        [peer.title, *[cell(one / 1000 for one in values(samples.get(f"{name} {way}", []), "bytes")) for way in ways]]
        for name, peer in PEERS.items()
        if any(f"{name} {way}" in samples for way in ways)
    ]
    head = ["kB per waiting event", *(WAYS[way] for way in ways)]
    return "Memory, while the platform does not answer\n\n" + table(head, rows)


def starting(results: dict[str, Any]) -> str:
    rows = [
        [name, cell(values(found, "ms")), f"{median(found, 'modules'):.0f}", f"{median(found, 'threads'):.0f}"]
        for name, found in results["start"].items()
    ]
    return "Start\n\n" + table(["", "ms", "modules", "threads"], rows)


def app(results: dict[str, Any]) -> str:
    samples: Samples = results["app"]
    rows = []
    for mix in dict.fromkeys(name.rpartition(", ")[0] for name in samples):
        without, with_ours = samples[f"{mix}, without EventFlows"], samples[f"{mix}, with EventFlows"]
        pairs = zip(values(with_ours, "rate"), values(without, "rate"), strict=False)
        lost = turns((1 - mine / theirs) * 100 for mine, theirs in pairs)
        rates = [turns(values(found, "rate")) for found in (without, with_ours)]
        cpus = [turns(values(found, "cpu")) for found in (without, with_ours)]
        rows.append([mix, *rates, lost, *cpus, turns(values(with_ours, "delivered"))])
    head = [
        "the Flask example",
        *("requests/s without", "with EventFlows", "lost, %"),
        *("CPU per request without, µs", "with EventFlows, µs"),
        "events/s delivered, 3 providers",
    ]
    return "The app under the highest load\n\n" + table(head, rows)


def ordinary(results: dict[str, Any]) -> str:
    samples = results["ordinary"]["ordinary"]
    rows = []
    for name in samples[0]:
        without, added = (list(values(samples, name, what)) for what in ("without", "added"))
        share = turns(more / less * 100 for more, less in zip(added, without, strict=False))
        rows.append([name, turns(without), turns(values(samples, name, "with")), turns(added), share])
    head = ["a request that records no conversion, µs of CPU", "without EventFlows", "with", "adds", "%"]
    return "What an ordinary request pays, without a server\n\n" + table(head, rows)


def spans(results: dict[str, Any]) -> str:
    samples = results["spans"]["spans"]
    rows = []
    for name in samples[0]:
        without, with_it = (median(samples, name, when) or 0 for when in ("without", "with"))
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
                for (size, cost), where in zip(
                    sample["delivered"], ("in memory as well", "read from the disk"), strict=True
                ):
                    parts.append(
                        f"Delivered from a journal of {size:,.0f} MB, {where}: {number(cost)} µs of CPU per event."
                    )
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


def budget(results: dict[str, Any]) -> str:
    rows = [
        [
            one.what,
            f"{number(one.measured)} {one.unit}",
            f"{'≥' if one.at_least else '≤'} {one.allowed:g}",
            "kept" if one.kept else "**not kept**",
        ]
        for one in budgets(results)
    ]
    return "Budgets\n\n" + table(["", "measured", "budget", ""], rows) if rows else ""


SUMMARY = (
    ("call, paced, p50", ("paced", "p50")),
    ("call, burst, p50", ("burst", "p50")),
    ("burst of 8 threads, p99", ("burst-8", "p99")),
    ("CPU per delivered event", ("purchase", "cpu")),
)


def summary(results: dict[str, Any]) -> str:
    """For the README: medians alone, without ways of using EventFlows that few need."""
    samples: Samples = results["calls"]
    rows = []
    for name, peer in PEERS.items():
        found = samples.get(name, [])
        if not found or void(found) or name in ("eventflows-span", "eventflows-instrumentor"):
            continue
        medians = [median(found, *path) for _, path in SUMMARY]
        rows.append([peer.title, *["" if one is None else number(one) for one in medians]])
    return table(["µs", *[title for title, _ in SUMMARY]], rows)


def machine(results: dict[str, Any]) -> str:
    found = results["machine"]
    return f"{found['cores']} cores, Python {found['python']}, {found['system']}"


def settings() -> str:
    """What each library was set to, from peers.ini."""
    parser = environments.sections()
    return table(
        ["release", "settings"],
        [
            [
                environments.requirements(name)[0].replace("==", " ") if name not in ("eventflows", "fast") else name,
                parser[name]["settings"],
            ]
            for name in parser.sections()
            if parser[name]["settings"]
        ],
    )


def sections(results: dict[str, Any], parts: Sequence[str]) -> list[tuple[str, str]]:
    """Title and tables of these parts, and before them the budgets that they can tell of."""
    texts = [budget(results), *[TABLES[part](results) for part in parts]]
    if "delivered" in parts:
        texts.insert(parts.index("delivered") + 2, where(results))
    return [(text.partition("\n\n")[0], text.partition("\n\n")[2]) for text in texts if text]


TABLES = {
    "caller": caller,
    "delivered": delivered,
    "limits": limits,
    "providers": providers,
    "single": single,
    "memory": memory,
    "start": starting,
    "app": app,
    "ordinary": ordinary,
    "spans": spans,
    "growth": growth,
    "instructions": instructions,
    "outage": outages,
}

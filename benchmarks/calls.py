"""What a call costs the app's thread, and what an event costs the process from the call to the platform's answer.

Runs in the library's own process, started anew for each repeat.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from . import workloads
from .client import Client, Record
from .sink import Control
from .workloads import Order

WARM_UP = 1_000
SETTLE_SECONDS = 30


def run(client: Client, control: Control, tag: str, params: dict[str, Any]) -> dict[str, Any]:
    """Go through the phases that `params` has a count for, and say what each found.

    Returns:
        For `paced`, `burst`, `paced-8` and `burst-8` the percentiles of a call in microseconds; for `purchase`, `page_view` and
        `cdnow` the microseconds per event of processor time and of time; `lost` and `twice` over all phases.
    """
    found: dict[str, Any] = {}
    supply = workloads.orders(tag)
    recorded = 0

    def settle() -> None:
        client.flush()
        control.wait(recorded * client.copies, SETTLE_SECONDS)

    def take(count: int) -> list[Order]:
        nonlocal recorded
        recorded += count
        return list(islice(supply, count))

    for order in take(min(WARM_UP, max(params["counts"].values()))):
        client.purchase(order)
    settle()
    for phase, count in params["counts"].items():
        mode, _, threads = phase.partition("-")
        if mode in ("paced", "burst"):
            rate = params["rate"] if mode == "paced" else 0
            found[phase] = percentiles(latencies(client.purchase, take(count), rate, int(threads or 1)))
        elif mode == "cdnow":
            orders = workloads.cdnow(f"{tag}c", Path(params["cdnow"]) if params["cdnow"] else workloads.CDNOW)
            recorded += len(orders)
            found[mode] = delivered(client.purchase, orders, settle)
        else:
            found[mode] = delivered(client.page_view if mode == "page_view" else client.purchase, take(count), settle)
        settle()
    report = control.report()
    client.stop()
    return {**found, "lost": recorded * client.copies - report["arrived"], "twice": report["twice"]}


def latencies(record: Record, orders: Sequence[Order], rate: float, threads: int) -> list[int]:
    """Nanoseconds of each call; `rate` calls a second in all, 0 for as fast as possible."""
    found: list[list[int]] = [[] for _ in range(threads)]
    barrier = threading.Barrier(threads)

    def work(number: int) -> None:
        mine, clock = found[number], time.perf_counter_ns
        share = orders[number::threads]
        pause = int(1e9 * threads / rate) if rate else 0
        barrier.wait()
        due = clock() + pause * number // threads
        for order in share:
            if pause:
                if (left := due - clock()) > 0:
                    time.sleep(left / 1e9)
                due += pause
            before = clock()
            record(order)
            mine.append(clock() - before)

    others = [threading.Thread(target=work, args=(number,)) for number in range(1, threads)]
    for thread in others:
        thread.start()
    work(0)
    for thread in others:
        thread.join()
    return [one for mine in found for one in mine]


def percentiles(nanoseconds: list[int]) -> dict[str, float]:
    ordered = sorted(nanoseconds)
    last = len(ordered) - 1
    places = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {name: ordered[round(last * place)] / 1000 for name, place in places.items()}


def delivered(record: Record, orders: Sequence[Order], settle: Callable[[], None]) -> dict[str, Any]:
    """Microseconds per event, from the first call to the last answer, and of them those of each thread."""
    by_thread = thread_times()
    cpu, wall = time.process_time(), time.perf_counter()
    for order in orders:
        record(order)
    settle()
    scale = 1e6 / len(orders)
    found = {"cpu": (time.process_time() - cpu) * scale, "wall": (time.perf_counter() - wall) * scale}
    by_thread = {name: (spent - by_thread.get(name, 0)) * scale for name, spent in thread_times().items()}
    return {**found, "threads": {name: spent for name, spent in by_thread.items() if spent > 0}}


def thread_times() -> dict[str, float]:
    """Seconds of processor time of the threads that live, by name; empty where the system does not tell."""
    found: dict[str, float] = {}
    for thread in threading.enumerate():
        path = Path(f"/proc/self/task/{thread.native_id}/schedstat")
        if path.is_file():
            found[thread.name] = found.get(thread.name, 0) + int(path.read_text(encoding="ascii").split()[0]) / 1e9
    return found

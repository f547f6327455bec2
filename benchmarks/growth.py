"""Whether an event costs the same when there have been many, when many wait, and when many are on disk.

Runs in the library's own process.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from . import workloads
from .client import Client
from .sink import Control
from .workloads import Order

CHUNK = 5_000
BINS = 10


def run(client: Client, control: Control, tag: str, params: dict[str, Any]) -> dict[str, Any]:
    """The curve that `params["curve"]` names: `events`, `queue` or `journal`."""
    supply = workloads.orders(tag)
    for order in islice(supply, 1_000):
        client.purchase(order)
    if params["curve"] == "queue":
        return {"points": list(filling(client, supply, params["queue_size"]))}
    client.flush()
    if params["curve"] == "events":
        return {"points": list(delivering(client, supply, params["total"]))}
    return journal(client, control, supply, Path(params["options"]["queue"]["storage"]), params)


def delivering(client: Client, supply: Iterator[Order], total: int) -> Iterator[list[float]]:
    """[events so far, microseconds of processor time per delivered event since the last point]"""
    done, since, used = 0, 0, 0.0
    marks = [mark for power in range(3, 8) for mark in (10**power, 3 * 10**power) if mark <= total]
    while done < total:
        chunk = list(islice(supply, min(CHUNK, marks[0] - done)))
        before = time.process_time()
        for order in chunk:
            client.purchase(order)
        client.flush()
        used += time.process_time() - before
        done += len(chunk)
        if done == marks[0]:
            yield [done, used * 1e6 / (done - since)]
            marks, since, used = marks[1:], done, 0.0


def filling(client: Client, supply: Iterator[Order], queue_size: int) -> Iterator[list[float]]:
    """[share of the queue that is full, median microseconds of a call], while no request is answered"""
    room = queue_size - 1_000  # the first thousand are there already
    for part in range(BINS):
        yield [(part + 0.5) / BINS, middle(client, list(islice(supply, room // BINS)))]


def middle(client: Client, orders: list[Order]) -> float:
    """The median of these calls, in microseconds."""
    clock, found = time.perf_counter_ns, []
    for order in orders:
        before = clock()
        client.purchase(order)
        found.append(clock() - before)
    return statistics.median(found) / 1000


def journal(
    client: Client, control: Control, supply: Iterator[Order], folder: Path, params: dict[str, Any]
) -> dict[str, Any]:
    """Record during an outage until the journal has its size, and then deliver some of it.

    Returns:
        `points`: [megabytes, median microseconds of a call]; `delivered`: [megabytes, microseconds of processor time per event
        that is delivered from the journal], nearly empty and at its full size; `waiting` and `done`: bytes on disk per event.
    """
    sample = params["sample"]
    control.mode(down=True)
    arrived = control.report()["arrived"]
    for order in islice(supply, sample):
        client.purchase(order)
    delivered = [[used(folder) / 1e6, deliver(control, arrived, sample)]]
    client.flush()
    start = used(folder)
    done = start / (1_000 + sample)
    control.mode(down=True)
    recorded, deadline, points = 0, time.monotonic() + params["seconds"], []
    while (size := used(folder) - start) < params["bytes"] and time.monotonic() < deadline:
        points.append([size / 1e6, middle(client, list(islice(supply, CHUNK)))])
        recorded += CHUNK
    arrived = control.report()["arrived"]
    delivered.append([used(folder) / 1e6, deliver(control, arrived, sample)])
    return {"points": points, "delivered": delivered, "waiting": size / recorded, "done": done}


def deliver(control: Control, arrived: int, sample: int) -> float:
    """End the outage; microseconds of processor time per event until so many have arrived."""
    before = time.process_time()
    control.mode()
    more = control.wait(arrived + sample, 120)["arrived"] - arrived
    return (time.process_time() - before) * 1e6 / max(more, 1)


def used(folder: Path) -> int:
    """Bytes of the journals' pages that hold something."""
    from eventflows.journals import files

    total = 0
    for path in files(folder):
        with closing(sqlite3.connect(path)) as database:
            pages, free, size = (
                database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        total += (pages - free) * size
    return total

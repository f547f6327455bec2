"""Memory per event that waits, while the platform answers nothing. Runs in the library's own process."""

from __future__ import annotations

import gc
import os
import time
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

from . import workloads
from .client import Client
from .sink import Control


def run(client: Client, _control: Control, tag: str, params: dict[str, Any]) -> dict[str, Any]:
    """Bytes per event. The orders themselves are not in it.

    Args:
        params: `way` is `paced` (the process, at `rate` events a second), `burst` (the process, recorded without a pause) or
            `traced` (Python's objects).
    """
    way, rate = params["way"], params["rate"]
    supply = workloads.orders(tag)
    for order in islice(supply, 1_000):  # whatever is loaded or allocated once
        client.purchase(order)
    time.sleep(1.5)
    gc.collect()
    if way == "traced":
        tracemalloc.start()
    before = resident()
    started = time.monotonic()
    for number, order in enumerate(islice(supply, params["count"])):
        if way == "paced" and (early := started + number / rate - time.monotonic()) > 0:
            time.sleep(early)
        client.purchase(order)
    time.sleep(1.5)  # the background's share of the work
    gc.collect()
    bytes_used = tracemalloc.get_traced_memory()[0] if way == "traced" else resident() - before
    return {"bytes": bytes_used / params["count"]}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

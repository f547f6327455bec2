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
    """Bytes per event: of the process (`rss`) or, with `traced`, of Python's objects. The orders themselves are not in it."""
    supply = workloads.orders(tag)
    for order in islice(supply, 1_000):  # whatever is loaded or allocated once
        client.purchase(order)
    time.sleep(1.5)
    gc.collect()
    if params["traced"]:
        tracemalloc.start()
    before = resident()
    for order in islice(supply, params["count"]):
        client.purchase(order)
    time.sleep(1.5)  # the background's share of the work
    gc.collect()
    if params["traced"]:
        return {"traced": tracemalloc.get_traced_memory()[0] / params["count"]}
    return {"rss": (resident() - before) / params["count"]}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

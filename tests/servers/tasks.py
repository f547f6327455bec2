"""The shop's tasks for Celery, with a broker that is a folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from celery import Celery

from .recording import configure, record

folder = Path(os.environ["SHOP_BROKER"])
app = Celery("shop", broker="filesystem://")
queue = str(folder / "queue")
app.conf.broker_transport_options = {
    "data_folder_in": queue,
    "data_folder_out": queue,
    "control_folder": str(folder / "control"),
    "polling_interval": 0.05,
}
app.conf.worker_prefetch_multiplier = 1
configure()


@app.task(name="buy")
def buy(order: str, die: bool = False) -> None:
    record(order)
    (folder / "done" / order).write_text(str(os.getpid()))
    if die:
        os.kill(os.getpid(), signal.SIGKILL)

"""What the processes of these tests record, and how they are configured: from the environment that `running` gives them."""

from __future__ import annotations

import os
from typing import Any

import eventflows
from eventflows import MetaProvider, RedditProvider, storage

PROVIDERS = ("meta", "reddit")


def configure() -> None:
    storage.SCAN_SECONDS = 0.2
    url, folder = os.environ["SHOP_SANDBOX"], os.environ.get("SHOP_STORAGE")
    queue: dict[str, Any] = {"flush_interval": os.environ.get("SHOP_FLUSH_INTERVAL", "50ms")}
    eventflows.configure(
        [
            MetaProvider("123", "abc", endpoint=f"{url}/meta"),
            RedditProvider("a2_123", "abc", endpoint=f"{url}/reddit"),
        ],
        sending_queue={**queue, "storage": folder} if folder else queue,
        retry_on_failure={"initial_interval": "20ms", "max_interval": "200ms"},
    )


def record(order: str) -> None:
    eventflows.get_tracer("shop").add_event(
        "Lead",
        {
            "event_id": order,
            "user.email": f"{order}@example.com",
            "client.address": "198.51.100.24",
            "user_agent.original": "Mozilla/5.0",
        },
    )

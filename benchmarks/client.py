"""What every library is brought to: two calls, and a way to wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .workloads import Order

Record = Callable[[Order], object]
QUEUE = 100_000
"""Events that a queue holds, so that none is full."""
BATCH = 1_000
TITLE = "Thanks for your order"


@dataclass(frozen=True, slots=True)
class Client:
    """A library at work.

    Attributes:
        purchase, page_view: What an app would write where it records the event, and what is timed.
        flush: Comes back when what was recorded has been sent, as far as the library can say.
        stop: What the library documents for the end of the process.
        copies: To how many places each event goes.
    """

    purchase: Record
    page_view: Record
    flush: Callable[[], object]
    stop: Callable[[], object]
    copies: int = 1

"""What the app has to report: orders, as it has them in hand before it calls a library."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36"
CDNOW = Path(__file__).resolve().parent.parent / "examples" / "cdnow-1000.csv"
"""The first thousand rows of the CDNOW data set; `--cdnow` takes the whole."""


class Line(NamedTuple):
    id: str
    name: str
    price: float
    quantity: int


class Order(NamedTuple):
    """Attributes:
    id: What the sink counts; for a page view the id of the event.
    customer: The shop's number of the customer, from which the GA4 client id is made.
    """

    id: str
    customer: str
    email: str
    phone: str
    address: str
    user_agent: str
    url: str
    value: float
    currency: str
    items: tuple[Line, ...]


LINES = (Line("LMP-11", "Table lamp", 29.99, 1), Line("LMP-29", "Bulb", 10.0, 2))


def is_id(text: str) -> bool:
    return text.startswith("ev-") and text[-7:].isdigit()


def orders(tag: str) -> Iterator[Order]:
    """Different orders of different customers, without end; two lines each.

    Args:
        tag: Small letters and digits that no other process of the run uses.
    """
    for number in count():
        customer = f"{number:07d}"
        yield Order(
            f"ev-{tag}-{number:07d}",
            customer,
            f"Customer-{customer}@Example.com",
            f"+46 70 {customer}",
            f"198.51.100.{number % 250}",
            USER_AGENT,
            "https://shop.example/thanks",
            49.99 + number % 100,
            "EUR",
            LINES,
        )


def cdnow(tag: str, path: Path = CDNOW) -> list[Order]:
    """The purchases of the CDNOW data set: real amounts, and customers who come again."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for number, row in enumerate(rows):
        customer, cds, paid = row["customer_id"], int(row["cds"]), float(row["usd"])
        found.append(
            Order(
                f"ev-{tag}-{number:07d}",
                customer,
                f"customer-{customer}@example.com",
                f"+46 70 {int(customer):07d}",
                f"198.51.100.{int(customer) % 250}",
                USER_AGENT,
                "https://cdnow.example/thanks",
                paid,
                "USD",
                (Line("CD", "Compact disc", round(paid / max(cds, 1), 2), cds),),
            )
        )
    return found

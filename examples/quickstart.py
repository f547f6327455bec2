"""The whole way of a conversion, without an account and without a network: a small instrumented shop, real HTTP requests, and
the strict local sandbox in the place of Meta, GA4, TikTok and Reddit.

    python examples/quickstart.py

Prints what became of every conversion at every provider, and exits with 1 unless every number adds up.
"""

from __future__ import annotations

import csv
import logging
import sys
import threading
import time
from datetime import date
from pathlib import Path

import requests
from flask import Flask, request
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from werkzeug.serving import make_server

import eventflows
from eventflows import ConsoleProvider, EventType, GA4Provider, MetaProvider, RedditProvider, TikTokProvider, tracker
from eventflows.sandbox import Sandbox

PURCHASES = Path(__file__).with_name("cdnow-1000.csv")
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"
LAMPS = [
    {"id": "LMP-11", "name": "Table lamp", "price": 749.5, "quantity": 1},
    {"id": "LMP-29", "name": "Bulb", "price": 250.0, "quantity": 2},
]
CUSTOMER = {"user.email": " Mara.Lind@Example.com ", "user.phone": "+46 70 123 45 67", "user.id": "cust_8841"}


def make_shop() -> Flask:
    """A shop in which every page records what a shop records."""
    shop = Flask("shop")
    FlaskInstrumentor().instrument_app(shop)
    tracer = eventflows.get_tracer("shop")

    def visit() -> dict[str, str | None]:
        """What this request knows of its visitor."""
        return {
            "url.full": request.url,
            "http.request.header.referer": request.referrer,
            "client.address": request.remote_addr,
            "user_agent.original": request.user_agent.string,
            "conversion.click.ga_client_id": request.cookies.get("_ga"),
            "conversion.click.fbp": request.cookies.get("_fbp"),
        }

    @shop.get("/")
    def home() -> str:
        tracer.add_event("page_view", {**visit(), "page_title": "Lamps"})
        return "lamps"

    @shop.get("/search")
    def search() -> str:
        tracer.add_event("Search", {**visit(), "search_term": request.args["q"]})
        return "found"

    @shop.post("/cart")
    def cart() -> str:
        tracer.add_event("AddToCart", {**visit(), "items": LAMPS, "value": 1249.5, "currency": "SEK"})
        return "added"

    @shop.post("/account")
    def account() -> str:
        tracer.add_event("sign_up", {**visit(), **CUSTOMER, "method": "email"})
        return "welcome"

    @shop.post("/offer")
    def offer() -> str:
        tracer.add_event("generate_lead", {**visit(), **CUSTOMER, "value": 150, "currency": "SEK"})
        return "we will write"

    @shop.post("/configure")
    def configure() -> str:
        tracer.add_event("LampConfigured", {**visit(), **CUSTOMER, "shade": "opal", "steps": 4})
        return "nice"

    @shop.post("/subscribe")
    def subscribe() -> str:
        tracker.track(
            name="ProSubscription",
            event_type=EventType.PURCHASE,
            user_data={"email": " User@Example.com ", "ip_address": "192.168.1.1"},
            properties={"value": 49.99, "currency": "USD", "plan_type": "annual"},
            event_id="ORD-9999",
            exclude_providers=["reddit"],
        )
        return "subscribed"

    return shop


def visit_the_shop() -> None:
    """Seven real HTTP requests, as a browser with cookies sends them."""
    server = make_server("127.0.0.1", 0, make_shop(), threaded=True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    shop = f"http://127.0.0.1:{server.server_port}"
    with requests.Session() as browser:
        browser.headers["User-Agent"] = BROWSER
        browser.cookies.update({"_ga": "GA1.1.1836402915.1795431201", "_fbp": "fb.1.1790000000123.1804412345"})
        pages = [
            browser.get(f"{shop}/?fbclid=IwAR0click"),
            browser.get(f"{shop}/search", params={"q": "opal lamp"}),
            *(browser.post(f"{shop}/{page}") for page in ("cart", "account", "offer", "configure", "subscribe")),
        ]
    for page in pages:
        page.raise_for_status()
    server.shutdown()


def record_real_purchases() -> int:
    """A thousand purchases of an online shop, moved to the last 24 hours; returns how many."""
    tracer = eventflows.get_tracer("orders")
    with PURCHASES.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    days = [date.fromisoformat(row["date"]).toordinal() for row in rows]
    first, span = min(days), max(days) - min(days) + 1
    yesterday, a_day = time.time_ns() - 24 * 3600 * 10**9, 24 * 3600 * 10**9
    for number, (row, day) in enumerate(zip(rows, days, strict=True), start=1):
        customer = row["customer_id"]
        tracer.add_event(
            "Purchase",
            {
                "order_id": f"cdnow-{number}",
                "value": row["usd"],
                "currency": "USD",
                "num_items": row["cds"],
                "user.id": customer,
                "user.email": f"customer-{customer}@example.com",
                "url.full": "https://cdnow.example/thanks",
                "conversion.click.ga_client_id": f"{int(customer)}.1795431201",
                "conversion.exclude_providers": ["console"],
            },
            timestamp=yesterday + (day - first) * a_day // span,
        )
    return len(rows)


def main() -> int:
    started = time.monotonic()
    with Sandbox() as sandbox:
        pipeline = eventflows.configure(
            [
                ConsoleProvider(),
                MetaProvider(pixel_id="1234567890", access_token="demo"),
                GA4Provider(measurement_id="G-DEMO", api_secret="demo"),
                TikTokProvider(pixel_code="CDEMO", access_token="demo"),
                RedditProvider(pixel_id="a2_demo", access_token="demo"),
            ],
            endpoint=sandbox.url,
        )
        print("What the console provider shows of the seven requests, persons already hashed:\n")
        visit_the_shop()
        purchases = record_real_purchases()
        captured = 7 + purchases
        settled = eventflows.force_flush(60_000)
        seconds = time.monotonic() - started
        stats = pipeline.stats()
        accepted = {name: len(sandbox.events(name)) if name != "console" else None for name in stats}
        refused = sandbox.refused()
        eventflows.shutdown(5_000)

    print(f"\n{captured} conversions, {len(stats)} providers, {seconds:.1f} s\n")
    columns = ("captured", "delivered", "filtered", "refused", "dropped", "pending", "accepted by sandbox")
    print(f"{'provider':<10}" + "".join(f"{column:>{max(10, len(column) + 2)}}" for column in columns))
    # All that may be filtered: the console is spared the thousand purchases, and Reddit is excluded from the subscription.
    may_filter = {"console": purchases, "reddit": 1}
    problems = [] if settled else ["some conversions had no outcome in time"]
    problems += [f"the sandbox refused an event of {entry['provider']}: {entry['reason']}" for entry in refused]
    for name, one in stats.items():
        lost = [sum(reasons.values()) for reasons in (one.filtered, one.refused, one.dropped)]
        numbers = (one.captured, one.delivered, *lost, one.pending, "-" if accepted[name] is None else accepted[name])
        print(f"{name:<10}" + "".join(f"{n:>{max(10, len(c) + 2)}}" for n, c in zip(numbers, columns, strict=True)))
        for what in ("filtered", "refused", "dropped"):
            for reason, count in getattr(one, what).items():
                print(f"{'':<12}{count} {what}: {reason}")
        if one.captured != captured:
            problems.append(f"{name}: {one.captured} captured, but {captured} were recorded")
        if one.captured != one.delivered + sum(lost) + one.pending:
            problems.append(f"{name}: the numbers do not add up")
        if sum(one.filtered.values()) != may_filter.get(name, 0):
            problems.append(
                f"{name}: {sum(one.filtered.values())} filtered, but {may_filter.get(name, 0)} were meant to be"
            )
        if accepted[name] not in (None, one.delivered):
            problems.append(f"{name}: {one.delivered} delivered, but the sandbox accepted {accepted[name]}")
        if sum(one.refused.values()) or sum(one.dropped.values()) or one.pending:
            problems.append(f"{name}: not all were delivered or filtered")
    print("\n" + ("\n".join(problems) if problems else "Every number adds up."))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

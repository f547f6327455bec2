"""A small Flask shop, instrumented with OpenTelemetry, in which placing an order sends the conversion.

    python examples/flask_shop.py

Configured by `OTEL_EXPORTER_EVENTFLOWS_*` where such variables are set; otherwise it sends to a sandbox that it starts itself.
"""

from __future__ import annotations

import os

from flask import Flask, request
from flask.typing import ResponseReturnValue
from opentelemetry.instrumentation.flask import FlaskInstrumentor

import eventflows
from eventflows import GA4Provider, MetaProvider, RedditProvider, TikTokProvider
from eventflows.sandbox import Sandbox

PRICES = {"LMP-11": 749.5, "LMP-29": 250.0}


def create_app() -> Flask:
    """The shop. Configure EventFlows before or after; it is used when an order comes."""
    app = Flask("flask_shop")
    FlaskInstrumentor().instrument_app(app)
    tracer = eventflows.get_tracer("flask_shop")

    @app.post("/orders")
    def place_order() -> ResponseReturnValue:
        order = request.get_json()
        if unknown := set(order["items"]) - set(PRICES):
            return {"unknown": sorted(unknown)}, 400  # no order, hence no conversion
        items = [{"id": sku, "price": PRICES[sku], "quantity": count} for sku, count in order["items"].items()]
        tracer.add_event(
            "Purchase",
            {
                "order_id": order["order_id"],
                "value": sum(item["price"] * item["quantity"] for item in items),
                "currency": "SEK",
                "items": items,
                "user.email": order["email"],
                "user.phone": order.get("phone"),
                "user.full_name": order.get("name"),
                "geo.country.iso_code": order.get("country"),
                "url.full": request.url,
                "client.address": request.remote_addr,
                "user_agent.original": request.user_agent.string,
                "conversion.click.fbp": request.cookies.get("_fbp"),
                "conversion.click.fbc": request.cookies.get("_fbc"),
                "conversion.click.ga_client_id": request.cookies.get("_ga"),
                "conversion.click.ttp": request.cookies.get("_ttp"),
                "conversion.click.rdt_uuid": request.cookies.get("_rdt_uuid"),
            },
        )
        return {"ordered": order["order_id"]}, 201

    return app


def main() -> None:
    if any(name.startswith("OTEL_EXPORTER_EVENTFLOWS_") for name in os.environ):
        eventflows.configure()
    else:
        sandbox = Sandbox(port=8787)
        sandbox.start()
        eventflows.configure(
            [
                MetaProvider("1234567890", "demo"),
                GA4Provider("G-DEMO", "demo"),
                TikTokProvider("CDEMO", "demo"),
                RedditProvider("a2_demo", "demo"),
            ],
            endpoint=sandbox.url,
            default_country="SE",
        )
        print(f"what arrived: {sandbox.url}/_sandbox/events   place an order:")
        print(
            "curl -H 'Content-Type: application/json' http://127.0.0.1:5000/orders "
            """-d '{"order_id": "70331", "email": "mara@example.com", "items": {"LMP-11": 1, "LMP-29": 2}}'"""
        )
    create_app().run(port=5000)


if __name__ == "__main__":
    main()

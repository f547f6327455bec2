"""A small Flask shop, instrumented with OpenTelemetry, in which placing an order sends the conversion.

    python examples/flask_shop.py

Address, user agent, URL and cookies of the customer come from the request by themselves. An order that fails is not reported.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import eventflows
from eventflows import EventFlowsInstrumentor, GA4Provider, MetaProvider, RedditProvider, TikTokProvider
from eventflows.sandbox import Sandbox

PORT = int(os.environ.get("PORT", "5000"))
SANDBOX_PORT = int(os.environ.get("SANDBOX_PORT", "8787"))
PRICES = {"LMP-11": 749.5, "LMP-29": 250.0}


def create_app() -> Flask:
    """The shop, which knows nothing of platforms, cookies or proxies."""
    app = Flask("flask_shop")
    tracer = eventflows.get_tracer("flask_shop")
    orders: dict[str, dict[str, Any]] = {}

    @app.post("/orders")
    def place_order() -> ResponseReturnValue:
        order = request.get_json()
        if unknown := set(order["items"]) - set(PRICES):
            return {"unknown": sorted(unknown)}, 400  # no order, hence no conversion
        if order.get("pay_later"):
            order["visitor"] = eventflows.visitor_snapshot()
        else:
            tracer.add_event("Purchase", purchase(order))
        if order.get("fail"):
            raise RuntimeError("out of stock")  # commit="span_ok": the purchase is not reported
        orders[order["order_id"]] = order
        return {"ordered": order["order_id"]}, 201

    @app.post("/payments/webhook")
    def paid() -> ResponseReturnValue:
        """From the payment provider, who may say it twice: the order id makes it count once."""
        order = orders.get(request.get_json()["order_id"])
        if order is None:
            return {"unknown": "order"}, 404
        with eventflows.visitor_context(order.get("visitor")):
            tracer.add_event("Purchase", purchase(order))
        return {"paid": order["order_id"]}, 200

    return app


def purchase(order: dict[str, Any]) -> dict[str, Any]:
    """What a purchase tells of the order; of the visit it needs to tell nothing."""
    items = [{"id": sku, "price": PRICES[sku], "quantity": count} for sku, count in order["items"].items()]
    return {
        "order_id": order["order_id"],
        "value": sum(item["price"] * item["quantity"] for item in items),
        "currency": "SEK",
        "items": items,
        "user.email": order["email"],
        "user.phone": order.get("phone"),
        "user.full_name": order.get("name"),
        "geo.country.iso_code": order.get("country"),
    }


def set_up_telemetry() -> None:
    """Ordinary OpenTelemetry, to a collector where `OTEL_EXPORTER_OTLP_ENDPOINT` names one, and EventFlows."""
    traces, logs = TracerProvider(), LoggerProvider()
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    trace.set_tracer_provider(traces)
    set_logger_provider(logs)
    if any(name.startswith("OTEL_EXPORTER_EVENTFLOWS_") for name in os.environ):
        eventflows.configure()
    else:
        sandbox = Sandbox(port=SANDBOX_PORT).start()
        eventflows.configure(
            [
                MetaProvider("1234567890", "demo"),
                GA4Provider("G-DEMO", "demo"),
                TikTokProvider("CDEMO", "demo"),
                RedditProvider("a2_demo", "demo"),
            ],
            endpoint=sandbox.url,
            default_country="SE",
            visitor={"trusted_proxies": ["loopback"]},
            commit="span_ok",
        )
        print(f"what arrives at the platforms: {sandbox.url}")
    EventFlowsInstrumentor().instrument()
    print(
        "place an order:\n"
        f"curl -H 'Content-Type: application/json' -b '_fbp=fb.1.1795430000000.1098115397' http://127.0.0.1:{PORT}/orders "
        """-d '{"order_id": "70331", "email": "mara@example.com", "items": {"LMP-11": 1, "LMP-29": 2}}'""",
        flush=True,
    )


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # an orderly end, which delivers what is queued
    set_up_telemetry()
    app = create_app()
    FlaskInstrumentor().instrument_app(app)
    app.run(port=PORT)


if __name__ == "__main__":
    main()

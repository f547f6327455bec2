"""A small FastAPI shop, instrumented with OpenTelemetry, in which placing an order sends the conversion.

    python examples/fastapi_shop.py

An order is an event on the current span here, as in an app that was instrumented before it knew EventFlows: the instrumentor
catches it also where the sampler drops the span. The payment uses `tracer.add_event`, which also makes a log record.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pydantic import BaseModel

import eventflows
from eventflows import EventFlowsInstrumentor, GA4Provider, MetaProvider, RedditProvider, TikTokProvider
from eventflows.sandbox import Sandbox

PORT = int(os.environ.get("PORT", "5000"))
SANDBOX_PORT = int(os.environ.get("SANDBOX_PORT", "8787"))
PRICES = {"LMP-11": 749.5, "LMP-29": 250.0}


class Order(BaseModel):
    order_id: str
    items: dict[str, int]
    email: str
    phone: str | None = None
    name: str | None = None
    country: str | None = None
    pay_later: bool = False
    fail: bool = False


class Payment(BaseModel):
    order_id: str


def create_app() -> FastAPI:
    """The shop, which knows nothing of platforms, cookies or proxies."""
    app = FastAPI()
    tracer = eventflows.get_tracer("fastapi_shop")
    orders: dict[str, tuple[Order, dict[str, Any] | None]] = {}

    @app.post("/orders", status_code=201)
    async def place_order(order: Order) -> dict[str, str]:
        if unknown := set(order.items) - set(PRICES):
            raise HTTPException(400, {"unknown": sorted(unknown)})  # no order, hence no conversion
        visitor = None
        if order.pay_later:
            visitor = eventflows.visitor_snapshot()
        else:
            trace.get_current_span().add_event("Purchase", purchase(order))
        if order.fail:
            raise RuntimeError("out of stock")  # commit="span_ok": the purchase is not reported
        orders[order.order_id] = (order, visitor)
        return {"ordered": order.order_id}

    @app.post("/payments/webhook")
    async def paid(payment: Payment) -> dict[str, str]:
        """From the payment provider, who may say it twice: the order id makes it count once."""
        if payment.order_id not in orders:
            raise HTTPException(404, {"unknown": "order"})
        order, visitor = orders[payment.order_id]
        with eventflows.visitor_context(visitor):
            tracer.add_event("Purchase", purchase(order))
        return {"paid": order.order_id}

    return app


def purchase(order: Order) -> dict[str, Any]:
    """What a purchase tells of the order; of the visit it needs to tell nothing."""
    items = [{"id": sku, "price": PRICES[sku], "quantity": count} for sku, count in order.items.items()]
    return {
        "order_id": order.order_id,
        "value": sum(item["price"] * item["quantity"] for item in items),
        "currency": "SEK",
        "items": items,
        "user.email": order.email,
        "user.phone": order.phone,
        "user.full_name": order.name,
        "geo.country.iso_code": order.country,
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
    FastAPIInstrumentor().instrument_app(app)
    uvicorn.run(app, port=PORT)


if __name__ == "__main__":
    main()

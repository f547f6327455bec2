"""A small Django shop in one file, instrumented with OpenTelemetry, in which placing an order sends the conversion.

    python examples/django_shop.py

Each request is one transaction (`ATOMIC_REQUESTS`). The purchase of an order that is rolled back is not reported.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection, models
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import path
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.django import DjangoInstrumentor
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
FOLDER = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)

if not settings.configured:  # with DJANGO_SETTINGS_MODULE they come from there
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": os.path.join(FOLDER.name, "shop.sqlite3"),
                "ATOMIC_REQUESTS": True,
            }
        },
        MIDDLEWARE=[],
        ROOT_URLCONF=__name__,
        SECRET_KEY="demo",
    )
django.setup()
tracer = eventflows.get_tracer("django_shop")


class Order(models.Model):
    order_id = models.CharField(max_length=40, primary_key=True)
    ordered = models.JSONField()
    visitor = models.JSONField(null=True)  # of whoever ordered, for when it is paid

    class Meta:
        app_label = "django_shop"


def place_order(request: HttpRequest) -> JsonResponse:
    ordered = json.loads(request.body)
    if unknown := set(ordered["items"]) - set(PRICES):
        return JsonResponse({"unknown": sorted(unknown)}, status=400)  # no order, hence no conversion
    order = Order(order_id=ordered["order_id"], ordered=ordered)
    if ordered.get("pay_later"):
        order.visitor = eventflows.visitor_snapshot()
    else:
        tracer.add_event("Purchase", purchase(ordered))
    order.save()
    if ordered.get("fail"):
        raise RuntimeError("out of stock")  # the order is rolled back; commit="span_ok": so is the purchase
    return JsonResponse({"ordered": order.order_id}, status=201)


def paid(request: HttpRequest) -> JsonResponse:
    """From the payment provider, who may say it twice: the order id makes it count once."""
    order = get_object_or_404(Order, order_id=json.loads(request.body)["order_id"])
    with eventflows.visitor_context(order.visitor):
        tracer.add_event("Purchase", purchase(order.ordered))
    return JsonResponse({"paid": order.order_id})


urlpatterns = [path("orders", place_order), path("payments/webhook", paid)]


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


def serve() -> None:
    with connection.schema_editor() as schema:
        schema.create_model(Order)
    call_command("runserver", f"127.0.0.1:{PORT}", use_reloader=False, skip_checks=True)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # an orderly end, which delivers what is queued
    set_up_telemetry()
    DjangoInstrumentor().instrument()
    serve()


if __name__ == "__main__":
    main()

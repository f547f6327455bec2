"""All that is measured: which libraries, in which uses, in which virtual environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .client import BATCH, Client
from .floor import floor
from .others import amplitude, facebook, mixpanel, original, posthog, rudder, segment, snowplow
from .ours import eventflows, otel_log, otel_span


@dataclass(frozen=True, slots=True)
class Peer:
    """A library, or a way of using it.

    Attributes:
        environment: The section of peers.ini that it runs in.
        start: Starts it; given the sink's URL, whether to set it up for throughput, and `options`.
        title: Its name in tables.
        blocks: Its calls wait for the network, so that few are made.
        calls: Its calls are comparable; not where the app has to keep a queue of its own.
    """

    environment: str
    title: str
    start: Callable[..., Client]
    options: dict[str, Any]
    blocks: bool = False
    calls: bool = True


PEERS: dict[str, Peer] = {
    "eventflows": Peer("eventflows", "EventFlows, the only consumer", eventflows, {}),
    "eventflows-orjson": Peer("fast", "EventFlows with orjson", eventflows, {}),
    "eventflows-otlp": Peer("eventflows", "EventFlows beside an OTLP log exporter", eventflows, {"otlp": True}),
    "eventflows-storage": Peer("eventflows", "EventFlows with storage", eventflows, {"queue": {"storage": "{folder}"}}),
    "eventflows-instrumentor": Peer(
        "eventflows", "EventFlows with the instrumentor", eventflows, {"instrumentor": True}
    ),
    "eventflows-span": Peer("eventflows", "EventFlows, span.add_event", eventflows, {"spans": True}),
    "otel-log": Peer("eventflows", "OpenTelemetry log, OTLP/HTTP", otel_log, {}),
    "otel-span": Peer("eventflows", "OpenTelemetry span event, OTLP/HTTP", otel_span, {}),
    "original": Peer("original", "original eventflows 0.1.1", original, {}),
    "posthog": Peer("posthog", "posthog", posthog, {}),
    "segment": Peer("segment", "segment-analytics-python", segment, {}),
    "rudder": Peer("rudder", "rudder-sdk-python", rudder, {}),
    "snowplow": Peer("snowplow", "snowplow-tracker, asynchronous", snowplow, {"asynchronous": True}),
    "snowplow-sync": Peer("snowplow", "snowplow-tracker, synchronous", snowplow, {"asynchronous": False}),
    "mixpanel": Peer("mixpanel", "mixpanel", mixpanel, {}),
    "amplitude": Peer("amplitude", "amplitude-analytics", amplitude, {}),
    "facebook": Peer("facebook", "facebook-business", facebook, {"batch": 1}, blocks=True),
    "facebook-batches": Peer("facebook", "facebook-business, batches", facebook, {"batch": BATCH}, calls=False),
    "floor": Peer("eventflows", "floor, json", floor, {}),
    "floor-orjson": Peer("fast", "floor, orjson", floor, {"orjson": True}),
}
BASELINE = "otel-log"
"""What all else is a ratio of."""

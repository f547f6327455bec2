"""Each library as an app would use it, set up for throughput and pointed at the sink.

A function here starts a library and returns a `Client`. It runs in that library's own virtual environment, hence the imports
inside. `purchase` and `page_view` are what an app would write where it records the event, and are what is timed.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .workloads import Order

Record = Callable[[Order], object]
QUEUE = 100_000
BATCH = 1_000
TITLE = "Thanks for your order"


@dataclass(frozen=True, slots=True)
class Client:
    """A library at work.

    Attributes:
        flush: Comes back when what was recorded has been sent, as far as the library can say.
        stop: What the library documents for the end of the process.
        copies: To how many places each event goes.
    """

    purchase: Record
    page_view: Record
    flush: Callable[[], object]
    stop: Callable[[], object]
    copies: int = 1


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


# --- EventFlows, and OpenTelemetry without it


def attributes(order: Order) -> dict[str, Any]:
    return {
        "order_id": order.id,
        "value": order.value,
        "currency": order.currency,
        "user.email": order.email,
        "user.phone": order.phone,
        "client.address": order.address,
        "user_agent.original": order.user_agent,
        "url.full": order.url,
        "conversion.click.ga_client_id": f"{order.customer}.1795431201",
        "items": [
            {"id": line.id, "name": line.name, "price": line.price, "quantity": line.quantity} for line in order.items
        ],
    }


def page(order: Order) -> dict[str, Any]:
    return {
        "event_id": order.id,
        "client.address": order.address,
        "user_agent.original": order.user_agent,
        "url.full": order.url,
        "page_title": TITLE,
        "conversion.click.ga_client_id": f"{order.customer}.1795431201",
    }


def destinations(sink: str, names: list[str]) -> list[Any]:
    """Providers by their names: `meta`, `tiktok`, `reddit`, `ga4`, each also as a further account (`meta/2`)."""
    from eventflows import GA4Provider, MetaProvider, RedditProvider, TikTokProvider

    kinds: dict[str, Callable[..., Any]] = {
        "meta": lambda **more: MetaProvider(pixel_id="1234567890", access_token="a", **more),
        "tiktok": lambda **more: TikTokProvider(pixel_code="C1", access_token="a", **more),
        "reddit": lambda **more: RedditProvider(pixel_id="a2_1", access_token="a", **more),
        "ga4": lambda **more: GA4Provider(measurement_id="G-1", api_secret="a", **more),
    }
    return [kinds[name.partition("/")[0]](name=name, endpoint=f"{sink}/{name.replace('/', '-')}") for name in names]


def eventflows(
    sink: str,
    tuned: bool,
    *,
    providers: tuple[str, ...] = ("meta",),
    otlp: bool = False,
    instrumentor: bool = False,
    spans: bool = False,
    queue: dict[str, Any] | None = None,
) -> Client:
    """EventFlows.

    Args:
        otlp: Another exporter gets the log records too.
        instrumentor: The instrumentor is on, and events are recorded within a span.
        spans: Events are recorded with `span.add_event`, on that span.
        queue: Settings of `sending_queue`.
    """
    from opentelemetry import trace
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.trace import TracerProvider

    import eventflows

    logs, traces = LoggerProvider(), TracerProvider()
    if otlp:
        logs.add_log_record_processor(_log_batches(sink))
    set_logger_provider(logs)
    trace.set_tracer_provider(traces)
    sending_queue = {"queue_size": QUEUE} if tuned else {}
    eventflows.configure(destinations(sink, list(providers)), sending_queue={**sending_queue, **(queue or {})})
    if instrumentor or spans:
        eventflows.EventFlowsInstrumentor().instrument()
    tracer = eventflows.get_tracer("shop")
    add_event = tracer.add_event
    if instrumentor:
        trace.use_span(tracer.start_span("request")).__enter__()
    if spans:
        add_event = Spans(tracer).add_event

    def flush() -> None:
        if not eventflows.force_flush(120_000):
            raise RuntimeError("flush timed out")
        if otlp:
            logs.force_flush(60_000)

    return Client(
        lambda order: add_event("purchase", attributes(order)),
        lambda order: add_event("page_view", page(order)),
        flush,
        eventflows.shutdown,
        len(providers) + otlp,
    )


class Spans:
    """A span for every hundred events of a thread, since the SDK keeps 128 per span."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self._local = threading.local()
        self._open: list[Any] = []

    def add_event(self, name: str, values: dict[str, Any]) -> None:
        local = self._local
        span = getattr(local, "span", None)
        if span is None or local.left == 0 or not span.is_recording():
            if span is not None:
                span.end()
            local.span, local.left = span, _ = self._tracer.start_span("request"), 100
            self._open.append(span)
        span.add_event(name, values)
        local.left -= 1

    def end(self) -> None:
        """End the spans of all threads, which exports them."""
        for span in self._open:
            if span.is_recording():
                span.end()
        self._open.clear()


def _log_batches(sink: str, tuned: bool = True) -> Any:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    sizes = {"max_queue_size": QUEUE, "max_export_batch_size": BATCH} if tuned else {}
    return BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{sink}/v1/logs"), **sizes)


def otel_log(sink: str, tuned: bool) -> Client:
    from opentelemetry._logs import SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider

    provider = LoggerProvider()
    provider.add_log_record_processor(_log_batches(sink, tuned))
    emit = provider.get_logger("shop").emit

    def record(name: str, values: dict[str, Any]) -> None:
        emit(
            timestamp=time.time_ns(),
            severity_number=SeverityNumber.INFO,
            event_name=name,
            attributes=values,
        )

    return Client(
        lambda order: record("purchase", attributes(order)),
        lambda order: record("page_view", page(order)),
        lambda: provider.force_flush(120_000),
        provider.shutdown,
    )


def otel_span(sink: str, tuned: bool) -> Client:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    sizes = {"max_queue_size": QUEUE, "max_export_batch_size": 10} if tuned else {}
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{sink}/v1/traces"), **sizes))
    spans = Spans(provider.get_tracer("shop"))

    def purchase(order: Order) -> None:
        values = attributes(order)
        values["items"] = json.dumps(values["items"])  # a span event's attributes hold no lists of maps
        spans.add_event("purchase", values)

    def flush() -> None:
        spans.end()
        provider.force_flush(120_000)

    return Client(purchase, lambda order: spans.add_event("page_view", page(order)), flush, provider.shutdown)


# --- the peers


def original(sink: str, tuned: bool) -> Client:
    from eventflows.core.queue import SafeQueue

    from eventflows import EventType, MetaProvider, tracker

    if tuned:
        tracker._batch_size, tracker._queue = BATCH, SafeQueue(QUEUE)
    provider = MetaProvider("1234567890", "a")
    provider.url = f"{sink}/meta/v19.0/1234567890/events?access_token=a"
    tracker.add_provider(provider)

    def purchase(order: Order) -> None:
        tracker.track(
            "Purchase",
            user_data={
                "email": order.email,
                "phone": order.phone,
                "ip_address": order.address,
                "user_agent": order.user_agent,
            },
            properties={
                "order_id": order.id,
                "value": order.value,
                "currency": order.currency,
                "url": order.url,
                "contents": [
                    {"id": line.id, "title": line.name, "item_price": line.price, "quantity": line.quantity}
                    for line in order.items
                ],
            },
            event_type=EventType.PURCHASE,
        )

    def page_view(order: Order) -> None:
        tracker.track(
            "PageView",
            user_data={"ip_address": order.address, "user_agent": order.user_agent},
            properties={"event_id": order.id, "url": order.url, "title": TITLE},
            event_type=EventType.PAGE_VIEW,
        )

    return Client(purchase, page_view, _until_empty(tracker._queue.empty), tracker._worker.shutdown)


def _until_empty(empty: Callable[[], bool]) -> Callable[[], None]:
    """For a library without flush."""

    def flush() -> None:
        while not empty():
            time.sleep(0.02)

    return flush


def _properties(order: Order) -> dict[str, Any]:
    """A purchase as analytics tools have it: one flat map."""
    return {
        "order_id": order.id,
        "value": order.value,
        "currency": order.currency,
        "email": order.email,
        "phone": order.phone,
        "url": order.url,
        "products": [
            {"product_id": line.id, "name": line.name, "price": line.price, "quantity": line.quantity}
            for line in order.items
        ],
    }


def posthog(sink: str, tuned: bool) -> Client:
    from posthog import Posthog

    client = Posthog("phc_a", host=sink, **({"flush_at": BATCH, "max_queue_size": QUEUE} if tuned else {}))
    capture = client.capture

    def purchase(order: Order) -> None:
        properties = {**_properties(order), "$ip": order.address, "$raw_user_agent": order.user_agent}
        capture("purchase", distinct_id=order.customer, properties=properties)

    def page_view(order: Order) -> None:
        capture(
            "$pageview",
            distinct_id=order.customer,
            properties={
                "event_id": order.id,
                "$current_url": order.url,
                "title": TITLE,
                "$ip": order.address,
                "$raw_user_agent": order.user_agent,
            },
        )

    return Client(purchase, page_view, client.flush, client.shutdown)


def segment(sink: str, tuned: bool) -> Client:
    from segment.analytics.client import Client as Segment

    sizes = {"upload_size": BATCH, "max_queue_size": QUEUE} if tuned else {}
    return _segment_like(Segment("key", host=sink, **sizes))


def rudder(sink: str, tuned: bool) -> Client:
    from rudderstack.analytics.client import Client as Rudder

    sizes = {"upload_size": BATCH, "max_queue_size": QUEUE, "gzip": False} if tuned else {}
    return _segment_like(Rudder("key", host=sink, **sizes))


def _segment_like(client: Any) -> Client:
    def purchase(order: Order) -> None:
        client.track(
            order.customer,
            "Order Completed",
            _properties(order),
            context={"ip": order.address, "userAgent": order.user_agent},
        )

    def page_view(order: Order) -> None:
        client.page(
            order.customer,
            name=TITLE,
            properties={"event_id": order.id, "url": order.url},
            context={"ip": order.address, "userAgent": order.user_agent},
        )

    return Client(purchase, page_view, client.flush, client.shutdown)


def snowplow(sink: str, tuned: bool, *, asynchronous: bool) -> Client:
    import logging

    import requests
    from snowplow_tracker import (
        AsyncEmitter,
        Emitter,
        PageView,
        SelfDescribing,
        SelfDescribingJson,
        Subject,
        Tracker,
        disable_contracts,
    )

    logging.getLogger("snowplow_tracker").setLevel(logging.ERROR)
    for name in ("emitters", "tracker"):
        logging.getLogger(f"snowplow_tracker.{name}").setLevel(logging.ERROR)
    disable_contracts()
    kind = AsyncEmitter if asynchronous else Emitter
    host = sink.removeprefix("http://")
    sizes: dict[str, Any] = {"batch_size": BATCH, "buffer_capacity": QUEUE} if tuned else {}
    emitter = kind(host, protocol="http", session=requests.Session(), **sizes)
    tracker = Tracker("shop", emitter, app_id="shop", encode_base64=False)

    def visitor(order: Order) -> Subject:
        return Subject().set_user_id(order.customer).set_ip_address(order.address).set_useragent(order.user_agent)

    def purchase(order: Order) -> None:
        event = SelfDescribingJson("iglu:com.shop/purchase/jsonschema/1-0-0", _properties(order))
        tracker.track(SelfDescribing(event_json=event, event_subject=visitor(order)))

    def page_view(order: Order) -> None:
        event_id = SelfDescribingJson("iglu:com.shop/event/jsonschema/1-0-0", {"event_id": order.id})
        tracker.track(PageView(page_url=order.url, page_title=TITLE, context=[event_id], event_subject=visitor(order)))

    return Client(purchase, page_view, tracker.flush, tracker.flush)


def mixpanel(sink: str, tuned: bool) -> Client:
    del tuned  # batches of 50 are its default and its limit
    from mixpanel import BufferedConsumer, Mixpanel

    consumer = BufferedConsumer(events_url=f"{sink}/track")
    session = consumer._consumer._session
    session.mount("http://", session.get_adapter("https://"))  # its retries hold for https only
    track = Mixpanel("token", consumer=consumer).track
    lock = threading.Lock()  # the consumer is not made for threads

    def purchase(order: Order) -> None:
        properties = {**_properties(order), "ip": order.address, "user_agent": order.user_agent}
        with lock:
            track(order.customer, "Order Completed", properties)

    def page_view(order: Order) -> None:
        properties = {"event_id": order.id, "url": order.url, "ip": order.address, "user_agent": order.user_agent}
        with lock:
            track(order.customer, "Page View", properties)

    return Client(purchase, page_view, consumer.flush, consumer.flush)


def amplitude(sink: str, tuned: bool) -> Client:
    from amplitude import Amplitude, BaseEvent, Config
    from amplitude.constants import EventLogLevel

    sizes = {"flush_queue_size": BATCH} if tuned else {}
    config = Config(
        api_key="key",
        server_url=f"{sink}/2/httpapi",
        event_log_level=EventLogLevel.NONE,
        min_id_length=1,
        **sizes,
    )
    client = Amplitude("key", config)

    def purchase(order: Order) -> None:
        client.track(
            BaseEvent(
                "Order Completed",
                user_id=order.customer,
                insert_id=order.id,
                ip=order.address,
                user_agent=order.user_agent,
                event_properties=_properties(order),
            )
        )

    def page_view(order: Order) -> None:
        client.track(
            BaseEvent(
                "Page View",
                user_id=order.customer,
                insert_id=order.id,
                ip=order.address,
                user_agent=order.user_agent,
                event_properties={"url": order.url, "title": TITLE},
            )
        )

    def flush() -> None:
        future = client.flush()
        for one in future if isinstance(future, list) else [future]:
            if one is not None and hasattr(one, "result"):
                one.result()

    return Client(purchase, page_view, flush, client.shutdown)


def facebook(sink: str, tuned: bool, *, batch: int) -> Client:
    """Meta's own SDK sends in the call; with `batch` the app collects so many events before it calls.

    Its retries and queue are the app's business, so `tuned` changes nothing.
    """
    del tuned
    from facebook_business.adobjects.serverside.action_source import ActionSource
    from facebook_business.adobjects.serverside.content import Content
    from facebook_business.adobjects.serverside.custom_data import CustomData
    from facebook_business.adobjects.serverside.event import Event
    from facebook_business.adobjects.serverside.event_request import EventRequest
    from facebook_business.adobjects.serverside.user_data import UserData
    from facebook_business.api import FacebookAdsApi
    from facebook_business.session import FacebookSession

    FacebookSession.GRAPH = sink
    FacebookAdsApi.init(access_token="a", crash_log=False)
    collected: list[Event] = []
    lock = threading.Lock()

    def add(event: Event) -> None:
        with lock:
            collected.append(event)
            ready, collected[:] = (list(collected), []) if len(collected) >= batch else ([], collected)
        if ready:
            EventRequest(pixel_id="1234567890", events=ready).execute()

    def flush() -> None:
        if collected:
            EventRequest(pixel_id="1234567890", events=list(collected)).execute()
            collected.clear()

    def purchase(order: Order) -> None:
        add(
            Event(
                event_name="Purchase",
                event_time=int(time.time()),
                event_id=order.id,
                event_source_url=order.url,
                action_source=ActionSource.WEBSITE,
                user_data=UserData(
                    email=order.email,
                    phone=order.phone,
                    client_ip_address=order.address,
                    client_user_agent=order.user_agent,
                ),
                custom_data=CustomData(
                    value=order.value,
                    currency=order.currency,
                    order_id=order.id,
                    contents=[
                        Content(product_id=line.id, title=line.name, item_price=line.price, quantity=line.quantity)
                        for line in order.items
                    ],
                ),
            )
        )

    def page_view(order: Order) -> None:
        add(
            Event(
                event_name="PageView",
                event_time=int(time.time()),
                event_id=order.id,
                event_source_url=order.url,
                action_source=ActionSource.WEBSITE,
                user_data=UserData(client_ip_address=order.address, client_user_agent=order.user_agent),
            )
        )

    return Client(purchase, page_view, flush, flush)


# --- the floor: what nobody can do without


def floor(sink: str, tuned: bool, *, orjson: bool = False) -> Client:
    """The same work without any safety: build the arguments, map them for Meta, hash, encode, and post 1,000 at a time."""
    del tuned
    import http.client
    from urllib.parse import urlsplit

    dumps: Callable[[Any], bytes] = lambda body: json.dumps(body, separators=(",", ":")).encode()  # noqa: E731
    if orjson:
        from orjson import dumps
    connection = http.client.HTTPConnection(urlsplit(sink).netloc)
    queue: deque[tuple[str, float, dict[str, Any]]] = deque()
    idle, work = threading.Event(), threading.Event()
    sha256 = hashlib.sha256

    def wire(name: str, at: float, values: dict[str, Any]) -> dict[str, Any]:
        email, phone = values.get("user.email"), values.get("user.phone")
        user: dict[str, Any] = {
            "client_ip_address": values["client.address"],
            "client_user_agent": values["user_agent.original"],
        }
        if email:
            user["em"] = [sha256(email.strip().lower().encode()).hexdigest()]
        if phone:
            user["ph"] = [sha256(phone.translate(_DIGITS_ONLY).encode()).hexdigest()]
        event: dict[str, Any] = {
            "event_name": name,
            "event_time": int(at),
            "event_id": values.get("order_id") or values.get("event_id"),
            "action_source": "website",
            "event_source_url": values["url.full"],
            "user_data": user,
        }
        if "value" in values:
            event["custom_data"] = {
                "value": values["value"],
                "currency": values["currency"],
                "order_id": values["order_id"],
                "content_type": "product",
                "contents": [
                    {"id": item["id"], "title": item["name"], "item_price": item["price"], "quantity": item["quantity"]}
                    for item in values["items"]
                ],
            }
        return event

    def send() -> None:
        while True:
            work.wait()
            while queue:
                idle.clear()
                batch = [wire(*queue.popleft()) for _ in range(min(len(queue), BATCH))]
                body = dumps({"data": batch})
                headers = {"Content-Type": "application/json", "Authorization": "Bearer a"}
                connection.request("POST", "/floor/v26.0/1234567890/events", body, headers)
                json.loads(connection.getresponse().read())
            work.clear()
            idle.set()

    threading.Thread(target=send, daemon=True).start()
    append, now = queue.append, time.time

    def record(name: str, values: dict[str, Any]) -> None:
        append((name, now(), values))
        if len(queue) >= BATCH and not work.is_set():
            work.set()

    def flush() -> None:
        while queue or not idle.is_set():
            work.set()
            idle.wait(0.01)

    idle.set()
    return Client(
        lambda order: record("Purchase", attributes(order)),
        lambda order: record("PageView", page(order)),
        flush,
        flush,
    )


_DIGITS_ONLY = {code: None for code in range(128) if not chr(code).isdigit()}


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

"""The peers, each as an app would use it: set up for throughput, unless the library's own defaults are wanted.

Each runs in its own virtual environment, hence the imports inside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .client import BATCH, QUEUE, TITLE, Client
from .workloads import Order


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

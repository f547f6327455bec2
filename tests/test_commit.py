"""`commit: span_ok`: an order whose request fails is not reported, and one that succeeds is never lost."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import get_logger
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode

import eventflows
from eventflows import ConfigurationError, EventFlowsInstrumentor, EventFlowsLogRecordExporter
from eventflows.commit import Fate, UnitOfWork, WaitingRoom
from eventflows.conversion import EventType
from eventflows.pipeline import Pipeline
from eventflows.providers.console import ConsoleProvider
from eventflows.sealing import event_of, record
from eventflows.spans import Scope, awaited, scope_of
from eventflows.told import NOTHING_TOLD
from eventflows.visitor import Visiting, Visitor, WSGIMiddleware
from tests.test_visitor import by_asgi, by_wsgi, environ

FAILED = {"span failed": 1}


@pytest.fixture(params=[ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "unsampled"])
def tracer(request: pytest.FixtureRequest) -> Iterator[trace.Tracer]:
    """A tracer of an instrumented app, with commit: span_ok."""
    trace.set_tracer_provider(TracerProvider(sampler=request.param))
    eventflows.configure([ConsoleProvider()], commit="span_ok")
    EventFlowsInstrumentor().instrument()
    yield trace.get_tracer("app")
    EventFlowsInstrumentor().uninstrument()


def counts() -> tuple[int, dict[str, int]]:
    """Delivered and filtered, once all is settled."""
    pipeline = eventflows.running.current()
    assert isinstance(pipeline, Pipeline)
    assert pipeline.force_flush(5_000)
    stats = pipeline.stats()["console"]
    assert stats.captured == stats.delivered + sum(stats.filtered.values())
    return stats.delivered, dict(stats.filtered)


def purchase(order: str = "1", **attributes: Any) -> None:
    eventflows.get_tracer("app").add_event("Purchase", {"order_id": order, **attributes})


def test_it_waits_for_the_local_root_and_goes_when_that_ends_well(tracer: trace.Tracer) -> None:
    pipeline = eventflows.running.current()
    assert pipeline is not None
    with tracer.start_as_current_span("root"):
        with tracer.start_as_current_span("inner") as span:
            purchase("1")
            get_logger("app").emit(event_name="Purchase", attributes={"order_id": "2"})
            span.add_event("Purchase", {"order_id": "3"})
        assert pipeline.waiting == 3
        assert not pipeline.force_flush(100)
        assert pipeline.stats()["console"].captured == 0
    assert pipeline.waiting == 0
    assert counts() == (3, {})


def test_an_exception_that_leaves_the_root_drops_it(tracer: trace.Tracer) -> None:
    with suppress(ValueError), tracer.start_as_current_span("root"), tracer.start_as_current_span("inner"):
        purchase()
        raise ValueError("card declined")
    assert counts() == (0, FAILED)


def test_an_error_that_is_handled_below_the_root_drops_nothing(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("root"):
        try:
            with tracer.start_as_current_span("recommendations"):
                raise ValueError("no matter")
        except ValueError:
            with tracer.start_as_current_span("fallback"):
                purchase()
    assert counts() == (1, {})


def test_a_root_within_an_exception_handler_is_not_a_failure(tracer: trace.Tracer) -> None:
    try:
        raise ValueError("earlier")
    except ValueError:
        with tracer.start_as_current_span("root"):
            purchase("1")
        span = tracer.start_span("root")
        with trace.use_span(span):
            purchase("2")
        span.end()
    assert counts() == (2, {})


@pytest.mark.parametrize("status", [StatusCode.ERROR, Status(StatusCode.ERROR, "declined")])
def test_a_root_with_status_error_drops_it(tracer: trace.Tracer, status: Any) -> None:
    with tracer.start_as_current_span("root") as span:
        purchase()
        span.set_status(status)
    assert counts() == (0, FAILED)


@pytest.mark.parametrize("attribute", ["http.status_code", "http.response.status_code"])
@pytest.mark.parametrize(("code", "expected"), [(500, (0, FAILED)), (503, (0, FAILED)), (404, (1, {})), (201, (1, {}))])
def test_an_http_5xx_of_the_root_drops_it(tracer: trace.Tracer, attribute: str, code: int, expected: Any) -> None:
    with tracer.start_as_current_span("POST", kind=SpanKind.SERVER) as span:
        purchase()
        span.set_attribute(attribute, code)
    assert counts() == expected


def test_a_retry_of_the_failed_order_is_delivered(tracer: trace.Tracer) -> None:
    """The same order has the same id; that the first attempt failed must not make the second a duplicate."""
    for fails in (True, False):
        with tracer.start_as_current_span("root") as span:
            purchase("4711")
            span.set_status(StatusCode.ERROR if fails else StatusCode.OK)
    assert counts() == (1, FAILED)


@pytest.mark.parametrize("way", [by_wsgi, by_asgi])
@pytest.mark.parametrize("inside", [True, False], ids=["span", "no span"])
def test_a_5xx_answer_drops_it_with_and_without_a_span(tracer: trace.Tracer, way: Any, inside: bool) -> None:
    """The request is a unit of work, also where its span ends before the status is known."""

    def handler() -> None:
        if inside:
            with tracer.start_as_current_span("POST", kind=SpanKind.SERVER):
                purchase("1")
        else:
            purchase("1")

    way(handler, status="500 Oh" if way is by_wsgi else 500)
    assert counts() == (0, FAILED)
    way(handler, status="302 Found" if way is by_wsgi else 302)
    assert counts() == (1, FAILED)


@pytest.mark.parametrize("way", [by_wsgi, by_asgi])
def test_an_exception_that_leaves_the_app_drops_it(tracer: trace.Tracer, way: Any) -> None:
    def handler() -> None:
        purchase()
        raise ValueError("rolled back")

    with pytest.raises(ValueError, match="rolled back"):
        way(handler)
    assert counts() == (0, FAILED)


def test_a_body_that_fails_while_it_is_sent_drops_it(tracer: trace.Tracer) -> None:
    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        purchase()
        yield b"half"
        raise ValueError("rolled back")

    body = WSGIMiddleware(app)(environ(), lambda *_: None)
    with pytest.raises(ValueError, match="rolled back"):
        list(body)
    body.close()  # type: ignore[attr-defined]
    assert counts() == (0, FAILED)


class Endless:
    """A response body, which counts how often it is closed."""

    closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return b"part"

    def close(self) -> None:
        self.closed += 1


def test_a_client_that_leaves_fails_nothing_and_its_body_is_closed_once(tracer: trace.Tracer) -> None:
    given = Endless()

    def app(_environ: Any, start_response: Any) -> Endless:
        start_response("200 OK", [])
        purchase()
        return given

    body: Any = WSGIMiddleware(app)(environ(), lambda *_: None)
    assert next(iter(body)) == b"part"
    body.close()
    assert (counts(), given.closed) == ((1, {}), 1)


@pytest.mark.parametrize(("status", "expected"), [("200 OK", (1, {})), ("500 Oh", (0, FAILED))])
def test_a_server_that_closes_no_body_ends_the_request_as_well(
    tracer: trace.Tracer, status: str, expected: tuple[int, dict[str, int]]
) -> None:
    """As Starlette's `WSGIMiddleware`, by which FastAPI mounts Flask and Django."""

    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:
        purchase()
        start_response(status, [])
        yield b"ok"

    assert list(WSGIMiddleware(app)(environ(), lambda *_: None)) == [b"ok"]
    assert counts() == expected


def by_dispatcher(outer_status: str, inner_status: str, record: Callable[[], None]) -> None:
    """An app has another one answer, which gets an environ of its own."""

    def inner(_environ: Any, start_response: Any) -> list[bytes]:
        record()
        start_response(inner_status, [])
        return [b"inner"]

    def outer(_environ: Any, start_response: Any) -> list[bytes]:
        parts = list(WSGIMiddleware(inner)(environ(), lambda *_: None))
        start_response(outer_status, [])
        return parts

    assert list(WSGIMiddleware(outer)(environ(), lambda *_: None)) == [b"inner"]


def test_a_request_that_does_without_another_that_failed_is_none_that_failed(tracer: trace.Tracer) -> None:
    def inner(_environ: Any, start_response: Any) -> list[bytes]:
        purchase("1")
        start_response("503 Busy", [])
        return []

    def outer(_environ: Any, start_response: Any) -> list[bytes]:
        purchase("2")
        start_response("200 OK", [])
        return [*WSGIMiddleware(inner)(environ(), lambda *_: None), b"without recommendations"]

    list(WSGIMiddleware(outer)(environ(), lambda *_: None))
    assert counts() == (1, FAILED)


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("500 Oh", "200 OK", (0, FAILED)),
        ("200 OK", "500 Oh", (0, FAILED)),
        ("200 OK", "200 OK", (1, {})),
    ],
)
def test_a_request_within_another_fails_with_it(
    tracer: trace.Tracer, outer: str, inner: str, expected: tuple[int, dict[str, int]]
) -> None:
    """Also where no span is between them."""
    by_dispatcher(outer, inner, purchase)
    assert counts() == expected


def test_a_request_that_is_answered_while_another_is_sent_is_no_part_of_it(tracer: trace.Tracer) -> None:
    """Servers send bodies side by side on one thread."""

    def slow(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        raise ValueError("rolled back")

    body: Any = WSGIMiddleware(slow)(environ(), lambda *_: None)
    by_wsgi(purchase)
    assert counts() == (1, {})
    with suppress(ValueError):
        list(body)
    body.close()
    by_wsgi(lambda: purchase("2"))
    assert counts() == (2, {})


def test_middleware_inside_the_server_span_fails_the_span(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("POST", kind=SpanKind.SERVER):
        purchase("1")
        by_wsgi(lambda: purchase("2"), status="500 Oh")
    assert counts() == (0, {"span failed": 2})


def test_requests_side_by_side_in_one_thread_do_not_mix(tracer: trace.Tracer) -> None:
    """Async frameworks interleave their requests, and the visitor's tasks belong to the request."""

    async def request(order: str, fails: bool) -> None:
        with tracer.start_as_current_span("POST", kind=SpanKind.SERVER) as span:
            await asyncio.sleep(0.001)
            await asyncio.gather(asyncio.create_task(record(order)), asyncio.sleep(0.002))
            if fails:
                span.set_status(StatusCode.ERROR)

    async def record(order: str) -> None:
        await asyncio.sleep(0)
        purchase(order)

    async def all_of_them() -> None:
        await asyncio.gather(*(request(str(number), number % 3 == 0) for number in range(30)))

    asyncio.run(all_of_them())
    assert counts() == (20, {"span failed": 10})


def test_one_event_may_ask_for_it_or_do_without(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("root") as span:
        purchase("1", **{"conversion.commit": "immediate"})
        purchase("2")
        span.set_status(StatusCode.ERROR)
    assert counts() == (1, FAILED)


def test_what_is_recorded_after_the_end_shares_its_fate(tracer: trace.Tracer) -> None:
    for fails in (True, False):
        with tracer.start_as_current_span("root") as span:
            span.set_status(StatusCode.ERROR if fails else StatusCode.OK)
        with trace.use_span(span):
            purchase("late")
    assert counts() == (1, FAILED)


def test_threads_that_record_at_once_share_the_unit_of_work(
    tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made with the first conversion: here two of them are the first."""
    both = threading.Barrier(2)

    def made(*args: Any) -> Scope:
        both.wait(5)
        return Scope(*args)

    monkeypatch.setattr("eventflows.spans.Scope", made)
    with tracer.start_as_current_span("root") as span, ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: scope_of(span), range(2))
    assert first is not None
    assert first is second
    assert first.ended
    assert awaited == {}


def test_a_span_may_end_while_a_conversion_is_recorded_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending(dict[int, Scope]):
        def __setitem__(self, key: int, scope: Scope) -> None:
            super().__setitem__(key, scope)
            span.end()  # as another thread may; its `on_end` looked before

    trace.set_tracer_provider(TracerProvider())
    pipeline = eventflows.configure([ConsoleProvider()], commit="span_ok")
    waiting = Ending()
    monkeypatch.setattr("eventflows.spans.awaited", waiting)
    span = trace.get_tracer("app").start_span("root")
    with trace.use_span(span):
        purchase()
    assert pipeline.waiting == 0
    assert waiting == {}
    assert counts() == (1, {})


def test_what_is_recorded_below_a_root_that_has_failed_shares_its_fate(tracer: trace.Tracer) -> None:
    """As in a task or a thread that outlives the request: nothing but its own span refers to the root any more."""
    for fails in (True, False):
        with tracer.start_as_current_span("root") as root:
            below = tracer.start_span("task")
            root.set_status(StatusCode.ERROR if fails else StatusCode.OK)
        del root
        with trace.use_span(below, end_on_exit=True):
            purchase("late")
    assert counts() == (1, FAILED)


def test_a_span_without_conversions_leaves_nothing_to_wait_for(
    tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: Any) -> Scope:
        raise AssertionError("nobody asked")

    monkeypatch.setattr("eventflows.spans.Scope", made)
    with tracer.start_as_current_span("root", kind=SpanKind.SERVER), tracer.start_as_current_span("db") as span:
        span.add_event("cache.miss")
    assert awaited == {}


@pytest.mark.parametrize("fails", [False, True])
def test_server_spans_in_one_another_are_all_within_the_local_root(tracer: trace.Tracer, fails: bool) -> None:
    with tracer.start_as_current_span("root") as root:
        with (
            tracer.start_as_current_span("POST", kind=SpanKind.SERVER),
            tracer.start_as_current_span("GET", kind=SpanKind.SERVER),
        ):
            purchase()
        root.set_status(StatusCode.ERROR if fails else StatusCode.OK)
    assert counts() == ((0, FAILED) if fails else (1, {}))


def test_a_long_line_of_spans_does_not_stay_in_memory(tracer: trace.Tracer) -> None:
    """As of a task that starts the next one: each knows the local root, not the one before."""
    span = tracer.start_span("root")
    seen = []
    for _ in range(3):
        before, span = span, tracer.start_span("next", context=trace.set_span_in_context(span))
        before.end()
        seen.append(weakref.ref(before))
        del before
    assert [one() is None for one in seen] == [False, True, True]


def test_what_was_added_before_the_instrumentor_came_is_found_at_the_end() -> None:
    trace.set_tracer_provider(TracerProvider())
    eventflows.configure([ConsoleProvider()])
    with trace.get_tracer("app").start_as_current_span("root") as span:
        span.add_event("Purchase", {"order_id": "1"})
        EventFlowsInstrumentor().instrument()
        span.add_event("Purchase", {"order_id": "2"})
    EventFlowsInstrumentor().uninstrument()
    with trace.get_tracer("app").start_as_current_span("root") as span:
        span.add_event("Purchase", {"order_id": "3"})
    assert counts() == (3, {})


def test_a_task_within_a_span_is_no_part_of_itself(tracer: trace.Tracer) -> None:
    """A span that began without a visitor is the task's from then on; as work, it is around the task."""
    pipeline = eventflows.running.current()
    assert pipeline is not None
    with tracer.start_as_current_span("root") as span:
        task = UnitOfWork(scope_of(span))
        visiting = Visiting(Visitor(NOTHING_TOLD, task))
        assert scope_of(span).unit.outer is None
        purchase()
        visiting.end()
        assert task.ended
        assert pipeline.waiting == 1
    assert counts() == (1, {})


def test_without_any_span_or_request_there_is_nothing_to_wait_for(tracer: trace.Tracer) -> None:
    purchase()
    assert counts() == (1, {})


def test_by_attribute_alone_and_without_the_instrumentor() -> None:
    """A recorded span is followed by our span processor; its event is dropped when it ends with an error."""
    trace.set_tracer_provider(TracerProvider())
    eventflows.configure([ConsoleProvider()])
    tracer = trace.get_tracer("app")
    with tracer.start_as_current_span("root") as root, tracer.start_as_current_span("inner") as span:
        span.add_event("Purchase", {"order_id": "1", "conversion.commit": "span_ok"})
        span.add_event("Purchase", {"order_id": "2"})
        root.set_status(StatusCode.ERROR)
    assert counts() == (1, FAILED)


def test_a_commit_that_can_be_read_holds(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("root") as root:
        purchase("1", **{"conversion.commit": "IMMEDIATE"})
        purchase("2", **{"conversion.commit": " immediate"})
        purchase("3", **{"conversion.commit": "SPAN_OK"})
        root.set_status(StatusCode.ERROR)
    assert counts() == (2, FAILED)


def test_an_unreadable_commit_is_left_out_and_the_configuration_holds() -> None:
    pipeline = eventflows.configure([ConsoleProvider()])
    purchase(**{"conversion.commit": "sometimes"})
    assert counts() == (1, {})
    assert [attribute for attribute, _ in pipeline.left_out] == ["conversion.commit"]


def test_what_waits_too_long_is_delivered() -> None:
    """Only a known failure drops an order: a span that nobody ends must not lose it."""
    trace.set_tracer_provider(TracerProvider())
    pipeline = eventflows.configure([ConsoleProvider()], commit="span_ok", commit_timeout="200ms")
    span = trace.get_tracer("app").start_span("never ended")
    with trace.use_span(span):
        purchase("1")
        purchase("2")
    deadline = time.monotonic() + 10
    while pipeline.waiting and time.monotonic() < deadline:
        time.sleep(0.02)
    assert counts() == (2, {})
    span.end()
    assert counts() == (2, {})


def held_in(room: WaitingRoom, order: str, unit: UnitOfWork) -> None:
    recorded = record("Purchase", {"order_id": order}, time.time_ns())
    room.hold(event_of(recorded, EventType.PURCHASE), unit)


def test_the_thread_that_looks_at_the_time_limit_ends_and_comes_again() -> None:
    """Only while something waits is there a thread for it."""
    fates: list[tuple[str | None, Fate]] = []
    room = WaitingRoom(lambda event, fate: fates.append((event.order_id, fate)), timeout=0.05)
    for count, order in enumerate(("1", "2"), 1):
        held_in(room, order, UnitOfWork())
        deadline = time.monotonic() + 10
        while room._thread is not None or len(fates) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert fates == [("1", Fate.DELIVER), ("2", Fate.DELIVER)]
    assert len(room) == 0


def test_a_room_that_is_closed_lets_nothing_wait_and_tells_each_fate_once() -> None:
    fates: list[tuple[str | None, Fate]] = []
    room = WaitingRoom(lambda event, fate: fates.append((event.order_id, fate)), timeout=60)
    unit = UnitOfWork()
    held_in(room, "1", unit)
    room.close()
    held_in(room, "2", unit)
    unit.failed = True
    unit.end()
    assert fates == [("1", Fate.DELIVER), ("2", Fate.DELIVER)]
    assert len(room) == 0


def test_what_waits_at_shutdown_is_delivered() -> None:
    trace.set_tracer_provider(TracerProvider())
    pipeline = eventflows.configure([ConsoleProvider()], commit="span_ok")
    with trace.get_tracer("app").start_as_current_span("root"):
        purchase()
        assert eventflows.shutdown(5_000)
    assert pipeline.stats()["console"].delivered == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_deliver_what_its_parent_holds() -> None:
    trace.set_tracer_provider(TracerProvider())
    pipeline = eventflows.configure([ConsoleProvider()], commit="span_ok")
    with trace.get_tracer("app").start_as_current_span("root"):
        purchase()
        child = os.fork()
        if child == 0:
            os._exit(pipeline.waiting)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        child = os.fork()
    if child == 0:  # the child ends the work as well
        os._exit(pipeline.stats()["console"].captured)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counts() == (1, {})


def test_the_same_event_by_two_ways_is_counted_once_when_it_fails(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("root") as span:
        purchase("1")
        span.add_event("Purchase", {"order_id": "1"})
        span.set_status(StatusCode.ERROR)
    assert counts() == (0, FAILED)


def test_a_wrong_setting_is_one_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="commit: 'maybe' is not one of immediate, span_ok"):
        eventflows.configure([ConsoleProvider()], commit="maybe")


def test_what_failed_does_not_come_back_by_our_own_exporter() -> None:
    """Behind a batch processor the sealed record reaches our exporter when the request is long over."""
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    trace.set_tracer_provider(TracerProvider(sampler=ALWAYS_OFF))
    logs = LoggerProvider()
    set_logger_provider(logs)
    logs.add_log_record_processor(
        BatchLogRecordProcessor(
            EventFlowsLogRecordExporter({"console": {}}, commit="span_ok"), schedule_delay_millis=50
        )
    )
    EventFlowsInstrumentor().instrument()
    try:
        for fails in (True, False):
            with trace.get_tracer("app").start_as_current_span("root") as span:
                purchase("1" if fails else "2")
                get_logger("app").emit(event_name="Lead", attributes={"event_id": f"{fails}"})
                span.add_event("Contact", {"event_id": f"{fails}"})
                span.set_status(StatusCode.ERROR if fails else StatusCode.OK)
        logs.force_flush()
        assert counts() == (3, {"span failed": 3})
    finally:
        EventFlowsInstrumentor().uninstrument()

"""The outbox: requests side by side, an outage that costs no CPU, rate limits, and waiting that ends when it must."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest

import eventflows
from eventflows import GA4Provider, MetaProvider, backlog, journal, journals, lane, outbox, storage
from eventflows.mapping import Entry
from eventflows.pace import Pace
from eventflows.pipeline import Pipeline
from eventflows.providers.base import Response
from eventflows.retry import RetryPolicy, retry_after_seconds
from eventflows.sandbox import Sandbox
from eventflows.transport import HttpTransport

from .test_pipeline import FAST, LEAD, adds_up, record


class Busy(ThreadingHTTPServer):
    """Takes many connections at once."""

    request_queue_size = 128


class Together(BaseHTTPRequestHandler):
    """Answers nobody until so many requests are under way at once."""

    protocol_version = "HTTP/1.1"
    barrier: ClassVar[threading.Barrier]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self.barrier.wait(10)
            self.send_response(204)
        except threading.BrokenBarrierError:
            self.send_response(400)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing to say."""


@pytest.fixture
def together() -> Iterator[Callable[[int], str]]:
    """Makes a server of `Together`, and gives its URL."""
    servers = []

    def start(parties: int) -> str:
        Together.barrier = threading.Barrier(parties)
        server = Busy(("127.0.0.1", 0), Together)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_requests_of_one_lane_go_side_by_side(together: Callable[[int], str]) -> None:
    """GA4 takes one client per request; with 20 under way at once, 100 ms per answer still give 200 a second."""
    pipeline = eventflows.configure([GA4Provider("G-1", "x", endpoint=together(20))])
    for number in range(40):
        record(**{"user.id": str(number)})
    assert eventflows.force_flush(15_000)
    assert pipeline.stats()["ga4"].delivered == 40


def test_a_thread_that_rests_does_not_keep_others_from_starting(together: Callable[[int], str]) -> None:
    """After a quiet time with one request at once, 20 that come together are under way together."""
    pipeline = eventflows.configure([GA4Provider("G-1", "x", endpoint=together(1))])
    for number in range(3):
        record(**{"user.id": f"first-{number}"})
        assert eventflows.force_flush(5_000)
    sending = [thread for thread in threading.enumerate() if thread.name.endswith("-send")]
    assert len(sending) == 1
    Together.barrier = threading.Barrier(20)
    for number in range(40):
        record(**{"user.id": str(number)})
    assert eventflows.force_flush(15_000)
    assert pipeline.stats()["ga4"].delivered == 43


def test_what_comes_while_the_only_thread_is_leaving_is_sent(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    consume, left = outbox.Outbox._consume, threading.Event()

    def leaving(self: outbox.Outbox, *, wait: bool) -> None:
        consume(self, wait=wait)
        if not left.is_set():
            record()
            left.set()  # only now may the test look
            deadline = time.monotonic() + 10
            while not self._ready and time.monotonic() < deadline:
                time.sleep(0.01)

    monkeypatch.setattr(outbox, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(outbox.Outbox, "_consume", leaving)
    provider = MetaProvider("123", "abc", endpoint=f"{sandbox.url}/meta")
    eventflows.configure([provider], sending_queue={"num_consumers": 1, "flush_interval": "10ms"})
    record()
    assert left.wait(10)
    assert eventflows.force_flush(10_000)
    assert len(sandbox.events("meta")) == 2


def test_no_more_requests_than_consumers_are_under_way(together: Callable[[int], str]) -> None:
    eventflows.configure([GA4Provider("G-1", "x", endpoint=together(3))], sending_queue={"num_consumers": 2})
    for number in range(3):
        record(**{"user.id": str(number)})
    assert not eventflows.force_flush(500)
    Together.barrier.abort()


class Down(Busy):
    """A platform that is down, counts who asks, and comes back."""

    asked = 0
    down = True
    failing = 0  # so many, where it is not down
    every_second_fails = False


class DownHandler(BaseHTTPRequestHandler):
    server: Down

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        fails = (
            self.server.down
            or self.server.asked <= self.server.failing
            or (self.server.every_second_fails and self.server.asked % 2 == 1)
        )
        self.send_response(503 if fails else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing to say."""


@pytest.fixture
def platform() -> Iterator[Down]:
    server = Down(("127.0.0.1", 0), DownHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ga4(server: Down, **options: Any) -> Pipeline:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    return eventflows.configure([GA4Provider("G-1", "x", endpoint=url)], **{"retry_on_failure": FAST, **options})


def test_in_an_outage_one_request_at_a_time_probes_and_nothing_is_lost(
    platform: Down, caplog: pytest.LogCaptureFixture
) -> None:
    """200 requests wait, and only a few ask; one log line when it begins and one when it ends."""
    pipeline = ga4(platform, retry_on_failure={"initial_interval": "1s", "max_interval": "1s"})
    for number in range(200):
        record(**{"user.id": str(number)})
    assert not eventflows.force_flush(1_000)
    assert platform.asked <= outbox.BREAK_AFTER + 32 + 10
    platform.down = False
    assert eventflows.force_flush(15_000)
    assert pipeline.stats()["ga4"].delivered == 200
    said = [record.getMessage() for record in caplog.records]
    assert sum("trying one at a time" in line for line in said) == 1
    assert sum("requests succeed again" in line for line in said) == 1


def test_probes_follow_one_another_as_the_policy_says(platform: Down, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when a thread wakes up that has rested for long, having seen that a probe was under way."""
    monkeypatch.setattr(outbox, "IDLE_SECONDS", 3_600)
    platform.down, platform.failing = False, 40
    pipeline = ga4(platform)
    for number in range(40):
        record(**{"user.id": str(number)})
    assert eventflows.force_flush(20_000)
    assert pipeline.stats()["ga4"].delivered == 40


def test_what_goes_again_soon_does_not_wait_for_what_goes_again_late(
    platform: Down, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests are under way; the first fails, and its thread rests until its time has come, when the second one fails."""
    monkeypatch.setattr(outbox, "IDLE_SECONDS", 3_600)
    waits, calls, both_go, goes_on = iter([3_600.0, 0.05]), count(), threading.Event(), threading.Event()
    monkeypatch.setattr(RetryPolicy, "wait", lambda *_: next(waits))

    def send(*_: object) -> Response:
        number = next(calls)
        if number == 0:
            assert both_go.wait(10)  # else its thread may be quick enough to send both
        if number == 1:
            both_go.set()
            assert goes_on.wait(10)
        return Response(503 if number < 2 else 204)

    monkeypatch.setattr(HttpTransport, "send", send)
    pipeline = ga4(platform)
    record(**{"user.id": "1"})
    record(**{"user.id": "2"})

    def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "it did not come about in time"
            time.sleep(0.01)

    until(lambda: (box := pipeline._lanes.named("ga4")._outbox) is not None and bool(box._later and box._resting))
    goes_on.set()
    until(lambda: pipeline.stats()["ga4"].delivered == 1)


@pytest.mark.parametrize("is_there", [True, False])
def test_shutdown_in_an_outage_ends_in_time_and_says_what_it_dropped(platform: Down, is_there: bool) -> None:
    """Also where nobody listens."""
    url = f"http://127.0.0.1:{platform.server_address[1] if is_there else 9}"
    pipeline = eventflows.configure([GA4Provider("G-1", "x", endpoint=url)], retry_on_failure=FAST)
    for number in range(200):
        record(**{"user.id": str(number)})
    assert not eventflows.shutdown(1_000)
    stats = pipeline.stats()["ga4"]
    assert (stats.pending, stats.delivered, sum(stats.dropped.values())) == (0, 0, 200)
    assert any(reason.startswith("shutdown ") for reason in stats.dropped)
    assert adds_up(stats)
    assert stats.attempts < 200


def test_shutdown_in_an_outage_leaves_to_the_next_process_what_is_on_disk(platform: Down, tmp_path: Path) -> None:
    """It takes no time for that."""
    pipeline = ga4(platform, sending_queue={"storage": str(tmp_path)})
    for number in range(200):
        record(**{"user.id": str(number)})
    assert not eventflows.shutdown(60_000)
    stats = pipeline.stats()["ga4"]
    assert (stats.pending, stats.dropped) == (200, {})
    assert stats.attempts < 200


def test_shutdown_uses_its_time_after_many_failed_at_once(platform: Down) -> None:
    """Those that are under way together say no more about the platform than one of them."""
    platform.down, platform.failing = False, 30
    pipeline = ga4(platform, sending_queue={"flush_interval": "10m"})
    for number in range(60):
        record(**{"user.id": str(number)})
    assert eventflows.shutdown(20_000)
    assert pipeline.stats()["ga4"].delivered == 60


def test_shutdown_does_not_wait_for_a_platform_that_wants_more_than_its_time(sandbox: Sandbox) -> None:
    sandbox.fault("ga4", status=503, retry_after=3_600, times=10_000)
    provider = GA4Provider("G-123", "abc", endpoint=f"{sandbox.url}/ga4")
    pipeline = eventflows.configure([provider], sending_queue={"num_consumers": 1, "flush_interval": "10m"})
    for number in range(5):
        record(**{"user.id": str(number)})
    assert not eventflows.shutdown(60_000)
    stats = pipeline.stats()["ga4"]
    assert stats.attempts == 1
    assert sum(stats.dropped.values()) == 5


def test_shutdown_does_not_give_up_what_fails_now_and_then(platform: Down) -> None:
    """There is time left, so an error that passes costs nothing, without storage either."""
    platform.down, platform.every_second_fails = False, True
    pipeline = ga4(platform, sending_queue={"num_consumers": 1, "flush_interval": "10m"})
    for number in range(20):
        record(**{"user.id": str(number)})
    assert eventflows.shutdown(20_000)
    assert pipeline.stats()["ga4"].delivered == 20


def test_an_event_that_becomes_too_old_while_it_waits_expires(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MetaProvider, "MAX_AGE_NS", 3 * 10**8)
    provider = MetaProvider("123", "abc", endpoint=f"{sandbox.url}/meta")
    pipeline = eventflows.configure([provider], retry_on_failure=FAST, sending_queue={"flush_interval": "1ms"})
    sandbox.fault("meta", status=500, times=10_000)
    record()
    assert eventflows.force_flush(10_000)
    stats = pipeline.stats()["meta"]
    assert (sum(stats.expired.values()), stats.dropped) == (1, {})
    assert stats.attempts >= 2


def test_without_a_limit_an_event_is_tried_until_it_expires() -> None:
    assert RetryPolicy().max_elapsed_time == 0
    assert RetryPolicy(multiplier=100).wait(10_000) <= 30  # the largest that a setting may be, after days


def test_the_longest_wait_doubles_up_to_a_limit() -> None:
    waits = [RetryPolicy().wait(attempt, jitter=lambda low, high: low + high) for attempt in range(1, 9)]
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert RetryPolicy().wait(3, jitter=lambda low, _: low) == 0


def test_retry_after_in_both_forms() -> None:
    now = 1_795_500_000.0
    assert retry_after_seconds("120", now) == 120
    assert retry_after_seconds("Tue, 24 Nov 2026 11:00:00 +0100", 1_795_514_400.0 - 30) == 30
    assert retry_after_seconds("Tue, 24 Nov 2026 10:00:00 -0000", 1_795_514_400.0 - 30) == 30
    assert retry_after_seconds(formatdate(now + 90, usegmt=True), now) == 90
    assert retry_after_seconds(formatdate(now - 90, usegmt=True), now) == 0
    assert retry_after_seconds("soon", now) is None
    assert RetryPolicy().wait(1, 120.0) == 120


@pytest.mark.parametrize("header", ["99999999999", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_no_retry_after_stops_a_lane_for_good(header: str) -> None:
    """The wait must be one that a lock takes as a timeout, too."""
    assert retry_after_seconds(header, 1_795_500_000.0) == 86_400


@pytest.mark.parametrize("header", ["\xb2", "-5", "1.5", " "])
def test_a_retry_after_that_is_none_is_ignored(header: str) -> None:
    assert retry_after_seconds(header, 1_795_500_000.0) is None


def test_refused_credentials_are_tried_ever_more_rarely() -> None:
    assert [RetryPolicy().pause(denials) for denials in (1, 2, 3, 20)] == [30, 60, 120, 900]


def test_a_pace_lets_a_seconds_worth_go_at_once_and_then_keeps_to_the_rate() -> None:
    pace = Pace(requests=10, events=100)
    for _ in range(10):
        assert pace.seconds(1000.0) == 0
        pace.take(1000.0, 1)
    pace.take(1000.0, 1)
    assert pace.seconds(1000.0) == pytest.approx(0.1)
    assert pace.seconds(1000.2) == 0
    pace.take(1005.0, 300)
    assert pace.seconds(1005.0) == pytest.approx(2.0)


class Slow(MetaProvider):
    MAX_REQUESTS_PER_SECOND: ClassVar[float | None] = 2
    MAX_BATCH: ClassVar[int] = 1


def test_lanes_with_the_same_credentials_share_their_rate_limit(sandbox: Sandbox) -> None:
    """Two accounts with one token: two requests per second for both together."""
    url = f"{sandbox.url}/meta"
    eventflows.configure([Slow("1", "abc", endpoint=url), Slow("2", "abc", endpoint=url, name="meta/b")])
    started = time.monotonic()
    record(4)
    assert eventflows.force_flush(15_000)
    assert len(sandbox.events("meta")) == 8
    assert time.monotonic() - started > 1.5  # 8 requests, the first 2 or 3 of them at once


def test_a_platforms_idle_connection_that_was_closed_costs_nothing(sandbox: Sandbox) -> None:
    """The kept connection is gone when the next batch comes: it goes over a new one."""
    port = int(sandbox.url.rpartition(":")[2])
    pipeline = eventflows.configure([MetaProvider("123", "abc", endpoint=f"{sandbox.url}/meta")], retry_on_failure=FAST)
    record()
    assert eventflows.force_flush(5_000)
    sandbox.stop()
    with Sandbox(port=port) as again:
        eventflows.get_tracer("x").add_event("Lead", {**LEAD, "event_id": "second"})
        assert eventflows.force_flush(5_000)
        assert [entry["event"]["event_id"] for entry in again.events("meta")] == ["second"]
    assert pipeline.stats()["meta"].delivered == 2


class Unforeseen(MetaProvider):
    """A provider of somebody's own that answers with what is no outcome where the event says so."""

    def outcomes(self, response: Response, batch: Sequence[Entry]) -> list[Any]:
        told = super().outcomes(response, batch)
        return [None if b'"wrong"' in entry.content else one for entry, one in zip(batch, told, strict=True)]


@pytest.mark.parametrize("stored", [False, True])
def test_what_nobody_foresaw_costs_one_request_and_says_so(
    stored: bool, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its events have an outcome, and the lane goes on."""
    provider = Unforeseen("123", "abc", endpoint=f"{sandbox.url}/meta")
    queue = {"num_consumers": 1, **({"storage": str(tmp_path)} if stored else {})}
    pipeline = eventflows.configure([provider], sending_queue=queue)
    for event_id in ("wrong", "right"):
        record(event_id=event_id)
        assert eventflows.force_flush(5_000)
    stats = pipeline.stats()["meta"]
    assert (stats.delivered, stats.dropped) == (1, {"internal error (AttributeError)": 1})
    assert adds_up(stats)
    assert "meta: internal error (AttributeError)" in caplog.text
    if stored:
        assert {told.id: told.outcomes["meta"][0] for told in journals.told(tmp_path)} == {
            "wrong": "dropped",
            "right": "delivered",
        }


@pytest.mark.parametrize("where", ["_follow", "_load"])
def test_what_nobody_foresaw_after_an_answer_does_not_take_the_outcomes_back(
    where: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [1]

    def failing(*given: Any) -> Any:
        if failures:
            failures.pop()
            raise ZeroDivisionError
        return works(*given)

    owner: Any = outbox.Outbox if where == "_follow" else lane.Lane
    works = getattr(owner, where)
    monkeypatch.setattr(owner, where, failing)
    monkeypatch.setattr(backlog.Backlog, "waits", True)
    monkeypatch.setattr(MetaProvider, "MAX_BATCH", 1)
    provider = MetaProvider("123", "abc", endpoint=f"{sandbox.url}/meta")
    pipeline = eventflows.configure([provider], sending_queue={"num_consumers": 1})
    record(3)  # two others are pending meanwhile
    pipeline.force_flush(500)
    monkeypatch.undo()
    record(2)
    assert eventflows.force_flush(5_000)
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered, stats.pending) == (5, 5, 0)
    assert not failures


def test_an_outcome_that_cannot_be_written_for_what_nobody_foresaw_is_counted(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And written later."""
    monkeypatch.setattr(storage, "SCAN_SECONDS", 0.05)
    write, failures = journal.Journal._write, [1, 2]

    def failing(*given: Any) -> None:
        if failures:
            failures.pop()
            raise ZeroDivisionError
        write(*given)

    monkeypatch.setattr(journal.Journal, "_write", failing)
    provider = MetaProvider("123", "abc", endpoint=f"{sandbox.url}/meta")
    pipeline = eventflows.configure([provider], sending_queue={"storage": str(tmp_path)})
    record(3)
    assert eventflows.force_flush(5_000)
    assert pipeline.stats()["meta"].delivered == 3
    deadline = time.monotonic() + 10
    while not all(told.outcomes["meta"][0] == "delivered" for told in journals.told(tmp_path)):
        assert time.monotonic() < deadline, "they are not written"
        time.sleep(0.02)

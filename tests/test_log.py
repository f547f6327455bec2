"""Log lines: at once, then at most one a minute, and no count is forgotten."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import pytest

import eventflows
from eventflows import ConsoleProvider, MetaProvider
from eventflows.log import Notices, tell_held, tell_lost
from eventflows.providers.base import Outcome, Response, Sent, Status
from eventflows.reader import MAX_LEFT_OUT, OTHER_ATTRIBUTES
from eventflows.sandbox import Sandbox
from eventflows.stats import MAX_REASONS

from .test_pipeline import Poisoned, record


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_the_first_is_told_at_once_and_the_others_together(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices("test")
    for _ in range(5):
        notices.warn("full", "%s: {count} dropped", "meta", count=2)
    notices.tell_held()
    assert lines(caplog) == ["meta: 2 dropped"]
    notices.tell_held(all_of_them=True)
    assert lines(caplog) == ["meta: 2 dropped", "meta: 8 dropped"]
    notices.tell_held(all_of_them=True)
    assert len(lines(caplog)) == 2


def test_what_was_held_is_told_when_its_minute_is_over(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices("test")
    for _ in range(3):
        notices.warn("a", "happened")
    notices._seconds = 0.0
    notices.tell_held()
    assert lines(caplog) == ["happened", "happened [2 times]"]


def test_one_kind_does_not_silence_another_and_their_number_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices("test")
    for number in range(2500):
        notices.warn(str(number), "kind {count}")
        notices.warn(str(number), "kind {count}")
    assert len(lines(caplog)) >= 2500
    assert len(notices._last) <= 1000
    assert len(notices._held) <= 1000
    notices.tell_held(all_of_them=True)
    assert sum(int(line.partition(" ")[2]) for line in lines(caplog)) == 5000, "a count is forgotten"


def test_each_part_has_a_logger_of_its_own_below_eventflows(caplog: pytest.LogCaptureFixture) -> None:
    Notices("storage").warn("a", "happened")
    assert [record.name for record in caplog.records] == ["eventflows.storage"]


def test_names_that_an_app_makes_of_its_data_fill_neither_memory_nor_log(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = eventflows.configure([ConsoleProvider()])
    for number in range(3 * MAX_LEFT_OUT):
        eventflows.get_tracer("app").add_event("Lead", {f"item_{number}": "zoe@example.com"})
    assert eventflows.force_flush(5_000)
    reason = "holds an e-mail address"
    assert pipeline.left_out["item_0", reason] == 1
    assert pipeline.left_out[OTHER_ATTRIBUTES, reason] == 2 * MAX_LEFT_OUT
    assert len(pipeline.left_out) == MAX_LEFT_OUT + 1
    assert len(lines(caplog)) <= MAX_LEFT_OUT + 1


class Talkative(MetaProvider):
    """A provider of somebody's own whose reasons are all different."""

    def outcomes(self, response: Response, batch: Sequence[Sent]) -> list[Outcome]:
        return [Outcome(Status.REFUSED, f"no good: {id(one)}") for one in batch]


@pytest.mark.parametrize("status", ["refused", "expired", "dropped"])
def test_bad_outcomes_are_told_with_their_reason(status: str, caplog: pytest.LogCaptureFixture) -> None:
    tell_lost(Notices("delivery"), "meta", status, "a reason", 3)
    assert f"meta: 3 conversions {status}: a reason" in caplog.text


@pytest.fixture
def nothing_held(caplog: pytest.LogCaptureFixture) -> None:
    """What other tests left."""
    tell_held(all_of_them=True)
    caplog.clear()


@pytest.mark.usefixtures("nothing_held")
def test_good_outcomes_and_none_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    for status, count in (("delivered", 3), ("filtered", 3), ("refused", 0)):
        tell_lost(Notices("delivery"), "meta", status, "a reason", count)
    tell_held(all_of_them=True)
    assert caplog.text == ""


@pytest.mark.usefixtures("nothing_held")
def test_all_that_any_part_held_back_is_told_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    parts = [Notices("delivery"), Notices("storage")]
    for part in parts * 3:
        part.warn("full", "{count} are lost")
    tell_held()
    assert [one.getMessage() for one in caplog.records] == ["1 are lost"] * 2
    tell_held(all_of_them=True)
    assert [one.getMessage() for one in caplog.records[2:]] == ["2 are lost"] * 2


def test_answers_that_are_all_different_fill_no_log(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = eventflows.configure([Talkative("1", "x", endpoint=f"{sandbox.url}/meta")])
    record(3 * MAX_REASONS)
    assert eventflows.force_flush(5_000)
    refused = pipeline.stats()["meta"].refused
    assert sum(refused.values()) == 3 * MAX_REASONS
    assert len(lines(caplog)) <= len(refused) <= MAX_REASONS + 1


@pytest.fixture
def raising() -> Iterator[None]:
    """The app has a log handler that raises."""

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no space left on device")

    handler, logger = Raising(), logging.getLogger("eventflows")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.mark.usefixtures("raising")
def test_a_handler_that_raises_costs_no_event(sandbox: Sandbox) -> None:
    """A refusal is told between an answer and what follows from it: the others of the batch go again all the same."""
    Poisoned.poison = "e1"
    pipeline = eventflows.configure([Poisoned("123", "abc", endpoint=f"{sandbox.url}/meta")])
    for number in range(3):
        record(event_id=f"e{number}")
    assert eventflows.force_flush(5_000)
    stats = pipeline.stats()["meta"]
    assert (stats.delivered, sum(stats.refused.values())) == (2, 1)

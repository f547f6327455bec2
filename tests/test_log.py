"""Log lines: at once, then at most one a minute, and no count is forgotten."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import eventflows
from eventflows.log import Notices
from eventflows.sandbox import Sandbox

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
    assert len(lines(caplog)) == 2500
    assert len(notices._last) <= 1000


def test_each_part_has_a_logger_of_its_own_below_eventflows(caplog: pytest.LogCaptureFixture) -> None:
    Notices("storage").warn("a", "happened")
    assert [record.name for record in caplog.records] == ["eventflows.storage"]


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

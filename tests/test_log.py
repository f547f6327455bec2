"""Log lines: at once, then at most one a minute, and no count is forgotten."""

from __future__ import annotations

import pytest

from eventflows.log import Notices


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

"""Outcomes on their way to a journal that takes them later, or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest

from eventflows import outcomes
from eventflows.journal import Locked, Row
from eventflows.log import Notices
from eventflows.mapping import Source
from eventflows.outcomes import DISK_SECONDS, Outcomes


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Stubborn:
    """A journal that takes nothing, with this problem, until a time comes."""

    def __init__(self, clock: Clock, problem: Exception, until: float) -> None:
        self._clock, self._problem, self._until = clock, problem, until
        self.rows: list[Row] = []

    def settle(self, provider: str, rows: Sequence[Row]) -> None:
        if self._clock.now < self._until:
            raise self._problem
        self.rows += rows


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outcomes, "time", clock)
    return clock


def written_to(journal: Any, *numbers: int) -> Outcomes:
    found = Outcomes("meta", Notices("delivery"))
    found.write([Source("lead", 1, journal=journal, seq=number) for number in numbers], "delivered", "", 2)
    return found


def test_what_a_journal_does_not_take_is_written_later_and_told(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    journal = Stubborn(clock, sqlite3.OperationalError("disk I/O error"), until=101)
    waiting = written_to(journal, 1, 2)
    assert "meta: 2 outcomes cannot be written to the storage (disk I/O error)" in caplog.text
    assert not waiting.write_again()
    clock.now = 101
    assert waiting.write_again()
    assert journal.rows == [Row(1, "delivered", "", 2), Row(2, "delivered", "", 2)]
    assert waiting.write_again()
    assert len(journal.rows) == 2


def test_what_nobody_foresaw_is_told_by_its_kind_alone(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Its text may hold values of an event."""
    written_to(Stubborn(clock, ValueError("zoe@example.com"), until=101), 1)
    assert "(ValueError)" in caplog.text
    assert "zoe" not in caplog.text


@pytest.mark.parametrize(
    ("problem", "ends"), [(sqlite3.OperationalError("full"), 100 + DISK_SECONDS), (Locked("locked"), 105)]
)
def test_at_the_end_a_lock_is_waited_for_and_a_broken_disk_is_not(
    clock: Clock, problem: Exception, ends: float
) -> None:
    journal = Stubborn(clock, problem, until=1_000)
    written_to(journal, 1).write_last(deadline=105)
    assert ends <= clock.now < ends + 0.1
    assert journal.rows == []


def test_at_the_end_nobody_waits_once_all_is_written(clock: Clock) -> None:
    journal = Stubborn(clock, Locked("locked"), until=102)
    written_to(journal, 1).write_last(deadline=105)
    assert 102 <= clock.now < 102.1
    assert len(journal.rows) == 1

"""Portions of events on their way to the lanes: what one lane does wrong costs no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

import eventflows
from eventflows import MetaProvider, holding, journal, journals, lane
from eventflows.conversion import Conversion
from eventflows.routing import Seen
from eventflows.sandbox import Sandbox
from eventflows.sealing import Event
from tests.conftest import four

from .test_pipeline import LEAD, adds_up, record
from .test_storage import until


class WithoutKeys(MetaProvider):
    """A provider of somebody's own whose constant is of a wrong type."""

    MATCH_KEYS: ClassVar[Any] = None


@pytest.mark.parametrize("stored", [False, True])
def test_a_lane_that_cannot_count_costs_no_other_lane_its_events(
    stored: bool, sandbox: Sandbox, tmp_path: Path
) -> None:
    """And its own have an outcome with a reason, on the disk as well."""
    wrong = WithoutKeys("123", "abc", endpoint=f"{sandbox.url}/meta", name="meta/wrong")
    right = [one for one in four(sandbox.url) if one.TYPE != "meta"]
    queue = {"storage": str(tmp_path)} if stored else {}
    pipeline = eventflows.configure([wrong, *right], sending_queue=queue)
    record(40)
    assert eventflows.force_flush(10_000)
    stats = pipeline.stats()
    assert all(adds_up(one) for one in stats.values())
    assert stats["meta/wrong"].dropped == {"internal error (TypeError)": 40}
    assert {stats[one.name].delivered for one in right} == {40}
    assert len(sandbox.events("tiktok")) == 40


class WithoutAge(MetaProvider):
    """A provider of somebody's own that fails where nothing of ours would."""

    def max_age_ns(self, conversion: Conversion) -> int | None:
        raise ZeroDivisionError


class WithTooLittle(MetaProvider):
    def encode(self, conversion: Conversion) -> Any:
        return super().encode(conversion)[:3]


@pytest.mark.parametrize("kind", [WithoutAge, WithTooLittle])
def test_a_provider_that_fails_costs_no_other_its_events(kind: type[MetaProvider], sandbox: Sandbox) -> None:
    wrong = kind("123", "abc", endpoint=f"{sandbox.url}/meta", name="meta/wrong")
    pipeline = eventflows.configure([wrong, *four(sandbox.url)])
    record(40)
    assert eventflows.force_flush(10_000)
    stats = pipeline.stats()
    assert all(adds_up(one) for one in stats.values())
    assert {stats[one.name].delivered for one in four()} == {40}
    assert sum(stats["meta/wrong"].refused.values()) == 40


def test_a_lane_that_cannot_start_costs_no_other_lane_its_events(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where it can later, it delivers what comes then."""
    start = lane.start_batcher

    def refused(*given: Any, name: str, **others: Any) -> Any:
        if name.endswith("meta"):
            raise MemoryError
        return start(*given, name=name, **others)

    monkeypatch.setattr(lane, "start_batcher", refused)
    pipeline = eventflows.configure(four(sandbox.url))
    record(3)
    assert eventflows.force_flush(10_000)
    assert pipeline.stats()["meta"].dropped == {"internal error (MemoryError)": 3}
    assert pipeline.stats()["reddit"].delivered == 3
    monkeypatch.undo()
    record(2)
    assert eventflows.force_flush(10_000)
    stats = pipeline.stats()["meta"]
    assert (stats.captured, stats.delivered) == (5, 2)


def test_what_nobody_foresaw_in_a_lane_is_counted_there_with_a_reason(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And costs no other lane its events, wherever it happens."""

    def failing(self: lane.Lane, *given: Any, **options: Any) -> Any:
        if self.provider.name == where:
            raise ZeroDivisionError("4711")
        return works(self, *given, **options)

    where, works = "meta", lane.Lane.written
    pipeline = eventflows.configure(four(sandbox.url))
    with monkeypatch.context() as patched:
        patched.setattr(lane.Lane, "written", failing)
        record(3)
        assert eventflows.force_flush(10_000)
    where, works = "tiktok", lane.Lane.offer
    with monkeypatch.context() as patched:
        patched.setattr(lane.Lane, "offer", failing)
        record(2)
        assert eventflows.force_flush(10_000)
    stats = pipeline.stats()
    assert all(adds_up(one) for one in stats.values())
    assert stats["meta"].dropped == {"internal error (ZeroDivisionError)": 3}
    assert [stats[name].delivered for name in ("meta", "ga4", "tiktok", "reddit")] == [2, 5, 3, 5]
    assert "tiktok: internal error (ZeroDivisionError)" in caplog.text
    assert "4711" not in caplog.text


def test_what_cannot_be_brought_into_the_journal_for_what_nobody_foresaw_is_delivered_from_memory(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On the intake's thread. On the main thread it may be the exception of a signal handler, which is the app's."""

    def failing(*_: object) -> None:
        raise ZeroDivisionError("4711")

    pipeline = eventflows.configure(four(sandbox.url), sending_queue={"storage": str(tmp_path)})
    monkeypatch.setattr(journal, "_row", failing)
    record(3)
    until(lambda: len(sandbox.events("meta")) == 3)
    monkeypatch.undo()
    assert eventflows.force_flush(10_000)
    assert {one.delivered for one in pipeline.stats().values()} == {3}
    assert "the storage takes nothing (ZeroDivisionError)" in caplog.text
    assert "4711" not in caplog.text
    eventflows.shutdown(5_000)
    holding.bring_in(tmp_path)
    assert list(journals.told(tmp_path)) == []


def test_an_event_that_nobody_foresaw_costs_no_other_of_its_portion(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, failures = Seen.first, [1]

    def failing(self: Seen, key: Any) -> bool:
        if failures:
            failures.pop()
            raise ZeroDivisionError
        return first(self, key)

    pipeline = eventflows.configure(four(sandbox.url))
    monkeypatch.setattr(Seen, "first", failing)
    for event_id in ("first", "second", "third"):
        record(event_id=event_id)
    assert eventflows.force_flush(10_000)
    assert {entry["event"]["event_id"] for entry in sandbox.events("meta")} == {"second", "third"}
    assert pipeline.left_out == {("event", "ZeroDivisionError"): 1}


@pytest.mark.parametrize("stored", [False, True])
def test_who_is_told_of_an_event_and_fails_costs_neither_it_nor_others(
    stored: bool, sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another exporter, when the intake's thread builds the record for it."""

    def failing(_: Event) -> None:
        raise ZeroDivisionError("4711")

    queue = {"storage": str(tmp_path)} if stored else {}
    pipeline = eventflows.configure(four(sandbox.url), sending_queue=queue)
    for event_id in ("first", "second", "second", "third"):
        assert pipeline.leave("Lead", {**LEAD, "event_id": event_id}, tell=failing)
    assert pipeline.force_flush(10_000)
    assert {one.delivered for one in pipeline.stats().values()} == {3}
    assert pipeline.left_out == {}
    assert "have no log record (ZeroDivisionError)" in caplog.text
    assert "4711" not in caplog.text

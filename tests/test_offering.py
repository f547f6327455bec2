"""Portions of events on their way to the lanes: what one lane does wrong costs no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

import eventflows
from eventflows import MetaProvider, lane
from eventflows.conversion import Conversion
from eventflows.sandbox import Sandbox
from tests.conftest import four

from .test_pipeline import adds_up, record


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

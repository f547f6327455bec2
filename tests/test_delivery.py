"""From written events to requests, and from answers to what goes again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

import eventflows
from eventflows import MetaProvider, config
from eventflows.conversion import Conversion, EventType
from eventflows.delivery import judge, outdated, requests_of, unsettled
from eventflows.mapping import Entry, Source, encode
from eventflows.providers.base import Outcome, Response, Sent, Status, all_of
from eventflows.sandbox import Sandbox

from .test_pipeline import FAST, record

NOW = 1_795_455_900_123_456_789


class Narrow(MetaProvider):
    MAX_BATCH: ClassVar[int] = 3
    MAX_BYTES: ClassVar[int] = 60


NARROW = Narrow("123", "abc")


def written(text: str, **envelope: Any) -> Entry:
    content = json.dumps({"t": text}, separators=(",", ":")).encode()
    return Entry(Source("lead", NOW), content, envelope)


def text(entry: Entry) -> str:
    return str(json.loads(entry.content)["t"])


def texts(batches: Any) -> list[list[str]]:
    return [[text(entry) for entry in batch.entries] for batch in batches]


def test_requests_keep_to_both_limits_and_to_the_order() -> None:
    """An event that is too long by itself costs its neighbours nothing."""
    given = ["a", "b", "c", "d", "x" * 20, "y" * 20, "z" * 100, "e"]
    batches = requests_of(NARROW, map(written, given))
    assert texts(batches) == [["a", "b", "c"], ["d", "x" * 20], ["y" * 20], ["z" * 100], ["e"]]
    assert [len(b",".join(batch.events)) <= 60 for batch in batches] == [True, True, True, False, True]


def test_only_events_with_the_same_envelope_share_a_request() -> None:
    given = [written("a", client="1"), written("b", client="2"), written("c", client="1")]
    assert texts(requests_of(NARROW, given)) == [["a", "c"], ["b"]]


def test_what_is_left_of_a_batch_goes_in_the_same_request_unchanged() -> None:
    (batch,) = requests_of(NARROW, map(written, "abc"))
    refusal = {"error": {"code": 100, "error_subcode": 2804019, "message": "Unexpected key on $['data'][1]['x']"}}
    verdict = judge(NARROW, batch.entries, Response(400, refusal))
    assert [(text(entry), one.status) for one in verdict.settled for entry in one.entries] == [("b", "refused")]
    (again,) = map(batch.of, verdict.again)
    assert json.loads(again.body()) == {"data": [{"t": "a"}, {"t": "c"}]}
    assert again.request is batch.request


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_a_batch_whose_culprit_nobody_names_goes_again_in_halves(count: int) -> None:
    """Each smaller than the batch, or it would go round for ever; in their order, and none twice."""
    given = [written(str(number)) for number in range(count)]
    verdict = judge(NARROW, given, Response(400, {"error": {"code": 100}}))
    halves = [[text(entry) for entry in half] for half in verdict.again]
    assert list(map(len, halves)) == [(count + 1) // 2, count // 2]
    assert [one for half in halves for one in half] == [str(number) for number in range(count)]
    assert (verdict.settled, verdict.later, verdict.paused) == ([], [], [])


def test_an_event_alone_is_the_culprit() -> None:
    (one,) = given = [written("a")]
    verdict = judge(NARROW, given, Response(400, {"error": {"code": 100}}))
    assert [(settled.status, list(settled.entries)) for settled in verdict.settled] == [("refused", [one])]
    assert (verdict.again, verdict.later, verdict.paused) == ([], [], [])


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        (Response(503), "later"),
        (Response(429), "later"),
        (Response(401), "paused"),
        (Response(403, html=True), "paused"),
        (Response(200, html=True), "later"),  # some proxy's page
    ],
)
def test_an_answer_about_no_event_keeps_the_whole_batch(answer: Response, place: str) -> None:
    given = [written("a"), written("b")]
    verdict = judge(NARROW, given, answer)
    assert {name: getattr(verdict, name) for name in ("settled", "again", "later", "paused")} == {
        "settled": [], "again": [], "later": [], "paused": [], place: given,
    }  # fmt: skip
    assert verdict.reason


class Careless(MetaProvider):
    """A provider of somebody else's, with a mistake in it."""

    def outcomes(self, response: Response, batch: Sequence[Sent]) -> list[Outcome]:
        return all_of(batch[1:], Status.DELIVERED) if response.json is None else response.json["results"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(None, "unreadable answer (wrong count)"), ({"error": "x"}, "unreadable answer (KeyError)")],
)
def test_a_provider_that_cannot_read_an_answer_costs_no_event(answer: Any, reason: str) -> None:
    given = [written("a"), written("b")]
    verdict = judge(Careless("1", "x"), given, Response(200, answer))
    assert (verdict.later, verdict.reason) == (given, reason)
    assert (verdict.settled, verdict.again, verdict.paused) == ([], [], [])


def test_what_is_outdated_is_settled_and_the_rest_is_left() -> None:
    """At the limit an event still goes."""
    lane = config.settings([NARROW]).lane(NARROW)
    old, just, young = given = [Entry(Source("lead", NOW - age), b"{}", {}, max_age_ns=10) for age in (11, 10, 0)]
    settled = outdated(lane, given, NOW)
    assert [(one.status, list(one.entries)) for one in settled] == [("expired", [old])]
    assert unsettled(given, settled) == [just, young]
    assert outdated(lane, given[1:], NOW) == []


def test_an_event_in_bytes_is_what_the_provider_made() -> None:
    conversion = Conversion("c", EventType.PURCHASE, "Purchase", NOW, value=5, currency="EUR", clicks={"fbclid": "x"})
    result = encode(MetaProvider("1", "t", extra={"custom_data": {"city": "Malmö"}}), conversion, NOW)
    assert isinstance(result, Entry)
    event = MetaProvider("1", "t").encode(conversion).event
    assert event["custom_data"] == {"value": 5, "currency": "EUR"}
    assert json.loads(result.content) == {**event, "custom_data": {"value": 5, "currency": "EUR", "city": "Malmö"}}


def test_an_event_that_cannot_be_written_costs_only_itself(sandbox: Sandbox) -> None:
    """The configuration's `extra` may hold anything."""
    url = f"{sandbox.url}/meta"
    broken = MetaProvider("123", "abc", endpoint=url, name="meta/broken", extra={"custom_data": {"x": float("nan")}})
    pipeline = eventflows.configure([broken, MetaProvider("123", "abc", endpoint=url)], retry_on_failure=FAST)
    record(2)
    assert eventflows.force_flush(5_000)
    stats = pipeline.stats()
    assert (stats["meta/broken"].refused, stats["meta"].delivered) == ({"not encodable (ValueError)": 2}, 2)

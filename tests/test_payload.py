"""Bodies are strict JSON in UTF-8, the same with and without `orjson`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflows import payload

KEYS = st.one_of(st.text(st.characters(codec=None)), st.integers(), st.floats(), st.booleans(), st.none())
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec=None))),
    lambda inner: st.one_of(st.lists(inner), st.tuples(inner, inner), st.dictionaries(KEYS, inner)),
    max_leaves=20,
)


def outcome(encode: Any, value: Any) -> Any:
    """What a parser reads of the bytes, with the types of the numbers, or that there are none."""
    try:
        content = encode(value)
    except (ValueError, TypeError):
        return "refused"
    return json.loads(
        content, object_pairs_hook=list, parse_float=lambda text: ("float", float(text)), parse_constant=pytest.fail
    )


@pytest.mark.skipif(payload.orjson is None, reason="orjson is not installed")
@given(VALUES)
def test_orjson_means_the_same_as_the_standard_library(value: Any) -> None:
    """NaN and what is no JSON is refused by both; half surrogates, great integers and keys of other types are alike."""
    assert outcome(payload._encode_fast, value) == outcome(payload._encode_standard, value)


ENCODERS = [payload._encode_standard, *([payload._encode_fast] if payload.orjson is not None else [])]
each_encoder = pytest.mark.parametrize("encode", ENCODERS)


@each_encoder
def test_text_is_utf8_and_compact(encode: Any) -> None:
    assert encode({"name": "Väster", "n": [1, 2.5]}) == '{"name":"Väster","n":[1,2.5]}'.encode()


@each_encoder
@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, {(1, 2): 3}])
def test_what_no_parser_reads_is_refused(encode: Any, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        encode({"a": [None, value]})


@each_encoder
def test_what_holds_itself_is_refused(encode: Any) -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises((RecursionError, TypeError)):
        encode(value)


@pytest.mark.parametrize(
    ("envelope", "path", "expected"),
    [
        ({}, [], [1, {"n": 2}]),
        ({}, ["data"], {"data": [1, {"n": 2}]}),
        ({"test": "T", "data": "replaced"}, ["data"], {"test": "T", "data": [1, {"n": 2}]}),
        ({"data": {"id": 7}, "a": None}, ["data", "events"], {"data": {"id": 7, "events": [1, {"n": 2}]}, "a": None}),
        ({}, ["data", "events"], {"data": {"events": [1, {"n": 2}]}}),
    ],
)
def test_the_events_stand_where_the_request_says(envelope: Any, path: list[str], expected: Any) -> None:
    assert json.loads(payload.body(envelope, path, [b"1", b'{"n":2}'])) == expected
    assert json.loads(payload.body({"n": 1}, ["x"], [])) == {"n": 1, "x": []}


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=30), st.integers(1, 40))
def test_the_portions_are_the_body_and_their_length_is_told(events: list[bytes], size: int) -> None:
    """The Content-Length goes before them."""
    length, portions = payload.portions({"test": 1}, ["data"], events, size)
    parts = list(portions)
    assert b"".join(parts) == b'{"test":1,"data":[' + b",".join(events) + b"]}"
    assert length == sum(map(len, parts))
    assert all(len(part) <= size + 40 for part in parts)

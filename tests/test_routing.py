"""Who gets a conversion, and what is remembered of those that came before."""

from __future__ import annotations

import sys

import pytest

from eventflows import EventType, MetaProvider
from eventflows.conversion import Conversion
from eventflows.routing import Seen, filtered


@pytest.mark.parametrize(
    ("only", "excluded", "reason"),
    [
        (None, [], None),
        (["meta"], [], None),
        (["meta/eu", "ga4"], [], None),
        (["meta/us"], [], "not among conversion.providers"),
        ([], [], "not among conversion.providers"),
        (None, ["ga4", "meta/us"], None),
        (None, ["meta"], "in conversion.exclude_providers"),
        (["meta/eu"], ["meta"], "in conversion.exclude_providers"),
    ],
)
def test_an_event_names_providers_by_id_or_by_type(
    only: list[str] | None, excluded: list[str], reason: str | None
) -> None:
    conversion = Conversion(
        "1", EventType.PURCHASE, "Purchase", 1,
        providers=None if only is None else frozenset(only), exclude_providers=frozenset(excluded),
    )  # fmt: skip
    assert filtered(MetaProvider("1", "t", name="meta/EU"), conversion) == reason


def key(number: int) -> tuple[str, str]:
    return ("purchase", f"purchase-{number}")


def test_what_came_before_is_known_among_the_latest() -> None:
    seen = Seen(at_least=100)
    assert [seen.first(key(number)) for number in (1, 2, 1, 2, 3)] == [True, True, False, False, True]
    for number in range(1_000):
        seen.first(key(number))
        assert not any(seen.first(key(former)) for former in range(max(0, number - 99), number + 1)), number


def test_what_came_long_ago_is_forgotten() -> None:
    """A process that runs for months must not keep the ids of all its orders."""
    seen = Seen(at_least=100)
    for number in range(1_000):
        seen.first(key(number))
    assert seen.first(key(1))
    assert sum(map(len, seen._generations)) <= 200
    assert sys.getsizeof(seen._generations[0]) < 20_000

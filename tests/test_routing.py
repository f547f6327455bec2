"""What is remembered of the conversions that came before."""

from __future__ import annotations

import sys

from eventflows.routing import Seen


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

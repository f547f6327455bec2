"""Reading the results of rounds: medians, and ratios within the same round."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

Samples = dict[str, list[dict[str, Any]]]
"""What was measured → the result of each round."""


def values(samples: Sequence[dict[str, Any]], *path: str) -> Iterator[float]:
    """The numbers at this place of the results that have it."""
    for sample in samples:
        found: Any = sample
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, (int, float)):
            yield float(found)


def median(samples: Sequence[dict[str, Any]], *path: str) -> float | None:
    found = list(values(samples, *path))
    return statistics.median(found) if found else None


def paired(samples: Samples, name: str, to: str, *path: str) -> float | None:
    """One figure as a multiple of another of the same round: the median over the rounds."""
    ratios = [
        ours / theirs
        for one, other in zip(samples.get(name, []), samples.get(to, []), strict=False)
        for ours, theirs in zip(values([one], *path), values([other], *path), strict=False)
        if theirs
    ]
    return statistics.median(ratios) if ratios else None

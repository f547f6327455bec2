"""What became of the conversions, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

STATUSES = ("delivered", "filtered", "refused", "expired", "dropped")


@dataclass(frozen=True, slots=True)
class ProviderStats:
    """What became of the conversions of one provider, since the process started (or was forked).

    `captured == delivered + pending + the sums of filtered, refused, expired and dropped`, at any moment.

    Attributes:
        captured: Those recorded here, and those taken over from an earlier process.
        filtered: Reason → count of those it was not meant to get.
        refused: Reason → count of those the platform refuses for good.
        expired: Reason → count of those that became older than the platform accepts.
        dropped: Reason → count of those that were lost on the way.
        pending: Queued, waiting or under way; after shutdown, left in the storage for the next process.
        attempts: Requests that were sent.
    """

    captured: int
    delivered: int
    pending: int
    filtered: Mapping[str, int]
    refused: Mapping[str, int]
    expired: Mapping[str, int]
    dropped: Mapping[str, int]
    attempts: int


@dataclass(frozen=True, slots=True)
class Tally:
    """The numbers of one provider by the conversions' types, as the metrics tell them.

    Attributes:
        outcomes: `(status, reason, type)` → count.
        match_keys: What a person could be matched by → how many of the conversions sent had it.
    """

    provider: str
    captured: Mapping[str, int]
    outcomes: Mapping[tuple[str, str, str], int]
    match_keys: Mapping[str, int]
    pending: int
    in_memory: int
    capacity: int
    attempts: int


class Ledger:
    """The counters of one lane; its lock is the lane's."""

    def __init__(self) -> None:
        self.captured: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, str, str]] = Counter()
        self.match_keys: Counter[str] = Counter()

    def stats(self, pending: int, attempts: int) -> ProviderStats:
        by_status: dict[str, dict[str, int]] = {status: {} for status in STATUSES}
        for (status, reason, _), count in self.outcomes.items():
            by_status[status][reason] = by_status[status].get(reason, 0) + count
        return ProviderStats(
            captured=self.captured.total(),
            delivered=sum(by_status["delivered"].values()),
            pending=pending,
            filtered=by_status["filtered"],
            refused=by_status["refused"],
            expired=by_status["expired"],
            dropped=by_status["dropped"],
            attempts=attempts,
        )

    def tally(self, provider: str, pending: int, in_memory: int, capacity: int, attempts: int) -> Tally:
        return Tally(
            provider, dict(self.captured), dict(self.outcomes), dict(self.match_keys), pending, in_memory, capacity, attempts
        )  # fmt: skip

"""What became of the conversions, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

STATUSES = ("delivered", "filtered", "refused", "expired", "dropped")
MAX_REASONS = 100
"""So many different reasons a lane tells apart; each is a label's value in somebody's metrics."""
MAX_REASON = 200
OTHER_REASONS = "other reasons"
QUEUE_FULL = "queue full"
AFTER_SHUTDOWN = "recorded after shutdown"
ERASED = "erased"
UNREADABLE = "unreadable in the storage"
UNDELIVERED = "not delivered before the end of shutdown"


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


class Ledger:
    """The counters of one lane; its lock is the lane's. They only grow.

    Attributes:
        captured: Conversion type → how many were recorded.
        outcomes: `(status, reason, type)` → how many. Written through `settle`.
        handed_over: How many have left the queue to be mapped and sent.
        mapped: How many were mapped to the platform's form, each counted once: the whole of which `match_keys` are parts.
        match_keys: What a person could be matched by → how many of the mapped ones had it.
        attempts: Requests that were sent.
    """

    def __init__(self) -> None:
        self.captured: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, str, str]] = Counter()
        self.handed_over = self.mapped = self.attempts = 0
        self.match_keys: Counter[str] = Counter()
        self._reasons: set[str] = set()

    def settle(self, status: str, reason: str, kind: str, count: int = 1) -> None:
        """Count outcomes."""
        self.outcomes[status, self._told(reason), kind] += count

    def settle_all(self, status: str, reason: str, kinds: Iterable[str]) -> str:
        """Count the same outcome of conversions of these types.

        Returns:
            The reason under which they are counted.
        """
        reason = self._told(reason)
        for kind, count in Counter(kinds).items():
            self.outcomes[status, reason, kind] += count
        return reason

    def _told(self, reason: str) -> str:
        """What a platform answers cannot make more than `MAX_REASONS` reasons, nor long ones."""
        reason = reason[:MAX_REASON]
        if reason not in self._reasons:
            if len(self._reasons) >= MAX_REASONS:
                return OTHER_REASONS
            self._reasons.add(reason)
        return reason

    def copy(self) -> Ledger:
        made = Ledger()
        made.add(self)
        return made

    def add(self, other: Ledger) -> None:
        """Take over the numbers of another ledger."""
        self.captured.update(other.captured)
        for (status, reason, kind), count in other.outcomes.items():
            self.settle(status, reason, kind, count)
        self.match_keys.update(other.match_keys)
        self.handed_over += other.handed_over
        self.mapped += other.mapped
        self.attempts += other.attempts

    def stats(self, pending: int) -> ProviderStats:
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
            attempts=self.attempts,
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """The numbers of one lane at one moment, as the metrics tell them.

    Attributes:
        ledger: A copy of its counters.
        pending: Without an outcome, in memory or on disk only.
        in_memory: Queued or handed over.
        exporting: Handed over: mapped, waiting for a request or a retry, or under way.
        capacity: How many fit into memory.
        paused: Why the lane does not send as usual: `credentials`, `outage`.
    """

    ledger: Ledger
    pending: int
    in_memory: int
    exporting: int
    capacity: int
    paused: frozenset[str]

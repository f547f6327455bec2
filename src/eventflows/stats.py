"""What became of the conversions, in numbers."""

from __future__ import annotations

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

"""Pure rules of retrying: how long to wait, and when to give up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime

PAUSE_SECONDS = 30.0
MAX_PAUSE_SECONDS = 900.0
MAX_RETRY_AFTER_SECONDS = 86_400.0
"""A platform that asks for more is asked again after a day: no number from outside may stop a lane for good."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter, all in seconds. Names and meaning follow the Collector's `retry_on_failure`.

    Attributes:
        initial_interval: The longest wait after the first failed attempt.
        max_interval: The longest wait after any attempt.
        multiplier: By which the longest wait grows from attempt to attempt.
        max_elapsed_time: After this long since the first failed attempt an event is given up; 0 is never, and then it
            expires when it is older than the platform accepts.
    """

    initial_interval: float = 1.0
    max_interval: float = 30.0
    multiplier: float = 2.0
    max_elapsed_time: float = 0.0

    def wait(
        self, attempt: int, retry_after: float | None = None, jitter: Callable[[float, float], float] = random.uniform
    ) -> float:
        """Seconds to wait after the given failed attempt (the first is 1); the platform's Retry-After is a minimum."""
        ceiling = min(self.max_interval, self.initial_interval * self.multiplier ** min(attempt - 1, 32))
        return max(jitter(0.0, ceiling), retry_after or 0.0)

    def pause(self, denials: int) -> float:
        """Seconds until refused credentials are tried again: they are mended by a person, if at all."""
        return float(min(PAUSE_SECONDS * 2 ** min(denials - 1, 10), MAX_PAUSE_SECONDS))


def retry_after_seconds(header: str | None, now: float) -> float | None:
    """The seconds of a Retry-After header, in either form of RFC 9110 (10.2.3); None where there is none.

    Args:
        header: `120` or `Tue, 24 Nov 2026 10:00:00 GMT`.
        now: Unix time in seconds.
    """
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            date = parsedate_to_datetime(text)
        except (TypeError, ValueError):
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp() - now
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)

"""Rate limits of a platform, counted per credential: a token bucket for requests and one for events."""

from __future__ import annotations

import threading

from .lifecycle import still_at_fork
from .providers.base import Provider


class Pace:
    """How fast requests with one credential may go.

    Args:
        requests: Per second; None is unlimited.
        events: Per second; None is unlimited.
    """

    def __init__(self, requests: float | None, events: float | None) -> None:
        self._rates = (requests, events)
        self._free_at = [0.0, 0.0]  # when all that was sent has been worth its time
        self._lock = threading.Lock()
        still_at_fork(self._lock)

    def seconds(self, now: float) -> float:
        """How long the next request has to wait, at this time of the monotonic clock. Up to a second's worth goes at once."""
        with self._lock:
            return max(0.0, max(self._free_at) - now - 1.0)

    def take(self, now: float, events: int) -> None:
        """A request with so many events goes out now."""
        with self._lock:
            for index, amount in enumerate((1, events)):
                rate = self._rates[index]
                if rate:
                    self._free_at[index] = max(self._free_at[index], now) + amount / rate


class Paces:
    """The platforms' rate limits, shared by all providers with the same credentials."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Pace] = {}

    def of(self, provider: Provider) -> Pace | None:
        """The pace of a provider; None where its platform has no limit."""
        limits = (provider.MAX_REQUESTS_PER_SECOND, provider.MAX_EVENTS_PER_SECOND)
        if limits == (None, None):
            return None
        key = (provider.TYPE, *(getattr(provider, secret) for secret in provider.SECRETS))
        return self._known.setdefault(key, Pace(*limits))

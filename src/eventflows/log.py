"""Log lines that do not flood: the first of a kind at once, then at most one a minute with the count."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger("eventflows")


class Notices:
    """Rate-limited warnings, keyed by what they are about. A lost count under a race is only a log line's."""

    def __init__(self, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._last: dict[str, float] = {}
        self._count: dict[str, int] = {}

    def warn(self, key: str, message: str, *args: object, count: int = 1) -> None:
        """Log `message % args` with the number of times since the last such line."""
        total = self._count.get(key, 0) + count
        now = time.monotonic()
        last = self._last.get(key)
        if last is not None and now - last < self._seconds:
            self._count[key] = total
            return
        self._last[key], self._count[key] = now, 0
        logger.warning(message + " [%d]", *args, total)

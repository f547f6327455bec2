"""Log lines that do not flood: the first of a kind at once, then at most one a minute, with how many there were."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakSet


class _Careful(logging.LoggerAdapter):  # type: ignore[type-arg]  # generic at run time only since 3.11
    """A logger that never raises: a handler of the app's may, amid what is done for an event or on the app's thread."""

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        with suppress(Exception):
            super().log(level, msg, *args, **options)


logger = _Careful(logging.getLogger("eventflows"), {})
_MAX_KEYS = 1000

# Of a lane: its provider, and then as each says.
FULL = "%s: queue full (%d): {count} conversions dropped, the newest. Set sending_queue.storage, or raise queue_size"
LEFT = "%s: {count} conversions dropped at the end of shutdown. Give it more time, or set sending_queue.storage"
NOT_CONFIGURED = (
    "%s: {count} conversions in the storage are owed to this provider, which is not configured: they wait there. Configure it, "
    "or let the retention forget them"
)
RECORDED_TOO_LATE = (
    "{count} conversions were recorded after the shutdown: they are dropped, or with sending_queue.storage left for the next "
    "process"
)
UNREADABLE = "%s: the storage cannot be read (%s): conversions on disk wait there. Look at the folder and its disk"
LOCKED = "another program has %s locked: what is recorded now waits on disk, and is sent once it lets go. See which has it open"
UNWRITTEN = (
    "%s: {count} outcomes cannot be written to the storage (%s): tried again every few seconds; should the process end before, "
    "those events are sent again, under the same ids. Look at the folder and its disk"
)
_LOST: Mapping[str, str] = {
    "refused": "%s: {count} conversions refused: %s. See `eventflows dead-letters list` and `eventflows render`",
    "expired": "%s: {count} conversions expired: %s. They were recorded late, or waited too long",
    "dropped": "%s: {count} conversions dropped: %s",
}
# What is said when a lane stops sending as usual, and when it sends again: the provider, why, and how many wait.
_TROUBLES: Mapping[str, tuple[int, str]] = {
    "credentials": (
        logging.ERROR,
        "%s: credentials refused (%s): paused; %d conversions wait. Mend the token or the account's rights; "
        "`eventflows check` tests them",
    ),
    "outage": (
        logging.WARNING,
        "%s: no request succeeds (%s): trying one at a time; %d conversions wait. Look at the platform's status page and at "
        "this machine's network",
    ),
    "recovered": (logging.WARNING, "%s: requests succeed again%s; %d conversions are left to send"),
}


class Notices:
    """Rate-limited warnings, keyed by what they are about. A lost count under a race is only a log line's.

    Args:
        area: The part of the library: the last word of the logger's name (`eventflows.delivery`).
    """

    def __init__(self, area: str, seconds: float = 60.0) -> None:
        self._logger = _Careful(logging.getLogger(f"{logger.name}.{area}"), {})
        self._seconds = seconds
        self._last: dict[str, float] = {}
        self._held: dict[str, tuple[int, int, str, tuple[object, ...]]] = {}
        _all.add(self)

    def warn(self, key: str, message: str, *args: object, count: int = 1, level: int = logging.WARNING) -> None:
        """Log `message % args`, at once or, where a line of this key came less than a minute ago, later with the others.

        Args:
            message: `{count}` in it becomes how often this was since the last such line; without it, the number is added.
        """
        held = self._held.pop(key, None)
        total = count + (held[1] if held is not None else 0)
        now = time.monotonic()
        last = self._last.get(key)
        if last is not None and now - last < self._seconds:
            self._held[key] = (level, total, message, args)
        else:
            if len(self._last) >= _MAX_KEYS:
                self.tell_held(all_of_them=True)
                self._last.clear()
            self._last[key] = now
            self._log(level, total, message, args)

    def tell_held(self, *, all_of_them: bool = False) -> None:
        """Log the counts that were held back, once their minute is over."""
        now = time.monotonic()
        for key in list(self._held):
            if (all_of_them or now - self._last.get(key, 0.0) >= self._seconds) and (held := self._held.pop(key, None)):
                self._last[key] = now
                self._log(*held)

    def _log(self, level: int, total: int, message: str, args: tuple[object, ...]) -> None:
        if "{count}" in message:
            message = message.replace("{count}", str(total))
        elif total > 1:
            message += f" [{total} times]"
        self._logger.log(level, message, *args)


_all: WeakSet[Notices] = WeakSet()


def tell_held(*, all_of_them: bool = False) -> None:
    """Log what any part of the library held back, once its minute is over; at the end of the process all of it."""
    for notices in list(_all):
        notices.tell_held(all_of_them=all_of_them)


def tell_trouble(notices: Notices, kind: str, provider: str, reason: str, waiting: int) -> None:
    """A lane does not send as usual any more, or does again."""
    level, text = _TROUBLES[kind]
    notices.warn(kind, text, provider, reason, waiting, level=level)


def tell_lost(notices: Notices, provider: str, status: str, reason: str, count: int) -> None:
    """So many have their outcome; it may be a bad one."""
    if count and status in _LOST:
        notices.warn(f"{status} {reason}", _LOST[status], provider, reason, count=count)

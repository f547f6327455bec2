"""What names of attributes and events decide, found out once: the events of an app have few different sets of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Decided = TypeVar("_Decided")

_MAX_KEPT = 1024
_MAX_NAMES = 128  # as many as OpenTelemetry keeps of a record


class ByName(dict[Any, _Decided]):
    """Name of an attribute or an event, or the tuple of the names of all of an event's attributes, → what follows from it.

    What is kept holds names alone, and none that hold an e-mail address.

    Args:
        decide: Finds it out.
    """

    def __init__(self, decide: Callable[[Any], _Decided]) -> None:
        super().__init__()
        self._decide = decide

    def __missing__(self, key: Any) -> _Decided:
        found = self._decide(key)
        names = key if type(key) is tuple else (key,)
        if len(names) <= _MAX_NAMES and all(
            type(name) is str and "@" not in name and "%40" not in name for name in names
        ):
            if len(self) >= _MAX_KEPT:
                self.clear()
            self[key] = found
        return found

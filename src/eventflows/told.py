"""What was told of a visitor: taken when it was there to see, and read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .conversion import NOTHING
from .log import Notices

_notices = Notices("visitor")


class Told:
    """Semantic attributes with clean values, read once, on the thread that asks first.

    Args:
        read: Gives them. Where it fails, nothing was told.
        taken: Its arguments; nothing that changes meanwhile.
    """

    __slots__ = ("_attributes", "_unread")

    def __init__(self, read: Callable[..., Mapping[str, Any]], *taken: Any) -> None:
        self._unread: tuple[Callable[..., Mapping[str, Any]], tuple[Any, ...]] | None = (read, taken)
        self._attributes: Mapping[str, Any] = NOTHING

    @staticmethod
    def of(attributes: Mapping[str, Any]) -> Told:
        """What has been read already."""
        told = Told(dict)
        told._unread, told._attributes = None, attributes
        return told

    def and_more(self, more: Mapping[str, Any]) -> Told:
        """This, and what was told later, which goes before it. One step to read, however often something is told."""
        if (unread := self._unread) is None:
            return Told.of({**self._attributes, **more})
        read, taken = unread
        before, earlier = taken if read is _both else (self, NOTHING)
        return Told(_both, before, {**earlier, **more})

    @property
    def attributes(self) -> Mapping[str, Any]:
        if (unread := self._unread) is not None:
            read, taken = unread
            try:
                self._attributes = read(*taken)
            except Exception as problem:  # noqa: BLE001 reason: a request may hold anything, and the app must not suffer
                _notices.warn(
                    "visitor", "{count} requests could not be read for their visitor (%s)", type(problem).__name__
                )
            self._unread = None  # after the attributes, as another thread goes by it
        return self._attributes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Told) and self.attributes == other.attributes

    __hash__ = None  # type: ignore[assignment]  # as of the attributes


def _both(before: Told, more: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**before.attributes, **more}


NOTHING_TOLD = Told.of(NOTHING)

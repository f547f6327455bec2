"""Doing one thing for each provider side by side. Ctrl-C waits for none of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def for_each(things: Sequence[_T], do: Callable[[_T], _R]) -> Iterator[_R]:
    """The results, in the order of the things. An exception of one is raised in its place."""
    queues: list[SimpleQueue[tuple[_R | None, BaseException | None]]] = []
    for thing in things:
        queue: SimpleQueue[tuple[_R | None, BaseException | None]] = SimpleQueue()
        queues.append(queue)
        threading.Thread(target=_run, args=(thing, do, queue), daemon=True).start()
    for queue in queues:
        result, problem = queue.get()
        if problem is not None:
            raise problem
        yield result  # type: ignore[misc]


def _run(thing: _T, do: Callable[[_T], _R], queue: SimpleQueue[tuple[_R | None, BaseException | None]]) -> None:
    try:
        queue.put((do(thing), None))
    except BaseException as problem:  # noqa: BLE001 reason: it is raised where it is waited for
        queue.put((None, problem))

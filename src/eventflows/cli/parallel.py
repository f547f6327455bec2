"""Doing one thing for each provider side by side. Ctrl-C waits for none of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def for_each(things: Sequence[_T], do: Callable[[_T], _R]) -> Iterator[_R]:
    """The results, in the order of the things. An exception of one is raised in its place."""
    done: list[Future[_R]] = [Future() for _ in things]
    for thing, future in zip(things, done, strict=True):
        threading.Thread(target=_run, args=(thing, do, future), daemon=True).start()
    for future in done:
        yield future.result()


def _run(thing: _T, do: Callable[[_T], _R], future: Future[_R]) -> None:
    try:
        future.set_result(do(thing))
    except BaseException as problem:  # noqa: BLE001 reason: it is raised where it is waited for
        future.set_exception(problem)

"""What the end of the process and a fork mean for an object that nobody may hold any more."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def watch(subject: T, at_exit: Callable[[T], object], in_forked_child: Callable[[T], object]) -> None:
    """Call these with the subject when the time comes, without keeping it alive until then."""
    reference = weakref.ref(subject)

    def call(do: Callable[[T], object]) -> None:
        if (living := reference()) is not None:
            do(living)

    atexit.register(call, at_exit)
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=lambda: call(in_forked_child))

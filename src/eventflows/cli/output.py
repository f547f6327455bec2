"""What the commands print: tables that fit the terminal, JSON, colours and progress where somebody is looking."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, TextIO, TypeVar

_T = TypeVar("_T")
_BOLD, _RED, _GREEN, _YELLOW, _END = "\033[1m", "\033[31m", "\033[32m", "\033[33m", "\033[0m"
_COLOURS = {
    **dict.fromkeys(("delivered", "ready", "good"), _GREEN),
    **dict.fromkeys(("refused", "expired", "dropped", "never recorded", "wrong", "not sent", "warning"), _RED),
    **dict.fromkeys(("filtered", "pending", "untested", "unproven", "no answer", "note"), _YELLOW),
}
_NARROWEST = 12
_READABLE = 24


def is_coloured(stream: TextIO | None = None) -> bool:
    """Whether to write colours there: on a terminal, and where `NO_COLOR` (https://no-color.org) is not set."""
    return (stream or sys.stdout).isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, word: str | None = None) -> str:
    """The text in the colour of a word, by default its own, where colours are wanted."""
    colour = _COLOURS.get(word or text)
    return f"{colour}{text}{_END}" if colour and is_coloured() else text


def print_json(found: Any) -> None:
    print(json.dumps(found, ensure_ascii=False, indent=2))


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], empty: str = "") -> None:
    """A table. On a terminal it fits: the last column goes on in the next line, and where that is not enough others are cut.

    Elsewhere each row is one line, and whole.
    """
    listed = [head, *([_one_line(cell) for cell in row] for row in rows)]
    if len(listed) == 1:
        print(empty)
        return
    widths = [max(len(row[column]) for row in listed) for column in range(len(head))]
    if sys.stdout.isatty():
        _fit(widths, [len(name) for name in head], shutil.get_terminal_size().columns - 2 * (len(head) - 1))
    for number, row in enumerate(listed):
        first = [_cut(cell, width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        last, *more = textwrap.wrap(row[-1], widths[-1]) or [""]
        padded = [cell.ljust(width) for cell, width in zip(first, widths[:-1], strict=True)]
        if number == 0:
            line = "  ".join([*padded, last]).rstrip()
            print(f"{_BOLD}{line}{_END}" if is_coloured() else line)
        else:
            shown = [
                one.replace(cell, coloured(cell), 1) if cell else one for one, cell in zip(padded, first, strict=True)
            ]
            print("  ".join([*shown, coloured(last)]).rstrip())
        for line in more:
            print(" " * (sum(widths[:-1]) + 2 * len(widths[:-1])) + line)


def _one_line(cell: str) -> str:
    return " ".join(cell.split())


def _fit(widths: list[int], least: Sequence[int], room: int) -> None:
    """Make columns narrower: the last one first, then always the widest."""
    widths[-1] = max(_READABLE, least[-1], min(widths[-1], room - sum(widths[:-1])))
    while sum(widths) > room:
        widest = max(range(len(widths) - 1), key=lambda column: widths[column], default=-1)
        if widest < 0 or widths[widest] <= max(least[widest], _NARROWEST):
            return
        widths[widest] -= min(sum(widths) - room, widths[widest] - max(least[widest], _NARROWEST))


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else f"{cell[: width - 1]}…"


def as_time(unix_nano: int) -> str:
    return datetime.fromtimestamp(unix_nano / 1e9, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def progress(things: Iterable[_T], what: str, total: int | None = None) -> Iterator[_T]:
    """The things, with a line on the standard error that counts them, where that is a terminal and it takes a while."""
    if not sys.stderr.isatty():
        yield from things
        return
    began = told = time.monotonic()
    count = 0
    try:
        for thing in things:
            yield thing
            count += 1
            now = time.monotonic()
            if now - began > 0.5 and now - told > 0.1:
                told = now
                print(f"\r{_bar(count, total)} {what}\033[K", end="", file=sys.stderr, flush=True)
    finally:
        if told != began:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _bar(count: int, total: int | None, width: int = 24) -> str:
    if not total:
        return f"{count:,}"
    done = min(width, width * count // total)
    return f"[{'#' * done}{'.' * (width - done)}] {count:,} of {total:,}"


def confirmed(question: str, *, yes: bool, refuse: Callable[[str], Exception]) -> bool:
    """Whether the person at the terminal says yes; without one, `yes` must have been given.

    Raises:
        What `refuse` makes: There is nobody to ask.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise refuse("--yes: needed where nobody can be asked")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")

"""Checking single settings: the clean value, or one clear error that names the setting and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigurationError, Problem

_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SHOWN = 60


class Problems:
    """What was found so far, so that a user hears of all problems at once.

    Attributes:
        found: In the order in which they were found.
    """

    def __init__(self) -> None:
        self.found: list[Problem] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Keep the error of what is inside, and go on behind it."""
        try:
            yield
        except ConfigurationError as error:
            self.found.extend(error.problems)

    def add(self, path: str, message: str) -> None:
        self.found.append(Problem(path, message))

    def raise_any(self) -> None:
        """
        Raises:
            ConfigurationError: Something was found.
        """
        if self.found:
            raise ConfigurationError(problems=dict.fromkeys(self.found))


class Seconds(float):
    """A duration that is in seconds already: in the settings themselves a bare number is milliseconds."""

    __slots__ = ()


def wrong(path: str, message: str) -> ConfigurationError:
    """The error that a setting's value is not what it must be."""
    return ConfigurationError(message, path=path)


def below(path: str, key: object) -> str:
    """The path of a setting below another one."""
    return f"{path}.{key}" if path else str(key)


def shown(value: object) -> str:
    """A value in an error's text, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 reason: an object of the app, such as one in recursion
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def one_of(path: str, value: object, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise wrong(path, f"{shown(value)} is not one of {', '.join(allowed)}")
    return value


def boolean(path: str, value: object) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):  # a file's ${VAR} is a text
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise wrong(path, f"{shown(value)} must be true or false")
    return value


def mapping(
    path: str, given: object, allowed: Sequence[str] | None = None, inner: Mapping[str, str] | None = None
) -> Mapping[str, Any]:
    """A section of the configuration; with `allowed`, one whose keys are all known.

    Args:
        inner: Keys of the sections within it → the path of each, for who forgets the section.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise wrong(path, f"must be a mapping, not {type(given).__name__}")
    problems = Problems()
    for name in given:
        if allowed is not None and name not in allowed:
            problems.found.append(unknown_key(path, name, allowed, inner))
    problems.raise_any()
    return given


def texts(path: str, value: object) -> tuple[str, ...]:
    """A list of strings; also one string with commas, as in the environment."""
    listed = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(listed, (Sequence, set, frozenset)) or not all(isinstance(one, str) and one for one in listed):
        raise wrong(path, "must be a list of strings")
    return tuple(listed)


def text(path: str, value: object) -> str:
    """A string that is not blank; a whole number is one as well, since ids are often written so."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**40:
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise wrong(path, f"{shown(value)} must be a non-empty string")
    return value.strip()


def number(
    path: str, value: object, least: float | None = None, most: float | None = None, *, whole: bool = False
) -> float:
    """A number within its limits."""
    allowed = "a whole number" if whole else "a number"
    if least is not None and most is not None:
        allowed += f" from {least:g} to {most:g}"
    elif least is not None:
        allowed += f" of at least {least:g}"
    found = value
    if isinstance(value, str):
        try:
            found = float(value) if not whole else int(value)
        except ValueError:
            found = None
    if (
        not isinstance(found, (int, float))
        or isinstance(found, bool)
        or not abs(found) <= 1e15  # nor NaN
        or (least is not None and found < least)
        or (most is not None and found > most)
        or (whole and found != int(found))
    ):
        raise wrong(path, f"{shown(value)} must be {allowed}")
    return found


def seconds(path: str, value: object, *, zero: bool = False) -> Seconds:
    """A duration in seconds: an integer is milliseconds, a string carries its unit.

    Args:
        zero: Whether 0 is allowed, which then means "without limit".
    """
    if isinstance(value, Seconds):
        return value
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) <= 15:
        value = int(value)
    found: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1e15:
        found = value / 1000
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        found = float(match[1]) * _UNITS[match[2]]
    if found is None or (found == 0 and not zero):
        raise wrong(path, f"{shown(value)} is not a duration: use milliseconds (5000) or a unit (5s, 15m)")
    return Seconds(found)


def url(path: str, value: object) -> str:
    """A URL with scheme and host, without a slash at its end."""
    if not isinstance(value, str) or not re.match(r"https?://[^\s/?#]", value):
        raise wrong(path, f"{shown(value)} must be a URL that starts with http:// or https://")
    try:
        parts = urlsplit(value.strip())
        has_server = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_server = False
    if not has_server:
        raise wrong(path, f"{shown(value)} must be a URL with a host, and with a port from 1 to 65535 or none")
    return value.strip().rstrip("/")


def unknown_key(path: str, key: object, known: Sequence[str], inner: Mapping[str, str] | None = None) -> Problem:
    """The problem that a section has no such key; `inner` as for `mapping`."""
    near = [inner[str(key)]] if inner and str(key) in inner else get_close_matches(str(key)[:100], known, 1)
    hint = f", did you mean {below(path, near[0])}?" if near else "."
    return Problem(below(path, str(key)[:100]), f"no such setting{hint} Allowed: {', '.join(known)}")

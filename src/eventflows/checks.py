"""Checking single settings: the clean value, or one clear error that names the key and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from .errors import ConfigurationError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def one_of(key: str, value: object, allowed: Sequence[str], default: str) -> str:
    if value is None:
        return default
    if value not in allowed:
        raise ConfigurationError(f"{key}: {value!r} is not one of {', '.join(allowed)}")
    return str(value)


def boolean(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{key}: {value!r} must be true or false")
    return value


def mapping(key: str, given: object, allowed: Sequence[str] | None = None) -> Mapping[str, Any]:
    """A section of the configuration; with `allowed`, one whose keys are all known."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{key}: must be a mapping")
    for name in given:
        if allowed is not None and name not in allowed:
            raise ConfigurationError(unknown_key(f"{key}.{name}", [f"{key}.{one}" for one in allowed]))
    return given


def booleans(key: str, given: object, kind: type[Any]) -> dict[str, bool]:
    section = mapping(key, given, [f.name for f in fields(kind)])
    return {name: boolean(f"{key}.{name}", value) for name, value in section.items()}


def texts(key: str, value: object) -> tuple[str, ...]:
    """A list of strings; in the environment one string with commas."""
    listed = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(listed, Sequence) or not all(isinstance(one, str) and one for one in listed):
        raise ConfigurationError(f"{key}: must be a list of strings")
    return tuple(listed)


def seconds(key: str, value: object) -> float:
    """A duration in seconds: an integer is milliseconds, a string carries its unit."""
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return value / 1000
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or float(match[1]) == 0:
        raise ConfigurationError(f"{key}: {value!r} is not a duration: use milliseconds (5000) or a unit (5s, 15m)")
    return float(match[1]) * _UNITS[match[2]]


def unknown_key(key: str, known: Sequence[str]) -> str:
    near = get_close_matches(key, known, 1)
    return f"{key}: no such setting{f', did you mean {near[0]}?' if near else ''} Allowed: {', '.join(known)}"

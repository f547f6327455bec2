"""What the server and the platforms tell each other: a request, an answer, and the registry entry of a platform."""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .store import Credentials

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR
# Clocks differ a little; no platform documents how much it tolerates, five minutes is what implementations assume.
FUTURE = 5 * MINUTE


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request to a platform.

    Attributes:
        path: The path below the platform's prefix: "/v26.0/123/events" of "/meta/v26.0/123/events".
        query: The query's parameters; of a repeated one the first.
        headers: With lower-case names.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def bearer(self) -> str:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a platform answers, and what became of the events.

    Attributes:
        body: A JSON object, a text, or None for an empty body.
        accepted: The events that the platform took, in the order of the request.
        refused: Pairs of an event (None where the request as a whole had no readable one) and a reason.
        envelope: What the request said about all of its events, without the events and without secrets.
    """

    status: int
    body: Mapping[str, Any] | str | None
    account: str = ""
    accepted: tuple[Any, ...] = ()
    refused: tuple[tuple[Any, str], ...] = ()
    envelope: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform's stand-in. A new one is one module with a `PLATFORM`, listed in `server.PLATFORMS`.

    Attributes:
        name: The provider's name and the first part of the path.
        title: For people.
        paths: The paths it answers, for the start message.
        answer: (request, credentials, now in unix seconds) → answer; it touches nothing else.
    """

    name: str
    title: str
    paths: tuple[str, ...]
    answer: Callable[[Request, Credentials, float], Answer]


def not_found(request: Request) -> Answer:
    return Answer(404, {"error": f"The sandbox has nothing at {request.method} {request.path}"})


def whole(events: Any, reason: str) -> tuple[tuple[Any, str], ...]:
    """The refusal of a request as a whole: every readable event has the same reason."""
    listed = events if isinstance(events, list) and events else [None]
    return tuple((event, reason) for event in listed)


def one_refused(events: list[Any], index: int, reason: str) -> tuple[tuple[Any, str], ...]:
    """The refusal of a batch in which one event is the culprit."""
    return ((events[index], reason),)


def without(body: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in keys}


def load_json(text: str | bytes) -> Any:
    """Parses strict JSON: NaN, and numbers that fit no decoder, are errors although Python would take them.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, parse_int=_int64, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _int64(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError("an integer does not fit in 64 bits")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


def is_ip(text: Any) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return isinstance(text, str) and "%" not in text


def has_any(mapping: Any, keys: Iterable[str]) -> bool:
    return isinstance(mapping, Mapping) and any(mapping.get(key) for key in keys)


def is_int(value: Any) -> bool:
    """Whether it is written as an integer; JSON Schema would let 1.0 pass, a strict decoder of integers does not."""
    return isinstance(value, int) and not isinstance(value, bool)

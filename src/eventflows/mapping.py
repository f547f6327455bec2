"""From conversions to what is sent: check a conversion's age, encode it with the provider, and write it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, cast

from . import payload
from .conversion import Conversion
from .providers.base import DAY_NS, Provider, Unencodable
from .selection import Rename

MAX_CLOCK_STEP_NS = DAY_NS
"""An event with our own time that is ahead by no more was recorded before the clock was set back; it is sent as of now."""


class NotSent(NamedTuple):
    """A conversion that needs no request: its outcome is known already."""

    status: str  # "filtered", "refused" or "expired"
    reason: str


class Written(NamedTuple):
    """An encoded event as it is kept until it is settled: its bytes, which take a third of the room of its object."""

    content: bytes
    envelope: Mapping[str, Any]
    repeatable: bool
    common: Mapping[str, Any]


def encode(provider: Provider, conversion: Conversion, now: int) -> Written | NotSent:
    """One conversion as the platform wants it at this moment.

    Args:
        now: Unix time in nanoseconds.
    """
    if (late := expired(provider, conversion, now)) is not None:
        return late
    ahead = conversion.time_unix_nano - now
    if ahead > 0:
        limit = MAX_CLOCK_STEP_NS if conversion.timed_here else provider.MAX_AHEAD_NS
        if provider.MAX_AHEAD_NS is not None and limit is not None and ahead > limit:
            return NotSent("refused", "from the future: its timestamp must be in nanoseconds since 1970")
        conversion = conversion._replace(time_unix_nano=now)
    try:
        if provider.rename is not None:
            conversion = cast("Rename", provider.rename).apply(conversion)
        event, envelope, repeatable, common = provider.encode(conversion)
        if provider.extra is not None:
            event = merged(event, provider.extra)
        return Written(payload.encode(event), envelope, repeatable, common)
    except Unencodable as problem:
        return NotSent("filtered" if problem.filtered else "refused", problem.reason)
    except Exception as problem:  # noqa: BLE001 reason: one event's mapping must not cost its neighbours
        return NotSent("refused", f"not encodable ({type(problem).__name__})")


def expired(provider: Provider, conversion: Conversion, now: int) -> NotSent | None:
    """The outcome of a conversion that is older than the platform accepts; None where it may go."""
    limit = provider.max_age_ns(conversion)
    if limit is None or now - conversion.time_unix_nano <= limit:
        return None
    return NotSent("expired", f"too old: {provider.TYPE} takes events of the last {_span(limit)}")


def count_match_keys(conversions: Iterable[Conversion], wanted: frozenset[str]) -> Counter[str]:
    """What the platform could match the persons by, of what the provider `wanted`: the names that `base.MATCH_KEYS` lists."""
    found: Counter[str] = Counter()
    for known, count in Counter(map(_known, conversions)).items():
        for name in _match_keys(known):
            if name in wanted:
                found[name] += count
    return found


_PLACE_AND_DEVICE = (
    "client_address", "user_agent", "city", "region", "postal_code", "country", "advertising_id", "app_instance_id",
)  # fmt: skip
_Known = tuple[tuple[str, ...], tuple[str, ...], tuple[bool, ...]]


def _known(conversion: Conversion) -> _Known:
    """What is known of the person, without its values: there are few such combinations, and many conversions."""
    user, request, device = conversion.user, conversion.request, conversion.device
    others = (
        request.client_address is not None, request.user_agent is not None, user.city is not None,
        user.region is not None, user.postal_code is not None, user.country is not None,
        device.advertising_id is not None, device.app_instance_id is not None,
    )  # fmt: skip
    return tuple(user.sealed), tuple(conversion.clicks), others


@lru_cache(maxsize=256)
def _match_keys(known: _Known) -> frozenset[str]:
    forms, clicks, others = known
    named = {name.partition(".")[0] for name in (*forms, *clicks)}
    return frozenset(named.union(name for name, there in zip(_PLACE_AND_DEVICE, others, strict=True) if there))


def _span(nanoseconds: int) -> str:
    days = nanoseconds // DAY_NS
    return f"{days} days" if days > 3 else f"{days * 24} hours"


def merged(event: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`extra` deep-merged into the event; where both have a value, `extra` wins."""
    result = dict(event)
    for key, value in extra.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return result

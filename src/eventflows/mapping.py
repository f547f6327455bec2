"""From a conversion to its entry on a provider's lane: check its age, encode it with the provider, and write it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast

from . import payload
from .consent import Choices, choices_of
from .conversion import NOTHING, Conversion
from .journal import Journal
from .model import LaneSettings
from .providers.base import DAY_NS, Provider, Unencodable
from .selection import Rename

_T = TypeVar("_T")
MAX_CLOCK_STEP_NS = DAY_NS
"""An event with our own time that is ahead by no more was recorded before the clock was set back; it is sent as of now."""


class NotSent(NamedTuple):
    """A conversion that needs no request: its outcome is known already."""

    status: str  # "filtered", "refused" or "expired"
    reason: str


Known = tuple[tuple[str, ...], tuple[str, ...], tuple[bool, ...]]
"""What is known of a person, without any values."""


class Source(NamedTuple):
    """What has to be known of a conversion until all its entries are settled; the conversion itself takes three times the room.

    Attributes:
        kind: The conversion's type.
        journal: The journal that holds the conversion; None where it is in memory only.
        seq: Its number there.
        origin: Trace id and span id of the span that it was recorded in.
        known: What its person could be matched by.
        choices: What rules of consent go by.
    """

    kind: str
    time_unix_nano: int
    journal: Journal | None = None
    seq: int = 0
    origin: tuple[int, int] | None = None
    known: Known = ((), (), ())
    choices: Choices = Choices()


def source_of(conversion: Conversion, journal: Journal | None = None, seq: int = 0) -> Source:
    """The arguments are attributes of `Source`."""
    return Source(
        conversion.type._value_, conversion.time_unix_nano, journal, seq, conversion.origin,
        _shared(_known(conversion)), _shared(choices_of(conversion)),
    )  # fmt: skip


_shared: Callable[[_T], _T] = lru_cache(maxsize=4096)(lambda value: value)
"""The same object for the same value: there are few, and many conversions."""


class Entry(NamedTuple):
    """A conversion on a provider's lane: its event as the platform wants it.

    Attributes:
        content: The event in JSON; empty where it was not written, since it is not sent or there was no room for it.
        envelope, repeatable, common: See `providers.base.Encoded`.
        max_age_ns: How old the platform lets it become.
        by: The settings that it was written by.
    """

    source: Source
    content: bytes = b""
    envelope: Mapping[str, Any] = NOTHING
    repeatable: bool = True
    common: Mapping[str, Any] = NOTHING
    max_age_ns: int | None = None
    by: LaneSettings | None = None


def encode(
    provider: Provider, conversion: Conversion, now: int, source: Source | None = None, by: LaneSettings | None = None
) -> Entry | NotSent:
    """One conversion as the platform wants it at this moment.

    Args:
        now: Unix time in nanoseconds.
        source: Where it is known already.
        by: See `Entry`.
    """
    limit, ahead = provider.max_age_ns(conversion), conversion.time_unix_nano - now
    if limit is not None and -ahead > limit:
        return too_old(provider, limit)
    if ahead > 0:
        most = MAX_CLOCK_STEP_NS if conversion.timed_here else provider.MAX_AHEAD_NS
        if provider.MAX_AHEAD_NS is not None and most is not None and ahead > most:
            return NotSent("refused", "from the future: its timestamp must be in nanoseconds since 1970")
        conversion = conversion._replace(time_unix_nano=now)
    try:
        if provider.rename is not None:
            conversion = cast("Rename", provider.rename).apply(conversion)
        event, envelope, repeatable, common = provider.encode(conversion)
        if provider.extra is not None:
            event = merged(event, provider.extra)
        content = payload.encode(event)
    except Unencodable as problem:
        return NotSent("filtered" if problem.filtered else "refused", problem.reason)
    except Exception as problem:  # noqa: BLE001 reason: one event's mapping must not cost its neighbours
        return NotSent("refused", f"not encodable ({type(problem).__name__})")
    return Entry(source or source_of(conversion), content, envelope, repeatable, common, limit, by)


def too_old(provider: Provider, limit: int) -> NotSent:
    """The outcome of what is older than the platform's limit in nanoseconds."""
    return NotSent("expired", f"too old: {provider.TYPE} takes events of the last {_span(limit)}")


_PLACE_AND_DEVICE = (
    "client_address", "user_agent", "city", "region", "postal_code", "country", "advertising_id", "app_instance_id",
)  # fmt: skip


def _known(conversion: Conversion) -> Known:
    user, request, device = conversion.user, conversion.request, conversion.device
    others = (
        request.client_address is not None, request.user_agent is not None, user.city is not None,
        user.region is not None, user.postal_code is not None, user.country is not None,
        device.advertising_id is not None, device.app_instance_id is not None,
    )  # fmt: skip
    return tuple(user.sealed), tuple(conversion.clicks), others


def count_match_keys(persons: Iterable[Known], wanted: frozenset[str]) -> Counter[str]:
    """What the platform could match the persons by, of what the provider `wanted`: the names that `base.MATCH_KEYS` lists."""
    found: Counter[str] = Counter()
    for person, count in Counter(persons).items():
        for name in _match_keys(person):
            if name in wanted:
                found[name] += count
    return found


@lru_cache(maxsize=256)
def _match_keys(person: Known) -> frozenset[str]:
    forms, clicks, others = person
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

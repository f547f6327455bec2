"""From a conversion to its entry on a provider's lane: check its age, encode it with the provider, and write it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from . import payload
from .consent import Choices
from .conversion import NOTHING, Conversion
from .journal import Journal
from .model import LaneSettings
from .providers.base import DAY_NS, Encoded, Provider, Unencodable
from .selection import Rename

MAX_CLOCK_STEP_NS = DAY_NS
"""An event with our own time that is ahead by no more was recorded before the clock was set back; it is sent as of now."""


class NotSent(NamedTuple):
    """A conversion that needs no request: its outcome is known already."""

    status: str  # "filtered", "refused", "expired" or "dropped"
    reason: str


def internal_error(problem: BaseException) -> NotSent:
    """The outcome of what nobody foresaw. The problem's text may hold values of the event."""
    return NotSent("dropped", f"internal error ({type(problem).__name__})")


class Traits(NamedTuple):
    """What is told of a person without any identifier. There are few such combinations, and many conversions.

    Attributes:
        match_keys: What the person could be matched by: names that `base.MATCH_KEYS` lists.
        choices: What rules of consent go by.
    """

    match_keys: frozenset[str] = frozenset()
    choices: Choices = Choices()


class Source(NamedTuple):
    """What has to be known of a conversion until all its entries are settled; the conversion itself takes three times the room.

    Attributes:
        kind: The conversion's type.
        journal: The journal that holds the conversion; None where it is in memory only.
        seq: Its number there.
        origin: Trace id and span id of the span that it was recorded in.
    """

    kind: str
    time_unix_nano: int
    journal: Journal | None = None
    seq: int = 0
    origin: tuple[int, int] | None = None
    traits: Traits = Traits()


def source_of(conversion: Conversion, journal: Journal | None = None, seq: int = 0) -> Source:
    """The arguments are attributes of `Source`."""
    user, request, device = conversion.user, conversion.request, conversion.device
    traits = _traits(
        tuple(user.sealed), tuple(conversion.clicks), request.client_address is None, request.user_agent is None,
        user.city is None, user.postal_code is None, device.advertising_id is None, device.app_instance_id is None,
        conversion.consent, conversion.limited_data_use, user.country, user.region, request.global_privacy_control,
    )  # fmt: skip
    kept = (conversion.type._value_, conversion.time_unix_nano, journal, seq, conversion.origin, traits)
    return tuple.__new__(Source, kept)  # half the time of a call


_PLACE_AND_DEVICE = ("client_address", "user_agent", "city", "postal_code", "advertising_id", "app_instance_id")


@lru_cache(maxsize=4096)
def _traits(forms: tuple[str, ...], clicks: tuple[str, ...], *others: Any) -> Traits:
    absent, chosen = others[: len(_PLACE_AND_DEVICE)], Choices(*others[len(_PLACE_AND_DEVICE) :])
    names = {name.partition(".")[0] for name in (*forms, *clicks)}
    names.update(name for name, is_absent in zip(_PLACE_AND_DEVICE, absent, strict=True) if not is_absent)
    places = {"country": chosen.country, "region": chosen.region}
    names.update(name for name, place in places.items() if place is not None)
    return Traits(frozenset(names), chosen)


class Entry(NamedTuple):
    """A conversion on a provider's lane: its event as the platform wants it.

    Attributes:
        content: The event in JSON.
        envelope, repeatable, common: See `providers.base.Encoded`.
        max_age_ns: How old the platform lets it become.
        by: The settings that it was written by.
    """

    source: Source
    content: bytes
    envelope: Mapping[str, Any] = NOTHING
    repeatable: bool = True
    common: Mapping[str, Any] = NOTHING
    max_age_ns: int | None = None
    by: LaneSettings | None = None


Mapped = tuple[Encoded, int | None]
"""A conversion as the platform wants it, and how old the platform lets it become."""


def mapped(provider: Provider, conversion: Conversion, now: int) -> Mapped | NotSent:
    """One conversion as the platform wants it at this moment, not written yet.

    Args:
        now: Unix time in nanoseconds.
    """
    try:
        limit, ahead = provider.max_age_ns(conversion), conversion.time_unix_nano - now
        if limit is not None and -ahead > limit:
            return too_old(provider, limit)
        if ahead > 0:
            most = MAX_CLOCK_STEP_NS if conversion.timed_here else provider.MAX_AHEAD_NS
            if provider.MAX_AHEAD_NS is not None and most is not None and ahead > most:
                return NotSent("refused", "from the future: its timestamp must be in nanoseconds since 1970")
            conversion = conversion._replace(time_unix_nano=now)
        if provider.rename is not None:
            conversion = cast("Rename", provider.rename).apply(conversion)
        encoded = provider.encode(conversion)
        if provider.extra is not None:
            encoded = encoded._replace(event=merged(encoded.event, provider.extra))
    except Unencodable as problem:
        return NotSent("filtered" if problem.filtered else "refused", problem.reason)
    except Exception as problem:  # noqa: BLE001 reason: one event's mapping must not cost its neighbours
        return _not_encodable(problem)
    return encoded, limit


def written(found: Mapped, source: Source, by: LaneSettings | None = None) -> Entry | NotSent:
    """What `mapped` found, in bytes. The other arguments are attributes of `Entry`."""
    try:
        (event, envelope, repeatable, common), limit = found
        content = payload.encode(event)
    except Exception as problem:  # noqa: BLE001 reason: as above
        return _not_encodable(problem)
    return tuple.__new__(Entry, (source, content, envelope, repeatable, common, limit, by))  # half the time of a call


def encode(provider: Provider, conversion: Conversion, now: int, source: Source | None = None) -> Entry | NotSent:
    """One conversion as the platform wants it at this moment, in bytes.

    Args:
        now: Unix time in nanoseconds.
        source: Where it is known already.
    """
    found = mapped(provider, conversion, now)
    return found if isinstance(found, NotSent) else written(found, source or source_of(conversion))


def _not_encodable(problem: Exception) -> NotSent:
    return NotSent("refused", f"not encodable ({type(problem).__name__})")


class Sorted(NamedTuple):
    """What was written for a provider, by what is done with it next.

    Attributes:
        admitted: To be queued.
        not_sent: Outcome → those that have it.
        no_room: Those that there is no room for.
    """

    admitted: list[Entry]
    not_sent: dict[NotSent, list[Source]]
    no_room: list[Source]


def sort(sources: Sequence[Source], written: Sequence[Entry | NotSent | None], room: int) -> Sorted:
    """Sort what was written.

    Args:
        sources: What each is of.
        written: Entries or outcomes; None where there was no room when it was written.
        room: How many may be admitted.
    """
    found = Sorted([], {}, [])
    for source, result in zip(sources, written, strict=True):
        if isinstance(result, NotSent):
            found.not_sent.setdefault(result, []).append(source)
        elif result is not None and len(found.admitted) < room:
            found.admitted.append(result)
        else:
            found.no_room.append(source)
    return found


def too_old(provider: Provider, limit: int) -> NotSent:
    """The outcome of what is older than the platform's limit in nanoseconds."""
    return NotSent("expired", f"too old: {provider.TYPE} takes events of the last {_span(limit)}")


def count_match_keys(traits: Iterable[Traits], wanted: frozenset[str]) -> Counter[str]:
    """What the platform could match the persons by, of what the provider `wanted`."""
    found: Counter[str] = Counter()
    for names, count in Counter(one.match_keys for one in traits).items():
        for name in names & wanted:
            found[name] += count
    return found


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

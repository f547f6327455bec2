"""From conversions to requests: encode each with the provider, check its age, group, and cut to size. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .conversion import Conversion
from .providers.base import DAY_NS, Encoded, Provider, Unencodable
from .transport import encode_body

MAX_CLOCK_STEP_NS = DAY_NS
"""An event with our own time that is ahead by no more was recorded before the clock was set back; it is sent as of now."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """A conversion that needs no request: its outcome is known already."""

    status: str  # "filtered", "refused" or "expired"
    reason: str


def encode(provider: Provider, conversion: Conversion, now: int) -> Encoded | NotSent:
    """One conversion as the platform wants it at this moment.

    Args:
        now: Unix time in nanoseconds.
    """
    age = now - conversion.time_unix_nano
    limit = provider.max_age_ns(conversion)
    if limit is not None and age > limit:
        return NotSent("expired", f"too old: {provider.TYPE} takes events of the last {_span(limit)}")
    if age < 0:
        limit = MAX_CLOCK_STEP_NS if conversion.timed_here else provider.MAX_AHEAD_NS
        if provider.MAX_AHEAD_NS is not None and limit is not None and -age > limit:
            return NotSent("refused", "from the future: its timestamp must be in nanoseconds since 1970")
        conversion = replace(conversion, time_unix_nano=now)
    try:
        encoded = provider.encode(conversion)
        if provider.extra is not None:
            encoded = replace(encoded, event=merged(encoded.event, provider.extra))
        encode_body(encoded.event)
    except Unencodable as problem:
        return NotSent("filtered" if problem.filtered else "refused", problem.reason)
    except Exception as problem:  # noqa: BLE001 reason: one event's mapping must not cost its neighbours
        return NotSent("refused", f"not encodable ({type(problem).__name__})")
    return encoded


def match_keys(conversion: Conversion, wanted: frozenset[str]) -> list[str]:
    """What the platform could match the person by, of what the provider `wanted`: the names that `base.MATCH_KEYS` lists."""
    user, request, device = conversion.user, conversion.request, conversion.device
    found = dict.fromkeys(form.partition(".")[0] for form in user.sealed)
    found.update(dict.fromkeys(click.partition(".")[0] for click in conversion.clicks))
    for name, value in (
        ("client_address", request.client_address),
        ("user_agent", request.user_agent),
        ("city", user.city),
        ("region", user.region),
        ("postal_code", user.postal_code),
        ("country", user.country),
        ("advertising_id", device.advertising_id),
        ("app_instance_id", device.app_instance_id),
    ):
        if value:
            found[name] = None
    return [name for name in found if name in wanted]


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


def batches(provider: Provider, encoded: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Group by what the platform wants once per request, and cut each group to the provider's limits."""
    groups: dict[str, list[Encoded]] = {}
    for one in encoded:
        key = json.dumps(one.envelope, sort_keys=True, default=str) if one.envelope else ""
        groups.setdefault(key, []).append(one)
    for group in groups.values():
        size = 0
        batch: list[Encoded] = []
        for one in group:
            length = len(encode_body(one.event)) + 1
            if batch and (len(batch) >= provider.MAX_BATCH or size + length > provider.MAX_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(one)
            size += length
        yield batch

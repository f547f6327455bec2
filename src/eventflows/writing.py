"""Writing: what some conversions become on one lane. Pure, but for the conditions that an app brings.

Each step is taken for all of them before the next one: to change between them for each conversion takes longer, as the
processor's caches then hold the code of none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import routing
from .conversion import Conversion
from .mapping import Entry, NotSent, Source, internal_error, mapped, written
from .model import LaneSettings
from .providers.base import Provider


def write(
    provider: Provider,
    given: LaneSettings,
    resource: Mapping[str, Any],
    conversions: Sequence[Conversion],
    sources: Sequence[Source],
    now: int,
    *,
    room: bool,
) -> list[Entry | NotSent | None]:
    """Conversions as the platform wants them, or why it does not get them; None where there is no room. Never raises.

    Args:
        provider: Of the lane; in a test environment not the one of the settings.
        resource: Attributes of the app's resource.
        sources: What is kept of each.
        now: Unix time in nanoseconds.
    """
    routed = [_routed(provider, given, resource, one) for one in conversions]
    if not room:
        return [one if isinstance(one, NotSent) else None for one in routed]
    found = [one if isinstance(one, NotSent) else mapped(provider, one, now) for one in routed]
    return [
        one if isinstance(one, NotSent) else written(one, source, given)
        for one, source in zip(found, sources, strict=True)
    ]


def _routed(
    provider: Provider, given: LaneSettings, resource: Mapping[str, Any], conversion: Conversion
) -> Conversion | NotSent:
    """The conversion with the choices that hold for it, where the provider is to get it."""
    try:
        conversion = given.consent.effective(conversion)
        reason = routing.filtered(provider, conversion, send_synthetic=given.send_synthetic, resource=resource)
    except Exception as problem:  # noqa: BLE001 reason: one event must not cost the others, nor the thread
        return internal_error(problem)
    return conversion if reason is None else NotSent("filtered", reason)

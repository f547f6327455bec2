"""Routing: which provider gets which conversion, and which conversion was seen before. Every "no" has a reason."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from .conditions import Condition
from .consent import denied
from .conversion import Conversion
from .providers.base import Provider
from .selection import EventFilter, why_not
from .semconv import SYNTHETIC_TYPES

_NO_RESOURCE: Mapping[str, Any] = {}
SPAN_FAILED = "span failed"


def filtered(
    provider: Provider,
    conversion: Conversion,
    *,
    send_synthetic: bool = False,
    resource: Mapping[str, Any] = _NO_RESOURCE,
) -> str | None:
    """Why this provider does not get this conversion, or None where it does.

    A provider is named by its id (`meta/eu`) or by its type (`meta`, all accounts of it).

    Args:
        conversion: With the choices of consent that hold for it (`ConsentPolicy.effective`).
        send_synthetic: Let through what OpenTelemetry marks as sent by a bot or a test.
        resource: Attributes of the app's resource, for conditions and tenants.
    """
    if conversion.failed:
        return SPAN_FAILED
    only, excluded = conversion.providers, conversion.exclude_providers
    if only is not None or excluded:
        ids = (provider.name.lower(), provider.TYPE)
        if only is not None and only.isdisjoint(ids):
            return "not among conversion.providers"
        if not excluded.isdisjoint(ids):
            return "in conversion.exclude_providers"
    if provider.is_selective and (
        reason := why_not(
            conversion,
            resource,
            events=cast("EventFilter | None", provider.events),
            when=cast("Condition | None", provider.when),
            tenant=provider.tenant,
            sample=provider.sample,
        )
    ):
        return reason
    if not send_synthetic and (synthetic := conversion.request.synthetic_type) in SYNTHETIC_TYPES:
        return f"user_agent.synthetic.type is {synthetic}"
    purpose = denied(needed_consent(provider), conversion.consent)
    return f"consent: {purpose} denied" if purpose else None


def needed_consent(provider: Provider) -> Sequence[str]:
    """The purposes that must not be denied for a conversion to go to this provider."""
    return provider.NEEDS_CONSENT if provider.needs_consent is None else provider.needs_consent


# Python's hashes, with a secret of the process in them, take a third of the room of ids. Where they are short they might meet.
_mark: Callable[[object], object] = hash if sys.hash_info.width >= 64 else tuple  # type: ignore[assignment]


class Seen:
    """The latest conversions by event and id, so that one that comes by two ways counts once.

    Bounded: the oldest are forgotten, which is safe as the ways of one conversion lie seconds apart and the
    platforms deduplicate by the same id over days.

    Args:
        at_least: So many are remembered, and at most twice as many.
    """

    def __init__(self, at_least: int = 16_384) -> None:
        self._at_least = at_least
        # Two generations, of which the older one is forgotten as a whole: a dictionary that always loses its first key takes
        # longer and longer to find it.
        self._generations: tuple[dict[object, object], dict[object, object]] = ({}, {})

    def first(self, key: tuple[str, str]) -> bool:
        """Remember a conversion by its event and id; True where it was not known yet. One atomic step, hence no lock."""
        older, latest = self._generations
        mine = _mark(key)
        if mine in older:
            return False
        is_first = latest.setdefault(mine, mine) is mine
        if len(latest) >= self._at_least:
            self._generations = (latest, {})
        return is_first

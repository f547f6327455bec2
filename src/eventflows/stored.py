"""A conversion as a line of JSON, as the journal keeps it. It holds digests and nothing raw, as the conversion itself does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .conversion import Consent, Conversion, Device, EventType, Identifiers, Item, Request

_PLAIN = (
    "action_source", "value", "currency", "order_id", "quantity", "search_term", "coupon", "tax", "shipping",
    "limited_data_use",
)  # fmt: skip
_PARTS: Mapping[str, type[Any]] = {"request": Request, "device": Device, "consent": Consent}
_NAMES: Mapping[type[Any], tuple[str, ...]] = {
    kind: tuple(f.name for f in fields(kind)) for kind in (Item, Identifiers, *_PARTS.values())
}
_EMPTY: Mapping[str, Any] = {name: kind() for name, kind in _PARTS.items()}


def _filled(part: Any) -> dict[str, Any]:
    return {name: value for name in _NAMES[type(part)] if (value := getattr(part, name)) not in (None, ())}


def dump(conversion: Conversion) -> str:
    """The conversion as JSON; what has its default is left out."""
    found: dict[str, Any] = {
        "id": conversion.id,
        "type": conversion.type.value,
        "name": conversion.name,
        "time": conversion.time_unix_nano,
    }
    for name in _PLAIN:
        if (value := getattr(conversion, name)) is not None:
            found[name] = value
    if conversion.items:
        found["items"] = [_filled(item) for item in conversion.items]
    user = _filled(conversion.user)
    if not user["sealed"]:
        del user["sealed"]
    if user:
        found["user"] = user
    for name, empty in _EMPTY.items():
        if (part := getattr(conversion, name)) != empty:
            found[name] = _filled(part)
    if conversion.clicks:
        found["clicks"] = conversion.clicks
    if conversion.providers is not None:
        found["providers"] = sorted(conversion.providers)
    if conversion.exclude_providers:
        found["exclude_providers"] = sorted(conversion.exclude_providers)
    if conversion.properties:
        found["properties"] = conversion.properties
    if conversion.timed_here:
        found["timed_here"] = True
    if conversion.origin is not None:
        found["origin"] = conversion.origin
    if conversion.left_out:
        found["left_out"] = conversion.left_out
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def load(text: str) -> Conversion:
    """The conversion that `dump` wrote.

    Raises:
        ValueError: The text is none.
    """
    try:
        found = json.loads(text)
        user = found.get("user", {})
        sealed = {form: tuple(digests) for form, digests in user.get("sealed", {}).items()}
        parts = {name: kind(**found[name]) for name, kind in _PARTS.items() if name in found}
        providers = found.get("providers")
        return Conversion(
            id=found["id"],
            type=EventType(found["type"]),
            name=found["name"],
            time_unix_nano=found["time"],
            **{name: found[name] for name in _PLAIN if name in found},
            items=tuple(Item(**item) for item in found.get("items", ())),
            user=Identifiers(**{**user, "sealed": sealed, "user_id": tuple(user.get("user_id", ()))}),
            **parts,
            clicks=found.get("clicks", {}),
            providers=None if providers is None else frozenset(providers),
            exclude_providers=frozenset(found.get("exclude_providers", ())),
            properties=found.get("properties", {}),
            timed_here=bool(found.get("timed_here")),
            origin=None if found.get("origin") is None else (found["origin"][0], found["origin"][1]),
            left_out=tuple((attribute, reason) for attribute, reason in found.get("left_out", ())),
        )
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"not a stored conversion ({type(problem).__name__})") from None

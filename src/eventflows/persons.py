"""The persons in an event: raw identifiers out, digests in."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from . import semconv as sc
from . import values
from .errors import Unusable
from .pii import Digests, add, contains_email, seal, seal_all, split_full_name

LeftOut = list[tuple[str, str]]
"""`(attribute, reason)` of each field that was not usable. Never holds the value."""


KINDS: Mapping[str, str] = {**sc.SEALED_ATTRIBUTES, sc.USER_ID: "id"}
"""The attributes that hold a person. The full name comes after its parts, which count more."""

Held = tuple[tuple[str, str], ...]
"""The attributes of an event that hold a person, with the kind of each, in the order in which they are sealed."""


def held(names: Container[Any]) -> Held:
    """Which of these attributes hold a person."""
    return tuple((key, kind) for key, kind in KINDS.items() if key in names)


def sealed(
    attributes: Mapping[str, Any], of: Held, default_country: str | None, left_out: LeftOut
) -> tuple[Digests, str | list[str] | None]:
    """The digests of what identifies a person, and what is left of the app's own ids.

    Args:
        attributes: As recorded, or of an event that was sealed before; not changed.
        of: What `held` says about them.
        default_country: Of phone numbers without a calling code, ISO 3166-1 alpha-2.
        left_out: Gets what is not usable.
    """
    digests: Digests = {}
    ids = None
    for key, kind in of:
        value = attributes[key]
        if value is None or value == "":
            continue
        try:
            if kind == "full_name":
                _seal_full_name(digests, key, value, left_out)
            elif kind == "id":
                ids = _ids(digests, key, value, left_out)
            elif type(value) is str:
                digests.update(seal(kind, value, default_country))
            else:
                _seal_each(digests, key, kind, listed(value), default_country, left_out)
        except Unusable as problem:
            left_out.append((key, str(problem)))
        except Exception:  # noqa: BLE001 reason: a value with a hostile __str__ costs itself
            left_out.append((key, "unreadable"))
    return digests, ids


def add_ids(digests: Digests, ids: Iterable[str], left_out: LeftOut) -> None:
    """Put the digests of the app's own ids to the others: some platforms take them as they are, some hashed."""
    for one in ids:
        try:
            add(digests, seal("external_id", one))
        except Unusable as problem:  # nothing but characters that cannot be seen
            left_out.append((sc.USER_ID, str(problem)))


def _seal_each(
    digests: Digests, key: str, kind: str, raw: Iterable[Any], default_country: str | None, left_out: LeftOut
) -> None:
    found, reason = seal_all(kind, raw, default_country)
    add(digests, found)
    if reason:
        left_out.append((key, reason))


def _seal_full_name(digests: Digests, key: str, value: Any, left_out: LeftOut) -> None:
    if any(form.startswith(("first_name.", "last_name.")) for form in digests):
        return
    parts = [split_full_name(one) for one in listed(value) if isinstance(one, str)]
    if not all(parts) or not parts:
        left_out.append((key, "not a first and a last name"))
    for part, kind in enumerate(("first_name", "last_name")):
        _seal_each(digests, key, kind, [pair[part] for pair in parts if pair], None, left_out)


def _ids(digests: Digests, key: str, value: Any, left_out: LeftOut) -> str | list[str] | None:
    """The app's own ids stay as they are, but for an e-mail address, of which only the hash is of use."""
    ids: list[str] = []
    for raw in listed(value):
        if raw is None or raw == "":
            continue
        try:
            one = values.text(raw)
        except Unusable as problem:
            left_out.append((key, str(problem)))
            continue
        if not one:
            continue
        if contains_email(one):
            left_out.append((key, "an e-mail address: only its hash is used"))
            _seal_each(digests, key, "external_id", (one,), None, left_out)
        elif one not in ids:
            ids.append(one)
    return ids[0] if len(ids) == 1 else ids or None


def listed(value: object) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple, set, frozenset)) else (value,)

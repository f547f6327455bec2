"""The persons in an event: raw identifiers out, digests in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import semconv as sc
from . import values
from .pii import Unusable, contains_email, seal, seal_all, split_full_name

Digests = dict[str, tuple[str, ...]]
"""Normal form (of `pii`) → its digests, each once."""
LeftOut = list[tuple[str, str]]
"""`(attribute, reason)` of each field that was not usable. Never holds the value."""


def sealed(
    attributes: Mapping[str, Any], default_country: str | None, left_out: LeftOut
) -> tuple[Mapping[str, Any], Digests]:
    """The attributes without what identifies a person, and the digests of that.

    Args:
        attributes: As recorded, or of an event that was sealed before; not changed.
        default_country: Of phone numbers without a calling code, ISO 3166-1 alpha-2.
        left_out: Gets what is not usable.
    """
    digests: Digests = {}
    if _KINDS.keys().isdisjoint(attributes):
        return attributes, digests
    rest = dict(attributes)
    for key, kind in _KINDS.items():
        if key in rest:
            value = rest.pop(key)
            if value is not None and value != "":
                try:
                    if kind == "full_name":
                        _seal_full_name(digests, key, value, left_out)
                    elif kind == "id":
                        if ids := _ids(digests, key, value, left_out):
                            rest[key] = ids
                    elif type(value) is str:
                        for form, digest in seal(kind, value, default_country).items():
                            digests[form] = (digest,)
                    else:
                        _seal_each(digests, key, kind, listed(value), default_country, left_out)
                except Unusable as problem:
                    left_out.append((key, str(problem)))
                except Exception:  # noqa: BLE001 reason: a value with a hostile __str__ costs itself
                    left_out.append((key, "unreadable"))
    return rest, digests


_KINDS: Mapping[str, str] = {**sc.SEALED_ATTRIBUTES, sc.USER_ID: "id"}
"""The attributes that hold a person. The full name comes after its parts, which count more."""


def add(digests: Digests, form: str, more: Iterable[str]) -> None:
    """Put more digests to those of a form."""
    digests[form] = tuple(dict.fromkeys((*digests.get(form, ()), *more)))


def _seal_each(
    digests: Digests, key: str, kind: str, raw: Iterable[Any], default_country: str | None, left_out: LeftOut
) -> None:
    found, reason = seal_all(kind, raw, default_country)
    for form, more in found.items():
        add(digests, form, more)
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
        if contains_email(one):
            left_out.append((key, "an e-mail address: only its hash is used"))
            _seal_each(digests, key, "external_id", (one,), None, left_out)
        elif one not in ids:
            ids.append(one)
    return ids[0] if len(ids) == 1 else ids or None


def listed(value: object) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple, set, frozenset)) else (value,)

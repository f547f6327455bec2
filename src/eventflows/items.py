"""Reading the items of a cart or an order: maps, JSON, or lists of either. What cannot be used costs only itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .conversion import Item
from .errors import Unusable
from .pii import contains_email
from .values import count, custom, identifier, is_int64, number, writable

_KEYS: Mapping[str, str] = {
    **{name: name for name in ("id", "name", "price", "quantity", "category")},
    **{name: name for name in ("brand", "variant", "coupon", "discount")},
    **dict.fromkeys(("item_id", "content_id", "product_id", "sku"), "id"),
    **dict.fromkeys(("item_name", "content_name", "product_name", "title"), "name"),
    **dict.fromkeys(("item_category", "content_category"), "category"),
    "item_price": "price",
    "item_brand": "brand",
    "item_variant": "variant",
}


def read(value: object) -> tuple[Item, ...]:
    """Items as maps, as a JSON string, or as a list of either."""
    entries = _entries(value)
    found = tuple([item for entry in entries if (item := _item(entry)) is not None])
    if entries and not found:
        raise Unusable("not a list of items")
    return found


def _entries(value: object) -> Sequence[Any]:
    if type(value) is list:
        return value
    if isinstance(value, str):
        value = _json(value)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise Unusable("not a list of items")
    return value


def _json(source: str) -> Any:
    try:
        return json.loads(source)
    except ValueError:
        raise Unusable("not JSON") from None


def _item(entry: object) -> Item | None:
    """One item; None for what is none, which costs its neighbours nothing."""
    if type(entry) is not dict:
        entry = _map_of(entry)
        if entry is None:
            return None
    found = _BLANK.copy()
    for key, value in entry.items():
        place = _place_of(key)
        if place is None or (not value and (value is None or value == "")):
            continue
        index, reader, is_alias = place
        if is_alias and found[index] is not None:
            continue
        try:
            found[index] = reader(value)
        except Unusable:
            continue  # the bad field of an item costs neither the item nor its neighbours
    return tuple.__new__(Item, found)


_BLANK: list[Any] = [None] * len(Item._fields)


def _map_of(entry: object) -> Mapping[Any, Any] | None:
    if isinstance(entry, str):
        try:
            entry = _json(entry)
        except Unusable:
            return None
    return entry if isinstance(entry, Mapping) else None


_READERS: Mapping[str, Callable[[object], Any]] = {"price": number, "discount": number, "quantity": count}
_PLACES: Mapping[str, tuple[int, Callable[[object], Any], bool]] = {
    key: (Item._fields.index(name), _READERS.get(name, identifier), key != name) for key, name in _KEYS.items()
}
"""Key of an item → its field, how it is read, and whether the key is another spelling, which a field's own name overrides."""
_place_of = _PLACES.get


def plain(value: object) -> list[Any]:
    """Items as plain JSON data, without what would carry a person in the open."""
    entries = _entries(value)
    found = [clean for entry in entries if (clean := _plain_item(entry)) is not None]
    if entries and not found:
        raise Unusable("not a list of items")
    return found


def _plain_item(entry: object) -> Mapping[Any, Any] | None:
    if type(entry) is not dict:
        entry = _map_of(entry)
        if entry is None:
            return None
    for key, value in entry.items():
        kind = type(value)
        if not (
            key in _PLACES
            and (
                (kind is int and is_int64(value))
                or (kind is float and value - value == 0.0)
                or (
                    kind is str
                    and "@" not in value
                    and "%" not in value
                    and (value.isascii() or writable(value) == value)
                )
            )
        ):
            return _cleaned_item(entry)
    return entry


def _cleaned_item(entry: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in entry.items():
        if isinstance(key, str) and not contains_email(key):
            with suppress(Exception):  # a value with a hostile __iter__, say
                found[writable(key)] = custom(value)
    return found

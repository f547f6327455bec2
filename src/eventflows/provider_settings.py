"""The settings of a provider: those that all providers share, and each one's own, as its annotations say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .checks import Problems, below
from .delivery_settings import QUEUE_OF_ONE, RETRY_OF_ONE, TLS, ProxyUrl
from .environments import MODES
from .kinds import (
    Anything,
    Boolean,
    Choice,
    Duration,
    Kind,
    Mapped,
    Number,
    SecretText,
    Share,
    Text,
    Texts,
    Url,
    Whatever,
)
from .secret import Secret
from .selection import EVENTS, RENAME, TenantOf, When
from .semconv import CONSENT_PURPOSES

SHARED: Mapping[str, Kind] = {
    "endpoint": Url(),
    "events": EVENTS,
    "when": When(),
    "sample": Share(),
    "tenant": TenantOf(),
    "rename": RENAME,
    "extra": Anything(),
    "test_code": Text(),
    "needs_consent": Texts(CONSENT_PURPOSES),
    "environments": Mapped(Choice(MODES)),
    "timeout": Duration(),
    "retry_on_failure": RETRY_OF_ONE,
    "sending_queue": QUEUE_OF_ONE,
    "tls": TLS,
    "proxy_url": ProxyUrl(),
}


_known: dict[object, Mapping[str, Kind]] = {}


def kinds_of(cls: type[Any]) -> Mapping[str, Kind]:
    """The settings of a provider's class but its name, its own ones first."""
    if (known := _known.get(cls)) is None:
        known = _known[cls] = _kinds_of(cls)
    return known


def _kinds_of(cls: type[Any]) -> Mapping[str, Kind]:
    try:
        hints = get_type_hints(cls)
    except Exception:  # noqa: BLE001 reason: a class of another package, with names that exist for type checkers only
        hints = {}
    own = {
        one.name: SecretText() if one.name in cls.SECRETS else _kind(hints.get(one.name))
        for one in fields(cls)
        if one.name != "name" and one.name not in SHARED
    }
    return {**own, **SHARED}


def required(cls: type[Any]) -> list[str]:
    """The settings that cannot be left out."""
    return [one.name for one in fields(cls) if one.name in cls.REQUIRED or _has_no_default(one)]


def _has_no_default(one: Any) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _kind(hint: Any) -> Kind:
    if get_origin(hint) in (Union, UnionType):
        options = [one for one in get_args(hint) if one is not NoneType]
        return _kind(options[0]) if len(options) == 1 else Whatever()
    if get_origin(hint) is Literal:
        return Choice(get_args(hint))
    if isinstance(origin := get_origin(hint) or hint, type):
        if issubclass(origin, bool):
            return Boolean()
        if issubclass(origin, int):
            return Number(whole=True)
        if issubclass(origin, float):
            return Number()
        if issubclass(origin, str):
            return Text()
        if issubclass(origin, Mapping):
            return Anything()
        if issubclass(origin, Sequence):
            return Texts()
    return Whatever()


def clean(provider: Any) -> None:
    """Put the clean value in the place of each setting of a new provider.

    Raises:
        ConfigurationError: All that is wrong with them.
    """
    cls, path = type(provider), below("providers", provider.name)
    needed, defaults = required(cls), {one.name: one.default for one in fields(cls)}
    problems = Problems()
    for key, kind in kinds_of(cls).items():
        value = getattr(provider, key)
        if _is_blank(value):  # empty is unset
            if key in needed:
                problems.add(below(path, key), "required, a non-empty string")
            object.__setattr__(provider, key, None if key in needed else defaults[key])
            continue
        with problems.noted():
            object.__setattr__(provider, key, kind.read(below(path, key), value))
    try:
        for key, message in provider.contradictions():
            problems.add(below(path, key), message)
    except Exception:
        if not problems.found:  # else it may have tripped over a value that is reported already
            raise
    problems.raise_any()


def _is_blank(value: object) -> bool:
    return (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, Secret) and value.is_empty)
    )

"""The providers, by type. Built-in ones are named here; other packages add theirs as entry points `eventflows_provider`."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from ..errors import ConfigurationError
from .base import Provider

BUILT_IN = {
    "console": "ConsoleProvider",
    "ga4": "GA4Provider",
    "meta": "MetaProvider",
    "reddit": "RedditProvider",
    "tiktok": "TikTokProvider",
}
"""Type (and module of this package) → class."""


def provider_types() -> list[str]:
    """All types that can be configured, those of other packages included."""
    return sorted({*BUILT_IN, *(entry.name for entry in entry_points(group="eventflows_provider"))})


def provider_class(provider_type: str) -> type[Provider]:
    """The class of a type.

    Raises:
        ConfigurationError: There is no such type, or its entry point is no Provider.
    """
    if provider_type in BUILT_IN:
        found = getattr(import_module(f".{provider_type}", __name__), BUILT_IN[provider_type])
    else:
        found = next((e.load() for e in entry_points(group="eventflows_provider", name=provider_type)), None)
    if not isinstance(found, type) or not issubclass(found, Provider):
        raise ConfigurationError(f"no provider of type {provider_type!r}; there are: {', '.join(provider_types())}")
    return found

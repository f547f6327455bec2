"""EventFlows delivers conversions recorded with OpenTelemetry to ad and analytics platforms. See README and docs/."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .context import visitor_snapshot
    from .conversion import EventType
    from .dryrun import Rendered, render
    from .errors import ConfigurationError
    from .facade import tracker
    from .instrumentation import EventFlowsInstrumentor, get_tracer
    from .processor import (
        EventFlowsLogRecordExporter,
        EventFlowsLogRecordProcessor,
        EventFlowsSpanExporter,
        EventFlowsSpanProcessor,
    )
    from .providers.console import ConsoleProvider
    from .providers.ga4 import GA4Provider
    from .providers.meta import MetaProvider
    from .providers.reddit import RedditProvider
    from .providers.tiktok import TikTokProvider
    from .startup import configure, force_flush, shutdown
    from .visitor import visitor_context, visitor_update

__all__ = [
    "ConfigurationError",
    "ConsoleProvider",
    "EventFlowsInstrumentor",
    "EventFlowsLogRecordExporter",
    "EventFlowsLogRecordProcessor",
    "EventFlowsSpanExporter",
    "EventFlowsSpanProcessor",
    "EventType",
    "GA4Provider",
    "MetaProvider",
    "RedditProvider",
    "Rendered",
    "TikTokProvider",
    "configure",
    "force_flush",
    "get_tracer",
    "render",
    "shutdown",
    "tracker",
    "visitor_context",
    "visitor_snapshot",
    "visitor_update",
]

# Resolved on first use, so that importing the package costs next to nothing. No module here may have the name of a public
# object: importing the module would put it in the object's place.
_HOMES = {
    "startup": ("configure", "force_flush", "shutdown"),
    "conversion": ("EventType",),
    "errors": ("ConfigurationError",),
    "instrumentation": ("EventFlowsInstrumentor", "get_tracer"),
    "processor": (
        "EventFlowsLogRecordExporter",
        "EventFlowsLogRecordProcessor",
        "EventFlowsSpanExporter",
        "EventFlowsSpanProcessor",
    ),
    "providers.console": ("ConsoleProvider",),
    "providers.ga4": ("GA4Provider",),
    "providers.meta": ("MetaProvider",),
    "providers.reddit": ("RedditProvider",),
    "providers.tiktok": ("TikTokProvider",),
    "dryrun": ("Rendered", "render"),
    "facade": ("tracker",),
    "visitor": ("visitor_context", "visitor_update"),
    "context": ("visitor_snapshot",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)

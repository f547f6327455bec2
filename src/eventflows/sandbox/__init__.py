"""A strict local stand-in for the ad platforms' APIs, so that nobody needs an ad account to develop, demo or test.

    from eventflows.sandbox import Sandbox

    with Sandbox() as sandbox:
        ...                        # post to sandbox.url + "/meta/v26.0/123/events"
        sandbox.events("meta")     # what was accepted
        sandbox.refused()          # what was not, and why

It is the oracle of the test suite and therefore shares no code with the rest of EventFlows: what it knows of the
platforms it knows from their documentation, so that a misreading in a provider cannot hide behind the same
misreading here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> Any:
    # Lazy, because the pytest plugin in this package is imported by every pytest run of everybody who has EventFlows.
    if name == "Sandbox":
        from .server import Sandbox

        return Sandbox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Consent: may this provider have this conversion at all?

The purposes are those of Google's consent mode, which most consent platforms speak. An explicit denial is always obeyed; how a
provider tells its API about the finer choices (limited data use, personalisation) is the provider's own mapping.
"""

from __future__ import annotations

from collections.abc import Iterable

from .conversion import Consent


def denied(needed: Iterable[str], consent: Consent) -> str | None:
    """The first needed purpose that the visitor denied, or None."""
    return next((purpose for purpose in needed if getattr(consent, purpose) is False), None)

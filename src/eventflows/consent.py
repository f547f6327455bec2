"""Consent: what the visitor allows, and what holds where nobody asked.

The purposes are those of Google's consent mode, which most consent platforms speak. An explicit denial is always obeyed;
what an unknown choice means, and what `Sec-GPC` does, is a matter of configuration and of the visitor's region. How a
provider tells its API about the finer choices (limited data use, personalisation) is the provider's own mapping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

from .conversion import Consent, Conversion
from .pii import state_code
from .semconv import CONSENT_PURPOSES

GPC_IGNORE = "ignore"
GPC_LIMITED = "limited_data_use"
GPC_DENIED = "denied"
SEC_GPC_EFFECTS = (GPC_IGNORE, GPC_LIMITED, GPC_DENIED)

EU = frozenset("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split())
GROUPS: Mapping[str, frozenset[str]] = {"EU": EU, "EEA": EU | {"IS", "LI", "NO"}}
"""Names of several countries at once, for the configuration's `consent.regions`."""


@dataclass(frozen=True, slots=True)
class Regime:
    """What holds somewhere.

    Attributes:
        absent: What an unknown choice counts as; None lets it be unknown, which stops nothing.
        sec_gpc: What `Sec-GPC: 1` does: `ignore`, `limited_data_use`, or `denied` (no use of the person's data for ads).
    """

    absent: Consent = field(default_factory=Consent)
    sec_gpc: str | None = None


NO_RULES = Regime()


class Choices(NamedTuple):
    """What the rules go by: what the visitor chose, and where that was."""

    consent: Consent = Consent()
    limited_data_use: bool | None = None
    country: str | None = None
    region: str | None = None
    global_privacy_control: bool | None = None


def choices_of(conversion: Conversion) -> Choices:
    """The choices that a conversion brings, before any rules."""
    user = conversion.user
    limited, control = conversion.limited_data_use, conversion.request.global_privacy_control
    return Choices(conversion.consent, limited, user.country, user.region, control)


@dataclass(frozen=True)
class ConsentPolicy:
    """What holds by default and in regions; the most exact region wins: `US-CA`, then `US`, then a group such as `EEA`.

    A conversion's region is that of its person (`geo.country.iso_code`, `geo.region.iso_code`); without one the default holds.
    """

    default: Regime = NO_RULES
    regions: Mapping[str, Regime] = field(default_factory=dict)

    def effective(self, conversion: Conversion) -> Conversion:
        """The conversion with the choices that hold for it; itself where nothing changes."""
        if not self.regions and self.default is NO_RULES:
            return conversion
        consent, limited = self.decide(choices_of(conversion))
        if consent == conversion.consent and limited == conversion.limited_data_use:
            return conversion
        return conversion._replace(consent=consent, limited_data_use=limited)

    @cached_property
    def decide(self) -> Callable[[Choices], tuple[Consent, bool | None]]:
        """The choices that hold, and whether the use of the data is limited; kept, as there are few such combinations."""
        return lru_cache(maxsize=4096)(self._decide)

    def _decide(self, choices: Choices) -> tuple[Consent, bool | None]:
        regimes = [*self._of_region(choices.country, choices.region), self.default]
        holds = {}
        for purpose in CONSENT_PURPOSES:
            said = (getattr(choices.consent, purpose), *(getattr(regime.absent, purpose) for regime in regimes))
            holds[purpose] = next((choice for choice in said if choice is not None), None)
        limited = choices.limited_data_use
        if choices.global_privacy_control:
            effect = next((regime.sec_gpc for regime in regimes if regime.sec_gpc), GPC_IGNORE)
            if effect == GPC_LIMITED:
                limited = True
            elif effect == GPC_DENIED:
                holds["ad_user_data"] = holds["ad_personalization"] = False
        return Consent(**holds), limited

    def _of_region(self, country: str | None, region: str | None) -> Iterable[Regime]:
        if country is None and region and region[2:3] == "-":
            country = region[:2].upper()
        if country is None:
            return
        if region and (regime := self.regions.get(f"{country}-{state_code(region, country).upper()}")):
            yield regime
        if regime := self.regions.get(country):
            yield regime
        for group, countries in GROUPS.items():
            if country in countries and (regime := self.regions.get(group)):
                yield regime


STRICTER = "consent: stricter rules since it was recorded"


def overruled(choices: Choices, former: ConsentPolicy, present: ConsentPolicy, needed: Iterable[str]) -> str | None:
    """Why an event that was written under a former policy must not go under the present one; None where it may."""
    (consent, limited), (was, was_limited) = present.decide(choices), former.decide(choices)
    if purpose := denied(needed, consent):
        return f"consent: {purpose} denied"
    tightened = any(now is False and then is not False for now, then in zip(consent, was, strict=True))
    return STRICTER if tightened or (limited and not was_limited) else None


def denied(needed: Iterable[str], consent: Consent) -> str | None:
    """The first needed purpose that is denied, or None."""
    for purpose in needed:
        if getattr(consent, purpose) is False:
            return purpose
    return None

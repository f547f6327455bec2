"""The settings of `consent`: what an unknown choice counts as, by default and in regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import checks
from .checks import Problems, below, shown, wrong
from .consent import GROUPS, NO_RULES, SEC_GPC_EFFECTS, ConsentPolicy, Regime
from .conversion import Consent
from .country import ALPHA_2
from .errors import Unusable
from .kinds import Choice, Kind, as_json, described, documented, pairs
from .semconv import CONSENT_PURPOSES
from .values import flag

_CHOICES = ["granted", "denied"]


@dataclass(frozen=True)
class RegimeOf(Kind):
    """`granted` or `denied`, or a mapping of purposes to them, with `sec_gpc`."""

    def read(self, path: str, value: Any) -> Regime:
        if isinstance(value, Regime):
            return value
        if isinstance(value, str):
            if value not in _CHOICES:
                raise wrong(path, f"{shown(value)} is neither granted nor denied")
            value = dict.fromkeys(CONSENT_PURPOSES, value)
        problems = Problems()
        with problems.noted():
            checks.mapping(path, value, (*CONSENT_PURPOSES, "sec_gpc"))
        choices: dict[str, bool] = {}
        for purpose, choice in value.items() if isinstance(value, Mapping) else ():
            if purpose in CONSENT_PURPOSES and choice is not None:
                try:
                    choices[purpose] = flag(choice)
                except Unusable:
                    problems.add(below(path, purpose), f"{shown(choice)} is neither granted nor denied")
        effect = None
        if isinstance(value, Mapping) and value.get("sec_gpc") is not None:
            with problems.noted():
                effect = checks.one_of(below(path, "sec_gpc"), value["sec_gpc"], SEC_GPC_EFFECTS)
        problems.raise_any()
        return Regime(Consent(**choices), effect)

    def from_text(self, path: str, text: str) -> Any:
        return as_json(path, text) if text.lstrip().startswith("{") else text

    def schema(self) -> dict[str, Any]:
        choice = {"enum": [*_CHOICES, True, False]}
        purposes: dict[str, Any] = dict.fromkeys(CONSENT_PURPOSES, choice)
        whole = {"type": "object", "additionalProperties": False,
                 "properties": {**purposes, "sec_gpc": {"enum": list(SEC_GPC_EFFECTS)}}}  # fmt: skip
        return {"anyOf": [{"enum": _CHOICES}, whole]}


@dataclass(frozen=True)
class Regions(Kind):
    """Countries (`DE`), parts of one (`US-CA`) and groups of them (`EEA`), each with what holds there."""

    def read(self, path: str, value: Any) -> dict[str, Regime]:
        found = {}
        problems = Problems()
        for name, regime in checks.mapping(path, value).items():
            key = str(name).upper()
            if key not in GROUPS and key.partition("-")[0] not in ALPHA_2:
                problems.add(
                    below(path, name),
                    f"neither a country (DE) nor a part of one (US-CA) nor {' nor '.join(GROUPS)}",
                )
            with problems.noted():
                found[key] = RegimeOf().read(below(path, name), regime)
        problems.raise_any()
        return found

    def from_text(self, path: str, text: str) -> Any:
        return pairs(path, text)

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": RegimeOf().schema()}


@dataclass(frozen=True)
class Consents(Kind):
    """What an unknown choice counts as by default and in regions, and what `Sec-GPC: 1` does where they do not say it.

    Attributes:
        default: What an unknown choice counts as: `granted`, `denied`, or a mapping of purposes.
        regions: The same for countries and groups of them.
        sec_gpc: What `Sec-GPC: 1` does: `ignore`, `limited_data_use` or `denied`.
    """

    @property
    def settings(self) -> Mapping[str, Kind]:
        return {"default": RegimeOf(), "regions": Regions(), "sec_gpc": Choice(SEC_GPC_EFFECTS)}

    def read(self, path: str, value: Any) -> ConsentPolicy:
        if isinstance(value, ConsentPolicy):
            return value
        problems = Problems()
        with problems.noted():
            checks.mapping(path, value, tuple(self.settings))
        found: dict[str, Any] = {}
        for key, kind in self.settings.items() if isinstance(value, Mapping) else ():
            if value.get(key) is not None:
                with problems.noted():
                    found[key] = kind.read(below(path, key), value[key])
        default: Regime = found.get("default", NO_RULES)
        if "sec_gpc" in found:
            if default.sec_gpc not in (None, found["sec_gpc"]):
                problems.add(below(path, "sec_gpc"), f"contradicts {below(path, 'default.sec_gpc')}")
            default = Regime(default.absent, found["sec_gpc"])
        problems.raise_any()
        # The one object without rules is known by its identity to cost nothing.
        return ConsentPolicy(NO_RULES if default == NO_RULES else default, found.get("regions", {}))

    def schema(self) -> dict[str, Any]:
        about = documented(type(self))
        properties = {key: described(kind, about.get(key, "")) for key, kind in self.settings.items()}
        return {"type": ["object", "null"], "additionalProperties": False, "properties": properties}

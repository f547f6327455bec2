"""The JSON Schema of a configuration file, made from the model: editors complete and check a file by it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from .kinds import described, documented, properties
from .model import SETTINGS, Settings
from .provider_list import TENANTS
from .provider_settings import SHARED, kinds_of, required
from .providers import provider_class, provider_types
from .providers.base import Provider

TITLE = "EventFlows configuration"
_ABOUT = documented(Provider)
_DIALECT = "http://json-schema.org/draft-07/schema#"


def schema(types: Sequence[str] | None = None) -> dict[str, Any]:
    """The JSON Schema (draft 7) of a configuration file.

    Args:
        types: The provider types that it knows; None is all that are installed, those of other packages included.
    """
    chosen = provider_types() if types is None else list(types)
    known = properties_of_settings()
    known["providers"] = {
        "description": documented(Settings)["providers"],
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "patternProperties": {
            rf"^{re.escape(one)}(/[A-Za-z0-9_.-]+)?$": {"$ref": f"#/definitions/{one}"} for one in chosen
        },
    }
    return {
        "$schema": _DIALECT,
        "title": TITLE,
        "type": "object",
        "additionalProperties": False,
        "required": ["providers"],
        "properties": known,
        "definitions": {
            **{
                f"shared.{key}": described(kind, _ABOUT.get(key, "")) for key, kind in SHARED.items() if key != "tenant"
            },
            **{one: _of_provider(provider_class(one)) for one in chosen},
        },
    }


def properties_of_settings() -> dict[str, Any]:
    """The JSON Schema of each setting but `providers`."""
    others = {key: kind for key, kind in SETTINGS.settings.items() if key != "providers"}
    return properties(replace(SETTINGS, settings=others))


def _of_provider(cls: type[Provider]) -> dict[str, Any]:
    about, defaults = documented(cls), {one.name: one.default for one in fields(cls)}
    kinds = kinds_of(cls)
    own: dict[str, Any] = {
        key: described(kind, about.get(key, ""), defaults[key]) for key, kind in kinds.items() if _is_own(key, about)
    }
    own.update((key, {"$ref": f"#/definitions/shared.{key}"}) for key in kinds if key not in own and key != "tenant")
    tenants = {
        "description": "Several customers with credentials of their own: an attribute of the event or the resource says whose "
        "a conversion is.",
        "type": "object",
        "additionalProperties": False,
        "required": ["attribute", "values"],
        "properties": {
            "attribute": {"type": "string", "description": "The attribute's name."},
            "values": {
                "description": "The attribute's values, each with the settings of that tenant.",
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"type": ["object", "null"], "additionalProperties": False, "properties": own},
            },
        },
    }
    needed = required(cls)
    whole: dict[str, Any] = {
        "description": (cls.__doc__ or "").strip().splitlines()[0],
        "type": "object" if needed else ["object", "null"],
        "additionalProperties": False,
        "properties": {**own, TENANTS: tenants},
    }
    if needed:
        whole["anyOf"] = [{"required": needed}, {"required": [TENANTS]}]
    return whole


def _is_own(key: str, about: Mapping[str, str]) -> bool:
    """Whether it is a provider's own setting, or one that it describes in its own way."""
    return key not in SHARED or about.get(key, "") != _ABOUT.get(key, "")

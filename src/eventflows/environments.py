"""Live or test: `deployment.environment.name` decides, by an explicit table, so that staging never reports a sale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry._logs import get_logger_provider
from opentelemetry.trace import get_tracer_provider

from .errors import ConfigurationError

LIVE = "live"
TEST = "test"
MODES = (LIVE, TEST)
ENVIRONMENT_NAME = "deployment.environment.name"
_FORMER_NAME = "deployment.environment"


def name_in(resource: Mapping[str, object]) -> str | None:
    """The environment's name in the attributes of a resource."""
    name = resource.get(ENVIRONMENT_NAME) or resource.get(_FORMER_NAME)
    return str(name) if name else None


def mode_of(environments: Mapping[str, str], environment: str | None) -> str:
    """Whether conversions are sent for real.

    Args:
        environments: Environment's name → `live` or `test`; `*` stands for all others. An empty table is live.
        environment: The environment's name, where it is known.

    Raises:
        ConfigurationError: The table cannot say it: the name is missing, or is not in it.
    """
    if not environments:
        return LIVE
    if environment is None:
        raise ConfigurationError(
            f"environments: the resource has no {ENVIRONMENT_NAME}; set it "
            f"(OTEL_RESOURCE_ATTRIBUTES={ENVIRONMENT_NAME}=production), or the setting environment"
        )
    mode = environments.get(environment) or environments.get("*")
    if mode is None:
        raise ConfigurationError(
            f"environments: {environment!r} is not listed: {', '.join(environments)}; add it, or '*' for all others"
        )
    return mode


def resource_attributes() -> Mapping[str, Any]:
    """The attributes of the resource that the process's OpenTelemetry providers have; empty where there are none."""
    for provider in (get_logger_provider(), get_tracer_provider()):
        if isinstance(attributes := getattr(getattr(provider, "resource", None), "attributes", None), Mapping):
            return attributes
    return {}

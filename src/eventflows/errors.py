"""Exceptions of EventFlows.

    ValueError
    └── ConfigurationError

Only configuration raises, once, at start. Bad data at run time never does: it is counted with a reason.
"""

from __future__ import annotations


class ConfigurationError(ValueError):
    """A setting is missing, unknown or wrong. The message names the key and what is allowed."""


class MissingDependencyError(ConfigurationError, ImportError):
    """A feature needs a package of one of the extras, which is not installed.

    Args:
        feature: What was asked for, as a user would say it.
        extra: The extra of this distribution that brings the package.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs an extra: pip install "opentelemetry-exporter-eventflows[{extra}]"')

"""Configuration: settings from code, a file or the environment, checked once, at start, by one model (`model.py`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from opentelemetry.sdk.resources import Resource

from .config_file import read_file
from .errors import ConfigurationError
from .log import logger
from .model import Settings as Settings
from .model import read_settings
from .provider_list import of_settings
from .providers.base import Provider
from .variables import CONFIG, PREFIX, FromEnvironment, given

__all__ = ["CONFIG", "PREFIX", "Settings", "from_environment", "from_file", "of_settings", "read_again", "settings"]


def settings(
    providers: Sequence[Provider] | Mapping[str, Any] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Settings:
    """Check and build settings, alike from code and from a parsed mapping.

    Args:
        providers: Provider objects, or a mapping of ids (`type` or `type/name`) to their settings.
        config: A file that holds all settings, in place of the others.
        **options: The other attributes of `eventflows.model.Settings`. Durations are integers in milliseconds or strings with
            a unit (`10s`); a section is a mapping.

    Raises:
        ConfigurationError: Names all settings that are wrong, what is wrong with each, and what is allowed.
    """
    if config is None:
        return read_settings({"providers": providers, **options})
    if providers is not None or options:
        others = ", ".join([*(["providers"] if providers is not None else []), *options])
        raise ConfigurationError(f"contradicts {others}: the file holds all settings", path="config")
    return from_file(config)


def from_file(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from a configuration file, in JSON or YAML.

    Raises:
        ConfigurationError: As `settings`, each problem with its line where the file is YAML.
    """
    file = read_file(path, os.environ if environ is None else environ)
    try:
        built = read_settings(file.settings)
    except ConfigurationError as error:
        raise file.located(error.problems) from None
    if file.problems:
        raise file.located(())
    return replace(built, source=os.path.abspath(path))


def read_again(known: Settings) -> Settings:
    """The settings that the file which these came from holds now.

    Raises:
        ConfigurationError: As `from_file`; or they came from no file.
    """
    if known.source is None:
        raise ConfigurationError(
            f"there is no configuration file to read again: name one with config= or {CONFIG}, or give the new settings"
        )
    return from_file(known.source)


def check_unchanged(known: Settings, new: Settings) -> None:
    """See that new settings keep what a running pipeline cannot change.

    Raises:
        ConfigurationError: They do not.
    """
    for key, old_value, new_value in (
        ("sending_queue.storage", known.sending_queue.storage, new.sending_queue.storage),
        ("telemetry", known.telemetry, new.telemetry),
        ("reload_on_sighup", known.reload_on_sighup, new.reload_on_sighup),
    ):
        if old_value != new_value:
            raise ConfigurationError("cannot be changed without a restart", path=key)


def from_environment(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from `OTEL_EXPORTER_EVENTFLOWS_*`, or from the file that `OTEL_EXPORTER_EVENTFLOWS_CONFIG` names.

    Raises:
        ConfigurationError: As `settings`, and for a variable of that prefix that means nothing.
    """
    environ = os.environ if environ is None else environ
    if file := environ.get(CONFIG, "").strip():
        if others := [name for name in given(environ) if name != CONFIG]:
            logger.info("%s is set, so these count only where the file refers to them: %s", CONFIG, ", ".join(others))
        return from_file(file, environ)
    found = FromEnvironment(environ)
    try:
        built = read_settings(found.settings)
    except ConfigurationError as error:
        raise found.located(error) from None
    found.raise_any()
    return built


def warn_of_variables(settings: Settings) -> None:
    """Say which variables do nothing since settings came from code: who sets one believes in it, as in a sandbox's endpoint."""
    if settings.source is None and (names := given()):
        logger.warning("the settings are given in code, so these variables do nothing: %s", ", ".join(names))


def resource_of_environment() -> Mapping[str, Any] | None:
    """The attributes of the resource that the SDK makes from the environment; None where a declarative file makes it."""
    return None if os.environ.get("OTEL_CONFIG_FILE") else Resource.create().attributes


def default_country_of_environment() -> str | None:
    """The one setting of the environment that matters also where the providers come from elsewhere."""
    return os.environ.get(PREFIX + "DEFAULT_COUNTRY", "").strip() or None

"""What the commands are given: settings, the storage folder, and an event."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from .. import config, running
from ..config import Settings
from ..errors import ConfigurationError

STORAGE = config.PREFIX + "SENDING_QUEUE_STORAGE"
CONFIG = config.PREFIX + "CONFIG"


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON in place of text")


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help=f"the configuration file (default: the environment, {config.PREFIX}*)"
    )


def add_provider(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--provider", action="append", metavar="ID", help="only this provider (may be repeated)")


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings of `--config`; else those of the pipeline that runs already, as under `opentelemetry-instrument`, also with
    OpenTelemetry's declarative file; else those of the environment.

    Raises:
        ConfigurationError: They are wrong, or there are none.
    """
    if arguments.config:
        return config.from_environment({**os.environ, CONFIG: arguments.config})
    if (pipeline := running.current()) is not None:
        return pipeline.settings
    if not is_configured(arguments):
        raise ConfigurationError(
            f"nothing is configured: give --config FILE, or set {config.PREFIX}<PROVIDER>_<SETTING>, such as "
            f"{config.PREFIX}META_PIXEL_ID"
        )
    return config.from_environment()


def is_configured(arguments: argparse.Namespace) -> bool:
    """Whether there are settings at all."""
    return (
        bool(arguments.config)
        or running.current() is not None
        or any(key.startswith(config.PREFIX) for key in os.environ)
    )


def wanted(settings: Settings, names: list[str] | None) -> list[Any]:
    """The providers of these names, or all.

    Raises:
        ConfigurationError: One is not configured.
    """
    unknown = set(names or ()) - {provider.name for provider in settings.providers}
    if unknown:
        configured = ", ".join(provider.name for provider in settings.providers)
        raise ConfigurationError(f"--provider: not configured: {', '.join(sorted(unknown))}; there are: {configured}")
    return [provider for provider in settings.providers if not names or provider.name in names]


def folder_of(arguments: argparse.Namespace) -> Path:
    """The storage folder: `--storage`, else that of the settings.

    Raises:
        ConfigurationError: There is none.
    """
    given = arguments.storage
    if not given and arguments.config:
        given = settings_of(arguments).sending_queue.storage
    if not given:
        given = os.environ.get(STORAGE, "").strip()
    if not given and os.environ.get(CONFIG, "").strip():
        given = config.from_environment().sending_queue.storage
    if not given:
        raise ConfigurationError(f"--storage: which folder? Give it, or --config, or set {STORAGE}")
    folder = Path(given)
    if not folder.is_dir():
        raise ConfigurationError(f"--storage: {str(given)!r} is no folder")
    if not os.access(folder, os.R_OK | os.X_OK):  # to look for files in it would find none, and say nothing
        raise ConfigurationError(f"--storage: {str(given)!r} is not yours to read")
    return folder


def default_country_of(arguments: argparse.Namespace) -> str | None:
    """The country of phone numbers without a calling code, as the app has it; the storage can be read without settings."""
    if arguments.config or os.environ.get(CONFIG, "").strip():
        return settings_of(arguments).default_country
    return config.default_country_of_environment()


class Event(NamedTuple):
    """An event as it was given.

    Attributes:
        timestamp: Unix nanoseconds; None is now.
    """

    name: str
    attributes: dict[str, Any]
    timestamp: int | None = None


def add_event(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "event",
        help='an event\'s name, or a file with {"name": "Purchase", "attributes": {...}}, or - for stdin',
    )
    parser.add_argument(
        "-a",
        "--attribute",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an attribute, such as -a value=49.99 -a currency=EUR; lists and maps in JSON",
    )


def event_of(arguments: argparse.Namespace) -> Event:
    """The event that `add_event` asks for.

    Raises:
        ConfigurationError: It is none.
    """
    given = arguments.event
    if given == "-" or given.endswith(".json") or os.path.sep in given:
        event = _read(given)
    else:
        event = Event(given, {})
    for pair in arguments.attribute:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise ConfigurationError(f"--attribute: {pair!r} must look like KEY=VALUE")
        event.attributes[key.strip()] = _typed(value)
    return event


def _typed(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    # What only looks like a number stays as it was written: 007, 1e5, 46701234567890123.
    return text if isinstance(found, (int, float)) and not isinstance(found, bool) and str(found) != text else found


def _read(path: str) -> Event:
    try:
        if path == "-":
            event = json.load(sys.stdin)
        else:
            with open(path, encoding="utf-8") as file:
                event = json.load(file)
    except OSError as problem:
        raise ConfigurationError(f"{path}: {problem.strerror}") from None
    except ValueError:
        raise ConfigurationError(f"{path}: not JSON") from None
    if not isinstance(event, dict) or not isinstance(event.get("name"), str):
        raise ConfigurationError(f'{path}: must be an object such as {{"name": "Purchase", "attributes": {{}}}}')
    for key in event:
        if key not in ("name", "attributes", "timestamp"):
            raise ConfigurationError(f"{path}: no such key {key!r}; allowed: name, attributes, timestamp")
    if not isinstance(event.get("attributes", {}), dict):
        raise ConfigurationError(f"{path}: attributes must be an object")
    timestamp = event.get("timestamp")
    if timestamp is not None and (not isinstance(timestamp, int) or isinstance(timestamp, bool)):
        raise ConfigurationError(f"{path}: timestamp must be Unix time in nanoseconds")
    return Event(event["name"], dict(event.get("attributes", {})), timestamp)

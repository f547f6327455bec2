"""Configuration: settings from code, keyword mappings and the environment, checked once, at start."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from .capture import Rules
from .conversion import EventType
from .country import ALPHA_2, alpha_2
from .errors import ConfigurationError
from .lane import QueueSettings
from .providers import provider_class, provider_types
from .providers.base import Provider
from .retry import RetryPolicy
from .semconv import STANDARD_EVENTS, event_key

DEFAULT_TIMEOUT = 10.0
PREFIX = "OTEL_EXPORTER_EVENTFLOWS_"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a pipeline is built from.

    Attributes:
        providers: The destinations; their names differ.
        timeout: Seconds to wait for a platform's connection and for its answer.
    """

    providers: tuple[Provider, ...]
    rules: Rules = field(default_factory=Rules)
    queue: QueueSettings = field(default_factory=QueueSettings)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float = DEFAULT_TIMEOUT


def settings(
    providers: Sequence[Provider] | Mapping[str, Any] | None = None,
    *,
    events: Mapping[str, str] | None = None,
    default_country: str | None = None,
    endpoint: str | None = None,
    timeout: float | str | None = None,
    sending_queue: Mapping[str, Any] | None = None,
    retry_on_failure: Mapping[str, Any] | None = None,
    **unknown: Any,
) -> Settings:
    """Check and build settings, alike from code and from a parsed mapping.

    Args:
        providers: Provider objects, or a mapping of ids (`type` or `type/name`) to their settings.
        events: Event names beyond the standard ones that are conversions, and their neutral types.
        default_country: ISO 3166-1 code for phone numbers without a calling code.
        endpoint: Sends every provider to `<endpoint>/<type>`, as the sandbox expects.
        timeout: Of one request. Durations are integers in milliseconds or strings with a unit (`10s`).
        sending_queue: `queue_size`, `flush_interval`.
        retry_on_failure: `initial_interval`, `max_interval`, `multiplier`, `max_elapsed_time`.

    Raises:
        ConfigurationError: Names the key, what is wrong with it and what is allowed.
    """
    for key in unknown:
        known = ("providers", "events", "default_country", "endpoint", "timeout", "sending_queue", "retry_on_failure")
        raise ConfigurationError(_unknown(key, known))
    built = _providers(providers, endpoint)
    country = alpha_2(str(default_country)) if default_country is not None else None
    if default_country is not None and country not in ALPHA_2:
        raise ConfigurationError(f"default_country: {default_country!r} is not an ISO 3166-1 code such as SE")
    return Settings(
        providers=built,
        rules=Rules(_events(events or {}, built), country),
        queue=_section("sending_queue", QueueSettings, sending_queue),
        retry=_section("retry_on_failure", RetryPolicy, retry_on_failure),
        timeout=DEFAULT_TIMEOUT if timeout is None else seconds("timeout", timeout),
    )


def seconds(key: str, value: object) -> float:
    """A duration in seconds: an integer is milliseconds, a string carries its unit."""
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return value / 1000
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or float(match[1]) == 0:
        raise ConfigurationError(f"{key}: {value!r} is not a duration: use milliseconds (5000) or a unit (5s, 15m)")
    return float(match[1]) * _UNITS[match[2]]


def _unknown(key: str, known: Sequence[str]) -> str:
    near = get_close_matches(key, known, 1)
    return f"{key}: no such setting{f', did you mean {near[0]}?' if near else ''} Allowed: {', '.join(known)}"


def _section(name: str, kind: type[Any], given: Mapping[str, Any] | None) -> Any:
    if given is None:
        return kind()
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{name}: must be a mapping")
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        path = f"{name}.{key}"
        if key not in known:
            raise ConfigurationError(_unknown(path, [f"{name}.{k}" for k in known]))
        if key in ("queue_size", "multiplier"):
            number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0
            if number < 1 or (key == "queue_size" and number != int(number)):
                raise ConfigurationError(f"{path}: {value!r} must be a number of at least 1")
            values[key] = int(number) if key == "queue_size" else float(number)
        else:
            values[key] = seconds(path, value)
    return kind(**values)


def _events(events: Mapping[str, str], providers: Sequence[Provider]) -> dict[str, EventType]:
    found = {event_key(n): EventType.CUSTOM for p in providers for n in getattr(p, "STANDARD_EVENTS", ())}
    found = {key: kind for key, kind in found.items() if key not in STANDARD_EVENTS}
    for name, kind in events.items():
        try:
            found[event_key(name)] = EventType(kind)
        except ValueError:
            allowed = ", ".join(t.value for t in EventType)
            raise ConfigurationError(f"events: {name!r} has type {kind!r}; allowed: {allowed}") from None
    return found


def _providers(given: Sequence[Provider] | Mapping[str, Any] | None, endpoint: str | None) -> tuple[Provider, ...]:
    if isinstance(given, Mapping):
        built = [provider(name, options) for name, options in given.items()]
    else:
        built = list(given or ())
    for one in built:
        if not isinstance(one, Provider):
            raise ConfigurationError(f"providers: {type(one).__name__} is not a Provider (such as MetaProvider(...))")
    if not built:
        raise ConfigurationError(f"providers: none configured; there are: {', '.join(provider_types())}")
    names = [one.name for one in built]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"providers: two are named {name!r}; give one name='{name}/other'")
    if endpoint:
        built = [
            replace(one, endpoint=f"{endpoint.rstrip('/')}/{one.TYPE}") if not one.endpoint else one for one in built
        ]
    return tuple(built)


def provider(name: str, options: Mapping[str, Any] | None) -> Provider:
    """One provider from its id and its settings, as in a configuration file."""
    cls = provider_class(name.partition("/")[0])
    known = [f.name for f in fields(cls) if f.name != "name"]
    options = dict(options or {})
    for key in options:
        if key not in known:
            raise ConfigurationError(_unknown(f"providers.{name}.{key}", [f"providers.{name}.{k}" for k in known]))
    required = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    for key in required:
        if options.get(key) in (None, ""):
            raise ConfigurationError(f"providers.{name}.{key}: required")
    return cls(name=name, **options)


def from_environment(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from `OTEL_EXPORTER_EVENTFLOWS_*`, by OpenTelemetry's rules: empty is unset, only `true` is true.

    Raises:
        ConfigurationError: As `settings`, and for a variable of that prefix that means nothing.
    """
    environ = os.environ if environ is None else environ
    given = {k[len(PREFIX) :]: v.strip() for k, v in environ.items() if k.startswith(PREFIX) and v.strip()}
    options: dict[str, Any] = {}
    providers: dict[str, dict[str, Any]] = {}
    types = {t.upper(): t for t in provider_types()}
    allowed = {
        "ENDPOINT": "endpoint",
        "DEFAULT_COUNTRY": "default_country",
        "TIMEOUT": "timeout",
        "SENDING_QUEUE_QUEUE_SIZE": "sending_queue.queue_size",
        "SENDING_QUEUE_FLUSH_INTERVAL": "sending_queue.flush_interval",
        "RETRY_ON_FAILURE_INITIAL_INTERVAL": "retry_on_failure.initial_interval",
        "RETRY_ON_FAILURE_MAX_INTERVAL": "retry_on_failure.max_interval",
        "RETRY_ON_FAILURE_MAX_ELAPSED_TIME": "retry_on_failure.max_elapsed_time",
    }
    for key, value in given.items():
        prefix, _, setting = key.partition("_")
        if path := allowed.get(key):
            section, _, name = path.partition(".")
            if name:
                number = int(value) if name == "queue_size" and value.isdigit() else value
                options.setdefault(section, {})[name] = number
            else:
                options[section] = value
        elif prefix in types:
            _provider_setting(PREFIX + key, types[prefix], setting.lower(), value, providers)
        else:
            names = [PREFIX + name for name in (*allowed, *(f"{t}_<SETTING>" for t in types))]
            raise ConfigurationError(_unknown(PREFIX + key, names))
    return settings(providers, **options)


def default_country_of_environment() -> str | None:
    """The one setting of the environment that matters also where the providers come from elsewhere."""
    return os.environ.get(PREFIX + "DEFAULT_COUNTRY", "").strip() or None


def _provider_setting(key: str, kind: str, setting: str, value: str, providers: dict[str, dict[str, Any]]) -> None:
    cls = provider_class(kind)
    types = {f.name: str(f.type) for f in fields(cls) if f.name not in ("name", "extra")}
    if setting == "enabled":  # for providers that need no other setting, such as the console
        if value.lower() == "true":
            providers.setdefault(kind, {})
        return
    if setting not in types:
        upper = key[: len(key) - len(setting)]
        raise ConfigurationError(_unknown(key, [upper + name.upper() for name in ("enabled", *types)]))
    parsed: Any = value
    if "bool" in types[setting]:
        parsed = value.lower() == "true"
    elif setting == "events":
        parsed = [name.strip() for name in value.split(",")]
    providers.setdefault(kind, {})[setting] = parsed

"""Configuration: settings from code, keyword mappings and the environment, checked once, at start."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from opentelemetry.sdk.resources import Resource

from .capture import Rules
from .checks import boolean, booleans, mapping, one_of, seconds, texts, unknown_key
from .commit import DEFAULT_TIMEOUT as COMMIT_TIMEOUT
from .consent import GROUPS, NO_RULES, SEC_GPC_EFFECTS, ConsentPolicy, Regime
from .conversion import Consent, EventType
from .country import ALPHA_2, alpha_2
from .environments import MODES
from .errors import ConfigurationError
from .outbox import QueueSettings
from .pii import Unusable
from .providers import provider_class, provider_types
from .providers.base import Provider
from .proxies import networks
from .retry import RetryPolicy
from .semconv import COMMITS, CONSENT_PURPOSES, IMMEDIATE, STANDARD_EVENTS, event_key
from .values import flag
from .visitor import VisitorSettings

DEFAULT_TIMEOUT = 10.0
PREFIX = "OTEL_EXPORTER_EVENTFLOWS_"


@dataclass(frozen=True, slots=True)
class PrivacySettings:
    """What others may see of a conversion, beyond that raw personal data is sealed always.

    Attributes:
        strict: Refuse to start where the installed OpenTelemetry does not let us seal before others see.
        omit_request: Keep off the log records what a conversion took from the visitor's request (address, user agent, click
            ids, ...). A gateway that delivers from those records then has less to match.
    """

    strict: bool = False
    omit_request: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a pipeline is built from.

    Attributes:
        providers: The destinations; their names differ.
        timeout: Seconds to wait for a platform's connection and for its answer.
        commit: `immediate`, or `span_ok`: wait for the end of the local root span or request, and drop where that failed.
        commit_timeout: Seconds after which a conversion that waits is delivered all the same.
        environments: Environment's name → `live` or `test`; empty is live.
        environment: The environment's name, instead of the resource's `deployment.environment.name`.
        send_synthetic: Deliver what bots and tests do as well.
        telemetry: Metrics and delivery spans of our own, through the app's MeterProvider and TracerProvider.
    """

    providers: tuple[Provider, ...]
    rules: Rules = field(default_factory=Rules)
    queue: QueueSettings = field(default_factory=QueueSettings)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float = DEFAULT_TIMEOUT
    visitor: VisitorSettings = field(default_factory=VisitorSettings)
    consent: ConsentPolicy = field(default_factory=ConsentPolicy)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    commit: str = IMMEDIATE
    commit_timeout: float = COMMIT_TIMEOUT
    environments: Mapping[str, str] = field(default_factory=dict)
    environment: str | None = None
    send_synthetic: bool = False
    telemetry: bool = True


def settings(
    providers: Sequence[Provider] | Mapping[str, Any] | None = None,
    *,
    events: Mapping[str, str] | None = None,
    default_country: str | None = None,
    endpoint: str | None = None,
    timeout: float | str | None = None,
    sending_queue: Mapping[str, Any] | None = None,
    retry_on_failure: Mapping[str, Any] | None = None,
    visitor: Mapping[str, Any] | None = None,
    consent: Mapping[str, Any] | None = None,
    privacy: Mapping[str, Any] | None = None,
    commit: str | None = None,
    commit_timeout: float | str | None = None,
    environments: Mapping[str, str] | None = None,
    environment: str | None = None,
    send_synthetic: bool = False,
    telemetry: bool = True,
    **unknown: Any,
) -> Settings:
    """Check and build settings, alike from code and from a parsed mapping.

    Args:
        providers: Provider objects, or a mapping of ids (`type` or `type/name`) to their settings.
        events: Event names beyond the standard ones that are conversions, and their neutral types.
        default_country: ISO 3166-1 code for phone numbers without a calling code.
        endpoint: Sends every provider to `<endpoint>/<type>`, as the sandbox expects.
        timeout: Of one request. Durations are integers in milliseconds or strings with a unit (`10s`).
        sending_queue: `queue_size`, `flush_interval`, `num_consumers`, `storage` (a folder), `retention` (`30d`).
        retry_on_failure: `initial_interval`, `max_interval`, `multiplier`, `max_elapsed_time`.
        visitor: `trusted_proxies` (addresses, networks, `private`, `loopback`), `baggage` (true or false), `baggage_hosts`.
        consent: `default` and `regions` say what an unknown choice counts as (`granted`, `denied`, or a mapping of purposes),
            `sec_gpc` what `Sec-GPC: 1` does (`ignore`, `limited_data_use`, `denied`).
        privacy: `strict`, `omit_request`.
        commit: `immediate` or `span_ok`.
        commit_timeout: How long a conversion waits for the end of its span.
        environments: `deployment.environment.name` → `live` or `test`; `"*"` is any other.
        environment: The environment's name, where the resource does not have it.
        telemetry: Metrics and delivery spans of our own.
        send_synthetic: Deliver also what `user_agent.synthetic.type` says was sent by a bot or a test.

    Raises:
        ConfigurationError: Names the key, what is wrong with it and what is allowed.
    """
    for key in unknown:
        known = [f.name for f in fields(Settings) if f.name not in ("rules", "queue", "retry")]
        raise ConfigurationError(
            unknown_key(key, [*known, "events", "default_country", "endpoint", "sending_queue", "retry_on_failure"])
        )
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
        visitor=_visitor(visitor),
        consent=_consent(consent),
        privacy=PrivacySettings(**booleans("privacy", privacy, PrivacySettings)),
        commit=one_of("commit", commit, COMMITS, IMMEDIATE),
        commit_timeout=COMMIT_TIMEOUT if commit_timeout is None else seconds("commit_timeout", commit_timeout),
        environments=_environments(environments),
        environment=None if environment is None else str(environment),
        send_synthetic=boolean("send_synthetic", send_synthetic),
        telemetry=boolean("telemetry", telemetry),
    )


def _visitor(given: object) -> VisitorSettings:
    section = mapping("visitor", given, [f.name for f in fields(VisitorSettings)])
    hosts = texts("visitor.baggage_hosts", section.get("baggage_hosts", ()))
    return VisitorSettings(
        networks(texts("visitor.trusted_proxies", section.get("trusted_proxies", ()))),
        boolean("visitor.baggage", section.get("baggage", False)),
        tuple(host.lower() for host in hosts),
    )


def _environments(given: object) -> dict[str, str]:
    return {
        str(name): one_of(f"environments.{name}", mode, MODES, "")
        for name, mode in mapping("environments", given).items()
    }


def _consent(given: object) -> ConsentPolicy:
    section = mapping("consent", given, ("default", "regions", "sec_gpc"))
    regions = {}
    for name, regime in mapping("consent.regions", section.get("regions")).items():
        key = str(name).upper()
        if key not in GROUPS and key.partition("-")[0] not in ALPHA_2:
            raise ConfigurationError(
                f"consent.regions: {name!r} is neither a country (DE) nor a part of one (US-CA) nor {' nor '.join(GROUPS)}"
            )
        regions[key] = _regime(f"consent.regions.{name}", regime, None)
    default = _regime("consent.default", section.get("default"), section.get("sec_gpc"))
    return ConsentPolicy(NO_RULES if default == NO_RULES else default, regions)


def _regime(key: str, given: object, sec_gpc: object) -> Regime:
    if isinstance(given, str):
        given = dict.fromkeys(CONSENT_PURPOSES, given)
    section = dict(mapping(key, given, (*CONSENT_PURPOSES, "sec_gpc")))
    gpc_key, sec_gpc = (
        (f"{key}.sec_gpc", section.pop("sec_gpc")) if "sec_gpc" in section else ("consent.sec_gpc", sec_gpc)
    )
    choices = {}
    for purpose, choice in section.items():
        try:
            choices[purpose] = flag(choice)
        except Unusable:
            raise ConfigurationError(f"{key}.{purpose}: {choice!r} is neither granted nor denied") from None
    return Regime(Consent(**choices), one_of(gpc_key, sec_gpc, SEC_GPC_EFFECTS, "") or None)


_COUNTS = frozenset({"queue_size", "num_consumers"})


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
            raise ConfigurationError(unknown_key(path, [f"{name}.{k}" for k in known]))
        if key in _COUNTS or key == "multiplier":
            number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0
            if number < 1 or (key in _COUNTS and number != int(number)):
                raise ConfigurationError(f"{path}: {value!r} must be a number of at least 1")
            values[key] = int(number) if key in _COUNTS else float(number)
        elif key == "storage":
            if value is not None and not (isinstance(value, (str, os.PathLike)) and str(value)):
                raise ConfigurationError(f"{path}: {value!r} must be the path of a folder")
            values[key] = None if value is None else os.fspath(value)
        elif key == "max_elapsed_time" and value in (0, "0"):
            values[key] = 0.0
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
            raise ConfigurationError(unknown_key(f"providers.{name}.{key}", [f"providers.{name}.{k}" for k in known]))
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
        "SENDING_QUEUE_NUM_CONSUMERS": "sending_queue.num_consumers",
        "SENDING_QUEUE_STORAGE": "sending_queue.storage",
        "SENDING_QUEUE_RETENTION": "sending_queue.retention",
        "RETRY_ON_FAILURE_INITIAL_INTERVAL": "retry_on_failure.initial_interval",
        "RETRY_ON_FAILURE_MAX_INTERVAL": "retry_on_failure.max_interval",
        "RETRY_ON_FAILURE_MAX_ELAPSED_TIME": "retry_on_failure.max_elapsed_time",
        "VISITOR_TRUSTED_PROXIES": "visitor.trusted_proxies",
        "VISITOR_BAGGAGE": "visitor.baggage",
        "VISITOR_BAGGAGE_HOSTS": "visitor.baggage_hosts",
        "CONSENT_DEFAULT": "consent.default",
        "CONSENT_REGIONS": "consent.regions",
        "CONSENT_SEC_GPC": "consent.sec_gpc",
        "PRIVACY_STRICT": "privacy.strict",
        "PRIVACY_OMIT_REQUEST": "privacy.omit_request",
        "COMMIT": "commit",
        "COMMIT_TIMEOUT": "commit_timeout",
        "ENVIRONMENTS": "environments",
        "ENVIRONMENT": "environment",
        "SEND_SYNTHETIC": "send_synthetic",
    }
    for key, value in given.items():
        prefix, _, setting = key.partition("_")
        if path := allowed.get(key):
            section, _, name = path.partition(".")
            parsed = _from_text(PREFIX + key, path, value)
            if name:
                options.setdefault(section, {})[name] = parsed
            else:
                options[section] = parsed
        elif prefix in types:
            _provider_setting(PREFIX + key, types[prefix], setting.lower(), value, providers)
        else:
            names = [PREFIX + name for name in (*allowed, *(f"{t}_<SETTING>" for t in types))]
            raise ConfigurationError(unknown_key(PREFIX + key, names))
    return settings(providers, **options)


def resource_of_environment() -> Mapping[str, Any] | None:
    """The attributes of the resource that the SDK makes from the environment; None where a declarative file makes it."""
    return None if os.environ.get("OTEL_CONFIG_FILE") else Resource.create().attributes


_BOOLEANS = frozenset({"visitor.baggage", "privacy.strict", "privacy.omit_request", "send_synthetic"})
_PAIRS = frozenset({"environments", "consent.regions"})


def _from_text(variable: str, path: str, value: str) -> Any:
    if path in _BOOLEANS:
        return value.lower() == "true"
    if path.rpartition(".")[2] in _COUNTS and value.isdigit():
        return int(value)
    if path in _PAIRS:  # as OTEL_RESOURCE_ATTRIBUTES writes them
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        if not all(separator for _, separator, _ in pairs):
            raise ConfigurationError(f"{variable}: {value!r} must be a list of name=value with commas between")
        return {name.strip(): one.strip() for name, _, one in pairs}
    return value


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
        raise ConfigurationError(unknown_key(key, [upper + name.upper() for name in ("enabled", *types)]))
    parsed: Any = value
    if "bool" in types[setting]:
        parsed = value.lower() == "true"
    elif setting == "events":
        parsed = [name.strip() for name in value.split(",")]
    providers.setdefault(kind, {})[setting] = parsed

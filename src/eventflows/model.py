"""The model of a configuration: every setting with its kind, and the frozen dataclasses that hold the clean values.

Code, mappings, files and the environment are read by this tree; the JSON Schema and the tables in the documentation are
made from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .capture import Rules
from .checks import Problems, below, shown, wrong
from .commit import DEFAULT_TIMEOUT as COMMIT_TIMEOUT
from .consent import ConsentPolicy
from .consent_settings import Consents
from .conversion import EventType
from .country import ALPHA_2, alpha_2
from .delivery_settings import (
    QUEUE,
    RETRY,
    TLS,
    ProxyUrl,
    QueueSettings,
    TlsSettings,
    retry_contradictions,
    transport_settings,
)
from .environments import MODES, mode_of
from .errors import ConfigurationError
from .kinds import Boolean, Choice, Duration, Kind, Mapped, Section, Text, Texts, Url
from .pools import TransportSettings
from .provider_list import Providers
from .providers import provider_types
from .providers.base import Provider
from .proxies import networks
from .retry import RetryPolicy
from .secret import Secret
from .semconv import COMMITS, IMMEDIATE, STANDARD_EVENTS, event_key
from .visitor import VisitorSettings


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
class LaneSettings:
    """What one provider's lane is built from; lanes with equal settings need not be built anew."""

    provider: Provider
    queue: QueueSettings
    retry: RetryPolicy
    transport: TransportSettings
    consent: ConsentPolicy
    send_synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a pipeline is built from. The names are those of the configuration file and of `eventflows.configure`.

    Attributes:
        providers: The destinations, by id: a provider's type, or `type/name`.
        events: Event names beyond the standard ones that are conversions, and their neutral types.
        default_country: ISO 3166-1 code for phone numbers without a calling code.
        endpoint: Sends every provider to `<endpoint>/<type>`, as the sandbox expects.
        timeout: To wait for a platform's connection, and then for its answer.
        sending_queue: The queue of each provider, and the storage of all.
        retry_on_failure: The waits between attempts.
        tls: Certificates for the connections to the platforms.
        proxy_url: Of an HTTP proxy to the platforms; it may hold a password. Without one the environment's is used.
        visitor: How the visitor's request is read.
        consent: What an unknown choice of the visitor counts as.
        privacy: What others may see of a conversion.
        commit: `immediate`, or `span_ok`: wait for the end of the local root span or request, and drop where that failed.
        commit_timeout: After which a conversion that waits is delivered all the same.
        environments: `deployment.environment.name` → `live` or `test`; `*` is any other. Without it everything is live.
        environment: The environment's name, instead of the resource's.
        send_synthetic: Deliver what bots and tests do as well.
        telemetry: Metrics and delivery spans of our own, through the app's MeterProvider and TracerProvider.
        reload_on_sighup: Read the configuration file again at each SIGHUP.
        rules: The events and the country, as the capture takes them.
        source: The file that all this was read from.
    """

    providers: tuple[Provider, ...] = ()
    events: Mapping[str, EventType] = field(default_factory=dict)
    default_country: str | None = None
    endpoint: str | None = None
    timeout: float = 10.0
    sending_queue: QueueSettings = field(default_factory=QueueSettings)
    retry_on_failure: RetryPolicy = field(default_factory=RetryPolicy)
    tls: TlsSettings = field(default_factory=TlsSettings)
    proxy_url: Secret | None = None
    visitor: VisitorSettings = field(default_factory=VisitorSettings)
    consent: ConsentPolicy = field(default_factory=ConsentPolicy)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    commit: str = IMMEDIATE
    commit_timeout: float = COMMIT_TIMEOUT
    environments: Mapping[str, str] = field(default_factory=dict)
    environment: str | None = None
    send_synthetic: bool = False
    telemetry: bool = True
    reload_on_sighup: bool = False
    rules: Rules = field(init=False, compare=False, repr=False)
    source: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.endpoint is not None:
            under = self.endpoint
            providers = [p if p.endpoint else replace(p, endpoint=f"{under}/{p.TYPE}") for p in self.providers]
            object.__setattr__(self, "providers", tuple(providers))
        names = {event_key(n): EventType.CUSTOM for p in self.providers for n in getattr(p, "STANDARD_EVENTS", ())}
        names = {key: kind for key, kind in names.items() if key not in STANDARD_EVENTS}
        names.update((event_key(name), kind) for name, kind in self.events.items())
        object.__setattr__(self, "rules", Rules(names, self.default_country))

    def lane(self, provider: Provider) -> LaneSettings:
        """What holds for one provider: its own settings before those for all."""
        own_queue: Mapping[str, Any] = provider.sending_queue or {}
        own_retry: Mapping[str, Any] = provider.retry_on_failure or {}
        return LaneSettings(provider, replace(self.sending_queue, **own_queue), replace(self.retry_on_failure, **own_retry),
            self.transport(provider), self.consent, self.send_synthetic)  # fmt: skip

    def mode(self, provider: Provider, environment: str | None) -> str:
        """`live` or `test`, for a provider in an environment of this name.

        Raises:
            ConfigurationError: The table of environments does not say it.
        """
        return mode_of(self.environments if provider.environments is None else provider.environments, environment)

    def transport(self, provider: Provider) -> TransportSettings:
        """How a provider's requests travel."""
        own: Any = provider
        return transport_settings(
            self.timeout if own.timeout is None else own.timeout, own.tls or self.tls, own.proxy_url or self.proxy_url
        )


@dataclass(frozen=True)
class Country(Kind):
    """An ISO 3166-1 code, also of three letters."""

    def read(self, path: str, value: Any) -> str:
        found = alpha_2(value) if isinstance(value, str) else None
        if found not in ALPHA_2:
            hint = ' (in quotes: "NO")' if value is False else ""
            raise wrong(path, f"{shown(value)} is not an ISO 3166-1 code such as SE{hint}")
        return found

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[A-Za-z]{2,3}$|\$\{"}


@dataclass(frozen=True)
class EventTypes(Mapped):
    """Event names of one's own, and their neutral types."""

    of: Kind = Choice([kind.value for kind in EventType])  # noqa: RUF009 reason: it is immutable

    def read(self, path: str, value: Any) -> dict[str, EventType]:
        return {name: EventType(kind) for name, kind in super().read(path, value).items()}


@dataclass(frozen=True)
class Networks(Texts):
    """Addresses and networks of proxies, and words for some."""

    def read(self, path: str, value: Any) -> Any:
        try:
            return networks(super().read(path, value))
        except ConfigurationError as error:
            raise wrong(path, error.problems[0].message.removeprefix("trusted_proxies: ")) from None


@dataclass(frozen=True)
class Hosts(Texts):
    """Host names, in lower case."""

    def read(self, path: str, value: Any) -> tuple[str, ...]:
        return tuple(host.lower() for host in super().read(path, value))


def _contradictions(found: Settings, _given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for provider in found.providers:
        if own := provider.retry_on_failure:
            for key, message in retry_contradictions(found.lane(provider).retry, own):
                yield f"providers.{provider.name}.retry_on_failure.{key}", message


SETTINGS = Section(
    Settings,
    {
        "providers": Providers(),
        "events": EventTypes(),
        "default_country": Country(),
        "endpoint": Url(),
        "timeout": Duration(),
        "sending_queue": QUEUE,
        "retry_on_failure": RETRY,
        "tls": TLS,
        "proxy_url": ProxyUrl(),
        "visitor": Section(
            VisitorSettings, {"trusted_proxies": Networks(), "baggage": Boolean(), "baggage_hosts": Hosts()}
        ),
        "consent": Consents(),
        "privacy": Section(PrivacySettings, {"strict": Boolean(), "omit_request": Boolean()}),
        "commit": Choice(COMMITS),
        "commit_timeout": Duration(),
        "environments": Mapped(Choice(MODES)),
        "environment": Text(),
        "send_synthetic": Boolean(),
        "telemetry": Boolean(),
        "reload_on_sighup": Boolean(),
    },
    _contradictions,
)


def leaves(kind: Any, path: str = "") -> Iterator[tuple[str, Kind]]:
    """Each setting below a section with its path, and a section itself where it has a short form."""
    for key, one in kind.settings.items():
        at = below(path, key)
        if not hasattr(one, "settings"):
            yield at, one
            continue
        if getattr(one, "short", None) is not None:
            yield at, one
        yield from leaves(one, at)


def read_settings(given: Mapping[str, Any]) -> Settings:
    """Check and build the settings.

    Raises:
        ConfigurationError: All that is wrong with them.
    """
    problems = Problems()
    values: dict[str, Any] = {}
    if not given.get("providers"):
        problems.add("providers", f"none configured; there are: {', '.join(provider_types())}")
        given = {key: value for key, value in given.items() if key != "providers"}
    with problems.noted():
        values = SETTINGS.values("", given)
    problems.raise_any()
    built: Settings = SETTINGS.build("", values)
    return built

"""The contract between the pipeline and a provider, the adapter of one platform.

A provider is constants plus pure functions: no I/O, no clock, no environment. The pipeline asks it three things:

    encode(conversion)           conversion → one wire event, or the reason why the platform cannot take it
    request(batch)               encoded events of one group → one HTTP request
    outcomes(response, batch)    the answer → one outcome per event of the batch
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

from ..conditions import Condition
from ..conversion import Conversion, EventType, Identifiers
from ..conversion import Request as VisitorRequest
from ..delivery_settings import TlsSettings
from ..errors import ConfigurationError
from ..pii import FORMS, digest
from ..provider_settings import clean
from ..secret import SecretLike
from ..selection import EventFilter, Rename, Tenant
from ..semconv import CLICK_IDS

DAY_NS = 24 * 3600 * 10**9
MATCH_KEYS = frozenset(
    "email phone first_name last_name date_of_birth gender street external_id city region postal_code country client_address "
    "user_agent advertising_id app_instance_id".split()
) | frozenset(CLICK_IDS)
"""What a platform can match a person by, in our names; a provider names those that it sends."""
MINUTE_NS = 60 * 10**9
TEST_NAME = "EventFlowsCheck"
"""The name of the event that tests credentials, should it show in somebody's reports."""
_NAME = re.compile(r"[A-Za-z][\w.-]*(/[\w.-]+)?")


class Unencodable(Exception):
    """Raised by `encode`: the platform has no place for this conversion.

    Args:
        reason: Why, in words for a person and without any value of the event (it becomes a counter's label).
        filtered: True where the platform simply has no such event, False where it would refuse this one.
    """

    def __init__(self, reason: str, *, filtered: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.filtered = filtered


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Encoded(NamedTuple):
    """One conversion as the platform wants it.

    Attributes:
        event: The wire object of the event itself.
        envelope: What the platform wants once per request; only events with equal envelopes share a request.
        repeatable: Whether the platform recognises a second delivery of this event as the same one.
        common: What the request says as well where all its events say the same.
    """

    event: dict[str, Any]
    envelope: Mapping[str, Any] = _NOTHING
    repeatable: bool = True
    common: Mapping[str, Any] = _NOTHING


class Sent(Protocol):
    """An event in a request: what `Encoded` says of it, but for its object, which is written already."""

    @property
    def envelope(self) -> Mapping[str, Any]: ...
    @property
    def repeatable(self) -> bool: ...
    @property
    def common(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request around events, which are written already; the transport puts them and the secrets in place.

    Attributes:
        envelope: The body without its events.
        events_at: The keys that lead to the list of events in the body; none where the list is the body.
    """

    method: str
    url: str
    envelope: Mapping[str, Any]
    events_at: Sequence[str]
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_params: Mapping[str, SecretLike] = field(default_factory=dict, repr=False)
    secret_headers: Mapping[str, SecretLike] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """What came back: a status and a body, or (status 0) the reason why nothing did.

    Attributes:
        json: The parsed body, or None where it is not JSON.
        sent: False only where the request certainly never reached the platform.
        retry_after: The header's seconds, where there was one.
        html: The body is a web page: some proxy's answer and not the platform's.
        dropped: A kept connection turned out to be closed, as platforms close idle ones.
    """

    status: int
    json: Any = None
    error: str = ""
    sent: bool = True
    retry_after: float | None = None
    html: bool = False
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class Api:
    """The version of the platform's API that a provider uses.

    Attributes:
        version: As it stands in the URL; empty where the API has no versions.
        ends: The day from which the platform may refuse it; None where none is set.
        newer: The version to move to, where it ends.
    """

    version: str = ""
    ends: date | None = None
    newer: str = ""


class Status(str, Enum):
    """What an answer means for one event."""

    DELIVERED = "delivered"
    REFUSED = "refused"  # for good, and this event is why
    RESEND = "resend"  # not processed because of another event of its batch: send again without that one
    SUSPECT = "suspect"  # the batch was refused without naming the culprit: send again in halves
    RETRY = "retry"  # not processed, may work later
    UNAUTHORIZED = "unauthorized"  # the credentials or the account, not the event


class Outcome(NamedTuple):
    """The verdict on one event. `reason` is free of the event's values: it is logged and counted."""

    status: Status
    reason: str = ""


DELIVERED = Outcome(Status.DELIVERED)
NOT_THE_CULPRIT = Outcome(Status.RESEND, "another event of the batch was refused")


def all_of(batch: Sequence[Sent], status: Status, reason: str = "") -> list[Outcome]:
    """The same outcome for every event of the batch."""
    return [Outcome(status, reason)] * len(batch)


def refused_at(batch: Sequence[Sent], reasons: Mapping[int, str]) -> list[Outcome]:
    """The events at these indices are refused; the rest was not processed and can go again."""
    return [Outcome(Status.REFUSED, reasons[i]) if i in reasons else NOT_THE_CULPRIT for i in range(len(batch))]


def unanswered(response: Response, batch: Sequence[Sent]) -> list[Outcome]:
    """No usable answer came: send again what the platform would recognise, or what never reached it."""
    return [
        Outcome(Status.RETRY, response.error)
        if sent.repeatable or not response.sent
        else Outcome(Status.REFUSED, "the answer was lost, and the platform would count a second delivery twice")
        for sent in batch
    ]


def by_http_status(response: Response, batch: Sequence[Sent]) -> list[Outcome]:
    """What an HTTP status means where the body says nothing better."""
    status, reason = response.status, f"HTTP {response.status}"
    if status == 0:
        return unanswered(response, batch)
    if status < 300:
        return all_of(batch, Status.RETRY, f"{reason} without the platform's answer")
    if status < 400 or status in (408, 425, 429) or status >= 500:  # redirects are some proxy's, to a login, say
        return all_of(batch, Status.RETRY, reason)
    if status in (401, 403, 404, 407):
        return all_of(batch, Status.UNAUTHORIZED, reason)
    return all_of(batch, Status.SUSPECT, reason)


@dataclass(frozen=True, kw_only=True)
class Provider:
    """What all providers have in common. Subclasses add their credentials as the first, positional fields.

    Args:
        name: The id in statistics and for routing: the type (`meta`) or `type/name` (`meta/eu`).
        endpoint: Replaces scheme, host and path prefix of the platform's URL (sandbox, proxy, tests).
        events: The conversion types or event names it gets, as a list or as `include` and `exclude`; without it all.
        when: A condition on the attributes of event and resource; in code also a function of them.
        sample: The share of the conversions it gets, above 0 and at most 1. A conversion's id decides.
        tenant: Whose conversions these are; a file makes it from `tenants`.
        rename: `events` and `properties` → the names that this provider is to see.
        extra: Deep-merged into each wire event, for what is not modelled here.
        test_code: Marks requests as tests, where the platform has such a code.
        needs_consent: The purposes that must not be denied, instead of those of the class.
        environments: Instead of those for all providers.
        timeout: Of one request, instead of the one for all providers.
        retry_on_failure: Some of its settings, instead of those for all providers.
        sending_queue: `queue_size`, `flush_interval` and `num_consumers`, instead of those for all providers.
        tls: Instead of the one for all providers.
        proxy_url: Instead of the one for all providers.

    Raises:
        ConfigurationError: All settings that are missing or wrong.
    """

    name: str = ""
    endpoint: str | None = None
    events: EventFilter | Sequence[str] | Mapping[str, Any] | None = None
    when: Condition | str | Callable[[Mapping[str, Any]], object] | None = None
    sample: float | None = None
    tenant: Tenant | None = None
    rename: Rename | Mapping[str, Any] | None = None
    extra: Mapping[str, Any] | None = None
    test_code: str | None = None
    needs_consent: Sequence[str] | None = None
    environments: Mapping[str, str] | None = None
    timeout: float | str | None = None
    retry_on_failure: Mapping[str, Any] | None = None
    sending_queue: Mapping[str, Any] | None = None
    tls: TlsSettings | Mapping[str, Any] | None = None
    proxy_url: SecretLike | None = None

    TYPE: ClassVar[str]
    URL: ClassVar[str]
    REQUIRED: ClassVar[tuple[str, ...]] = ()
    METHOD: ClassVar[str] = "POST"
    SECRETS: ClassVar[tuple[str, ...]] = ()
    NEEDS_CONSENT: ClassVar[tuple[str, ...]] = ("ad_storage", "ad_user_data")
    MAX_BATCH: ClassVar[int] = 1000
    MAX_BYTES: ClassVar[int] = 1_000_000
    MAX_AGE_NS: ClassVar[int | None] = 7 * DAY_NS
    MAX_AHEAD_NS: ClassVar[int | None] = 5 * MINUTE_NS  # None: the platform has no limit, the time is set to now
    MAX_REQUESTS_PER_SECOND: ClassVar[float | None] = None  # with one credential
    MAX_EVENTS_PER_SECOND: ClassVar[float | None] = None
    MATCH_KEYS: ClassVar[frozenset[str]] = MATCH_KEYS
    API_VERSION: ClassVar[str] = ""
    HOW_TO_TEST: ClassVar[str] = "this platform has no safe way to test credentials"  # what to configure for it
    NOT_TESTED: ClassVar[str] = ""  # what a good answer to a test event does not prove
    EVENT_NAMES: ClassVar[Mapping[EventType, str]] = {}

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.TYPE)
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigurationError(f"{self.TYPE}: name must look like '{self.TYPE}' or '{self.TYPE}/eu'")
        clean(self)

    def contradictions(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the settings beyond the type of each, as `(setting, message)`."""
        return ()

    def __repr__(self) -> str:
        shown = (
            f"{f.name}={'***' if f.name in self.SECRETS else repr(getattr(self, f.name))}"
            for f in fields(self)
            if getattr(self, f.name) is not None
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def base_url(self) -> str:
        return self.endpoint or self.URL

    @cached_property
    def is_selective(self) -> bool:
        """Whether its settings keep some conversions from it."""
        return (self.events, self.when, self.tenant, self.sample) != (None, None, None, None)

    def for_testing(self) -> Provider | None:
        """This provider as it is used outside production: with the platform's test code or debug endpoint.

        None where the platform has none, or none is configured; its requests are then logged and not sent.
        """
        return self if self.test_code else None

    def test_conversion(self, now: int) -> Conversion:
        """The conversion that `eventflows check` sends by `for_testing`, to see whether the credentials are right.

        Args:
            now: Unix time in nanoseconds.
        """
        person = Identifiers(sealed={form: (digest(TEST_NAME),) for form in FORMS})
        return Conversion(
            id=f"eventflows-check-{now}",
            type=EventType.CUSTOM,
            name=TEST_NAME,
            time_unix_nano=now,
            user=person,
            request=VisitorRequest(url="https://eventflows.invalid/check"),
        )

    def api(self) -> Api:
        """The version of the platform's API, and when it ends."""
        return Api(self.API_VERSION)

    def max_age_ns(self, conversion: Conversion) -> int | None:  # noqa: ARG002 reason: providers differ by it
        """How old this conversion may be when it is sent, in nanoseconds; None is unlimited."""
        return self.MAX_AGE_NS

    def encode(self, conversion: Conversion) -> Encoded:
        """Map one conversion to the platform's event.

        Raises:
            Unencodable: The platform has no such event, or would refuse it.
        """
        raise NotImplementedError

    def request(self, batch: Sequence[Sent]) -> Request:
        """The request that carries these events, which share one envelope; the pipeline puts them into it."""
        raise NotImplementedError

    def outcomes(self, response: Response, batch: Sequence[Sent]) -> list[Outcome]:
        """One outcome per event of the batch, in its order."""
        raise NotImplementedError


def present(**fields: Any) -> dict[str, Any]:
    """A wire object without the keys that have nothing to say (None, empty string, empty collection)."""
    return {key: value for key, value in fields.items() if value or value == 0}


def scalars(properties: Mapping[str, Any], taken: Iterable[str] = ()) -> dict[str, Any]:
    """The custom properties that are plain strings, numbers or booleans and do not clash with a modelled key."""
    reserved = frozenset(taken)
    return {k: v for k, v in properties.items() if isinstance(v, (str, int, float, bool)) and k not in reserved}


def as_text(value: Any) -> str:
    """A property that the platform documents as a string; what is none is written as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_texts(value: Any) -> list[str]:
    """A property that the platform documents as a list of strings."""
    return [as_text(one) for one in (value if isinstance(value, list) else [value]) if one is not None]


def as_amount(value: Any) -> float | int | None:
    """A property that the platform documents as a number, or None."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value.strip()):
        return amount if math.isfinite(amount := float(value)) else None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def one_of(allowed: str) -> Callable[[Any], str | None]:
    """For a property of which the platform documents the values, as a pattern: the value, or None for another."""
    return lambda value: value if isinstance(value, str) and re.fullmatch(allowed, value) else None


# At the head of an Accept-Language header or of a POSIX locale, too.
_LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8})*(?=$|[\s,;.@])")


def language_tag(language: str | None) -> str | None:
    """The tag of a language as BCP 47 writes it (`sv-SE`), or None."""
    match = _LANGUAGE_TAG.match(language.replace("_", "-")) if language else None
    return match[0] if match else None

"""The diagnosis at start: where conversions come from and go to, and what would be lost as things are wired. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from .config import Settings
from .environments import TEST
from .providers.base import Provider
from .transport import VERSION

WARN_DAYS = 90
DIGEST_LENGTH = 64
ROOMY_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Wiring:
    """What of OpenTelemetry feeds the pipeline, and how.

    Attributes:
        known: False where nobody can say, as outside the app's process.
        logs: Log records come: through our `processor`, or an `exporter` behind a `simple` or a `batch` processor; "" is not.
        spans: The same for the events of spans.
        instrumentor: It catches `span.add_event` on all spans, and keeps the visitor.
        sampler: The description of the trace sampler.
        length_limits: Setting or signal → the length at which attribute values are cut.
    """

    known: bool = True
    logs: Literal["", "processor", "simple", "batch"] = ""
    spans: Literal["", "processor", "simple", "batch"] = ""
    instrumentor: bool = False
    sampler: str = ""
    length_limits: tuple[tuple[str, int], ...] = ()

    @property
    def drops_spans(self) -> bool:
        return self.sampler not in ("", "AlwaysOnSampler") and not self.sampler.startswith("ParentBased{root:AlwaysOn")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should know: a `warning` is to be mended, a `note` may be meant.

    Attributes:
        may_pass: By what the app does next, where it has just begun.
    """

    level: Literal["warning", "note"]
    text: str
    may_pass: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """One provider, as it will be used."""

    provider: str
    api: str
    mode: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `configure` logs and `eventflows check` prints."""

    environment: str
    destinations: tuple[Destination, ...]
    ways_in: tuple[str, ...]
    storage: str
    findings: tuple[Finding, ...]

    def lines(self, *, warnings: bool = True) -> Iterator[str]:
        """For a person.

        Args:
            warnings: With the findings that are to be mended.
        """
        yield f"EventFlows {VERSION}, environment: {self.environment}"
        width = max((len(one.provider) for one in self.destinations), default=0)
        for number, one in enumerate(self.destinations):
            what = ", ".join(filter(None, (one.api, one.mode)))
            yield f"  {'to' if not number else '':<9}{one.provider:<{width}}  {what}"
        for number, way in enumerate(self.ways_in):
            yield f"  {'from' if not number else '':<9}{way}"
        yield f"  {'storage':<9}{self.storage}"
        for finding in self.findings if warnings else (one for one in self.findings if one.level == "note"):
            yield f"  {finding.level:<9}{finding.text}"

    def as_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "environment": self.environment,
            "providers": [
                {"provider": one.provider, "api": one.api or None, "mode": one.mode} for one in self.destinations
            ],
            "ways_in": list(self.ways_in),
            "storage": self.storage,
            "findings": [{"level": one.level, "text": one.text} for one in self.findings],
        }


def diagnose(settings: Settings, mode: str | None, environment: str | None, wiring: Wiring, today: date) -> Diagnosis:
    """Put together what is known.

    Args:
        mode: `live` or `test`; None where the environment is not known yet.
        environment: Its name, where there is one.
        today: Against which the ends of API versions are held.
    """
    folder = settings.sending_queue.storage
    modes = {p.name: _own_mode(p, settings, mode, environment) for p in settings.providers}
    return Diagnosis(
        environment=f"{environment or 'not named'} ({mode or 'not known yet'})",
        destinations=tuple(Destination(p.name, _api(p), _mode(p, modes[p.name])) for p in settings.providers),
        ways_in=tuple(_ways_in(wiring)),
        storage=folder or "none: what waits is in memory, and lost with the process",
        findings=(
            *(found for p in settings.providers for found in _of_provider(p, modes[p.name], today)),
            *_of_wiring(wiring),
            *_of_visitor(settings),
        ),
    )


def days_left(provider: Provider, today: date) -> int | None:
    """Days until the platform's API version ends; None where no end is set."""
    ends = provider.api().ends
    return None if ends is None else (ends - today).days


def _api(provider: Provider) -> str:
    api = provider.api()
    return "" if not api.version else f"API {api.version}" + (f" until {api.ends}" if api.ends else "")


def _own_mode(provider: Provider, settings: Settings, mode: str | None, environment: str | None) -> str | None:
    if provider.environments is None or (mode is None and environment is None):
        return mode
    return settings.mode(provider, environment)


def _mode(provider: Provider, mode: str | None) -> str:
    where = f" at {provider.endpoint}" if provider.endpoint else ""
    if mode == TEST:
        return "logged only" if provider.for_testing() is None else f"test{where}"
    return f"{'test' if _is_test(provider) else 'live'}{where}"


def _is_test(provider: Provider) -> bool:
    return bool(provider.test_code or getattr(provider, "test_mode", False))


def _of_provider(provider: Provider, mode: str | None, today: date) -> Iterator[Finding]:
    left, api = days_left(provider, today), provider.api()
    if left is not None and left <= WARN_DAYS:
        when = f"ends on {api.ends}, in {left} days" if left > 0 else f"has ended on {api.ends}"
        yield Finding("warning", f"{provider.name}: API {api.version} {when}: set api_version to {api.newer}")
    if mode != TEST and _is_test(provider):
        yield Finding(
            "warning", f"{provider.name}: sends tests in a live environment: take test_code or test_mode away"
        )
    if mode == TEST and provider.for_testing() is None:
        yield Finding("note", f"{provider.name}: {provider.HOW_TO_TEST}; until then its requests are only logged")


_HOW = {
    "processor": "sealed before others see them",
    "simple": "by an exporter behind a simple processor",
    "batch": "by an exporter behind a batch processor",
}


def _ways_in(wiring: Wiring) -> Iterator[str]:
    yield "tracer.add_event and tracker.track: never lost to sampling"
    if not wiring.known:
        yield "log records and span events: known only where the app runs"
        return
    if wiring.logs:
        yield f"log records with an event_name: {_HOW[wiring.logs]}"
    if wiring.instrumentor:
        yield "span.add_event: on all spans, by the instrumentor"
    elif wiring.spans:
        how = "" if wiring.spans == "processor" else f", {_HOW[wiring.spans]}"
        yield f"span.add_event: on sampled spans, when they end{how}"


def _of_wiring(wiring: Wiring) -> Iterator[Finding]:
    if not wiring.instrumentor and wiring.drops_spans:
        yield Finding(
            "warning",
            f"span.add_event is lost on spans that the sampler drops ({wiring.sampler}): EventFlowsInstrumentor().instrument() "
            "catches it, tracer.add_event needs nothing",
            may_pass=True,
        )
    if wiring.known and not wiring.instrumentor and wiring.spans:
        yield Finding("note", "without the instrumentor other span exporters see the raw attributes of span.add_event")
    if wiring.logs in ("simple", "batch"):
        yield Finding(
            "note", "log records are not sealed for other exporters: call eventflows.configure() or instrument()"
        )
    if wiring.logs == "batch" or (wiring.spans == "batch" and not wiring.instrumentor):
        yield Finding(
            "warning",
            "an exporter behind a batch processor cannot see the visitor's request, and what its queue drops is lost: put it "
            "behind a simple processor, as EventFlows batches by itself",
        )
    for name, length in wiring.length_limits:
        if length < DIGEST_LENGTH:
            yield Finding(
                "warning",
                f"{name} is {length}: it cuts digests ({DIGEST_LENGTH} characters), e-mail addresses and URLs of what comes by "
                f"log records and span events; take it away, or set at least {ROOMY_LENGTH}",
            )
        elif length < ROOMY_LENGTH:
            yield Finding("note", f"{name} is {length}: it may cut URLs and user agents; {ROOMY_LENGTH} is enough")


def _of_visitor(settings: Settings) -> Iterator[Finding]:
    for network in settings.visitor.trusted_proxies:
        if network.prefixlen == 0:
            yield Finding(
                "warning",
                f"visitor.trusted_proxies: {network} trusts everybody, so that visitors can claim any address: name your "
                "proxies, or `private`",
            )

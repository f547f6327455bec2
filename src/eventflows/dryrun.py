"""The dry run: what would be sent for an event, by the same code as a real send, up to the socket."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import config, payload, routing
from .capture import capture, recognise
from .config import Settings
from .context import around
from .conversion import Conversion, EventType
from .environments import resource_attributes
from .mapping import NotSent, encode
from .providers.base import Provider
from .running import current
from .transport import all_headers, secret_url
from .values import unix_nano


@dataclass(frozen=True, slots=True)
class Rendered:
    """What one provider would be sent.

    Attributes:
        status: `ready`, `filtered` or `refused`.
        reason: Why it would not be sent; empty where it would.
        url, headers: With secrets masked; None where nothing would be sent.
        body: The request's JSON.
        left_out: `(attribute, reason)` of fields that were not usable.
    """

    provider: str
    status: str
    reason: str = ""
    method: str | None = None
    url: str | None = None
    headers: Mapping[str, str] | None = None
    body: Any = None
    left_out: tuple[tuple[str, str], ...] = ()


def render(
    name: str,
    attributes: Mapping[str, Any] | None = None,
    *,
    timestamp: int | None = None,
    now: int | None = None,
    providers: Sequence[Provider] | None = None,
) -> list[Rendered]:
    """What `tracer.add_event` with these arguments would send. No network, and no pipeline needed.

    Args:
        timestamp: When the event happened, Unix time in nanoseconds; None is `now`.
        now: When it is sent, Unix time in nanoseconds; freezes the clock.
        providers: Without them those of the running pipeline, else those of the environment.

    Raises:
        ConfigurationError: There are no providers to render for.
    """
    running = current()
    if running is not None:
        settings = running.settings
    elif providers is None:
        settings = config.from_environment()
    else:
        settings = config.settings(providers, default_country=config.default_country_of_environment())
    if providers is None:
        providers = settings.providers
    now = time.time_ns() if now is None else now
    conversion = prepared(settings, name, attributes, timestamp, now)
    return render_with(settings, providers, conversion, now, resource_attributes())


def prepared(
    settings: Settings, name: str, attributes: Mapping[str, Any] | None, timestamp: int | None, now: int
) -> Conversion:
    """The conversion that `tracer.add_event` would make of an event, with the choices of consent that hold for it."""
    event_type = recognise(name, attributes or {}, settings.rules) or EventType.CUSTOM
    when = now if timestamp is None else unix_nano(timestamp)
    conversion = capture(name, event_type, attributes or {}, when, settings.rules, around().told)
    return settings.consent.effective(conversion)


def render_with(
    settings: Settings,
    providers: Sequence[Provider],
    conversion: Conversion,
    now: int,
    resource: Mapping[str, Any],
) -> list[Rendered]:
    """What these providers would be sent for a conversion, by these settings, in an app with this resource."""
    rendered = []
    for provider in providers:
        reason = routing.filtered(provider, conversion, send_synthetic=settings.send_synthetic, resource=resource)
        result = NotSent("filtered", reason) if reason else encode(provider, conversion, now)
        if isinstance(result, NotSent):
            status = "refused" if result.status == "expired" else result.status
            rendered.append(Rendered(provider.name, status, result.reason, left_out=conversion.left_out))
            continue
        request = provider.request([result])
        rendered.append(
            Rendered(
                provider.name,
                "ready",
                "",
                request.method,
                secret_url(request, masked=True),
                all_headers(request, masked=True),
                json.loads(payload.body(request.envelope, request.events_at, [result.content])),
                conversion.left_out,
            )
        )
    return rendered

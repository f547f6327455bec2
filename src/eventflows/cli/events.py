"""`eventflows render` and `eventflows send`: one event, shown or really sent."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from opentelemetry.sdk.resources import Resource

from .. import config, direct, routing
from ..checks import seconds
from ..config import Settings
from ..conversion import Conversion
from ..dryrun import Rendered, prepared, render_with
from ..environments import TEST, name_in
from ..mapping import NotSent, encode
from ..providers.base import Provider
from ..secret import MASK, Secret
from ..transport import open_transport
from . import output
from .given import Event, add_config, add_event, add_json, add_provider, event_of, is_configured, settings_of, wanted
from .parallel import for_each

# What `render` shows a payload with where nothing is configured.
_DEMO: dict[str, dict[str, Any]] = {
    "meta": {"pixel_id": "1234567890", "access_token": "demo"},
    "ga4": {"measurement_id": "G-DEMO", "api_secret": "demo"},
    "tiktok": {"pixel_code": "CDEMO", "access_token": "demo"},
    "reddit": {"pixel_id": "a2_demo", "access_token": "demo"},
    "console": {},
}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    render = commands.add_parser(
        "render",
        help="show the requests that an event would become, without sending it",
        description="Show the requests that an event would become, without sending it. Credentials are masked.",
    )
    add_event(render)
    add_provider(render)
    render.add_argument("--now", type=int, metavar="NS", help="send time, Unix time in nanoseconds")
    add_config(render)
    add_json(render)
    render.set_defaults(run=_render)

    send = commands.add_parser(
        "send",
        help="send one event now, and print each platform's answer",
        description="Send one event now, for real, wait, and print each platform's answer.",
    )
    add_event(send)
    add_provider(send)
    send.add_argument("--test", action="store_true", help="by the platforms' test codes and debug endpoints")
    send.add_argument("--timeout", default="30s", help="how long to go on where a platform says: not now (30s)")
    add_config(send)
    add_json(send)
    send.set_defaults(run=_send)


def _prepared(settings: Settings, event: Event, now: int) -> Conversion:
    return prepared(settings, event.name, event.attributes, event.timestamp, now)


# --- render


def _render(arguments: argparse.Namespace) -> int:
    event = event_of(arguments)
    if is_configured(arguments):
        settings = settings_of(arguments)
    else:
        print("eventflows: nothing is configured: shown with placeholder credentials", file=sys.stderr)
        settings = config.settings(_DEMO)
    now = time.time_ns() if arguments.now is None else arguments.now
    providers, conversion = wanted(settings, arguments.provider), _prepared(settings, event, now)
    results = render_with(settings, providers, conversion, now, Resource.create().attributes)
    if arguments.json:
        output.print_json([asdict(result) for result in results])
    else:
        _print_rendered(results)
    return 0 if all(result.status == "ready" for result in results) else 1


def _print_rendered(results: Sequence[Rendered]) -> None:
    for result in results:
        print(f"{result.provider}: {output.coloured(result.status)}{f' ({result.reason})' if result.reason else ''}")
        if result.status == "ready":
            print(f"{result.method} {result.url}")
            for name, value in (result.headers or {}).items():
                print(f"{name}: {value}")
            print(json.dumps(result.body, ensure_ascii=False, indent=2))
        print()
    for attribute, reason in results[0].left_out if results else ():
        print(f"left out: {attribute}: {reason}")


# --- send


@dataclass(frozen=True, slots=True)
class _Result:
    """What a provider made of the event.

    Attributes:
        status: An outcome, or `not sent`.
        http_status: Of the last answer; 0 where there was none.
        answer: Its body.
    """

    provider: str
    status: str
    reason: str = ""
    attempts: int = 0
    http_status: int = 0
    answer: Any = None


def _send(arguments: argparse.Namespace) -> int:
    event, settings = event_of(arguments), settings_of(arguments)
    providers = wanted(settings, arguments.provider)
    deadline = time.monotonic() + seconds("--timeout", arguments.timeout)
    now = time.time_ns()
    conversion = _prepared(settings, event, now)
    resource = Resource.create().attributes
    environment = settings.environment or name_in(resource)
    tested = {one.name for one in providers if arguments.test or settings.mode(one, environment) == TEST}
    why_not = {
        one.name: routing.filtered(one, conversion, send_synthetic=settings.send_synthetic, resource=resource)
        for one in providers
    }
    sending = for_each(
        providers,
        lambda one: (
            _Result(one.name, "filtered", why)
            if (why := why_not[one.name]) is not None
            else _to(one, settings, conversion, deadline, now, one.name in tested)
        ),
    )
    results = list(output.progress(sending, "providers", len(providers)))
    if arguments.json:
        told = [asdict(result) for result in results]
        output.print_json(
            {"id": conversion.id, "results": told, "left_out": [list(one) for one in conversion.left_out]}
        )
    else:
        _print_results(conversion, results)
    return 0 if all(result.status in ("delivered", "filtered") for result in results) else 1


def _to(
    provider: Provider, settings: Settings, conversion: Conversion, deadline: float, now: int, test: bool
) -> _Result:
    name = provider.name
    if test:
        tested = provider.for_testing()
        if tested is None:
            return _Result(name, direct.NOT_SENT, f"no test facility: {provider.HOW_TO_TEST}")
        provider = tested
    written = encode(provider, conversion, now)
    if isinstance(written, NotSent):
        return _Result(name, written.status, written.reason)
    transport = open_transport(provider.METHOD, settings.transport(provider))
    try:
        (found,) = direct.send(provider, [written], transport, settings.lane(provider).retry, deadline)
    finally:
        transport.close()
    status, reason, response = found.settled.status, found.settled.reason, found.response
    answer = _without_secrets(response.json, provider)
    return _Result(name, status, reason or response.error, found.attempts, response.status, answer)


def _without_secrets(answer: Any, provider: Provider) -> Any:
    """The answer, should it repeat a secret of the request."""
    text = json.dumps(answer, ensure_ascii=False)
    for key in provider.SECRETS:
        secret = getattr(provider, key)
        if isinstance(secret, Secret) and (plain := secret.reveal()):
            text = text.replace(plain, MASK)
    return json.loads(text)


def _print_results(conversion: Conversion, results: Sequence[_Result]) -> None:
    print(f"{conversion.name} {conversion.id}")
    head = ("PROVIDER", "OUTCOME", "ATTEMPTS", "HTTP", "REASON")
    rows = (
        (one.provider, one.status, str(one.attempts or ""), str(one.http_status or ""), one.reason) for one in results
    )
    output.print_table(head, rows)
    for one in results:
        if one.answer is not None:
            print(f"\n{one.provider} answered: {json.dumps(one.answer, ensure_ascii=False, indent=2)}")
    for attribute, reason in conversion.left_out:
        print(f"left out: {attribute}: {reason}")

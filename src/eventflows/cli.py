"""The command `eventflows`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from . import commands as storage_commands
from . import config
from .errors import ConfigurationError, MissingDependencyError

# What `render` shows a payload with where the environment configures nothing.
_DEMO: dict[str, dict[str, Any]] = {
    "meta": {"pixel_id": "1234567890", "access_token": "demo"},
    "ga4": {"measurement_id": "G-DEMO", "api_secret": "demo"},
    "tiktok": {"pixel_code": "CDEMO", "access_token": "demo"},
    "reddit": {"pixel_id": "a2_demo", "access_token": "demo"},
    "console": {},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 when all went well, 1 when something is not as it should be (an event would not be sent, an order is lost), 2 for a
        wrong call or configuration.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ConfigurationError as problem:
        print(f"eventflows: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eventflows",
        description="Conversions from OpenTelemetry to ad platforms.",
        epilog="Exit codes: 0 all is well; 1 something is not as it should be; 2 wrong call or configuration.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    render = commands.add_parser("render", help="show the requests that an event would become, without sending it")
    render.add_argument("event", help='a JSON file, or - for stdin: {"name": "Purchase", "attributes": {...}}')
    render.add_argument("--provider", action="append", metavar="ID", help="only this provider (may be repeated)")
    render.add_argument("--now", type=int, metavar="NS", help="send time, Unix time in nanoseconds")
    render.add_argument("--json", action="store_true", help="one JSON list instead of text")
    render.set_defaults(run=_render)

    sandbox = commands.add_parser("sandbox", help="run a strict local stand-in for the platforms' APIs")
    sandbox.add_argument("--host", default="127.0.0.1")
    sandbox.add_argument("--port", type=int, default=8787)
    sandbox.add_argument(
        "--account",
        action="append",
        default=[],
        metavar="PROVIDER:ACCOUNT:TOKEN",
        help="the one right token of an account; otherwise the first token seen is the right one",
    )
    sandbox.set_defaults(run=_sandbox)

    storage_commands.add(commands)

    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    return parser


def _render(arguments: argparse.Namespace) -> int:
    from .dryrun import render

    event = _read_event(arguments.event)
    if any(key.startswith(config.PREFIX) for key in os.environ):
        providers = list(config.from_environment().providers)
    else:
        print("no provider is configured in the environment: shown with placeholder credentials", file=sys.stderr)
        providers = [config.provider(name, options) for name, options in _DEMO.items()]
    if arguments.provider:
        unknown = set(arguments.provider) - {provider.name for provider in providers}
        if unknown:
            raise ConfigurationError(f"--provider: not configured: {', '.join(sorted(unknown))}")
        providers = [provider for provider in providers if provider.name in arguments.provider]
    results = render(
        event["name"],
        event.get("attributes"),
        timestamp=event.get("timestamp"),
        now=arguments.now,
        providers=providers,
    )
    if arguments.json:
        print(json.dumps([asdict(result) for result in results], ensure_ascii=False, indent=2))
    else:
        for result in results:
            print(f"{result.provider}: {result.status}{f' ({result.reason})' if result.reason else ''}")
            if result.status == "ready":
                print(f"{result.method} {result.url}")
                for name, value in (result.headers or {}).items():
                    print(f"{name}: {value}")
                print(json.dumps(result.body, ensure_ascii=False, indent=2))
            print()
        for attribute, reason in results[0].left_out if results else ():
            print(f"left out: {attribute}: {reason}")
    return 0 if all(result.status == "ready" for result in results) else 1


def _read_event(path: str) -> dict[str, Any]:
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
    return event


def _sandbox(arguments: argparse.Namespace) -> int:
    if find_spec("fastjsonschema") is None:
        raise MissingDependencyError("the sandbox", "sandbox")
    from .sandbox.server import serve

    accounts: dict[str, dict[str, str]] = {}
    for entry in arguments.account:
        provider, _, rest = entry.partition(":")
        account, _, token = rest.rpartition(":")
        if not (provider and account and token):
            raise ConfigurationError(f"--account: {entry!r} must look like meta:123:token")
        accounts.setdefault(provider, {})[account] = token
    serve(arguments.host, arguments.port, accounts)
    return 0


def _version(_: argparse.Namespace) -> int:
    from .transport import library_version

    print(library_version())
    return 0


if __name__ == "__main__":
    sys.exit(main())

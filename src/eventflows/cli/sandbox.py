"""`eventflows sandbox`: a strict local stand-in for the platforms' APIs."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from ..errors import ConfigurationError, MissingDependencyError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "sandbox",
        help="run a strict local stand-in for the platforms' APIs",
        description="Run a strict local stand-in for the platforms' APIs, until Ctrl-C.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8787, help="the port to listen on (8787); 0 takes a free one")
    parser.add_argument(
        "--account",
        action="append",
        default=[],
        metavar="PROVIDER:ACCOUNT:TOKEN",
        help="the one right token of an account; otherwise the first token seen is the right one",
    )
    parser.add_argument("--json", action="store_true", help="say where it listens in JSON")
    parser.set_defaults(run=_sandbox)


def _sandbox(arguments: argparse.Namespace) -> int:
    if find_spec("fastjsonschema") is None:
        raise MissingDependencyError("the sandbox", "sandbox")
    from ..sandbox.server import PLATFORMS, serve

    if not 0 <= arguments.port <= 65535:
        raise ConfigurationError(f"--port: {arguments.port} must be a number from 0 to 65535")
    accounts: dict[str, dict[str, str]] = {}
    for entry in arguments.account:
        provider, _, rest = entry.partition(":")
        account, _, token = rest.rpartition(":")
        if not (provider and account and token):
            raise ConfigurationError("--account: must look like meta:123:token")
        if provider not in PLATFORMS:
            raise ConfigurationError(f"--account: no platform {provider!r}; there are: {', '.join(PLATFORMS)}")
        accounts.setdefault(provider, {})[account] = token
    try:
        serve(arguments.host, arguments.port, accounts, as_json=arguments.json)
    except OSError as problem:
        where = f"{arguments.host}:{arguments.port}"
        raise ConfigurationError(f"--host, --port: cannot listen on {where}: {problem.strerror}") from None
    return 0

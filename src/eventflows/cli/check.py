"""`eventflows check`: the diagnosis, and a test of the credentials."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from opentelemetry.sdk.resources import Resource

from .. import credentials, running
from ..config import Settings
from ..credentials import Tested
from ..diagnosis import Diagnosis, Finding, diagnose
from ..environments import mode_of, name_in
from ..errors import ConfigurationError
from ..providers.base import Provider
from ..survey import diagnosis_of, wiring_of_environment
from ..transport import open_transport
from . import output
from .given import add_config, add_json, add_provider, settings_of, wanted
from .parallel import for_each

_TOLD = {
    "good": "the platform takes events",
    "unproven": "the platform takes the event, which does not prove",
    "wrong": "the platform refuses the credentials or the account",
    "refused": "the platform refuses the test event",
    "no answer": "nothing can be said now",
    "untested": "",
}
_BAD = ("wrong", "refused", "no answer")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check",
        help="check settings and credentials, and say what would be lost",
        description="Print what the settings make, test the credentials where the platform has a safe way (GA4's validation "
        "server, the test codes of Meta, TikTok and Reddit), and exit with 1 on any problem or warning.",
    )
    add_provider(parser)
    parser.add_argument(
        "--test-code",
        action="append",
        default=[],
        metavar="ID=CODE",
        help="a provider's test code, for this check only (may be repeated)",
    )
    parser.add_argument("--offline", action="store_true", help="send nothing")
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    providers = _with_codes(wanted(settings, arguments.provider), arguments.test_code)
    diagnosis = _diagnosis(settings)
    findings = [*diagnosis.findings, *_of_storage(settings)]
    diagnosis = replace(diagnosis, findings=tuple(findings))
    tested: list[Tested] = [] if arguments.offline else _test(providers, settings)
    if arguments.json:
        told = [{"provider": one.provider, "result": one.result, "told": one.told} for one in tested]
        output.print_json({**diagnosis.as_json(), "credentials": told})
    else:
        for line in diagnosis.lines():
            print(line)
        if tested:
            print()
            rows = (
                (one.provider, one.result, ": ".join(filter(None, (_TOLD[one.result], one.told)))) for one in tested
            )
            output.print_table(("PROVIDER", "CREDENTIALS", "WHY"), rows)
    is_bad = any(one.level == "warning" for one in findings) or any(one.result in _BAD for one in tested)
    return 1 if is_bad else 0


def _diagnosis(settings: Settings) -> Diagnosis:
    pipeline = running.current()
    if pipeline is not None and pipeline.settings is settings:  # under opentelemetry-instrument: wired as in the app
        return diagnosis_of(pipeline)
    environment = settings.environment or name_in(Resource.create().attributes)
    mode = mode_of(settings.environments, environment)
    return diagnose(settings, mode, environment, wiring_of_environment(), datetime.now(timezone.utc).date())


def _with_codes(providers: Sequence[Provider], codes: Sequence[str]) -> list[Provider]:
    by_name = {}
    for given in codes:
        name, separator, code = given.partition("=")
        if not separator or not code or name not in {provider.name for provider in providers}:
            names = ", ".join(provider.name for provider in providers)
            raise ConfigurationError(f"--test-code: must look like ID=CODE, with one of {names}")
        by_name[name] = code
    return [replace(one, test_code=by_name[one.name]) if one.name in by_name else one for one in providers]


def _of_storage(settings: Settings) -> Iterator[Finding]:
    given = settings.sending_queue.storage
    if given is None:
        return
    folder = Path(given)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            "warning", f"sending_queue.storage: {folder} cannot be written: conversions would be in memory only"
        )


def _test(providers: Sequence[Provider], settings: Settings) -> list[Tested]:
    tested = [provider for provider in providers if provider.METHOD != "PRINT"]
    testing = for_each(tested, lambda provider: _test_one(provider, settings))
    return list(output.progress(testing, "providers", len(tested)))


def _test_one(provider: Provider, settings: Settings) -> Tested:
    transport = open_transport(provider.METHOD, settings.transport(provider))
    try:
        return credentials.test(provider, transport, time.time_ns())
    finally:
        transport.close()

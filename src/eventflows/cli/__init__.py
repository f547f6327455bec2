"""The command `eventflows`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from ..errors import ConfigurationError
from . import check, configuration, events, output, sandbox, storage

_DESCRIPTION = (
    "Conversions from OpenTelemetry to ad platforms: check the settings, try an event, and see what became of each."
)
_EPILOG = """\
try it:
  eventflows sandbox                           platforms that need no account
  eventflows render Lead -a user.email=a@b.co  what would be sent
  eventflows check --config eventflows.yaml    are settings and credentials right?
  eventflows show 4711                         what became of order 4711?

exit codes: 0 all is well; 1 something is not as it should be; 2 wrong call or configuration;
            130 Ctrl-C; 141 the reader of a pipe has gone
settings:   --config FILE, else the environment (OTEL_EXPORTER_EVENTFLOWS_*)
"""
INTERRUPTED = 130
NOBODY_READS = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 when all went well, 1 when something is not as it should be (an event would not be sent, an order is lost), 2 for a
        wrong call or configuration, 130 after Ctrl-C, 141 where the reader of a pipe has gone.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        if arguments.run is None:
            parser.print_help(sys.stderr)
            return 2
        code = int(arguments.run(arguments))
        sys.stdout.flush()
    except ConfigurationError as error:
        if getattr(arguments, "json", False):
            output.print_json({"problems": [asdict(problem) for problem in error.problems]})
        else:
            print(f"eventflows: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Else Python would complain once more, when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    return code


class _Help(argparse.RawDescriptionHelpFormatter):
    """With room for the longest command beside its help."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=20)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eventflows",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_Help,
    )
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for group in (check, events, configuration, sandbox, storage):
        group.add(commands)
    version = commands.add_parser("version", help="print the version", description="Print the version.")
    version.add_argument("--json", action="store_true", help="JSON in place of text")
    version.set_defaults(run=_version)
    return parser


def _version(arguments: argparse.Namespace) -> int:
    from ..transport import VERSION

    if arguments.json:
        output.print_json({"version": VERSION})
    else:
        print(VERSION)
    return 0

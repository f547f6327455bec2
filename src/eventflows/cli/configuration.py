"""`eventflows config`: the configuration file."""

from __future__ import annotations

import argparse

from . import output


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "config", help="the JSON Schema of the configuration file", description="What a configuration file may hold."
    )
    kinds = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    schema = kinds.add_parser(
        "schema",
        help="print its JSON Schema",
        description="Print the JSON Schema of a configuration file, by which editors complete and check it. It knows the "
        "providers of other packages that are installed.",
    )
    schema.add_argument("--json", action="store_true", help="as it is JSON anyhow, this changes nothing")
    schema.set_defaults(run=_schema)


def _schema(_: argparse.Namespace) -> int:
    from ..config_schema import schema

    output.print_json(schema())
    return 0

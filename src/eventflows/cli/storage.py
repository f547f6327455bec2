"""The commands that read and mend a storage folder: dead-letters, show, report, erase."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import history, journals
from ..checks import seconds
from ..errors import ConfigurationError
from ..history import LOST, OUTCOMES, DeadLetter
from ..journals import Told, Unread
from ..model import Country
from . import output
from .given import STORAGE, add_config, add_json, default_country_of, folder_of, is_configured, settings_of


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    text = "what providers refused, and what expired or was given up"
    letters = commands.add_parser("dead-letters", help=text, description=f"See and send again {text}.")
    actions = letters.add_subparsers(title="actions", required=True, metavar="ACTION")
    listed = _command(actions, "list", _list, "list them")
    listed.add_argument("--by-reason", action="store_true", help="only how many there are, by provider and reason")
    listed.add_argument("--limit", type=int, default=1000, help="show no more than this (1000)")
    shown = _command(actions, "show", _show_letter, "show the sealed event and the reasons")
    shown.add_argument("id", help="conversion id or order id")
    replayed = _command(
        actions, "replay", _replay, "send them again, with today's mapping and credentials and the same id"
    )
    replayed.add_argument("id", nargs="*", help="conversion ids or order ids")
    replayed.add_argument("--all", action="store_true", help="all of them")
    replayed.add_argument("--dry-run", action="store_true", help="only say which could be sent")
    replayed.add_argument("--timeout", default="30s", help="how long to go on where a platform says: not now (30s)")
    for one in (listed, replayed):
        one.add_argument("--provider", metavar="ID", help="only of this provider")
        one.add_argument("--reason", default="", metavar="TEXT", help="only those whose reason holds this text")
    purged = _command(actions, "purge", _purge, "forget them")
    purged.add_argument("--older-than", default="30d", help="only what was recorded longer ago than this (30d)")
    purged.add_argument("--yes", action="store_true", help="do not ask")

    show = _command(commands, "show", _show, "what became of an event at each provider")
    show.add_argument("id", help="conversion id or order id")

    report = _command(commands, "report", _report, "compare a list of real orders with what was delivered")
    report.add_argument("orders", help="a CSV file with a header line, or - for stdin")
    report.add_argument("--id-column", default="order_id", help="the column with the order ids (order_id)")
    report.add_argument("--provider", metavar="ID", help="only this provider")
    report.add_argument("--since", metavar="DATE", help="only what was recorded from this day on (2026-11-01)")
    report.add_argument("--all", action="store_true", help="list every order, not only the lost ones")

    erase = _command(commands, "erase", _erase, "remove a person's events")
    erase.add_argument("--user", action="append", required=True, metavar="VALUE", help="e-mail, phone or user id")
    erase.add_argument("--default-country", metavar="CODE", help="of a phone number without a calling code")
    erase.add_argument("--yes", action="store_true", help="do not ask")


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "--storage", metavar="FOLDER", help=f"the storage folder (default: that of the settings, or {STORAGE})"
    )
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=run)
    return parser


# --- dead letters


def _letters(arguments: argparse.Namespace) -> Iterable[DeadLetter]:
    return history.dead_letters(folder_of(arguments), arguments.provider, arguments.reason)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.by_reason:
        return _count_by_reason(arguments)
    found: list[DeadLetter] = []
    for letter in _letters(arguments):
        if len(found) >= arguments.limit:
            print(f"eventflows: there are more than {arguments.limit}: --limit shows them", file=sys.stderr)
            break
        found.append(letter)
    if arguments.json:
        output.print_json([_letter_json(letter) for letter in found])
    else:
        head = ("ID", "EVENT", "PROVIDER", "OUTCOME", "SINCE", "ATTEMPTS", "REASON")
        rows = (
            (
                one.told.id,
                one.told.name,
                one.provider,
                one.status,
                output.as_time(one.settled_at),
                str(one.attempts),
                one.reason,
            )
            for one in found
        )
        output.print_table(head, rows, empty="There are no dead letters.")
    return 0


def _count_by_reason(arguments: argparse.Namespace) -> int:
    letters = output.progress(_letters(arguments), "dead letters")
    counts = Counter((one.provider, one.status, one.reason) for one in letters).most_common()
    if arguments.json:
        keys = ("provider", "status", "reason")
        output.print_json([{**dict(zip(keys, key, strict=True)), "count": count} for key, count in counts])
    else:
        rows = ((str(count), *key) for key, count in counts)
        output.print_table(("COUNT", "PROVIDER", "OUTCOME", "REASON"), rows, empty="There are no dead letters.")
    return 0


def _show_letter(arguments: argparse.Namespace) -> int:
    letters = [told for told in history.find(folder_of(arguments), arguments.id) if told.body is not None]
    if not letters:
        print(f"eventflows: there is no dead letter {arguments.id!r}", file=sys.stderr)
        return 1
    if arguments.json:
        output.print_json([{**_told_json(told), "event": _sealed(told)} for told in letters])
        return 0
    for told in letters:
        _print_told(told)
        print(json.dumps(_sealed(told), ensure_ascii=False, indent=2))
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    if bool(arguments.id) == arguments.all:
        raise ConfigurationError("dead-letters replay: give ids, or --all")
    wanted = set(arguments.id)
    letters = [one for one in _letters(arguments) if arguments.all or wanted & {one.told.id, one.told.order_id}]
    unknown = wanted - {found for one in letters for found in (one.told.id, one.told.order_id)}
    timeout = seconds("--timeout", arguments.timeout)
    replaying = history.replay(letters, settings_of(arguments), timeout, dry_run=arguments.dry_run)
    done = list(output.progress(replaying, "dead letters sent again", len(letters)))
    if arguments.json:
        told = [
            {"id": o.letter.told.id, "provider": o.letter.provider, "status": o.status, "reason": o.reason}
            for o in done
        ]
        output.print_json(told)
    else:
        rows = ((one.letter.told.id, one.letter.provider, one.status, one.reason) for one in done)
        output.print_table(("ID", "PROVIDER", "OUTCOME", "REASON"), rows, empty="There is nothing to send again.")
    for one in sorted(unknown):
        print(f"eventflows: there is no dead letter {one!r}", file=sys.stderr)
    return 0 if not unknown and all(one.status in ("delivered", "ready") for one in done) else 1


def _purge(arguments: argparse.Namespace) -> int:
    folder = folder_of(arguments)
    before = time.time_ns() - int(seconds("--older-than", arguments.older_than) * 1e9)
    if not _confirmed(arguments, f"Forget the dead letters recorded before {output.as_time(before)}?"):
        return 1
    return _print_count(arguments, "purged", lambda unread: journals.purge(folder, before, unread))


# --- history


def _show(arguments: argparse.Namespace) -> int:
    found = history.find(folder_of(arguments), arguments.id)
    if not found:
        print(f"eventflows: nothing is known of {arguments.id!r}", file=sys.stderr)
        return 1
    if arguments.json:
        output.print_json([_told_json(told) for told in found])
    else:
        for told in found:
            _print_told(told)
    return 0


def _print_told(told: Told) -> None:
    order = f", order {told.order_id}" if told.order_id else ""
    print(f"{told.name} {told.id}{order}, recorded {output.as_time(told.captured_at)}")
    rows = (
        (name, status, output.as_time(settled_at) if settled_at else "", str(attempts or ""), reason)
        for name, (status, reason, settled_at, attempts) in sorted(told.outcomes.items())
    )
    output.print_table(("PROVIDER", "OUTCOME", "AT", "ATTEMPTS", "REASON"), rows)


def _report(arguments: argparse.Namespace) -> int:
    folder = folder_of(arguments)
    since = 0
    if arguments.since:
        try:
            since = int(datetime.fromisoformat(arguments.since).replace(tzinfo=timezone.utc).timestamp() * 1e9)
        except ValueError:
            raise ConfigurationError(f"--since: {arguments.since!r} is no date such as 2026-11-01") from None
    orders = _orders(arguments)
    found = history.report(output.progress(history.recorded(folder, since), "events read"), orders, arguments.provider)
    if arguments.json:
        lost = [dict(zip(("id", "provider", "status", "reason"), one, strict=True)) for one in found.lost]
        told: dict[str, Any] = {"orders": len(orders), "providers": found.counts, "lost": lost}
        if arguments.all:
            told["all"] = {
                order: {name: {"status": status, "reason": reason} for name, (status, reason) in outcomes.items()}
                for order, outcomes in found.orders.items()
            }
        output.print_json(told)
    else:
        head = ("PROVIDER", "ORDERS", *(outcome.upper() for outcome in OUTCOMES))
        rows = (
            (name, str(len(orders)), *(str(counts[outcome]) for outcome in OUTCOMES))
            for name, counts in found.counts.items()
        )
        output.print_table(head, rows, empty=f"Nothing was recorded: all {len(orders)} orders are lost.")
        listed = (
            [(order, name, *one) for order, outcomes in found.orders.items() for name, one in outcomes.items()]
            if arguments.all
            else found.lost
        )
        if listed:
            print()
            output.print_table(("ORDER", "PROVIDER", "OUTCOME", "REASON"), listed)
    if arguments.provider and arguments.provider not in found.known:
        others = f"; there are: {', '.join(sorted(found.known))}" if found.known else ""
        print(f"eventflows: --provider: nothing was recorded for {arguments.provider!r}{others}", file=sys.stderr)
    complete = bool(found.counts) or not orders
    return 0 if complete and not any(counts[status] for counts in found.counts.values() for status in LOST) else 1


def _orders(arguments: argparse.Namespace) -> list[str]:
    try:
        if arguments.orders == "-":
            return history.read_orders(sys.stdin, arguments.id_column)
        with open(arguments.orders, encoding="utf-8-sig", newline="") as file:
            return history.read_orders(file, arguments.id_column)
    except OSError as problem:
        raise ConfigurationError(f"{arguments.orders}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{arguments.orders}: not UTF-8; save the file as that") from None
    except csv.Error as problem:
        raise ConfigurationError(f"{arguments.orders}: not CSV: {problem}") from None


def _erase(arguments: argparse.Namespace) -> int:
    folder = folder_of(arguments)
    country = arguments.default_country
    if country is not None:
        country = Country().read("--default-country", country)
    elif is_configured(arguments):
        country = default_country_of(arguments)
    if not _confirmed(arguments, "Remove this person's events, also those that are not delivered yet?"):
        return 1
    digests, plain = history.digests_of(arguments.user, country)
    meant = history.is_of(digests, plain)
    return _print_count(arguments, "erased", lambda unread: journals.erase(folder, meant, unread))


# --- output


def _confirmed(arguments: argparse.Namespace, question: str) -> bool:
    return output.confirmed(question, yes=arguments.yes, refuse=ConfigurationError)


def _print_count(arguments: argparse.Namespace, what: str, do: Callable[[Unread], int]) -> int:
    unread: dict[Path, str] = {}
    count = do(lambda path, problem: unread.update({path: str(problem) or type(problem).__name__}))
    if arguments.json:
        output.print_json({what: count})
    else:
        print(f"{count} {'event' if count == 1 else 'events'} {what}.")
    for path, problem in unread.items():
        print(f"eventflows: not all of {path} could be read ({problem}): it may hold more", file=sys.stderr)
    return 1 if unread else 0


def _sealed(told: Told) -> Any:
    """The sealed event; as it stands there, where it cannot be read."""
    try:
        return json.loads(told.body or "{}")
    except ValueError:
        return told.body


def _letter_json(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.told.id,
        "event": letter.told.name,
        "order_id": letter.told.order_id,
        "provider": letter.provider,
        "status": letter.status,
        "reason": letter.reason,
        "settled_at": output.as_time(letter.settled_at),
        "attempts": letter.attempts,
    }


def _told_json(told: Told) -> dict[str, Any]:
    return {
        "id": told.id,
        "name": told.name,
        "order_id": told.order_id,
        "recorded_at": output.as_time(told.captured_at),
        "providers": {
            name: {"status": status, "reason": reason, "at": output.as_time(at) if at else None, "attempts": attempts}
            for name, (status, reason, at, attempts) in told.outcomes.items()
        },
    }

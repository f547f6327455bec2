"""The sandbox's page, for whoever opens its address in a browser: what arrived, newest first, and why what was refused was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from .wire import Platform

# A page is for looking at; all of it is told at /_sandbox/events.
_SHOWN = 100
_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>EventFlows sandbox</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 1.5em auto; padding: 0 1em; color: #222 }
  table { border-collapse: collapse; margin: 1em 0 }
  th, td { text-align: left; padding: .2em 1.2em .2em 0; border-bottom: 1px solid #ddd }
  td.count { text-align: right }
  details { border-bottom: 1px solid #ddd; padding: .35em 0 }
  summary { cursor: pointer; overflow-wrap: anywhere }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f5f5; padding: .7em; font-size: 13px }
  .refused { color: #a40000 }
  @media (prefers-color-scheme: dark) {
    body { background: #181818; color: #ddd } pre { background: #262626 } th, td, details { border-color: #444 }
    a { color: #8ab4f8 } .refused { color: #ff8a80 }
  }
</style>
<h1>EventFlows sandbox</h1>
"""


def page(
    platforms: Iterable[Platform], events: Sequence[Mapping[str, Any]], refused: Sequence[Mapping[str, Any]]
) -> str:
    """The page, in HTML. Whatever came over the wire is escaped."""
    counts = [
        f"<tr><td>{escape(one.title)}<td class=count>{_of(one.name, events)}<td class=count>{_of(one.name, refused)}"
        for one in platforms
    ]
    newest = sorted((*events, *refused), key=lambda entry: float(entry["received_at"]), reverse=True)
    return "\n".join(
        [
            _HEAD,
            "<table><tr><th>platform<th>accepted<th>refused",
            *counts,
            "</table>",
            f"<h2>{'What arrived' if len(newest) <= _SHOWN else f'The last {_SHOWN} of {len(newest)} events'}</h2>",
            *(map(_entry, newest[:_SHOWN]) if newest else ["<p>Nothing yet."]),
            '<p><a href="/_sandbox/events">All of it as JSON</a>\n',
        ]
    )


def _of(provider: str, entries: Iterable[Mapping[str, Any]]) -> int:
    return sum(entry["provider"] == provider for entry in entries)


def _entry(entry: Mapping[str, Any]) -> str:
    at = datetime.fromtimestamp(entry["received_at"], timezone.utc).strftime("%H:%M:%S")
    told = f"{at} {entry['provider']} {_name(entry['event'])}"
    why = f' <span class="refused">refused: {escape(entry["reason"])}</span>' if "reason" in entry else ""
    event = json.dumps(entry["event"], ensure_ascii=False, indent=2)
    return f"<details><summary>{escape(told)}{why}</summary><pre>{escape(event)}</pre></details>"


def _name(event: Any) -> str:
    """What a platform's event is called; of each platform the key differs."""
    if not isinstance(event, Mapping):
        return "(no readable event)"
    kind = event.get("type")
    reddit = (kind.get("custom_event_name") or kind.get("tracking_type")) if isinstance(kind, Mapping) else None
    return str(event.get("event_name") or event.get("name") or event.get("event") or reddit or "(no name)")

"""What GA4's validation server answers to test events."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .base import Outcome, Response, Sent, Status, all_of, refused_at

_EVENT_INDEX = re.compile(r"(?:\$\.)?events(?:\[|\.)(\d+)\b")
_DESCRIBED_INDEX = re.compile(r"Event at index: \[(\d+)\]")
_BRACKETED = re.compile(r"\[[0-9]+\]")
_CODE = re.compile(r"[A-Z_]{1,40}")
_PATH = re.compile(r"[\w.\[\]$]{1,120}")


def validated(response: Response, batch: Sequence[Sent]) -> list[Outcome]:
    """One outcome per event of the batch: refused where a message names it."""
    messages = response.json.get("validationMessages", []) if isinstance(response.json, Mapping) else None
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return all_of(batch, Status.SUSPECT, "the validation server's answer is not readable")
    if not messages:
        return all_of(batch, Status.DELIVERED)
    reasons: dict[int, str] = {}
    for message in messages:
        index = _index(message)
        if index is not None and index < len(batch):
            reasons.setdefault(index, _reason(message))
    return refused_at(batch, reasons) if reasons else all_of(batch, Status.SUSPECT, _reason(messages[0]))


def _index(message: Mapping[str, Any]) -> int | None:
    """Which event is meant. Some messages name it only in their description, of which nothing else is read."""
    path, description = str(message.get("fieldPath", "")), str(message.get("description", ""))
    match = _EVENT_INDEX.match(path) or _DESCRIBED_INDEX.match(description)
    return int(match[1]) if match else None


def _reason(message: Mapping[str, Any]) -> str:
    """The code and the path; the description repeats values of the event."""
    code, path = str(message.get("validationCode", "")), str(message.get("fieldPath", ""))
    reason = code if _CODE.fullmatch(code) else "refused by the validation server"
    return f"{reason} at {_BRACKETED.sub('[]', path)}" if _PATH.fullmatch(path) else reason

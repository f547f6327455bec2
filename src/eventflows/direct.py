"""Sending a few events at once, without a lane: for the command line. Each event's last answer comes back with its outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .delivery import Batch, Settled, judge, requests_of
from .mapping import Entry
from .providers.base import Provider, Response
from .retry import RetryPolicy
from .transport import Transport

NOT_SENT = "not sent"


class Answered(NamedTuple):
    """What became of one event.

    Attributes:
        settled: Its outcome, alone; or the status `not sent` and why: not now, and there was no time left, or the credentials.
        attempts: Requests that it was in.
        unauthorized: The credentials or the account were refused.
    """

    settled: Settled
    attempts: int
    response: Response
    unauthorized: bool = False


def send(
    provider: Provider,
    entries: Sequence[Entry],
    transport: Transport,
    policy: RetryPolicy,
    deadline: float,
) -> Iterator[Answered]:
    """Send events, and go on until the deadline (of `time.monotonic`) where the platform says "not now"."""
    waiting: list[tuple[Batch, int]] = [(batch, 1) for batch in requests_of(provider, entries)]
    while waiting:
        batch, attempt = waiting.pop(0)
        response = transport.send(batch.request, batch.events)
        verdict = judge(provider, batch.entries, response)
        for settled in verdict.settled:
            yield from (Answered(settled._replace(entries=[entry]), attempt, response) for entry in settled.entries)
        waiting[:0] = [(batch.of(again), attempt) for again in verdict.again]
        for entry in verdict.paused:
            yield Answered(Settled([entry], NOT_SENT, verdict.reason), attempt, response, unauthorized=True)
        if verdict.later:
            seconds = policy.wait(attempt, response.retry_after)
            if time.monotonic() + seconds > deadline:
                for entry in verdict.later:
                    yield Answered(Settled([entry], NOT_SENT, verdict.reason), attempt, response)
            else:
                time.sleep(seconds)
                waiting.append((batch.of(verdict.later), attempt + 1))

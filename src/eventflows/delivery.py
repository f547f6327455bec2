"""Delivery: take encoded events to one outcome each, whatever the platform answers.

send ─ delivered ────────────────────────────── settled
     ├ refused, this event is why ───────────── settled
     ├ another event is why ──── the rest goes again at once
     ├ nobody says which ─────── halves go again at once
     └ not now ───────────────── waits, goes again, or is given up
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from .mapping import batches
from .providers.base import Encoded, Outcome, Provider, Response, Status
from .retry import RetryPolicy
from .transport import Transport

Settle = Callable[[str, str, int], None]
"""`settle(status, reason, count)`: status is delivered, refused or dropped."""


def deliver(
    provider: Provider,
    encoded: Sequence[Encoded],
    transport: Transport,
    policy: RetryPolicy,
    settle: Settle,
    pause: Callable[[float], bool],
    attempted: Callable[[], None],
) -> None:
    """Send events until each has its outcome.

    Args:
        settle: Told the outcome of each event, exactly once.
        pause: Waits so many seconds; True where the wait was cut short because the lane closes.
        attempted: Told of each request that goes out.
    """
    for batch in batches(provider, encoded):
        _deliver_batch(provider, batch, transport, policy, settle, pause, attempted)


def _deliver_batch(
    provider: Provider,
    batch: list[Encoded],
    transport: Transport,
    policy: RetryPolicy,
    settle: Settle,
    pause: Callable[[float], bool],
    attempted: Callable[[], None],
) -> None:
    work = deque([batch])
    failures, closing, started = 0, False, time.monotonic()
    while work:
        batch = work.popleft()
        attempted()
        response = transport.send(provider.request(batch))
        outcomes = _read(provider, response, batch)
        by_status: dict[Status, list[Encoded]] = {}
        for one, outcome in zip(batch, outcomes, strict=True):
            if outcome.status is Status.DELIVERED:
                settle("delivered", "", 1)
            elif outcome.status is Status.REFUSED:
                settle("refused", outcome.reason, 1)
            elif outcome.status is Status.UNAUTHORIZED:
                settle("dropped", f"credentials or account refused: {outcome.reason}", 1)
            elif outcome.status is Status.SUSPECT and len(batch) == 1:
                settle("refused", outcome.reason, 1)
            else:
                by_status.setdefault(outcome.status, []).append(one)
        suspects = by_status.get(Status.SUSPECT, [])
        if suspects:
            middle = (len(suspects) + 1) // 2
            work.extendleft(half for half in (suspects[middle:], suspects[:middle]) if half)
        if innocent := by_status.get(Status.RESEND):
            work.appendleft(innocent)
        if waiting := by_status.get(Status.RETRY):
            failures += 1
            reason = next(outcome.reason for outcome in outcomes if outcome.status is Status.RETRY)
            seconds = policy.wait(failures, response.retry_after)
            if closing or time.monotonic() - started + seconds > policy.max_elapsed_time:
                settle(
                    "dropped", f"{'shutdown' if closing else 'given up'} after failed attempts: {reason}", len(waiting)
                )
                continue
            closing = pause(seconds)  # while closing there is one more attempt, at once
            work.append(waiting)


def _read(provider: Provider, response: Response, batch: Sequence[Encoded]) -> list[Outcome]:
    """The provider's reading of the answer; an answer that it cannot read must not cost the lane its thread."""
    try:
        outcomes = provider.outcomes(response, batch)
    except Exception as problem:  # noqa: BLE001 reason: answers come from outside, in any shape
        return [Outcome(Status.RETRY, f"unreadable answer ({type(problem).__name__})")] * len(batch)
    if len(outcomes) != len(batch):
        return [Outcome(Status.RETRY, "unreadable answer (wrong count)")] * len(batch)
    return outcomes

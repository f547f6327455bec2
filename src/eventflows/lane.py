"""A lane: one provider's queue, thread, connection and counters. No lane waits for another."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from . import delivery, routing
from .commit import SPAN_FAILED
from .consent import ConsentPolicy
from .conversion import Conversion
from .log import Notices, logger
from .mapping import NotSent, batches, encode
from .providers.base import Encoded, Provider
from .retry import RetryPolicy
from .sdk import Batcher, InlineBatcher, start_batcher
from .transport import Transport, encode_body, open_transport


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Names follow the Collector's `sending_queue`.

    Attributes:
        queue_size: How many conversions a lane holds; the newest beyond it is dropped, with a count.
        flush_interval: Seconds until a batch that is not full is sent.
    """

    queue_size: int = 10_000
    flush_interval: float = 1.0


@dataclass(frozen=True, slots=True)
class ProviderStats:
    """What became of the conversions of one provider, since the process started (or was forked).

    `captured == delivered + pending + the sums of filtered, refused and dropped`, at any moment.

    Attributes:
        filtered: Reason → count of those it was not meant to get.
        refused: Reason → count of those the platform refuses for good.
        dropped: Reason → count of those that were lost on the way.
        pending: Queued or under way.
        attempts: Requests that were sent.
    """

    captured: int
    delivered: int
    pending: int
    filtered: Mapping[str, int]
    refused: Mapping[str, int]
    dropped: Mapping[str, int]
    attempts: int


class Lane:
    """One provider's way from a conversion to its outcome.

    The thread starts with the first conversion. `offer` costs the app's thread a counter and an append.

    Attributes:
        log_only: Log the requests instead of sending them: outside production, where the platform has no test facility.
    """

    def __init__(
        self,
        provider: Provider,
        queue: QueueSettings,
        policy: RetryPolicy,
        timeout: float,
        consent: ConsentPolicy,
        *,
        send_synthetic: bool = False,
    ) -> None:
        self.provider = provider
        self.log_only = False
        self._queue = queue
        self._policy = policy
        self._timeout = timeout
        self._consent = consent
        self._send_synthetic = send_synthetic
        self._notices = Notices()
        self.reset()

    def reset(self) -> None:
        """Start from nothing: in a new lane, and in a forked child, whose parent keeps all that was captured before."""
        # Re-entrant, since a signal handler or finaliser may record a conversion while its thread is counting one.
        self._changed = threading.Condition(threading.RLock())
        self._closing = threading.Event()
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._captured = self._pending = self._attempts = 0
        self._batcher: Batcher | InlineBatcher | None = None
        self._transport: Transport | None = None
        self._closed = False

    # --- the app's side

    def offer(self, conversion: Conversion, effective: Conversion, *, failed: bool = False) -> None:
        """Count the conversion in, and queue it unless it is filtered or the queue is full.

        Args:
            effective: The conversion with the choices of consent that hold for it now; they are asked again at sending.
            failed: The work in which it was recorded has failed.
        """
        reason = self._filtered(effective) or (SPAN_FAILED if failed else None)
        with self._changed:
            self._captured += 1
            if reason is not None:
                self._outcomes["filtered", reason] += 1
                return
            if self._closed:
                self._outcomes["dropped", "recorded after shutdown"] += 1
                return
            if self._pending >= self._queue.queue_size:
                self._outcomes["dropped", "queue full"] += 1
                full = True
            else:
                self._pending += 1
                full = False
                batcher = self._batcher or self._start()
        if full:
            self._notices.warn("full", "%s: queue full, newest conversions dropped", self.provider.name)
        else:
            batcher.emit(conversion)

    def _filtered(self, effective: Conversion) -> str | None:
        return routing.filtered(self.provider, effective, send_synthetic=self._send_synthetic)

    def _start(self) -> Batcher | InlineBatcher:
        self._batcher = start_batcher(
            self._export,
            name=f"EventFlows-{self.provider.name}",
            # The lane itself keeps to queue_size; the slack is for those between counting and appending.
            queue_size=self._queue.queue_size + 1024,
            batch_size=1000,
            flush_interval=self._queue.flush_interval,
        )
        return self._batcher

    def stats(self) -> ProviderStats:
        with self._changed:
            by_status: dict[str, dict[str, int]] = {"filtered": {}, "refused": {}, "dropped": {}, "delivered": {}}
            for (status, reason), count in self._outcomes.items():
                by_status[status][reason] = count
            return ProviderStats(
                captured=self._captured,
                delivered=sum(by_status["delivered"].values()),
                pending=self._pending,
                filtered=by_status["filtered"],
                refused=by_status["refused"],
                dropped=by_status["dropped"],
                attempts=self._attempts,
            )

    # --- flush and shutdown: first all lanes are told, then all are waited for, within one deadline

    def flush_soon(self) -> None:
        if self._batcher is not None:
            self._batcher.flush_soon()

    def wait_settled(self, deadline: float) -> bool:
        """Wait until nothing is pending or the deadline (of `time.monotonic`) has come; True where nothing is pending."""
        with self._changed:
            while self._pending and (left := deadline - time.monotonic()) > 0:
                self.flush_soon()  # again and again, as the SDK's thread may lose a wake-up
                self._changed.wait(min(left, 0.05))
            return self._pending == 0

    def close_soon(self) -> None:
        with self._changed:
            self._closed = True
        self._closing.set()
        if self._batcher is not None:
            self._batcher.close_soon()

    def close(self, deadline: float) -> bool:
        """Wait for the end after `close_soon`; what is not settled by the deadline is counted as dropped."""
        if self._batcher is not None:
            self._batcher.join(deadline - time.monotonic())
        with self._changed:
            left, self._pending = self._pending, 0
            if left:
                self._outcomes["dropped", "not delivered before the end of shutdown"] += left
        if left:
            self._notices.warn("left", "%s: shutdown left conversions undelivered", self.provider.name, count=left)
        if self._transport is not None and not left:
            self._transport.close()
        return left == 0

    # --- the lane's thread

    def _export(self, conversions: list[Conversion]) -> None:
        """Take a batch to its outcomes. Never raises: an exception would cost the thread, or the batch its count."""
        encoded: list[Encoded] = []
        settled = 0

        def settle(status: str, reason: str, count: int) -> None:
            nonlocal settled
            settled += count
            self._settle(status, reason, count)

        try:
            now = time.time_ns()
            for conversion in conversions:
                effective = self._consent.effective(conversion)
                if (reason := self._filtered(effective)) is not None:
                    settle("filtered", reason, 1)
                    continue
                result = encode(self.provider, effective, now)
                if isinstance(result, NotSent):
                    settle(result.status, result.reason, 1)
                else:
                    encoded.append(result)
            if self.log_only:
                self._log(encoded)
                settle("filtered", "test environment: logged, not sent", len(encoded))
            elif encoded:
                if self._transport is None:
                    self._transport = open_transport(self.provider.METHOD, self._timeout)
                delivery.deliver(
                    self.provider,
                    encoded,
                    self._transport,
                    self._policy,
                    settle,
                    pause=self._closing.wait,
                    attempted=self._attempted,
                )
        except BaseException as problem:  # noqa: BLE001 reason: even SystemExit would end the SDK's thread for good
            self._settle("dropped", f"internal error ({type(problem).__name__})", len(conversions) - settled)

    def _log(self, encoded: list[Encoded]) -> None:
        for batch in batches(self.provider, encoded):
            body = encode_body(self.provider.request(batch).body).decode()
            logger.info("%s, test environment, not sent: %s", self.provider.name, body)

    def _attempted(self) -> None:
        with self._changed:
            self._attempts += 1

    def _settle(self, status: str, reason: str, count: int) -> None:
        with self._changed:
            count = min(count, self._pending)  # what shutdown gave up already stays counted as that
            if count <= 0:
                return
            self._pending -= count
            self._outcomes[status, reason] += count
            if not self._pending:
                self._changed.notify_all()
        if status in ("refused", "dropped"):
            self._notices.warn(reason, "%s: conversions %s: %s", self.provider.name, status, reason, count=count)

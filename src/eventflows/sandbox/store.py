"""What a sandbox remembers: requests, events, faults to come, and which token is the right one of an account."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Never accepted, so that a test of bad credentials needs no set-up.
BAD_TOKENS = ("invalid", "expired", "wrong")
# Requests are kept for looking at, not for counting; a load test must not fill the memory with their headers.
KEPT_REQUESTS = 10_000


class Credentials:
    """Which token an account has.

    A listed account has the listed token. Any other trusts the first token that it sees, so that a sandbox works
    without set-up and still notices when two tokens are mixed up.
    """

    def __init__(self, accounts: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._listed = {provider: dict(tokens) for provider, tokens in (accounts or {}).items()}
        self._learned: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def fault_of(self, provider: str, account: str, token: str) -> str:
        """Why the token is not accepted: "missing", "invalid" (no token at all), "mismatch" (another's), or ""."""
        if not token:
            return "missing"
        if token.lower().startswith(BAD_TOKENS):
            return "invalid"
        if not account:
            return ""  # nothing to learn from a request that does not say whose it is
        listed = self._listed.get(provider, {}).get(account)
        with self._lock:
            right = self._learned.setdefault((provider, account), token) if listed is None else listed
        return "" if token == right else "mismatch"

    def forget(self) -> None:
        with self._lock:
            self._learned.clear()


@dataclass(slots=True)
class Fault:
    """What shall go wrong with the next requests to a provider.

    Attributes:
        status: The HTTP status to answer with; None to answer as usual, only later.
        delay: Seconds to wait before the answer.
        retry_after: Seconds for the header Retry-After.
        body: A text as it is, or an object to send as JSON.
        times: How many requests it befalls.
    """

    provider: str
    status: int | None = None
    delay: float = 0
    retry_after: float | None = None
    body: Any = None
    times: int = 1

    def check(self, providers: Iterable[str]) -> None:
        """Raises ValueError with a message for the person who asked for the fault."""
        known = sorted(providers)
        if self.provider not in known:
            raise ValueError(f"provider must be one of {', '.join(known)}")
        if self.status is not None and not (_is_number(self.status, int) and 200 <= self.status <= 599):
            raise ValueError("status must be an HTTP status from 200 to 599")
        if not _is_number(self.delay) or self.delay < 0:
            raise ValueError("delay must be a number of seconds")
        if self.retry_after is not None and (not _is_number(self.retry_after) or self.retry_after < 0):
            raise ValueError("retry_after must be a number of seconds")
        if not _is_number(self.times, int) or self.times < 1:
            raise ValueError("times must be a positive integer")
        if self.status is None and (self.body is not None or self.retry_after is not None):
            raise ValueError("body and retry_after need a status")
        if self.status is None and not self.delay:
            raise ValueError("a fault needs a status or a delay")


def _is_number(value: Any, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


class Store:
    """Everything that arrived, in order of arrival."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accepted: list[dict[str, Any]] = []
        self._refused: list[dict[str, Any]] = []
        self._requests: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
        self._faults: list[Fault] = []

    def record(
        self,
        request: dict[str, Any],
        account: str = "",
        accepted: Iterable[Any] = (),
        refused: Iterable[tuple[Any, str]] = (),
    ) -> None:
        """Notes a request together with what became of its events."""
        provider, at = request["provider"], request["received_at"]
        common = {"provider": provider, "account": account, "received_at": at}
        with self._lock:
            self._requests.append(request)
            self._accepted.extend({**common, "event": event} for event in accepted)
            self._refused.extend({**common, "event": event, "reason": reason} for event, reason in refused)

    def accepted(self, provider: str | None = None) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(entry) for entry in self._accepted if provider in (None, entry["provider"])]

    def refused(self, provider: str | None = None) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(entry) for entry in self._refused if provider in (None, entry["provider"])]

    def both(self) -> dict[str, list[dict[str, Any]]]:
        """Accepted and refused events of one and the same moment."""
        with self._lock:
            return {"events": list(self._accepted), "refused": list(self._refused)}

    def requests(self) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(entry) for entry in self._requests]

    def add_fault(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def take_fault(self, provider: str) -> Fault | None:
        """The fault that befalls the next request of a provider; faults wait in line."""
        with self._lock:
            for fault in self._faults:
                if fault.provider == provider:
                    fault.times -= 1
                    if fault.times < 1:
                        self._faults.remove(fault)
                    return fault
        return None

    def clear(self) -> None:
        with self._lock:
            self._accepted.clear()
            self._refused.clear()
            self._requests.clear()
            self._faults.clear()

"""Testing credentials, where the platform has a safe way: its debug endpoint, or a test code."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from .direct import send
from .mapping import NotSent, encode
from .providers.base import Provider
from .retry import RetryPolicy
from .transport import Transport


@dataclass(frozen=True, slots=True)
class Tested:
    """What a test of a provider's credentials has shown.

    Attributes:
        result: `good`: the platform took a test event. `unproven`: it did, which proves nothing of them. `wrong`: it refuses
            the credentials or the account. `refused`: it refuses the event. `no answer`: nothing can be said now. `untested`:
            there is no safe way, or none is configured.
        told: Why, or what the result does not prove; for a person.
    """

    provider: str
    result: Literal["good", "unproven", "wrong", "refused", "no answer", "untested"]
    told: str = ""


def test(provider: Provider, transport: Transport, now: int) -> Tested:
    """Send one test event, by the platform's test facility.

    Args:
        now: Unix time in nanoseconds.
    """
    tested = provider.for_testing()
    if tested is None:
        return Tested(provider.name, "untested", provider.HOW_TO_TEST)
    conversion = tested.test_conversion(now)
    written = encode(tested, conversion, now)
    if isinstance(written, NotSent):
        return Tested(provider.name, "untested", written.reason)
    (answered,) = send(tested, [written], transport, RetryPolicy(), time.monotonic())
    settled = answered.settled
    if settled.status == "delivered":
        return Tested(provider.name, "unproven" if provider.NOT_TESTED else "good", provider.NOT_TESTED)
    if answered.unauthorized:
        return Tested(provider.name, "wrong", settled.reason)
    if settled.status == "refused":
        return Tested(provider.name, "refused", settled.reason)
    return Tested(provider.name, "no answer", settled.reason)

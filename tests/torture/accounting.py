"""The accounting that every scenario ends in: each conversion that was recorded is somewhere, and nobody has it twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from eventflows.sandbox import Sandbox
from eventflows.stats import ProviderStats

ID_OF: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "meta": lambda event: str(event["event_id"]),
    "tiktok": lambda event: str(event["event_id"]),
    "reddit": lambda event: str(event["metadata"]["conversion_id"]),
    "ga4": lambda event: "purchase-" + str(event["params"]["transaction_id"]),
}


def arrived(sandbox: Sandbox, provider: str) -> Counter[str]:
    """How often each conversion arrived."""
    return Counter(ID_OF[provider](entry["event"]) for entry in sandbox.events(provider))


@dataclass
class Account:
    """One provider in one scenario.

    Attributes:
        lost: Recorded, and neither arrived nor settled with a reason.
        again: Arrived more than once, under the same id.
    """

    scenario: str
    provider: str
    recorded: int
    arrived: int
    lost: int
    again: int
    stats: ProviderStats | None = None
    seconds: float = 0.0
    settled: Mapping[str, int] = field(default_factory=dict)

    HEAD: ClassVar[str] = (
        f"{'scenario':<44}{'provider':<9}{'recorded':>9}{'arrived':>9}{'refused':>9}{'expired':>9}{'dropped':>9}{'pending':>9}"
        f"{'lost':>6}{'again':>7}{'s':>7}"
    )

    def line(self) -> str:
        stats = self.stats
        counts = (
            (sum(stats.refused.values()), sum(stats.expired.values()), sum(stats.dropped.values()), stats.pending)
            if stats
            else ("", "", "", "")
        )
        numbers = "".join(f"{count:>9}" for count in counts)
        return (
            f"{self.scenario:<44}{self.provider:<9}{self.recorded:>9}{self.arrived:>9}{numbers}"
            f"{self.lost:>6}{self.again:>7}{self.seconds:>7.1f}"
        )


def account(
    scenario: str,
    provider: str,
    recorded: Iterable[str],
    sandbox: Sandbox,
    seconds: float,
    stats: ProviderStats | None = None,
) -> Account:
    """Compare what was recorded with what arrived; what has an outcome with a reason is not lost."""
    ids, there = set(recorded), arrived(sandbox, provider)
    missing = len(ids - set(there))
    if stats is not None:
        settled = sum(sum(r.values()) for r in (stats.filtered, stats.refused, stats.expired, stats.dropped))
        assert stats.captured == stats.delivered + stats.pending + settled, (scenario, provider, stats)
        missing -= min(missing, settled + stats.pending)
    return Account(
        scenario, provider, len(ids), len(there), missing, sum(there.values()) - len(there), stats, seconds
    )  # fmt: skip

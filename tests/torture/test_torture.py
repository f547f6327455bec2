"""Outages, poison, bad networks, kills, overflow, clock steps: nothing is lost, and everything can be accounted for."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventflows
from eventflows import MetaProvider, RedditProvider, TikTokProvider, journals
from eventflows.conversion import Conversion
from eventflows.pipeline import Pipeline
from eventflows.providers.base import Encoded
from eventflows.sandbox import Sandbox
from tests.conftest import environment, four

from .accounting import Account, account, arrived
from .faults import bad_network

pytestmark = pytest.mark.torture
ALL = ("meta", "ga4", "tiktok", "reddit")
RETRY = {"initial_interval": "20ms", "max_interval": "200ms"}
VISIT = {
    "client.address": "198.51.100.24",
    "user_agent": "Mozilla/5.0",
    "url": "https://shop.example/",
    "user.email": "z@x.se",
}


def purchase(order: str, **attributes: Any) -> str:
    event = {**VISIT, "order_id": order, "value": 5, "currency": "EUR", "user.id": f"u{order}", **attributes}
    eventflows.get_tracer("torture").add_event("Purchase", event)
    return f"purchase-{order}"


def orders(count: int, first: int = 0) -> Iterator[str]:
    return (f"{number:07}" for number in range(first, first + count))


def settle(
    scenario: str, pipeline: Pipeline, recorded: list[str], sandbox: Sandbox, accounts: list[Account], started: float
) -> list[Account]:
    stats, seconds = pipeline.stats(), time.monotonic() - started
    found = [account(scenario, name, recorded, sandbox, seconds, stats[name]) for name in stats]
    accounts.extend(found)
    return found


def test_an_outage_that_fits_the_queue_costs_nothing(sandbox: Sandbox, accounts: list[Account], long: bool) -> None:
    """The platform is gone while events come at 200 a second, and returns. Without storage."""
    seconds, port = (5.0 if long else 1.0), int(sandbox.url.rpartition(":")[2])
    pipeline = eventflows.configure(four(sandbox.url), retry_on_failure=RETRY, sending_queue={"flush_interval": "50ms"})
    started, recorded = time.monotonic(), [purchase(order) for order in orders(20)]
    assert eventflows.force_flush(10_000)
    before = {name: arrived(sandbox, name) for name in ALL}
    sandbox.stop()
    for number, order in enumerate(orders(int(200 * seconds), 20)):
        recorded.append(purchase(order))
        time.sleep(max(0.0, started + 0.2 + number / 200 - time.monotonic()))
    with Sandbox(port=port) as back:
        assert eventflows.force_flush(60_000)
        for name in ALL:
            assert not arrived(back, name).keys() & before[name].keys()
            stats = pipeline.stats()[name]
            assert stats.delivered == len(recorded)
            one = account("outage and return, no storage", name, recorded[20:], back, time.monotonic() - started)
            accounts.append(one)
            assert (one.lost, one.again) == (0, 0)


@pytest.mark.parametrize(
    ("scenario", "fault"),
    [
        ("HTTP 500", {"status": 500}),
        ("HTTP 503 with Retry-After", {"status": 503, "retry_after": 1}),
        ("HTTP 429 with Retry-After", {"status": 429, "retry_after": 1}),
    ],
)
def test_answers_that_mean_not_now(
    scenario: str, fault: dict[str, Any], sandbox: Sandbox, accounts: list[Account], long: bool
) -> None:
    count = 2000 if long else 200
    pipeline = eventflows.configure(four(sandbox.url), retry_on_failure=RETRY)
    for name in ALL:
        sandbox.fault(name, times=3, **fault)
    started = time.monotonic()
    recorded = [purchase(order) for order in orders(count)]
    assert eventflows.force_flush(60_000)
    for one in settle(scenario, pipeline, recorded, sandbox, accounts, started):
        assert (one.lost, one.again, one.arrived) == (0, 0, count)


def test_a_bad_network(sandbox: Sandbox, accounts: list[Account], long: bool, seed: int) -> None:
    """HTML, cut JSON, resets before and in the middle of an answer, answers that never come, connections closed between.

    What the platform took while its answer was lost goes again under the same id; nothing else does.
    """
    count = 1500 if long else 120
    with bad_network(int(sandbox.url.rpartition(":")[2]), seed, 0.35) as url:
        pipeline = eventflows.configure(
            four(url), retry_on_failure=RETRY, timeout="1s", sending_queue={"flush_interval": "20ms"}
        )
        started, recorded = time.monotonic(), []
        for number, order in enumerate(orders(count)):
            recorded.append(purchase(order))
            if number % 10 == 0:
                time.sleep(0.02)
        assert eventflows.force_flush(240_000)
        for one in settle("bad network", pipeline, recorded, sandbox, accounts, started):
            assert one.lost == 0
            assert one.arrived == count


class Meta(MetaProvider):
    poison: frozenset[str] = frozenset()

    def encode(self, conversion: Conversion) -> Encoded:
        encoded = super().encode(conversion)
        if conversion.id in Meta.poison:
            encoded.event["unknown_key"] = 1
        return encoded


class Reddit(RedditProvider):
    def encode(self, conversion: Conversion) -> Encoded:
        encoded = super().encode(conversion)
        if conversion.id in Meta.poison:
            encoded.event["unknown_key"] = 1
        return encoded


class TikTok(TikTokProvider):
    def encode(self, conversion: Conversion) -> Encoded:
        encoded = super().encode(conversion)
        if conversion.id in Meta.poison:
            encoded.event["unknown_key"] = 1
        return encoded


def test_poison_costs_only_itself(accounts: list[Account], long: bool, seed: int) -> None:
    """At random places of a batch of 1,000; every good one arrives exactly once."""
    dice = random.Random(seed)  # noqa: S311
    for turn in range(20 if long else 2):
        with Sandbox() as sandbox:
            ids = [f"purchase-{order}" for order in orders(1000)]
            Meta.poison = frozenset(dice.sample(ids, 1 + turn % 3))
            providers = [
                Meta("123", "abc", endpoint=f"{sandbox.url}/meta"),
                Reddit("a2_123", "abc", endpoint=f"{sandbox.url}/reddit"),
                TikTok("CPIX", "abc", endpoint=f"{sandbox.url}/tiktok"),
            ]
            pipeline = eventflows.configure(providers, sending_queue={"flush_interval": "10m"})
            started = time.monotonic()
            recorded = [purchase(order) for order in orders(1000)]
            assert eventflows.force_flush(60_000)
            for one in settle(f"poison, turn {turn + 1}", pipeline, recorded, sandbox, accounts, started):
                assert (one.lost, one.again, one.arrived) == (0, 0, 1000 - len(Meta.poison))
            eventflows.shutdown(5_000)


def test_a_burst_that_overflows(sandbox: Sandbox, accounts: list[Account], long: bool, tmp_path: Path) -> None:
    """With storage nothing is dropped; without, the newest are, counted."""
    count = 100_000 if long else 5_000
    provider = MetaProvider("123", "abc", endpoint=f"{sandbox.url}/meta")
    queue = {"storage": str(tmp_path), "queue_size": 1000}
    pipeline = eventflows.configure([provider], sending_queue=queue)
    started = time.monotonic()
    recorded = [purchase(order) for order in orders(count)]
    assert eventflows.force_flush(400_000)
    (one,) = settle(f"burst of {count}, storage", pipeline, recorded, sandbox, accounts, started)
    assert (one.lost, one.again, one.arrived) == (0, 0, count)
    eventflows.shutdown(5_000)
    sandbox.reset()
    sandbox.fault("meta", status=503, times=3, retry_after=1)
    pipeline = eventflows.configure([provider], sending_queue={"queue_size": 1000}, retry_on_failure=RETRY)
    started = time.monotonic()
    recorded = [purchase(order) for order in orders(count)]
    assert eventflows.force_flush(60_000)
    (one,) = settle(f"burst of {count}, no storage", pipeline, recorded, sandbox, accounts, started)
    assert (one.lost, one.again) == (0, 0)
    dropped = pipeline.stats()["meta"].dropped
    assert dropped == {"queue full": count - one.arrived}
    assert arrived(sandbox, "meta").keys() >= set(recorded[:900])  # the oldest stay


KILLED = """
import sys, time, eventflows
from eventflows import storage
from tests.conftest import four
from tests.torture.test_torture import RETRY, purchase
storage.SCAN_SECONDS = 0.1
url, folder, first = sys.argv[1:]
eventflows.configure(four(url), retry_on_failure=RETRY,
                     sending_queue={"storage": folder, "flush_interval": "20ms", "queue_size": 200})
number = int(first)
while True:
    purchase(f"{number:07}")
    print(number, flush=True)
    number += 1
    if number % 50 == 0:
        time.sleep(0.02)
"""
LAST = """
import sys, time, eventflows
from pathlib import Path
from eventflows import holding, storage
from tests.conftest import four
from tests.torture.test_torture import RETRY
storage.SCAN_SECONDS = 0.1
eventflows.configure(four(sys.argv[1]), retry_on_failure=RETRY, sending_queue={"storage": sys.argv[2]})
deadline = time.monotonic() + 120
while time.monotonic() < deadline and any(map(holding.owes, Path(sys.argv[2]).glob("*.journal"))):
    time.sleep(0.05)
print(eventflows.force_flush(10_000))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("processes", [1, 2])
def test_kills_at_random_moments(
    processes: int, sandbox: Sandbox, accounts: list[Account], long: bool, seed: int, tmp_path: Path
) -> None:
    """Of one process, and of two on one folder, while platforms fail at times. What was recorded before a kill arrives."""
    dice, started = random.Random(seed), time.monotonic()  # noqa: S311
    recorded: list[str] = []

    def read(process: subprocess.Popen[str], begun: threading.Event) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):
                recorded.append(f"purchase-{int(line):07}")
                begun.set()

    for turn in range((100 if processes == 1 else 30) if long else 3):
        sandbox.fault(dice.choice(ALL), status=dice.choice([500, 503, 429]), times=dice.randint(1, 5))
        children = [
            subprocess.Popen(
                [sys.executable, "-c", KILLED, sandbox.url, str(tmp_path), str((turn * processes + one) * 10_000)],
                env=environment(), stdout=subprocess.PIPE, text=True,
            )
            for one in range(processes)
        ]  # fmt: skip
        begun = [threading.Event() for _ in children]
        readers = [threading.Thread(target=read, args=both) for both in zip(children, begun, strict=True)]
        for reader in readers:
            reader.start()
        for one in begun:
            assert one.wait(60)
        time.sleep(dice.random())
        for child in children:
            child.send_signal(signal.SIGKILL)
        for child, reader in zip(children, readers, strict=True):
            child.wait()
            reader.join()
    last = subprocess.run(
        [sys.executable, "-c", LAST, sandbox.url, str(tmp_path)],
        env=environment(), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert last.stdout == "True\n", last.stderr
    seconds = time.monotonic() - started
    for name in ALL:
        one = account(f"kills, {processes} at a time", name, recorded, sandbox, seconds)
        accounts.append(one)
        assert one.lost == 0
    told = {one.id: one for one in journals.told(tmp_path)}
    assert set(recorded) <= set(told)
    assert {outcome[0] for one in told.values() for outcome in one.outcomes.values()} == {"delivered"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forks_in_the_middle_of_deliveries(
    sandbox: Sandbox, accounts: list[Account], long: bool, tmp_path: Path
) -> None:
    """Parent and children record and deliver their own, whatever the parent's threads held at the fork."""
    queue = {"storage": str(tmp_path), "flush_interval": "5ms"}
    pipeline = eventflows.configure(four(sandbox.url), retry_on_failure=RETRY, sending_queue=queue)
    started, recorded, children = time.monotonic(), [], []
    for turn in range(20 if long else 4):
        recorded.extend(purchase(order) for order in orders(30, turn * 1000))
        recorded.extend(f"purchase-{order}" for order in orders(10, turn * 1000 + 500))
        if (child := os.fork()) == 0:
            for order in orders(10, turn * 1000 + 500):
                purchase(order)
            os._exit(0 if eventflows.force_flush(20_000) else 1)
        children.append(child)
    assert {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children} == {0}
    assert eventflows.force_flush(20_000)
    for name in ALL:
        one = account("forks", name, recorded, sandbox, time.monotonic() - started)
        accounts.append(one)
        assert (one.lost, one.again) == (0, 0)
    assert pipeline.stats()["meta"].delivered == len(recorded) * 3 // 4


FULL = """
import resource, signal, sys, eventflows
from eventflows import MetaProvider
from tests.torture.test_torture import purchase, orders
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
pipeline = eventflows.configure([MetaProvider("123", "abc", endpoint=sys.argv[1] + "/meta")],
                                sending_queue={"storage": sys.argv[2], "flush_interval": "10m"})
for order in orders(100):
    purchase(order)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
for order in orders(400, 100):
    purchase(order)
assert eventflows.force_flush(30_000)
stats = pipeline.stats()["meta"]
assert (stats.captured, stats.delivered) == (500, 500), stats
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file size limit")
def test_a_disk_that_is_full(sandbox: Sandbox, accounts: list[Account], tmp_path: Path) -> None:
    """From there on in memory only, and said so; nothing is lost, nothing comes twice, and the end does not wait for room."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", FULL, sandbox.url, str(tmp_path)],
        env=environment(), capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "kept in memory only" in done.stderr
    recorded = [f"purchase-{order}" for order in orders(500)]
    one = account("full disk", "meta", recorded, sandbox, time.monotonic() - started)
    accounts.append(one)
    assert (one.lost, one.again) == (0, 0)


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_clock_that_steps(
    step: int, sandbox: Sandbox, accounts: list[Account], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an hour, while events wait: none is stuck, lost or expired."""
    queue = {"storage": str(tmp_path), "flush_interval": "10m"}
    pipeline = eventflows.configure(four(sandbox.url), retry_on_failure=RETRY, sending_queue=queue)
    for name in ALL:
        sandbox.fault(name, status=503, times=5)
    started = time.monotonic()
    recorded = [purchase(order) for order in orders(50)]
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + step * 10**9)
    recorded += [purchase(order) for order in orders(50, 50)]
    monkeypatch.setattr(time, "time_ns", real)
    assert eventflows.force_flush(30_000)
    for one in settle(f"clock steps by {step} s", pipeline, recorded, sandbox, accounts, started):
        assert (one.lost, one.again) == (0, 0)

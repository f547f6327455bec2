"""Plain processes: how a script, a child of `multiprocessing` or of `os.fork`, and a function may end, and what arrives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from eventflows import journals
from eventflows.sandbox import Sandbox
from tests.conftest import ROOT, environment
from tests.torture.accounting import arrived

from .recording import PROVIDERS

START = """
import atexit, multiprocessing, os, signal, sys, time
import eventflows
from concurrent.futures import ProcessPoolExecutor
from tests.servers.recording import configure, record

def some(name):
    for number in range(10):
        record(f"{name}-{number}")

"""
ENDS = {
    "ends": "",
    "sys.exit": "sys.exit(0)",
    "sys.exit with a message": "sys.exit('enough')",
    "exception": "1 / 0",
    "SIGTERM with a handler": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); os.kill(os.getpid(), signal.SIGTERM)",
    "SIGINT": "os.kill(os.getpid(), signal.SIGINT); time.sleep(10)",
}
DEATHS = {
    "SIGTERM without a handler": "os.kill(os.getpid(), signal.SIGTERM)",
    "os._exit": "os._exit(0)",
    "kill -9": "os.kill(os.getpid(), signal.SIGKILL)",
}
MAIN = START + "if __name__ == '__main__':\n  forking = multiprocessing.get_context('fork')\n"


def run(program: str, sandbox: Sandbox, storage: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program, for which nothing is sent for ten minutes unless it is flushed."""
    settings = {"SHOP_SANDBOX": sandbox.url, "PYTHONPATH": str(ROOT), "SHOP_FLUSH_INTERVAL": "10m"}
    if storage is not None:
        settings["SHOP_STORAGE"] = str(storage)
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment(**settings), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def names(*some: str) -> Counter[str]:
    return Counter(f"{name}-{number}" for name in some for number in range(10))


def all_of(sandbox: Sandbox, *some: str) -> bool:
    return all(arrived(sandbox, name) == names(*some) for name in PROVIDERS)


@pytest.mark.parametrize("end", ENDS)
def test_what_is_queued_at_the_end_is_delivered(end: str, sandbox: Sandbox) -> None:
    if end.startswith("SIG") and sys.platform == "win32":
        pytest.skip("needs signals")
    done = run(f"{START}configure()\nsome('a')\n{ENDS[end]}\n", sandbox)
    assert all_of(sandbox, "a"), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("death", DEATHS)
def test_a_process_that_just_dies_loses_what_is_queued_without_storage_and_nothing_with_it(
    death: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    run(f"{START}configure()\nsome('lost')\n{DEATHS[death]}\n", sandbox)
    assert all_of(sandbox)
    run(f"{START}configure()\nsome('kept')\n{DEATHS[death]}\n", sandbox, tmp_path)
    assert all_of(sandbox)
    run(f"{START}configure()\nsome('next')\neventflows.force_flush(20_000)", sandbox, tmp_path)
    assert all_of(sandbox, "kept", "next")


CHILDREN = {
    "fork": "child = forking.Process(target=some, args=('child',)); child.start(); child.join()",
    "fork with an exception": "child = forking.Process(target=lambda: (some('child'), 1 / 0)); child.start(); child.join()",
    "pool": "with ProcessPoolExecutor(1, forking) as pool: pool.submit(some, 'child').result()",
    "Pool": "pool = forking.Pool(1); pool.apply(some, ('child',)); pool.close(); pool.join()",
    "os.fork": "child = os.fork()\n  if not child: some('child'); sys.exit(0)\n  os.waitpid(child, 0)",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("storage", [False, True], ids=["", "storage"])
def test_a_child_delivers_its_own_at_its_end(child: str, storage: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    """And its parent its own, which both were queued at the fork and come later."""
    program = f"{MAIN}  configure()\n  some('before')\n  {CHILDREN[child]}\n  some('after')\n"
    done = run(program, sandbox, tmp_path if storage else None)
    assert all_of(sandbox, "before", "child", "after"), done.stderr


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_spawned_child_that_configures_delivers_its_own(method: str, sandbox: Sandbox, tmp_path: Path) -> None:
    if sys.platform == "win32" and method == "forkserver":
        pytest.skip("needs fork")
    script = tmp_path / "script.py"
    script.write_text(
        f"{START}def child(): configure(); some('child')\n"
        "if __name__ == '__main__':\n"
        f"  configure(); some('parent')\n"
        f"  process = multiprocessing.get_context('{method}').Process(target=child); process.start(); process.join()\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment(SHOP_SANDBOX=sandbox.url, PYTHONPATH=str(ROOT), SHOP_FLUSH_INTERVAL="10m"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert all_of(sandbox, "parent", "child"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_that_exits_at_once_loses_nothing_of_its_own_with_storage(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """`os._exit` runs nothing; its parent takes over."""
    program = f"""{START}
configure()
some("parent")
child = os.fork()
if not child:
    some("child")
    os._exit(0)
os.waitpid(child, 0)
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    if eventflows.force_flush(1_000) and sum(s.delivered for s in eventflows.running.current().stats().values()) == 40:
        break
"""
    done = run(program, sandbox, tmp_path)
    assert all_of(sandbox, "child", "parent"), done.stderr


FUNCTION = """
configure()
some(sys.argv[1] if len(sys.argv) > 1 else "call")
started = time.monotonic()
settled = eventflows.force_flush(500)
print(settled, time.monotonic() - started)
os.kill(os.getpid(), signal.SIGKILL)  # frozen, and never woken again
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_function_that_has_half_a_second_leaves_the_rest_in_the_journal(sandbox: Sandbox, tmp_path: Path) -> None:
    """It is told whether all was settled; the next call delivers what was left."""
    done = run(START + FUNCTION, sandbox, tmp_path)
    assert done.stdout.startswith("True"), done.stderr
    assert all_of(sandbox, "call")
    sandbox.reset()
    for name in PROVIDERS:
        sandbox.fault(name, delay=5, times=100)
    done = run(START + FUNCTION.replace('"call"', '"slow"'), sandbox, tmp_path)
    settled, seconds = done.stdout.split()
    assert settled == "False"
    assert float(seconds) < 2  # not a speed limit: the platforms answer after five
    assert sum(told.outcomes["meta"][0] == "pending" for told in journals.told(tmp_path)) == 10
    sandbox.reset()
    run(f"{START}configure()\nsome('next')\ntime.sleep(0.5)\neventflows.force_flush(20_000)", sandbox, tmp_path)
    assert all_of(sandbox, "slow", "next")


GEVENT = """
import gevent
def many(name):
    gevent.joinall([gevent.spawn(record, f"{name}-{number}") for number in range(10)], raise_error=True)
configure()
many("before")
child = os.fork()
if not child:
    many("child")
    sys.exit(0 if eventflows.force_flush(20_000) else 1)
many("after")
assert eventflows.force_flush(20_000)
os.waitpid(child, 0)
many("last")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("storage", [False, True], ids=["", "storage"])
@pytest.mark.parametrize("patched", ["before", "after the import", "not"])
def test_greenlets_and_their_forks(patched: str, storage: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    """With the standard library's threads replaced, also after our import, and with those that there are."""
    pytest.importorskip("gevent")
    patch = "from gevent import monkey; monkey.patch_all()\n"
    first, then = {"before": (patch, ""), "after the import": ("", patch), "not": ("", "")}[patched]
    done = run(f"{first}{START}{then}{GEVENT}", sandbox, tmp_path if storage else None)
    assert all_of(sandbox, "before", "child", "after", "last"), done.stderr


FORKING = """
import threading
configure()
record("first")  # a fork in the midst of an import would copy Python's own lock of the module
eventflows.force_flush(20_000)
over = threading.Event()
def write(name):
    number = 0
    while not over.wait(0.001):
        record(f"{name}-{number}")
        number += 1
threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
for thread in threads:
    thread.start()
children = []
for number in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        record(f"child-{number}")
        os._exit(0 if eventflows.force_flush(20_000) else 1)
    children.append(child)
    time.sleep(0.02)
deadline = time.monotonic() + 40
while children and time.monotonic() < deadline:
    children = [child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)]
    time.sleep(0.01)
for child in children:
    os.kill(child, signal.SIGKILL)
over.set()
print(len(children))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_child_finds_a_lock_that_nobody_opens(
    sandbox: Sandbox, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Forked while threads write to the storage: SQLite has locks of its own, which a fork would copy as they are."""
    count = 200 if request.config.getoption("--long") else 20
    settings = {"SHOP_SANDBOX": sandbox.url, "PYTHONPATH": str(ROOT), "SHOP_STORAGE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", START + FORKING, str(count)],
        env=environment(**settings), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "0\n", f"children hang: {done.stdout} {done.stderr}"
    assert {f"child-{number}" for number in range(count)} <= set(arrived(sandbox, "meta"))

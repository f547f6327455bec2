"""The command line at a terminal and in pipes, as real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import eventflows
from eventflows.sandbox import Sandbox
from tests.conftest import environment, four

from .test_pipeline import FAST, LEAD

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")

fcntl = pytest.importorskip("fcntl")
pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")

COMMAND = [sys.executable, "-m", "eventflows.cli"]
PREFIX = "OTEL_EXPORTER_EVENTFLOWS_"


@pytest.fixture
def folder(sandbox: Sandbox, tmp_path: Path) -> Path:
    """Three dead letters with a long reason."""
    found = tmp_path / "storage"
    eventflows.configure(four(sandbox.url)[:1], sending_queue={"storage": str(found)}, retry_on_failure=FAST)
    for number in range(3):
        event = {
            **LEAD,
            "order_id": f"order-{number}",
            "value": 1,
            "currency": "none",
            "event_id": f"{'e' * 40}{number}",
        }
        eventflows.get_tracer("shop").add_event("Purchase", event)
    assert eventflows.force_flush(10_000)
    eventflows.shutdown(5_000)
    return found


def at_a_terminal(argv: list[str], columns: int, **extra: str) -> tuple[int, str]:
    """What a person sees of a command there: the exit code, and all that came on the terminal."""
    return terminal([*COMMAND, *argv], columns, **extra)


def terminal(argv: list[str], columns: int, **extra: str) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {key: value for key, value in environment(TERM="xterm", **extra).items() if key not in ("COLUMNS", "LINES")}
    if "NO_COLOR" not in extra:
        env.pop("NO_COLOR", None)
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    seen = b""
    while True:
        try:
            if not (part := os.read(ours, 65536)):
                break
        except OSError:  # the other side has closed
            break
        seen += part
    os.close(ours)
    return process.wait(30), seen.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub(r"\033\[[0-9;]*[mK]", "", text)


@pytest.mark.parametrize(("columns", "cut", "wrapped"), [(100, True, True), (130, False, True), (400, False, False)])
def test_a_table_fits_the_terminal(columns: int, cut: bool, wrapped: bool, folder: Path) -> None:
    """The last column goes on in the next line, so that no reason is cut; then the widest of the others are."""
    code, seen = at_a_terminal(["dead-letters", "list", "--storage", str(folder)], columns)
    lines = plain(seen).splitlines()
    assert code == 0
    assert max(map(len, lines)) <= columns
    assert ("…" in seen, len(lines) > 4) == (cut, wrapped)
    assert "a purchase needs value and currency" in " ".join(seen.split())


def test_colours_are_for_terminals_that_want_them(folder: Path) -> None:
    argv = ["show", "order-1", "--storage", str(folder)]
    assert "\033[31mrefused" in at_a_terminal(argv, 200)[1]
    assert "\033" not in at_a_terminal(argv, 200, NO_COLOR="1")[1]
    done = subprocess.run([*COMMAND, *argv], capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert (done.returncode, "refused" in done.stdout, "\033" in done.stdout) == (0, True, False)


def test_a_closed_pipe_is_no_traceback(folder: Path) -> None:
    line = f"{' '.join(COMMAND)} dead-letters list --json --storage {folder} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=environment(), timeout=60, check=True
    )
    assert done.stderr == ""
    assert done.stdout.strip() in ("141", "0")  # 0 where it was quicker than `true`


def test_ctrl_c_ends_at_once_and_without_a_traceback() -> None:
    """Although the platform never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = environment(
            **{PREFIX + "META_PIXEL_ID": "1", PREFIX + "META_ACCESS_TOKEN": "x", PREFIX + "ENDPOINT": url}
        )
        argv = [*COMMAND, "send", "Lead", "-a", "user.email=a@b.example"]
        process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        silent.settimeout(30)
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=8)  # the request's own timeout is 10 s
        connection.close()
    assert (process.returncode, out, err) == (130, "", "")


def test_ctrl_c_stops_the_sandbox_and_json_says_where_it_was() -> None:
    argv = [*COMMAND, "sandbox", "--port", "0", "--json"]
    process = subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["url"].startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_help_names_every_command_and_the_exit_codes() -> None:
    done = subprocess.run(
        [*COMMAND, "--help"], capture_output=True, text=True, env=environment(), timeout=60, check=True
    )
    commands = ("check", "render", "send", "sandbox", "dead-letters", "show", "report", "erase", "config", "version")
    for command in commands:
        assert re.search(rf"^ +{command}( |$)", done.stdout, re.MULTILINE), command
    assert "exit codes: 0" in done.stdout
    bare = subprocess.run(COMMAND, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert (bare.returncode, bare.stdout, bare.stderr) == (2, "", done.stdout)


LONG_WORK = """
import time
from eventflows.cli.output import progress
for _ in progress(range(40), "orders", 40):
    time.sleep(0.03)
print("done")
"""


def test_long_work_shows_its_progress_at_a_terminal_only() -> None:
    seen = terminal([sys.executable, "-c", LONG_WORK], 100)[1]
    assert re.search(r"\[#+\.+\] \d+ of 40 orders", seen)
    assert plain(seen).rpartition("\r")[2] == "done\n"
    done = subprocess.run([sys.executable, "-c", LONG_WORK], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")

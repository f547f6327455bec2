"""One virtual environment per section of peers.ini, made when it is missing or its section has changed."""

from __future__ import annotations

import configparser
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = HERE.parent
PLACE = HERE / ".venvs"


def sections() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(HERE / "peers.ini", encoding="utf-8")
    return parser


def requirements(name: str) -> list[str]:
    return sections()[name]["requirements"].replace("{tree}", str(TREE)).strip().splitlines()


def versions(names: list[str]) -> dict[str, str]:
    """The pinned release of the first requirement of each, for the report."""
    return {name: requirements(name)[0] for name in names if not requirements(name)[0].startswith("-e")}


def python(name: str) -> Path:
    return PLACE / name / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def prepare(names: set[str]) -> None:
    """Make what is missing, two at a time. Downloads come from pip's cache the second time.

    Raises:
        RuntimeError: An installation failed; says what pip said.
    """
    PLACE.mkdir(exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_prepare, sorted(names, reverse=True)))


def _prepare(name: str) -> None:
    wanted = "\n".join([sys.version, *requirements(name)])
    if str(TREE) in wanted:
        wanted += (TREE / "pyproject.toml").read_text(encoding="utf-8")
    stamp = PLACE / name / "stamp.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return
    print(f"installing {name} ...", file=sys.stderr, flush=True)
    _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(PLACE / name)])
    arguments: list[str] = []
    for line in requirements(name):
        arguments += line.split(" ", 1)
    pip = [sys.executable, "-m", "pip", "--python", str(python(name)), "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", *arguments])
    stamp.write_text(wanted, encoding="utf-8")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")

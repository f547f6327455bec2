"""What the documentation shows is so: its links lead somewhere, its code and its settings can be copied, its tests exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventflows import config
from eventflows.cli import _parser
from tests.conftest import ROOT

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")],
    key=lambda page: page.relative_to(ROOT).as_posix(),
)
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def anchors(page: Path) -> Iterator[str]:
    """The headings of a page, as GitHub links them."""
    for heading in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@EVERY_PAGE
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@EVERY_PAGE
def test_python_can_be_copied(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


@EVERY_PAGE
def test_settings_can_be_copied(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of our own are read as they stand; only secrets and folders are those of this machine."""
    for name in ("META_ACCESS_TOKEN", "GA4_API_SECRET", "TOKEN_A", "TOKEN_B"):
        monkeypatch.setenv(name, "t0ken")
    secret = tmp_path / "secret"
    secret.write_text("t0ken")
    for block in blocks(page, "yaml"):
        if "file_format" not in block and "providers:" in block:
            file = tmp_path / "c.yaml"
            file.write_text(
                re.sub(r"/run/secrets/\w+", str(secret), block).replace("/var/lib/eventflows", str(tmp_path))
            )
            assert config.from_file(file).providers


@EVERY_PAGE
def test_commands_are_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    told = [line for block in blocks(page, "sh") for line in block.splitlines()]
    told += re.findall(r"^\$ (.+)$", text, re.MULTILINE) + re.findall(
        r"^\|.*?`(eventflows [^`|]+)`", text, re.MULTILINE
    )
    for line in told:
        command, *words = shlex.split(line.partition(" > ")[0], comments=True) or [""]
        if command == "eventflows" and "--help" not in words:
            _parser().parse_args(words)


@EVERY_PAGE
def test_the_tests_that_it_names_exist(page: Path) -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_\w+_\w+_\w+)`", page.read_text(encoding="utf-8")):
        assert f"def {name}(" in sources, name
    for path in re.findall(r"`(tests/[\w/]+(?:\.py)?)`", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


def test_the_log_lines_to_watch_for_are_those_that_are_written() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.partition("| log line | do |\n|---|---|\n")[2].partition("\n\n")[0]
    lines = re.findall(r"^\| `([^`<]+)", table, re.MULTILINE)
    assert len(lines) >= 6
    written = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for line in lines:
        assert line.strip() in written, line

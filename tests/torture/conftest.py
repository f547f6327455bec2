"""The short form is part of every run; `pytest -m torture --long` is the long one. Both print what they counted."""

from __future__ import annotations

from typing import Any

import pytest

from .accounting import Account

ACCOUNTS: list[Account] = []


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seed"))


@pytest.fixture
def accounts() -> list[Account]:
    return ACCOUNTS


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not ACCOUNTS:
        return
    terminalreporter.section("torture: what became of every conversion, per provider")
    terminalreporter.write_line(Account.HEAD)
    for account in ACCOUNTS:
        terminalreporter.write_line(account.line())

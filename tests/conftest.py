"""Every test starts without a pipeline and without OpenTelemetry's global providers, and touches only loopback."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import _internal as logs_api
from opentelemetry.metrics import _internal as metrics_api
from opentelemetry.util._once import Once

from eventflows import ConsoleProvider, GA4Provider, MetaProvider, RedditProvider, TikTokProvider, metrics, running
from eventflows.providers.base import Provider
from eventflows.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the long form of the torture suite: pytest -m torture --long")
    parser.addoption("--seed", default="4711", help="of the torture suite's dice")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long") is not None:
                item.add_marker(pytest.mark.skip(reason="only with --long"))


def _forget_globals() -> None:
    trace._TRACER_PROVIDER_SET_ONCE = Once()
    trace._TRACER_PROVIDER = None
    logs_api._LOGGER_PROVIDER_SET_ONCE = Once()
    logs_api._LOGGER_PROVIDER = None
    metrics_api._METER_PROVIDER_SET_ONCE = Once()
    metrics_api._METER_PROVIDER = None
    metrics_api._PROXY_METER_PROVIDER = metrics_api._ProxyMeterProvider()
    metrics.forget()


@pytest.fixture(autouse=True)
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration leaks in from the environment, and none leaks from test to test."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    _forget_globals()
    yield
    if (pipeline := running.latest()) is not None:
        running.make_current(None)
        pipeline.shutdown(500)
    _forget_globals()


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test can reach a real platform."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to connect to {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def four(endpoint: str | None = None) -> list[Provider]:
    """The four platforms with demo credentials, sending to the sandbox where it is given."""
    under = (lambda kind: f"{endpoint}/{kind}") if endpoint else (lambda _kind: None)
    return [
        MetaProvider("123", "abc", endpoint=under("meta")),
        GA4Provider("G-123", "abc", endpoint=under("ga4")),
        TikTokProvider("CPIX", "abc", endpoint=under("tiktok")),
        RedditProvider("a2_123", "abc", endpoint=under("reddit")),
    ]


def five(endpoint: str | None = None) -> list[Provider]:
    return [*four(endpoint), ConsoleProvider()]


PERSON = {
    "user.email": " Zoe.Canary@Example.com ",
    "user.phone": "+46 70 123 45 67",
    "user.first_name": "Zoecanary",
    "user.last_name": "Lundcanary",
    "user.date_of_birth": "1987-06-05",
    "user.street": "Canarygatan 7",
}
"""A person whose raw values must be found nowhere; `CANARIES` are what to look for, in lower case."""
CANARIES = (
    "zoe.canary@",
    "701234567",
    "70 123 45 67",
    "zoecanary",
    "lundcanary",
    "1987-06-05",
    "19870605",
    "canarygatan",
)


@pytest.fixture
def signals_of_a_terminal() -> Iterator[None]:
    """Child processes get SIGINT and SIGHUP as a terminal sends them, also where the tests run in the background of a shell or
    under `nohup`, which have both ignored."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def environment(**extra: str) -> dict[str, str]:
    """An environment for a child process, without any OpenTelemetry setting of this one."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    scripts = os.path.dirname(sys.executable)
    return {**kept, "PATH": f"{scripts}{os.pathsep}{kept.get('PATH', '')}", **extra}

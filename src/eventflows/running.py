"""The pipeline of this process: which one is running, and what goes by it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from . import baggage, hangup
from .config import Settings
from .errors import ConfigurationError
from .log import Notices, logger
from .pipeline import Pipeline
from .visitor import VisitorSettings, use_settings

ordinary: set[str] = set()
"""Names of events that were no conversions, so that the next costs next to nothing. Another pipeline has other rules."""
_MAX_ORDINARY = 4096
_starting: dict[int, threading.RLock] = {}
_current: Pipeline | None = None
_rehearsed: ContextVar[Pipeline | None] = ContextVar("eventflows-rehearsal", default=None)
_NOT_CONFIGURED = (
    "{count} events were recorded while EventFlows is not configured, and are lost: call eventflows.configure()"
)
_notices = Notices("capture")


def starting() -> threading.RLock:
    """Held while a pipeline is made and attached, so that of two threads one does it; of this process, as a parent's thread may
    hold its own at a fork."""
    return _starting.setdefault(os.getpid(), threading.RLock())


def latest() -> Pipeline | None:
    """The pipeline of this process, if one was configured; one that was shut down still seals what it gets, and drops it."""
    return _rehearsed.get() or _current


def current() -> Pipeline | None:
    """The pipeline of this process, if one is running."""
    pipeline = latest()
    return None if pipeline is None or pipeline.is_shut_down else pipeline


def remember_ordinary(name: str) -> None:
    """An event of this name, and without a `conversion.type`, is no conversion."""
    if "@" in name:  # it may hold an e-mail address, and is kept
        return
    if len(ordinary) >= _MAX_ORDINARY:
        ordinary.clear()
    ordinary.add(name)


@contextmanager
def rehearsal(built_from: Settings) -> Iterator[Pipeline]:
    """Another pipeline for the code inside, and for that code only."""
    pipeline = Pipeline(built_from, {})
    token = _rehearsed.set(pipeline)
    try:
        yield pipeline
    finally:
        _rehearsed.reset(token)
        pipeline.shutdown(0)


def make_current(pipeline: Pipeline | None) -> None:
    global _current
    _current = pipeline
    if pipeline is not None:
        pipeline.changed = _go_by_settings
    _go_by_settings()
    if pipeline is not None and pipeline.settings.reload_on_sighup:
        hangup.listen(_reload)
    else:
        hangup.ignore()


def _reload() -> None:
    """Read the configuration again. What is wrong with it is said, and then everything goes on as before."""
    try:
        if (pipeline := current()) is not None:
            pipeline.reload()
    except ConfigurationError as problem:
        logger.error("the new configuration is refused, and the old one goes on: %s", problem)
    except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
        logger.error("the configuration could not be read again: %s", type(problem).__name__)


def _go_by_settings() -> None:
    """What the settings of the current pipeline say of the whole process."""
    pipeline = _current
    ordinary.clear()
    visitor = pipeline.settings.visitor if pipeline is not None else VisitorSettings()
    use_settings(visitor)
    is_running = pipeline is not None and not pipeline.is_shut_down
    if visitor.baggage and is_running:
        baggage.switch_on()
    else:
        baggage.switch_off()
    if not is_running:
        hangup.ignore()


def required() -> Pipeline | None:
    """The latest pipeline, or a log line that says why nothing is recorded."""
    pipeline = latest()
    if pipeline is None:
        _notices.warn("none", _NOT_CONFIGURED)
    return pipeline


def shared(built_from: Settings, resource: Mapping[str, Any] | None = None) -> Pipeline:
    """The pipeline of this process, made from these settings where there is none yet.

    Raises:
        ConfigurationError: As `Pipeline`.
    """
    with starting():
        pipeline = _current
        if pipeline is None or pipeline.is_shut_down:
            pipeline = Pipeline(built_from, resource)
            make_current(pipeline)
        return pipeline

"""SIGHUP: have a process read its configuration again, where the settings ask for it.

It is opt-in, since a process without a handler ends by this signal, as when its terminal is closed, and since gunicorn's and
uWSGI's masters have handlers of their own.
"""

from __future__ import annotations

import os
import queue  # and not its names, which gevent may replace only after the fork
import signal
import threading
from collections.abc import Callable
from typing import Any

from .log import logger

_bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # whose `put` a signal handler may interrupt and call again
_former: Any = None
_pid = 0
_reload: Callable[[], None] | None = None


def listen(reload: Callable[[], None]) -> None:
    """Call this on a thread of our own at each SIGHUP, beside the handler that there was; only the main thread can ask."""
    global _former, _reload
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or threading.current_thread() is not threading.main_thread():
        where = "on this system there is none" if hangup is None else "call eventflows.configure on the main thread"
        logger.error("reload_on_sighup: no handler of SIGHUP can be set: %s", where)
        return
    _reload = reload
    _start()
    if (found := signal.getsignal(hangup)) is not _hung_up:
        _former = found
        signal.signal(hangup, _hung_up)


def ignore() -> None:
    """Undo `listen`, where nobody has set another handler since."""
    global _former, _reload
    _reload = None
    hangup = getattr(signal, "SIGHUP", None)
    on_main_thread = threading.current_thread() is threading.main_thread()
    if hangup is not None and on_main_thread and signal.getsignal(hangup) is _hung_up:
        signal.signal(hangup, signal.SIG_DFL if _former is None else _former)
        _former = None


def _start() -> None:
    global _bell, _pid
    if _pid != os.getpid():  # a forked child has its parent's handler, and not its thread
        _pid, _bell = os.getpid(), queue.SimpleQueue()
        threading.Thread(target=_run, args=(_bell,), name="EventFlows-reload", daemon=True).start()


def _hung_up(number: int, frame: Any) -> None:
    _start()
    _bell.put(None)
    if callable(_former):
        _former(number, frame)


def _run(bell: queue.SimpleQueue[None]) -> None:
    while True:
        bell.get()
        if (reload := _reload) is not None:
            reload()

"""How processes end and fork, for objects that nobody may hold any more.

Exit handlers run at the end of a script, and of the workers of gunicorn and uWSGI. They do not run in children of
`multiprocessing`, in Celery's pool processes, nor where uvicorn is ended by a signal; each of those has a way of its own to
say that it ends.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import wrapt

from .log import Notices

SECONDS_AT_EXIT = 30.0
SECONDS_AT_WORKERS_END = 5.0
"""A server replaces a worker only when that has ended, so one that is recycled during an outage must not take its time."""
SECONDS_BEFORE_FORK = 0.2
"""A fork waits no longer for threads that are writing."""

Deliver = Callable[[Any, float], object]
"""Given the subject and a timeout in milliseconds."""
_notices = Notices("wiring")
_watched: weakref.WeakKeyDictionary[Any, tuple[Deliver, Deliver]] = weakref.WeakKeyDictionary()


def watch(subject: Any, shutdown: Deliver, flush: Deliver) -> None:
    """Call these with the subject when the time comes, without keeping it alive until then. A forked child says it again.

    Args:
        shutdown: At the end of the process.
        flush: When a server says that it ends, though the process may go on.
    """
    if (uwsgi := _uwsgi()) is not None and not {"enable-threads", "threads"} & set(uwsgi.opt):
        _notices.warn(
            "uwsgi", "uWSGI runs no threads: conversions wait for the end of its workers. Set enable-threads = true"
        )
    _watched[subject] = (shutdown, flush)
    atexit.unregister(_exit)
    atexit.register(_exit)  # comes before the handlers that were registered earlier
    for package in ("multiprocessing", "billiard"):  # whose children have no exit handlers
        process, util = sys.modules.get(f"{package}.process"), sys.modules.get(f"{package}.util")
        if process is not None and util is not None and getattr(process.current_process(), "_parent_pid", None):
            util.Finalize(None, _exit, exitpriority=-1)  # after what the app has registered with a priority


def flush(seconds: float = SECONDS_AT_WORKERS_END) -> None:
    """This process may end without another word: deliver what is queued."""
    deadline = time.monotonic() + seconds
    for subject, (_, deliver) in list(_watched.items()):
        deliver(subject, max(0.0, deadline - time.monotonic()) * 1000)


def _exit(seconds: float = SECONDS_AT_EXIT) -> None:
    deadline = time.monotonic() + seconds
    for subject, (shutdown, _) in list(_watched.items()):
        shutdown(subject, max(0.0, deadline - time.monotonic()) * 1000)


def is_exiting() -> bool:
    """Whether exit handlers are running: the main thread is over by then."""
    return not threading.main_thread().is_alive()


def _end_with_celerys_pool(signals: ModuleType) -> None:
    def ended(**_: Any) -> None:
        _exit(SECONDS_AT_WORKERS_END)

    signals.worker_process_shutdown.connect(ended, weak=False, dispatch_uid="eventflows-end")


wrapt.register_post_import_hook(_end_with_celerys_pool, "celery.signals")


# --- forks


def forks_its_workers() -> bool:
    """Whether this is uWSGI before its fork, which runs no hooks: a thread here might leave its workers a locked lock."""
    uwsgi = _uwsgi()
    return uwsgi is not None and uwsgi.worker_id() == 0


def _uwsgi() -> Any:
    found = sys.modules.get("uwsgi")
    return found if hasattr(found, "worker_id") else None


class Lock(Protocol):
    """A lock of `threading`."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...
    def release(self) -> None: ...


_still: dict[weakref.ref[Lock], None] = {}
_taken: dict[int, list[Lock]] = {}  # by the thread that forks


def still_at_fork(*locks: Lock) -> None:
    """Have a fork wait for whoever holds these locks, so that no child finds what they guard in the midst of a change.

    What they guard may be another library's, as SQLite's own locks are.
    """
    for lock in locks:
        _still[weakref.ref(lock, lambda gone: _still.pop(gone, None))] = None


def _before_fork() -> None:
    deadline = time.monotonic() + SECONDS_BEFORE_FORK
    taken = _taken.setdefault(threading.get_ident(), [])
    for reference in list(_still):
        lock = reference()
        if lock is not None and lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            taken.append(lock)


def _after_fork() -> None:
    for lock in reversed(_taken.pop(threading.get_ident(), [])):
        lock.release()


def _after_fork_in_child() -> None:
    _after_fork()
    _taken.clear()  # what other threads of the parent were about to do


def give_way() -> None:
    """Between two turns of long work that holds a lock again and again: let a fork go first that waits for it."""
    until = time.monotonic() + SECONDS_BEFORE_FORK
    while _taken and time.monotonic() < until:
        time.sleep(0.001)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)

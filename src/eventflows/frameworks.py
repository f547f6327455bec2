"""The visitor without code: web frameworks keep it for each request, and Celery carries it with each task."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from opentelemetry.trace import get_current_span

from .commit import UnitOfWork
from .context import around, visitor_snapshot
from .log import Notices
from .patching import Patches
from .request import read_attributes
from .spans import scope_of
from .told import Told
from .visitor import Visiting, Visitor, answer_asgi, answering, current_visitor

_WSGI = (("flask.app", "Flask"), ("django.core.handlers.wsgi", "WSGIHandler"))
_ASGI = (("starlette.applications", "Starlette"), ("django.core.handlers.asgi", "ASGIHandler"))
_HEADER = "eventflows_visitor"
_UID = "eventflows"
_notices = Notices("visitor")


def watch(patches: Patches) -> None:
    """Keep the visitor in the frameworks that the app uses, whenever it imports them."""
    for module, owner in _WSGI:
        patches.substitute_later(module, owner, "__call__", answering)
    for module, owner in _ASGI:
        patches.wrap_later(module, owner, "__call__", _answer_asgi)
    patches.when_imported("celery.signals", _connect)


def _answer_asgi(wrapped: Any, _app: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return answer_asgi(wrapped, *args, **kwargs)


# --- Celery: the visitor is a header of the message, and a task is a unit of work


def _connect(signals: ModuleType) -> Callable[[], None]:
    running: dict[str, Visiting] = {}

    def published(headers: Any = None, **_: Any) -> None:
        try:
            known, visitor = visitor_snapshot(), current_visitor()
            if isinstance(headers, dict) and (known or (visitor is not None and visitor.explicit)):
                headers[_HEADER] = known
        except Exception as problem:  # noqa: BLE001 reason: telemetry never breaks the app
            _notices.warn("celery", "{count} tasks go without their visitor (%s)", type(problem).__name__)

    def started(task_id: str = "", task: Any = None, **_: Any) -> None:
        request = getattr(task, "request", None)
        carried = getattr(request, _HEADER, None)
        if carried is None:
            carried = (getattr(request, "headers", None) or {}).get(_HEADER)
        above = current_visitor()  # of a task that runs eagerly, in the request itself
        unit = UnitOfWork(above if above is not None and above.unit else scope_of(get_current_span()))
        if carried is None and above is not None:
            visitor = Visitor(above.told, unit, explicit=above.explicit)
        else:
            known = read_attributes(carried)
            visitor = Visitor(Told.of(known), unit, explicit=carried is not None)
        running[task_id] = Visiting(visitor)

    def failed(**_: Any) -> None:
        if (unit := around().unit) is not None:
            unit.failed = True

    def over(task_id: str = "", **_: Any) -> None:
        if (visiting := running.pop(task_id, None)) is not None:
            visiting.end()

    connections = (
        (signals.before_task_publish, published),
        (signals.task_prerun, started),
        (signals.task_failure, failed),
        (signals.task_retry, failed),
        (signals.task_postrun, over),
    )
    for signal, receiver in connections:
        signal.connect(receiver, weak=False, dispatch_uid=_UID)

    def disconnect() -> None:
        for signal, receiver in connections:
            signal.disconnect(receiver, dispatch_uid=_UID)

    return disconnect

"""What a span is a part of: the local root span, the HTTP server span around it, and whose request was being answered.

Most spans are over without a conversion. So a span that starts gets no more than what nobody would remember, and the scope is
made when it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, Status, StatusCode

from .commit import STATUS_CODES, UnitOfWork, Within, is_server_error

_STARTED = "_eventflows_started"
"""The attribute of a span with which a scope begins: whose request, the local root if that is another, what was told."""
_OWNER = "_eventflows_owner"
"""The attribute of any other span: the one with which its scope begins. None has itself, as that would be a circle."""
_SCOPE = "_eventflows_scope"
_MAX_AWAITED = 100_000
_INTERNAL, _SERVER = SpanKind.INTERNAL, SpanKind.SERVER
_METHODS = frozenset({"http.request.method", "http.method"})

awaited: dict[int, Scope] = {}
"""The scopes in which conversions were recorded, by the ids of the spans whose ends they wait for."""


class Scope(UnitOfWork):
    """What a span is a part of; that of a local root is the unit of work that this span is.

    Attributes:
        root: The scope of the local root span; None is this one.
        server: The enclosing HTTP server span, or the attributes it started with where it is not recorded.
        visitor: Whose request was being answered when the span started.
        mixed: Conversions were recorded on behalf of other visitors meanwhile; which those were cannot be told afterwards.
    """

    __slots__ = ("mixed", "root", "server", "visitor")

    def __init__(self, server: Any, visitor: Any, root: Scope | None) -> None:
        super().__init__(visitor)
        self.root = root
        self.server = server
        self.visitor = visitor
        self.mixed = False

    @property
    def unit(self) -> UnitOfWork:
        """The local root span, as a unit of work."""
        return self if self.root is None else self.root

    def comes_to(self, visitor: Any) -> None:
        """From here on it is this visitor's, unless it is another's. The work began before, and is no part of theirs."""
        if self.visitor is None:
            self.visitor = visitor

    def end(self, span: ReadableSpan | None = None) -> None:
        """The span that it begins with has ended.

        Args:
            span: As it ended, where it is recorded: preferably the copy that `on_end` gets.
        """
        if self.server is not None and span is not None:
            self.server = span  # the copy, which knows no scope: a circle would be left to the garbage collector
        if self.root is None:
            super().end(span)


def is_server(kind: SpanKind | None, attributes: Mapping[str, Any] | None) -> bool:
    """Whether a span that starts so is of an HTTP request that is answered here."""
    if kind is not _INTERNAL:
        return kind is _SERVER
    return bool(attributes) and not _METHODS.isdisjoint(attributes or ())


def owner_of(span: object) -> Any:
    """The span with which the scope of this one begins, where its start was seen; else None."""
    owner = getattr(span, _OWNER, None)
    return owner if owner is not None or not hasattr(span, _STARTED) else span


def begin(span: Any, visitor: Within | None, above: Any = None, told: Mapping[str, Any] | None = None) -> None:
    """A span starts that is a local root, or an HTTP server span.

    Args:
        visitor: Whose request is being answered.
        above: The owner of the scope that it is in, if any.
        told: Its attributes, where it is an HTTP server span that is not recorded.
    """
    root = None
    if above is not None:
        visitor_above, root, _ = getattr(above, _STARTED)
        visitor, root = visitor or visitor_above, root or above
    setattr(span, _STARTED, (visitor, root, told))


def join(span: Any, above: Any) -> None:
    """A span starts within the scope of this owner."""
    setattr(span, _OWNER, above)


def scope_of(span: object) -> Scope | None:
    """What a span is a part of, where its start was seen; else None."""
    owner = owner_of(span)
    if owner is None:
        return None
    scope: Scope | None = getattr(owner, _SCOPE, None)
    return scope if scope is not None else _made(owner)


def _made(owner: Any) -> Scope:
    visitor, root, told = getattr(owner, _STARTED)
    recorded = isinstance(owner, ReadableSpan)
    server = owner if recorded and is_server(owner.kind, owner.attributes) else told
    scope = Scope(server, visitor, None if root is None else scope_of(root))
    if _is_over(owner):
        _end(owner, scope)
        return scope  # not to be kept, as it would be in a circle with its span
    scope = cast(Scope, vars(owner).setdefault(_SCOPE, scope))  # atomic: of two threads one finds the other's
    if recorded:
        awaited[owner.context.span_id] = scope
        if len(awaited) > _MAX_AWAITED:  # spans that nobody ends must not fill the memory
            awaited.pop(next(iter(awaited)), None)
    if _is_over(owner):  # looked at last, as its end looks for the scope last: one of the two sees the other
        _end(owner, scope)
    return scope


def _is_over(owner: Any) -> bool:
    if isinstance(owner, ReadableSpan):
        return owner.end_time is not None
    return isinstance(owner, UnsampledRoot) and owner.is_over


def _end(owner: Any, scope: Scope) -> None:
    if isinstance(owner, UnsampledRoot):
        scope.failed = scope.failed or owner.failed
        scope.end()
    else:
        awaited.pop(owner.context.span_id, None)
        scope.end(owner)


# The exception that leaves a span's `with` block makes `use_span` set the status, but only of a span that is recorded.
_USE_SPAN = getattr(getattr(trace.use_span, "__wrapped__", None), "__code__", None)


class UnsampledRoot(trace.NonRecordingSpan):
    """A local root span that the sampler dropped, but for whether it failed."""

    def __init__(self, context: trace.SpanContext, status_on_exception: bool) -> None:
        super().__init__(context)
        self.is_over = False
        self._status = StatusCode.UNSET
        self._status_on_exception = status_on_exception
        self._handled = sys.exc_info()[1]  # what was being handled when the work began is none of its failures

    @property
    def failed(self) -> bool:
        return self._status is StatusCode.ERROR

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:  # noqa: ARG002
        code = status.status_code if isinstance(status, Status) else status
        if self._status is not StatusCode.OK and code is not StatusCode.UNSET:  # as the SDK does it
            self._status = code

    def set_attribute(self, key: str, value: Any) -> None:
        if key in STATUS_CODES and is_server_error(value):
            self._status = StatusCode.ERROR

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def end(self, end_time: int | None = None) -> None:  # noqa: ARG002
        if self.is_over:
            return
        leaves_with = sys.exc_info()[1] if sys._getframe(1).f_code is _USE_SPAN else None
        if self._status_on_exception and isinstance(leaves_with, Exception) and leaves_with is not self._handled:
            self.set_status(StatusCode.ERROR)
        self.is_over = True
        if (scope := getattr(self, _SCOPE, None)) is not None:
            _end(self, scope)

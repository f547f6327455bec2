"""The visitor: what one HTTP request tells of the person who sent it, kept beside it for the conversions recorded meanwhile.

The request is read once, and only for a conversion. Nothing of it is put on spans. `WSGIMiddleware` and
`ASGIMiddleware` keep it for an app; the instrumentor does the same without code for Flask, Django and Starlette (hence
FastAPI).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from time import time_ns
from typing import Any, TypeAlias, cast

from opentelemetry import context as otel_context
from opentelemetry.context import get_current
from opentelemetry.trace import get_current_span

from .commit import UnitOfWork, keeping
from .lifespan import ASGIApp, Message, Receive, Send, answer_lifespan
from .log import Notices
from .proxies import Network, networks
from .request import RequestHead, attributes_of, head_of_environ, head_of_scope, of_environ, of_scope, read_attributes
from .spans import Scope, scope_of
from .told import Told

REQUEST_KEY = "eventflows.visitor"
"""Where a WSGI environ or ASGI scope carries its visitor."""
_NO_REQUEST = "visitor_update was called {count} times where no request is being answered; it has no effect"
_notices = Notices("visitor")


@dataclass(frozen=True, slots=True)
class VisitorSettings:
    """What the configuration says about reading requests.

    Attributes:
        trusted_proxies: Networks of the proxies whose forwarding headers are believed.
        baggage: Whether click ids travel in the W3C baggage of requests to `baggage_hosts`, and to no other host.
        baggage_hosts: Host names; one that starts with a dot stands for all names that end so.
    """

    trusted_proxies: tuple[Network, ...] = ()
    baggage: bool = False
    baggage_hosts: tuple[str, ...] = ()


class Visitor:
    """On whose behalf something is done.

    Args:
        told: What is known of them.
        unit: What is done, as a unit of work.
        explicit: Restored by `visitor_context`: the request under way is then somebody else's.

    Attributes:
        told: What is known by now; a conversion keeps it as it was when it was recorded.
    """

    __slots__ = ("explicit", "told", "unit")
    encloses = True

    def __init__(self, told: Told, unit: UnitOfWork | None = None, *, explicit: bool = False) -> None:
        self.told = told
        self.unit = unit
        self.explicit = explicit


class Request(UnitOfWork):
    """A request that is answered here: a unit of work, and the visitor who sends it.

    Whoever begins one sets its attributes, as every request pays for it and a constructor takes three times as long.

    Attributes:
        taken: What tells of the visitor, as a function and its arguments; or what has been told by now.
        encloses: What begins now in the same context is a part of it. False once a server has the body, as it may send it in
            pieces, and answer others on the same thread meanwhile.
    """

    __slots__ = ("encloses", "taken")
    explicit = False
    encloses: bool
    taken: Told | tuple[Any, ...]

    @property
    def unit(self) -> UnitOfWork:
        return self

    @property
    def told(self) -> Told:
        """As of any visitor."""
        if isinstance(self.taken, tuple):
            with keeping:  # another thread may be about to tell more
                if isinstance(self.taken, tuple):
                    tell, *taken = self.taken
                    self.taken = tell(*taken)
        return cast(Told, self.taken)

    @told.setter
    def told(self, told: Told) -> None:
        self.taken = told


AnyVisitor: TypeAlias = Visitor | Request


# --- which visitor

_of_request: ContextVar[AnyVisitor | None] = ContextVar("eventflows-visitor", default=None)
_OTEL_KEY = otel_context.create_key("eventflows-visitor")
_settings = VisitorSettings()


def use_settings(settings: VisitorSettings) -> None:
    """What middleware without settings of its own goes by: those of the running pipeline."""
    global _settings
    _settings = settings


def current_settings() -> VisitorSettings:
    return _settings


visitor_of_request = _of_request.get
"""The visitor whose request this code answers."""


def current_visitor(context: otel_context.Context | None = None) -> AnyVisitor | None:
    """The visitor that an OpenTelemetry context carries, else the one whose request this code answers.

    Args:
        context: None is the current one.
    """
    carried = (get_current() if context is None else context).get(_OTEL_KEY)
    return carried if isinstance(carried, Visitor) else visitor_of_request()


def visitor_of(scope: Scope | None, context: otel_context.Context | None = None) -> AnyVisitor | None:
    """The current visitor; else, and where their request is over, that of the scope of the context's span.

    A thread may carry on OpenTelemetry's context alone. And a task that was started in a request keeps that one's visitor for
    as long as it lives, whoever it works for by then.
    """
    visitor = current_visitor(context)
    if visitor is not None and (visitor.explicit or (unit := visitor.unit) is None or not unit.ended):
        return visitor
    return (scope.visitor if scope is not None else None) or visitor


class Visiting:
    """From here on conversions are this visitor's, in this context and in those that are made from it.

    It leaves OpenTelemetry's context alone, so that it may begin and end in any order with what others attach there; what
    carries that context finds the visitor by its span.
    """

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        if (scope := scope_of(get_current_span())) is not None:
            scope.comes_to(visitor)
        self._token = _of_request.set(visitor)

    def end(self) -> None:
        """Leave, and end the visitor's unit of work."""
        _leave(self._token, self._visitor.unit)


@contextmanager
def visitor_context(snapshot: Mapping[str, Any] | None) -> Iterator[None]:
    """Record conversions on behalf of this visitor, and of no other: not of the request that is being answered.

    Args:
        snapshot: From `visitor_snapshot`; its unusable parts are left out. None is a visitor of whom nothing is known.
    """
    above = current_visitor()
    visitor = Visitor(Told.of(read_attributes(snapshot)), above.unit if above is not None else None, explicit=True)
    if (scope := scope_of(get_current_span())) is not None:
        scope.mixed = True
    token = _of_request.set(visitor)
    otel_token = otel_context.attach(otel_context.set_value(_OTEL_KEY, visitor))
    try:
        yield
    finally:
        otel_context.detach(otel_token)
        _leave(token)


def visitor_update(attributes: Mapping[str, Any]) -> None:
    """Tell more of the current visitor, such as the choices made in the consent banner; it counts from here on.

    Args:
        attributes: `conversion.consent.*`, `conversion.limited_data_use`, `conversion.click.*`, `user.id`, `session.id`,
            `geo.*` and the attributes of the request. Others are left out.
    """
    visitor = visitor_of(scope_of(get_current_span()))
    if visitor is None:
        _notices.warn("update", _NO_REQUEST)
        return
    more = read_attributes(attributes)
    with keeping:  # of two threads each may bring a denial
        visitor.told = visitor.told.and_more(more)


def _networks(given: Iterable[str] | None) -> tuple[Network, ...] | None:
    return None if given is None else networks(given)


# What a visitor is read from is taken at once, as middleware further in may change it. Most requests record no conversion, so
# it is taken as quickly as can be: a WSGI environ is copied in one go, at a sixth of what its parts take one by one.


def _of_environ(environ: dict[str, Any], received_at: int, trusted: Sequence[Network]) -> Told:
    """Of the copy only what is read: a conversion that waits must not keep the request's sockets and streams."""
    return Told(_sent_by, head_of_environ, of_environ(environ, received_at), trusted)


def _sent_by(
    head_of: Callable[[tuple[Any, ...]], RequestHead], taken: tuple[Any, ...], trusted: Sequence[Network]
) -> dict[str, Any]:
    """Whose request it is."""
    return attributes_of(head_of(taken), trusted)


def _trusted(own: Sequence[Network] | None) -> Sequence[Network]:
    """The middleware's own proxies, else those of the running pipeline; by the time of reading there may be none."""
    return _settings.trusted_proxies if own is None else own


def _around() -> Any:
    """What a request that begins now is a part of: the current span's scope; else the visitor whose request makes this one,
    as a dispatcher does for another app."""
    context = get_current()
    if context and (scope := scope_of(get_current_span(context))) is not None:
        return scope
    above = visitor_of_request()
    if above is None or not above.encloses or above.unit is None or above.unit.ended:
        return None
    return above


def _leave(token: Token[AnyVisitor | None], unit: UnitOfWork | None = None) -> None:
    """Conversions are no longer this visitor's, and their unit of work is over."""
    try:
        _of_request.reset(token)
    except (ValueError, RuntimeError):
        """It ends in another context than it began in, or ended before."""
    if unit is not None:
        # A span around a failed request failed as well, but no sampler tells it so. A request around it has its own status.
        if unit.failed and isinstance(unit.within, Scope) and (outer := unit.outer) is not None:
            outer.failed = True
        unit.end()


# --- WSGI

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def answering(
    original: Callable[[Any, dict[str, Any], Callable[..., Any]], Iterable[bytes]],
) -> Callable[..., Iterable[bytes]]:
    """Has the visitor of each request kept while a method answers it. What comes of it takes the trusted proxies as well."""

    def called(
        app: Any,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        trusted: Sequence[Network] | None = None,
    ) -> Iterable[bytes]:
        if REQUEST_KEY in environ:
            return original(app, environ, start_response)
        before = dict(environ)
        request = environ[REQUEST_KEY] = Request(_around())
        request.taken = (_of_environ, before, time_ns(), _trusted(trusted))
        request.encloses = True
        answer = _Answer()
        answer.request = request
        answer.start_response = start_response
        answer.token = token = _of_request.set(request)
        try:
            body = original(app, environ, answer.start)
        except BaseException as problem:
            request.failed = request.failed or isinstance(problem, Exception)
            _leave(token, request)
            raise
        if type(body) in (list, tuple, environ.get("wsgi.file_wrapper")):  # which is a class, or with uWSGI a function
            _leave(token, request)
            return body
        answer.body = body
        request.encloses = False
        return answer

    return called


class WSGIMiddleware:
    """Keeps the visitor of each request for the conversions recorded while it is answered.

    Args:
        app: The WSGI application.
        trusted_proxies: Addresses and networks of the proxies before the app; None takes the setting
            `visitor.trusted_proxies` of the running pipeline.

    Raises:
        ConfigurationError: A proxy is neither address, network nor a known name.
    """

    def __init__(self, app: WSGIApp, trusted_proxies: Iterable[str] | None = None) -> None:
        self._app = app
        self._trusted = _networks(trusted_proxies)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return self._answer(environ, start_response, self._trusted)

    @answering
    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return self._app(environ, start_response)


class _Answer:
    """The answer to a request, in place of the app's `start_response` and then of the body.

    Conversions may be recorded until the body is closed.
    """

    __slots__ = ("body", "request", "start_response", "token")
    body: Iterable[bytes]
    request: Request
    start_response: Callable[..., Any]
    token: Token[AnyVisitor | None]

    def start(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        self.request.failed = status[:1] == "5"
        if exc_info is None:
            return self.start_response(status, headers)
        return self.start_response(status, headers, exc_info)

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self.body:  # noqa: UP028 reason: `yield from` would close it where the client leaves, as the server does
                yield part
        except Exception:
            self.request.failed = True
            raise

    def close(self) -> None:
        try:
            if close := getattr(self.body, "close", None):
                close()
        except Exception:
            self.request.failed = True
            raise
        finally:
            _leave(self.token, self.request)

    def __del__(self) -> None:
        # Not every server closes a body that it has sent: Starlette's `WSGIMiddleware` does not.
        if not self.request.ended:
            _leave(self.token, self.request)


# --- ASGI


class ASGIMiddleware:
    """As `WSGIMiddleware`, for an ASGI application; also for the handshake of a WebSocket.

    When the server ends, which it tells by the lifespan protocol, what is queued is delivered.
    """

    def __init__(self, app: ASGIApp, trusted_proxies: Iterable[str] | None = None) -> None:
        self._app = app
        self._trusted = _networks(trusted_proxies)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await answer_asgi(self._app, scope, receive, send, self._trusted)


async def answer_asgi(
    app: ASGIApp,
    scope: MutableMapping[str, Any],
    receive: Receive,
    send: Send,
    trusted: Sequence[Network] | None = None,
) -> None:
    """Have the app answer a request, with its visitor kept meanwhile; at the end of the server, deliver what is queued."""
    if scope.get("type") == "lifespan" and REQUEST_KEY not in scope:
        scope[REQUEST_KEY] = None
        await answer_lifespan(app, scope, receive, send)
        return
    if scope.get("type") not in ("http", "websocket") or REQUEST_KEY in scope:
        await app(scope, receive, send)
        return
    told = (_sent_by, head_of_scope, of_scope(scope, time_ns()), _trusted(trusted))
    unit = None  # a WebSocket lasts too long to be one
    if scope["type"] == "http":
        unit = Request(_around())
        unit.taken, unit.encloses = (Told, *told), True
    visitor = scope[REQUEST_KEY] = unit or Visitor(Told(*told))
    token = _of_request.set(visitor)

    async def sent(message: Message) -> None:
        if unit is not None and message["type"] == "http.response.start":
            unit.failed = message["status"] >= 500
        await send(message)

    try:
        await app(scope, receive, sent)
    except Exception:
        if unit is not None:
            unit.failed = True
        raise
    finally:
        _leave(token, unit)

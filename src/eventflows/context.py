"""What surrounds a conversion: its span, the HTTP server span and the local root around that, the visitor, the baggage.

An event takes from here what it does not carry itself. Spans are followed from their start, by the span processor where they
are recorded and by the instrumentor where a sampler dropped them, since nobody else remembers what an unsampled span was about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from opentelemetry import baggage, trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import SpanKind

from . import semconv as sc
from .commit import UnitOfWork
from .cookies import clicks_of_cookies, clicks_of_url
from .errors import Unusable
from .log import Notices
from .proxies import Network, client_address
from .request import READERS
from .spans import Scope, UnsampledRoot, begin, is_server, join, owner_of, scope_of
from .told import NOTHING_TOLD, Told
from .values import click_id, header
from .visitor import AnyVisitor, current_settings, current_visitor, visitor_of, visitor_of_request

_PEERS = ("client.address", "http.client_ip", "net.peer.ip", "net.sock.peer.addr", "network.peer.address")
_OTHERS: Mapping[str, tuple[str, ...]] = {
    sc.USER_AGENT: (
        "user_agent.original",
        "http.user_agent",
        "http.request.header.user-agent",
        "http.request.header.user_agent",
    ),
    sc.REFERER: ("http.request.header.referer",),
    sc.LANGUAGE: ("browser.language", "http.request.header.accept-language", "http.request.header.accept_language"),
    sc.SEC_GPC: ("http.request.header.sec-gpc", "http.request.header.sec_gpc"),
    sc.SESSION_ID: ("session.id",),
    sc.SYNTHETIC_TYPE: ("user_agent.synthetic.type",),
}
"""Attribute of a conversion → the names it has on HTTP server spans, by the stable and by the former conventions."""
_COOKIE = "http.request.header.cookie"
_TELLING = frozenset({sc.CLIENT_ADDRESS, sc.URL_FULL, _COOKIE}.union(*_OTHERS.values()))
"""What a span that is none of an HTTP server's may tell of the visitor."""
_OUTGOING = (SpanKind.CLIENT, SpanKind.PRODUCER)
_EMPTY: tuple[Any, ...] = ("", (), [])
_notices = Notices("visitor")


def follow(span: Any, context: Context | None) -> None:
    """Remember what a recorded span that has just started is a part of.

    Args:
        context: What it was started in; None is what is current.
    """
    if context is None:
        context = get_current()
    if not context:
        begin(span, visitor_of_request())
        return
    above = owner_of(trace.get_current_span(context))
    if above is None:
        begin(span, current_visitor(context))
    elif is_server(span.kind, span.attributes):
        begin(span, current_visitor(context), above)
    else:
        join(span, above)


def follow_unsampled(
    span: trace.NonRecordingSpan,
    context: Context | None,
    kind: SpanKind | None,
    attributes: Mapping[str, Any] | None,
    status_on_exception: bool,
) -> trace.Span:
    """Remember what a span that the sampler dropped is a part of.

    Returns:
        The span to use in its place.
    """
    own = span.get_span_context()
    if not own.is_valid:  # a disabled tracer's
        return span
    if context is None:
        context = get_current()
    above = owner_of(trace.get_current_span(context)) if context else None
    told = dict(attributes or {}) if is_server(kind, attributes) else None  # of its own, as a recorded span has it
    if above is None:
        root = UnsampledRoot(own, status_on_exception)
        begin(root, current_visitor(context), told=told)
        return root
    if told is None:
        join(span, above)
    else:
        begin(span, current_visitor(context), above, told)
    return span


# --- what it all tells of a conversion


class Surroundings(NamedTuple):
    """What a conversion may take from around it.

    Attributes:
        told: What the visitor's request, the spans and the baggage tell; read when the conversion is.
        unit: The innermost unit of work that it is a part of.
        origin: Trace id and span id of its span, where that is sampled.
    """

    told: Told = NOTHING_TOLD
    unit: UnitOfWork | None = None
    origin: tuple[int, int] | None = None


NOTHING = Surroundings()


def around(span: Any = None, context: Context | None = None) -> Surroundings:
    """What surrounds a conversion that is recorded on this span, or in this context.

    The visitor's request says most, then come the span, the HTTP server span and the baggage. A visitor restored by
    `visitor_context` stands alone: spans and baggage then are of another request.

    Args:
        span: The span with the event; None is the context's.
        context: None is the current one.
    """
    if span is None:
        if context is None:
            context = get_current()
        if not context and current_visitor(context) is None:
            return NOTHING  # as in a script
        span = trace.get_current_span(context)
    scope = scope_of(span)
    visitor = visitor_of(scope, context)
    unit = scope.unit if scope is not None else None
    if visitor is not None and visitor.unit is not None and (unit is None or visitor.unit.outer is unit):
        unit = visitor.unit
    if visitor is not None and visitor.explicit:
        return Surroundings(visitor.told, unit, _origin(span))
    told = Told(_known, _told_of(visitor), _spans(span, scope), baggage.get_all(context))
    return Surroundings(told, unit, _origin(span))


def around_ended(span: Any, scope: Scope | None) -> Surroundings:
    """What surrounded the events of a span that has ended: what is current by now has nothing to do with them.

    Args:
        scope: What the span was a part of, as far as it is known.
    """
    if scope is None:
        return Surroundings(Told(_known, None, _spans(span, None)), None, _origin(span))
    told = NOTHING_TOLD if scope.mixed else Told(_known, _told_of(scope.visitor), _spans(span, scope))
    return Surroundings(told, scope.unit, _origin(span))


def _origin(span: Any) -> tuple[int, int] | None:
    context = span.get_span_context()
    return (context.trace_id, context.span_id) if context is not None and context.trace_flags.sampled else None


def _told_of(visitor: AnyVisitor | None) -> Told | None:
    return visitor.told if visitor is not None else None


_SpanTold: TypeAlias = tuple[Mapping[str, Any], Sequence[Network] | None]
"""A span's attributes; of an HTTP server's, whose peer may be a proxy and whose URL in pieces, the trusted proxies as well."""


def _spans(span: Any, scope: Scope | None) -> list[_SpanTold]:
    """What these say now; the app may set attributes later, and they are then not of the conversion's time."""
    found: list[_SpanTold] = []
    server = scope.server if scope is not None else None
    own_context = getattr(span, "context", None)  # which spans of another make need not have
    is_server = own_context is not None and getattr(server, "context", None) is own_context
    if (own := _recorded(span)) is not None and not is_server:
        http = getattr(span, "kind", None) is SpanKind.SERVER
        if http or not _TELLING.isdisjoint(own):
            found.append((own, current_settings().trusted_proxies if http else None))
    if server is not None:
        attributes = server if isinstance(server, Mapping) else _recorded(server)
        if attributes is not None:
            found.append((attributes, current_settings().trusted_proxies))
    return found


def _known(visitor: Told | None, spans: Sequence[_SpanTold], carried: Mapping[str, object] = {}) -> dict[str, Any]:
    found = dict(visitor.attributes) if visitor is not None else {}
    for attributes, trusted in spans:
        try:
            _take(found, attributes, trusted)
        except Exception as problem:  # noqa: BLE001 reason: it must not cost what the visitor told, such as a denial
            _notices.warn("span", "{count} spans could not be read for their visitor (%s)", type(problem).__name__)
    for key, value in carried.items():
        name = str(key).removeprefix(sc.CONVERSION_CLICK)
        if name in sc.CLICK_IDS and sc.CONVERSION_CLICK + name not in found:
            with suppress(Unusable):
                found[sc.CONVERSION_CLICK + name] = click_id(value)
    return found


def visitor_snapshot() -> dict[str, Any]:
    """What is known of the current visitor, as a JSON-able dict: store it with the order, and restore it with
    `visitor_context`.

    It holds the address, user agent, URL, click ids and consent, and never who the visitor is by name, e-mail or phone.
    """
    return dict(around().told.attributes)


def _recorded(span: Any) -> Mapping[str, Any] | None:
    """The attributes of a recorded span; not of one for an outgoing request, which tell of another server."""
    if getattr(span, "kind", None) in _OUTGOING:
        return None
    attributes = getattr(span, "attributes", None)
    return _plain(attributes) if attributes is not None else None


def _plain(attributes: Any) -> Mapping[str, Any] | None:
    """Them as a dict of its own: to look up in the SDK's what is not there costs twenty times as much."""
    if isinstance(attributes, MappingProxyType):
        with suppress(AttributeError):
            return attributes.copy()  # by what is behind it, in one go and without its lock
    return attributes if isinstance(attributes, Mapping) else None


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if (value := attributes.get(name)) is not None and value not in _EMPTY:
            return value
    return None


def _header(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    with suppress(Unusable):
        return header(value) if (value := _first(attributes, names)) is not None else None
    return None


def _take(found: dict[str, Any], attributes: Mapping[str, Any], trusted: Sequence[Network] | None) -> None:
    """Add what a span says beyond what is known already."""
    http = trusted is not None
    given: dict[str, Any] = {}
    for key, names in _OTHERS.items():
        if key not in found:
            given[key] = _first(attributes, names)
    if sc.CLIENT_ADDRESS not in found:
        given[sc.CLIENT_ADDRESS] = (
            _address(attributes, trusted) if trusted is not None else attributes.get(sc.CLIENT_ADDRESS)
        )
    if sc.URL_FULL not in found:
        given[sc.URL_FULL] = _url(attributes) if http else attributes.get(sc.URL_FULL)
    for key, value in given.items():
        if value is not None:
            try:
                found[key] = READERS[key](value)
            except Unusable:
                continue
    if http and (url := found.get(sc.URL_FULL)):
        for name, value in clicks_of_url(url).items():
            found.setdefault(sc.CONVERSION_CLICK + name, value)
    if cookie := attributes.get(_COOKIE):
        with suppress(Unusable):
            for name, value in clicks_of_cookies(header(cookie)).items():
                found.setdefault(sc.CONVERSION_CLICK + name, value)


def _address(attributes: Mapping[str, Any], trusted: Sequence[Network]) -> str | None:
    """Whose address a server span has: the client's, unless that is a trusted proxy's and only headers know more."""
    peer = _first(attributes, _PEERS)
    forwarded_for = _header(attributes, ("http.request.header.x-forwarded-for", "http.request.header.x_forwarded_for"))
    forwarded = _header(attributes, ("http.request.header.forwarded",))
    address = client_address(peer if isinstance(peer, str) else None, forwarded_for, forwarded, trusted)
    if trusted and address is not None and forwarded_for is None and forwarded is None:
        # Without the headers a proxy's address is all there is, and that is nobody's.
        return client_address(address, "unknown", None, trusted)
    return address


def _url(attributes: Mapping[str, Any]) -> str | None:
    if (whole := _first(attributes, ("url.full", "http.url"))) is not None:
        return str(whole)
    host: Any = _header(attributes, ("http.request.header.host", "http.host"))
    if host is None:
        host = _first(attributes, ("server.address", "http.server_name", "net.host.name"))
        port = _first(attributes, ("server.port", "net.host.port"))
        if host is not None and port not in (None, 80, 443):
            host = f"{host}:{port}"
    scheme = _first(attributes, ("url.scheme", "http.scheme"))
    target = _first(attributes, ("http.target",))
    if target is None and (path := _first(attributes, ("url.path",))) is not None:
        query = _first(attributes, ("url.query",))
        target = f"{path}?{query}" if query else path
    return f"{scheme}://{host}{target}" if scheme and host and target else None

"""Click ids on their way inward: in the W3C baggage of requests to the app's own services, and of no others.

OpenTelemetry's propagators know nothing of the host they write headers for, so they are kept from writing click ids at all,
whatever
the protocol. At the wire, where the host is known, requests to the hosts of `visitor.baggage_hosts` get them: with
`http.client` (hence `urllib`, `urllib3`, `requests`), `httpcore` (hence `httpx`) and `aiohttp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, get_current

from . import semconv as sc
from .context import around
from .patching import Patches
from .visitor import current_settings

HEADER = "baggage"
_MAX_LENGTH = 4096  # of the 8,192 bytes that the whole header may have: https://www.w3.org/TR/baggage/#limits
_ADDED = "_eventflows_baggage"
_TARGET = "_eventflows_target"
_patches: Patches | None = None


def switch_on() -> None:
    """Let click ids travel to the hosts that the settings allow. A second call does nothing."""
    global _patches
    if _patches is not None:
        return
    _patches = patches = Patches()
    patches.wrap(W3CBaggagePropagator, "inject", _inject)
    patches.wrap_later("http.client", "HTTPConnection", "putrequest", _put_request)
    patches.wrap_later("http.client", "HTTPConnection", "putheader", _put_header)
    patches.wrap_later("http.client", "HTTPConnection", "endheaders", _end_headers)
    patches.wrap_later("httpcore", "ConnectionPool", "handle_request", _httpcore)
    patches.wrap_later("httpcore", "AsyncConnectionPool", "handle_async_request", _httpcore)
    patches.wrap_later("aiohttp.client_reqrep", "ClientRequest", "__init__", _aiohttp)


def switch_off() -> None:
    """Restore everything."""
    global _patches
    if _patches is not None:
        _patches.undo()
        _patches = None


def _is_click(member: str) -> bool:
    return member.startswith(sc.CONVERSION_CLICK) or member in sc.CLICK_IDS


def _inject(wrapped: Any, _propagator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return wrapped(*_without_clicks(*args, **kwargs))


def _without_clicks(carrier: Any, context: Context | None = None, *others: Any, **named: Any) -> tuple[Any, ...]:
    context = get_current() if context is None else context
    for member in baggage.get_all(context):
        if _is_click(member):
            context = baggage.remove_baggage(member, context)
    return (carrier, context, *others, *named.values())


def _allowed(host: str | None) -> bool:
    name = (host or "").lower().rstrip(".")
    return any(
        name == allowed or (allowed[0] == "." and name.endswith(allowed))
        for allowed in current_settings().baggage_hosts
    )


def _members() -> str:
    """The visitor's click ids as a baggage header."""
    found, length = [], 0
    for key, value in around().told.attributes.items():
        if key.startswith(sc.CONVERSION_CLICK):
            member = f"{key}={quote(str(value), safe='')}"
            if length + len(member) + 1 < _MAX_LENGTH:
                length += len(member) + 1
                found.append(member)
    return ",".join(found)


def _put_request(wrapped: Any, connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    url = args[1] if len(args) > 1 else kwargs.get("url")
    # Through a proxy a request is made by the whole URL: the connection's host is the proxy.
    whole = isinstance(url, str) and url.startswith(("http://", "https://"))
    setattr(connection, _TARGET, urlsplit(url).hostname if whole else None)
    return wrapped(*args, **kwargs)


def _goes_inward(connection: Any) -> bool:
    target = getattr(connection, _TARGET, None) or getattr(connection, "_tunnel_host", None)
    return _allowed(target or connection.host)


def _put_header(wrapped: Any, connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = args[0] if args else ""
    is_ours = isinstance(name, (str, bytes)) and len(name) == len(HEADER) and _text(name).lower() == HEADER
    if is_ours and not getattr(connection, _ADDED, False) and _goes_inward(connection) and (members := _members()):
        setattr(connection, _ADDED, True)
        return wrapped(name, ",".join([*(_text(value) for value in args[1:]), members]))
    return wrapped(*args, **kwargs)


def _end_headers(wrapped: Any, connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not getattr(connection, _ADDED, False) and _goes_inward(connection) and (members := _members()):
        setattr(connection, _ADDED, True)
        connection.putheader(HEADER, members)
    connection.__dict__.pop(_ADDED, None)
    return wrapped(*args, **kwargs)


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _httpcore(wrapped: Any, _pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    request = args[0] if args else kwargs.get("request")
    if request is not None and _allowed(_text(request.url.host)) and (members := _members()):
        there = [value for name, value in request.headers if name.lower() == HEADER.encode()]
        others = [(name, value) for name, value in request.headers if name.lower() != HEADER.encode()]
        request.headers = [*others, (HEADER.encode(), b",".join([*there, members.encode()]))]
    return wrapped(*args, **kwargs)


def _aiohttp(wrapped: Any, _request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    url = args[1] if len(args) > 1 else kwargs.get("url")
    headers = kwargs.get("headers")
    if (
        url is not None
        and isinstance(headers, Mapping)
        and _allowed(getattr(url, "host", None))
        and (members := _members())
    ):
        changed: Any = headers.copy() if hasattr(headers, "copy") else dict(headers)
        changed[HEADER] = ",".join(filter(None, [changed.get(HEADER), members]))
        kwargs = {**kwargs, "headers": changed}
    return wrapped(*args, **kwargs)

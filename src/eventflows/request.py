"""Reading an HTTP request for its visitor: headers, cookies, query and address become semantic attributes with clean values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

from . import semconv as sc
from . import values
from .cookies import clicks, clicks_of_url
from .errors import Unusable
from .log import Notices
from .pii import contains_email
from .proxies import Network, client_address, networks

READERS: Mapping[str, Callable[[object], Any]] = {
    sc.CLIENT_ADDRESS: values.client_address,
    sc.USER_AGENT: values.told,
    sc.URL_FULL: values.url,
    sc.REFERER: values.url,
    sc.LANGUAGE: values.language,
    sc.SESSION_ID: values.identifier,
    sc.USER_ID: values.identifier,
    sc.SEC_GPC: values.flag,
    sc.SYNTHETIC_TYPE: values.identifier,
    sc.CONVERSION_LIMITED_DATA_USE: values.flag,
    sc.CITY: values.identifier,
    sc.REGION: values.identifier,
    sc.POSTAL_CODE: values.identifier,
    sc.COUNTRY: values.country,
    **{sc.CONVERSION_CONSENT + purpose: values.flag for purpose in sc.CONSENT_PURPOSES},
}
"""The attributes that a visitor may have, besides the click ids. None of them names a person in the open."""
_HEADERS = (
    "host", "user-agent", "referer", "cookie", "accept-language", "sec-gpc",
    "x-forwarded-for", "forwarded", "x-forwarded-proto", "x-forwarded-host",
)  # fmt: skip
_ENVIRON = (
    "REMOTE_ADDR", "wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING",
    *(f"HTTP_{name.upper().replace('-', '_')}" for name in _HEADERS),
)  # fmt: skip
_SCOPE = ("client", "scheme", "server", "path", "raw_path", "query_string")
_ASGI_HEADERS = {name.encode(): name for name in _HEADERS}
_PATH = "/;=,:@!$&'()*+~"
"""What stands for itself in the path of a URL."""
_notices = Notices("visitor")


def read_attributes(given: Mapping[Any, Any] | None) -> dict[str, Any]:
    """The usable attributes of a visitor among these, with the click ids of their URL; all others are left out."""
    found = _read(given)
    for name, value in clicks_of_url(found.get(sc.URL_FULL)).items():
        found.setdefault(sc.CONVERSION_CLICK + name, value)
    return found


def _read(given: Mapping[Any, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items() if isinstance(given, Mapping) else ():
        try:
            if reader := READERS.get(key):
                found[key] = reader(value)
            elif isinstance(key, str) and key.startswith(sc.CONVERSION_CLICK) and not contains_email(key):
                found[key] = values.click_id(value)
        except Unusable:
            if key.startswith(sc.CONVERSION_CONSENT):
                found[key] = False  # a choice that cannot be read is not taken for a yes
    return found


def of_environ(environ: Mapping[str, Any], received_at: int) -> tuple[Any, ...]:
    """What `head_of_environ` reads, and no more."""
    return (received_at, *map(environ.get, _ENVIRON))


def of_scope(scope: Mapping[str, Any], received_at: int) -> tuple[Any, ...]:
    """What `head_of_scope` reads, and no more, as it is now."""
    headers = scope.get("headers")
    if type(headers) is list:  # others may add to it
        headers = headers.copy()
    return (received_at, *map(scope.get, _SCOPE), headers)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of a request as the server handed it over; `headers` has those of `_HEADERS` that were there."""

    received_at: int
    peer: str | None
    scheme: str
    host: str
    path: str
    query: str
    headers: Mapping[str, str] = field(default_factory=dict)


def attributes_of(head: RequestHead, trusted: Sequence[Network]) -> dict[str, Any]:
    """The visitor's attributes from the head of a request. A malformed value costs its own field only."""
    header = head.headers.get
    address = client_address(head.peer, header("x-forwarded-for"), header("forwarded"), trusted)
    scheme, host = head.scheme, head.host
    if trusted and address != client_address(head.peer, None, None, ()):  # it came through a trusted proxy
        proto = (header("x-forwarded-proto") or "").split(",")[0].strip().lower()
        scheme = proto if proto in ("http", "https") else scheme
        host = (header("x-forwarded-host") or "").split(",")[0].strip() or host
    elif address and not trusted and (header("x-forwarded-for") or header("forwarded")) and _is_inner(address):
        _notices.warn(
            "proxy",
            "{count} requests came through a proxy, so the visitors' addresses are unknown: set visitor.trusted_proxies",
        )
        address = None
    query = f"?{head.query}" if head.query else ""
    found = _read(
        {
            sc.CLIENT_ADDRESS: address,
            sc.USER_AGENT: header("user-agent"),
            sc.URL_FULL: f"{scheme}://{host}{head.path}{query}" if host else None,
            sc.REFERER: header("referer"),
            sc.LANGUAGE: header("accept-language"),
            sc.SEC_GPC: True if (header("sec-gpc") or "").strip() == "1" else None,
        }
    )
    for name, value in clicks(header("cookie") or "", head.query, head.received_at).items():
        found[sc.CONVERSION_CLICK + name] = value
    return found


_INNER = networks(("private", "loopback", "link-local"))


def _is_inner(address: str) -> bool:
    parsed = ip_address(address)
    return any(parsed in network for network in _INNER)


def head_of_environ(taken: tuple[Any, ...]) -> RequestHead:
    received_at, peer, scheme, name, port, root, path, query, *values = taken
    headers = {header: value for header, value in zip(_HEADERS, values, strict=True) if value is not None}
    host = headers.get("host") or f"{name or ''}:{port or ''}".removesuffix(":")
    path = quote(((root or "") + (path or "")).encode("latin-1", "replace"), safe=_PATH)
    return RequestHead(received_at, peer, scheme or "http", host, path, query or "", headers)


def head_of_scope(taken: tuple[Any, ...]) -> RequestHead:
    received_at, client, scheme, server, path, raw_path, query, given = taken
    headers: dict[str, str] = {}
    for raw, value in given or ():
        if (name := _ASGI_HEADERS.get(raw)) is not None:
            text = value.decode("latin-1")
            # HTTP/2 splits cookies, and every proxy may add a header of its own.
            headers[name] = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{text}" if name in headers else text
    host = headers.get("host") or ":".join(str(part) for part in server or () if part)
    path = raw_path.decode("latin-1").partition("?")[0] if raw_path else quote(path or "", safe=_PATH)
    scheme = {"ws": "http", "wss": "https"}.get(scheme or "http", scheme or "http")
    return RequestHead(
        received_at, client[0] if client else None, scheme, host, path, (query or b"").decode("latin-1"), headers
    )

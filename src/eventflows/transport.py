"""Sending a request and bringing back what happened, never an exception. All network I/O of the library is here."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from ssl import SSLCertVerificationError
from typing import Any, Protocol, TextIO
from urllib.parse import quote

import requests
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import Retry, Timeout

from . import payload
from .pools import Pools, Route, TransportSettings
from .providers.base import Request, Response
from .retry import retry_after_seconds
from .secret import MASK, Secret, SecretUnavailable


def library_version() -> str:
    try:
        return version("opentelemetry-exporter-eventflows")
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "0"


VERSION = library_version()
# Why there was no answer, as a reason, and as an `error.type` in telemetry.
NO_ANSWER = "no answer in time"
NO_CONNECTION = "no connection in time"
CONNECTION_FAILED = "connection failed"
PROXY_FAILED = "the proxy cannot be reached, or refuses"
DISTRUSTED = "the certificate is not trusted"
TLS_FAILED = "TLS failed"
ERROR_TYPES: Mapping[str, str] = {
    NO_ANSWER: "timeout",
    NO_CONNECTION: "connect_timeout",
    CONNECTION_FAILED: "connection_error",
    PROXY_FAILED: "proxy_error",
    DISTRUSTED: "certificate_error",
    TLS_FAILED: "tls_error",
}
# Reddit throttles the default names of HTTP libraries and asks for `platform:app:version`.
USER_AGENT = f"python:opentelemetry-exporter-eventflows:{VERSION}"


class Transport(Protocol):
    def send(self, request: Request, events: Sequence[bytes]) -> Response: ...
    def close(self) -> None: ...


def secret_url(request: Request, *, masked: bool = False) -> str:
    """The request's URL with its secret query parameters, or with a mask in their place."""
    if not request.secret_params:
        return request.url
    secrets = {name: Secret.of(given) for name, given in request.secret_params.items()}
    query = "&".join(f"{k}={MASK if masked else quote(v.reveal(), safe='')}" for k, v in secrets.items())
    return f"{request.url}{'&' if '?' in request.url else '?'}{query}"


def all_headers(request: Request, *, masked: bool = False) -> dict[str, str]:
    """The request's headers, with the secret ones or with a mask in their place."""
    secrets = {name: Secret.of(given) for name, given in request.secret_headers.items()}
    secret = {name: str(value) if masked else value.reveal() for name, value in secrets.items()}
    return {"Content-Type": "application/json", "User-Agent": USER_AGENT, **request.headers, **secret}


class HttpTransport:
    """Kept connections to one platform: the pools of `requests`, without its sessions, which take three times as long.

    Args:
        connections: How many requests may be under way at once.
    """

    def __init__(self, settings: TransportSettings, connections: int = 1) -> None:
        self._timeout = Timeout(connect=settings.timeout, read=settings.timeout)
        self._pools = Pools(settings, connections)
        self._routes: dict[str, Route] = {}

    def send(self, request: Request, events: Sequence[bytes]) -> Response:
        try:
            origin, target = _split(secret_url(request))
            route = self._routes.get(origin) or self._open(request, origin)
            headers = all_headers(request)
            body = payload.body(request.envelope, request.events_at, events)
        except SecretUnavailable as problem:
            return Response(0, error=str(problem), sent=False)
        except (OSError, ValueError, requests.RequestException, HTTPError) as problem:
            return Response(0, error=f"request failed ({type(problem).__name__})", sent=False)
        pool = route.pool
        opened = pool.num_connections
        try:
            answer = pool.urlopen(
                request.method,
                f"{origin}{target}" if route.absolute else target,
                body,
                headers,
                retries=_ONCE,
                redirect=False,  # a redirect would carry the credentials to another host
                assert_same_host=False,
                timeout=self._timeout,
            )
        except (HTTPError, OSError) as problem:
            return _failed(problem, reused=pool.num_connections == opened)
        after = answer.headers.get("Retry-After")
        return Response(
            answer.status,
            parsed := _parsed(answer.data),
            retry_after=retry_after_seconds(after, time.time()) if after else None,
            html=parsed is None and answer.data.lstrip()[:1] == b"<",
        )

    def _open(self, request: Request, origin: str) -> Route:
        if request.secret_params:
            _hide_queries_in_debug_logs()
        route = self._routes[origin] = self._pools.route(origin)
        return route

    def close(self) -> None:
        self._pools.close()


_ONCE = Retry(total=False, redirect=False)


def _split(url: str) -> tuple[str, str]:
    """`https://x.example/a?b` as `https://x.example` and `/a?b`."""
    start = url.index("://") + 3
    end = min((found for mark in "/?#" if (found := url.find(mark, start)) >= 0), default=len(url))
    target = url[end:].partition("#")[0]
    return url[:end], target if target.startswith("/") else f"/{target}"


def _failed(problem: Exception, *, reused: bool) -> Response:
    """The response that there was none, and whether the request may have arrived all the same."""
    if isinstance(problem, ReadTimeoutError):
        return Response(0, error=NO_ANSWER)
    if isinstance(problem, NewConnectionError):
        return Response(0, error=CONNECTION_FAILED, sent=False)
    if isinstance(problem, ConnectTimeoutError):
        return Response(0, error=NO_CONNECTION, sent=False)
    if isinstance(problem, ProxyError):
        return Response(0, error=PROXY_FAILED, sent=False)
    if isinstance(problem, SSLError):
        distrusted = isinstance(problem.args[0] if problem.args else None, SSLCertVerificationError)
        return Response(0, error=DISTRUSTED if distrusted else TLS_FAILED, sent=not distrusted)
    cause = problem.args[-1] if problem.args else None
    return Response(0, error=CONNECTION_FAILED, dropped=reused and isinstance(cause, ConnectionError))


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return None


class _HideQueries(logging.Filter):
    """urllib3 writes each URL to its debug log; a URL with a secret in its query loses the query there."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and any("api_secret=" in str(arg) for arg in record.args):
            record.args = tuple(
                arg.partition("?")[0] + "?" + MASK if isinstance(arg, str) and "api_secret=" in arg else arg
                for arg in record.args
            )
        return True


_hide_queries = _HideQueries()


def _hide_queries_in_debug_logs() -> None:
    logging.getLogger("urllib3.connectionpool").addFilter(_hide_queries)  # adding it twice adds it once


class ConsoleTransport:
    """Prints each event as one line of JSON."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def send(self, request: Request, events: Sequence[bytes]) -> Response:  # noqa: ARG002 reason: it has nothing to say
        stream = self._stream or sys.stdout
        stream.write("".join(f"{event.decode()}\n" for event in events))
        stream.flush()
        return Response(200)

    def close(self) -> None:
        """Nothing to close: standard output is the app's."""


def open_transport(method: str, settings: TransportSettings, connections: int) -> Transport:
    """The transport for a provider whose requests have this method."""
    return ConsoleTransport() if method == "PRINT" else HttpTransport(settings, connections)

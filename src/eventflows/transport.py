"""Sending a request and bringing back what happened, never an exception.

All network I/O of the library is here, in `pools` and in `answer`.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, TextIO
from urllib.parse import quote

import requests
from requests.utils import requote_uri
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

from . import payload
from .answer import Answer, read
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
EARLY_SECONDS = 0.1
"""An answer that came before the request was whole is there by the time that sending fails."""
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
    return f"{request.url}{_secret_query(request, masked=masked)}"


def _secret_query(request: Request, *, masked: bool = False) -> str:
    """What the secret query parameters add to the URL."""
    query, mark = "", "&" if "?" in request.url else "?"
    for name, given in request.secret_params.items():
        query += f"{mark}{name}={MASK if masked else quote(Secret.of(given).reveal(), safe='')}"
        mark = "&"
    return query


def all_headers(request: Request, *, masked: bool = False) -> dict[str, str]:
    """The request's headers, with the secret ones or with a mask in their place."""
    secrets = {name: Secret.of(given) for name, given in request.secret_headers.items()}
    secret = {name: str(value) if masked else value.reveal() for name, value in secrets.items()}
    return {"Content-Type": "application/json", "User-Agent": USER_AGENT, **request.headers, **secret}


class HttpTransport:
    """Kept connections to one platform, as many as requests were ever under way at once."""

    def __init__(self, settings: TransportSettings) -> None:
        self._timeout = settings.timeout
        self._pools = Pools(settings)

    def send(self, request: Request, events: Sequence[bytes]) -> Response:
        """Send the events and read the answer. A redirect is an answer: it would carry the credentials to another host."""
        try:
            origin, target = _split(request.url)
            route = self._pools.route(origin)
            length, body = payload.portions(request.envelope, request.events_at, events)
            first = f"{request.method} {route.prefix}{target}{_secret_query(request)} HTTP/1.1"
            head = _head(route, first, all_headers(request), length)
        except SecretUnavailable as problem:
            return Response(0, error=str(problem), sent=False)
        except (OSError, ValueError, requests.RequestException, HTTPError) as problem:
            return Response(0, error=f"request failed ({type(problem).__name__})", sent=False)
        connection = route.take()
        try:
            return self._exchange(route, connection, head, body)
        finally:
            route.keep(connection)

    def _exchange(self, route: Route, connection: HTTPConnection, head: bytes, body: Iterator[bytes]) -> Response:
        reused = connection.sock is not None
        try:
            if not reused:
                route.open(connection, self._timeout)
        except (HTTPError, OSError, ValueError) as problem:
            connection.close()
            return Response(0, error=_why_not_connected(problem, route), sent=False)
        try:
            return _answer(connection, head, body, self._timeout)
        except Exception as problem:  # noqa: BLE001 reason: whatever an answer is, the request was sent, and the connection is spoilt
            connection.close()
            dropped = reused and isinstance(problem, ConnectionError)
            return Response(0, error=_why_no_answer(problem), dropped=dropped)

    def close(self) -> None:
        self._pools.close()


@lru_cache(maxsize=256)
def _split(url: str) -> tuple[str, str]:
    """`https://x.example/a?b` as `https://x.example` and `/a?b`."""
    start = url.index("://") + 3
    end = min((found for mark in "/?#" if (found := url.find(mark, start)) >= 0), default=len(url))
    target = url[end:].partition("#")[0]
    if not (target.isascii() and target.isprintable()) or " " in target:
        target = requote_uri(target)
    return url[:end], target if target.startswith("/") else f"/{target}"


def _head(route: Route, request_line: str, headers: Mapping[str, str], length: int) -> bytes:
    fields = (f"{name}: {value}" for name, value in headers.items())
    lines = (request_line, *route.headers, *fields, f"Content-Length: {length}", "", "")
    text = "\r\n".join(lines)
    if not text.count("\r") == text.count("\n") == len(lines) - 1:
        raise ValueError("a header holds a line break")
    return text.encode("latin-1")


def _write(sock: socket.socket, head: bytes, body: Iterator[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    sock.settimeout(seconds)
    sock.sendall(head + next(body))  # a small request is one packet
    for portion in body:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        sock.sendall(portion)
    sock.settimeout(seconds)


def _answer(connection: HTTPConnection, head: bytes, body: Iterator[bytes], seconds: float) -> Response:
    sock = connection.sock
    try:
        _write(sock, head, body, seconds)
    except OSError as problem:
        status, headers, content, keeps = _early(sock, problem)
    else:
        status, headers, content, keeps = read(sock, seconds)
    if not keeps:
        connection.close()
    if headers.get("content-encoding", "").lower() not in ("", "identity"):
        content = _decompressed(content)
    after = headers.get("retry-after")
    return Response(
        status,
        parsed := _parsed(content),
        retry_after=retry_after_seconds(after, time.time()) if after else None,
        html=parsed is None and content.lstrip()[:1] == b"<",
    )


def _early(sock: socket.socket, problem: OSError) -> Answer:
    """What a server said before it had the whole request, as of one that is too large; then it takes no more of it.

    Raises:
        OSError: The problem, as nothing was said. No request is a success that did not arrive.
    """
    with suppress(OSError, ValueError):
        sock.settimeout(EARLY_SECONDS)
        answer = read(sock, EARLY_SECONDS)
        if answer.status >= 300:
            return answer._replace(keeps=False)
    raise problem


def _decompressed(content: bytes) -> bytes:
    """What a proxy packed, although nobody asked it to."""
    try:
        return zlib.decompress(content, 32 + zlib.MAX_WBITS)
    except zlib.error:
        return b""


def _why_not_connected(problem: Exception, route: Route) -> str:
    cause = problem.args[0] if isinstance(problem, SSLError) and problem.args else problem
    if isinstance(cause, ValueError) and not isinstance(cause, HTTPError):  # as an SSLCertVerificationError is
        return DISTRUSTED
    if route.proxied and not isinstance(cause, ssl.SSLError):
        return PROXY_FAILED
    if isinstance(problem, NewConnectionError):
        return CONNECTION_FAILED
    if isinstance(problem, (ConnectTimeoutError, TimeoutError)):
        return NO_CONNECTION
    return TLS_FAILED if isinstance(cause, ssl.SSLError) else CONNECTION_FAILED


def _why_no_answer(problem: Exception) -> str:
    if isinstance(problem, TimeoutError):
        return NO_ANSWER
    return TLS_FAILED if isinstance(problem, ssl.SSLError) else CONNECTION_FAILED


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except (ValueError, RecursionError):
        return None


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


def open_transport(method: str, settings: TransportSettings) -> Transport:
    """The transport for a provider whose requests have this method."""
    return ConsoleTransport() if method == "PRINT" else HttpTransport(settings)

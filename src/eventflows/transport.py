"""Sending a request and bringing back what happened, never an exception. All network I/O of the library is here."""

from __future__ import annotations

import json
import logging
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, TextIO
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter

from .providers.base import Request, Response
from .retry import retry_after_seconds
from .secret import MASK, Secret, SecretUnavailable


def library_version() -> str:
    try:
        return version("opentelemetry-exporter-eventflows")
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "0"


# Reddit throttles the default names of HTTP libraries and asks for `platform:app:version`.
USER_AGENT = f"python:opentelemetry-exporter-eventflows:{library_version()}"


class Transport(Protocol):
    def send(self, request: Request) -> Response: ...
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


def encode_body(body: Any) -> bytes:
    """Compact JSON in UTF-8. Not a number (NaN) raises ValueError, since no other parser takes it."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


class HttpTransport:
    """Kept connections to one platform, on `requests`.

    Args:
        timeout: Seconds to wait for the connection, and then for the answer.
        connections: How many requests may be under way at once.
    """

    def __init__(self, timeout: float, connections: int = 1) -> None:
        self._timeout = timeout
        self._session = requests.Session()
        self._session.headers.clear()
        # Without an auth of its own the session would look into ~/.netrc and replace the Authorization header.
        self._session.auth = _keep_headers
        self._session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=connections))
        self._session.mount("https://", HTTPAdapter(pool_connections=1, pool_maxsize=connections))

    def send(self, request: Request) -> Response:
        if request.secret_params:
            _hide_queries_in_debug_logs()
        try:
            answer = self._session.request(
                request.method,
                secret_url(request),
                data=encode_body(request.body),
                headers=all_headers(request),
                timeout=self._timeout,
                allow_redirects=False,  # a redirect would carry the credentials to another host
            )
        except SecretUnavailable as problem:
            return Response(0, error=str(problem), sent=False)
        except requests.ConnectTimeout:
            return Response(0, error="no connection in time", sent=False)
        except requests.Timeout:
            return Response(0, error="no answer in time")
        except requests.ConnectionError as problem:
            return Response(0, error="connection failed", sent=not _never_connected(problem))
        except requests.RequestException as problem:
            return Response(0, error=f"request failed ({type(problem).__name__})")
        try:
            body = json.loads(answer.content)
        except ValueError:
            body = None
        after = retry_after_seconds(answer.headers.get("Retry-After"), time.time())
        html = body is None and answer.content.lstrip()[:1] == b"<"
        return Response(answer.status_code, body, retry_after=after, html=html)

    def close(self) -> None:
        self._session.close()


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _never_connected(problem: BaseException) -> bool:
    reason = getattr(problem.args[0] if problem.args else None, "reason", None)
    return type(reason).__name__ in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError")


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

    def send(self, request: Request) -> Response:
        stream = self._stream or sys.stdout
        lines = (encode_body(event).decode() for event in request.body["events"])
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
        return Response(200)

    def close(self) -> None:
        """Nothing to close: standard output is the app's."""


def open_transport(method: str, timeout: float, connections: int) -> Transport:
    """The transport for a provider whose requests have this method."""
    return ConsoleTransport() if method == "PRINT" else HttpTransport(timeout, connections)

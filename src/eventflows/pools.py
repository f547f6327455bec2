"""Pools of kept connections: through which proxy, and with which certificates, as the settings or the environment say.

The rules are those of `requests`, and so are the pools; they are looked up once for each host, since to do it for each
request costs more than the request.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.util import parse_url, ssl_
from urllib3.util.connection import is_connection_dropped


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """How requests travel.

    Attributes:
        timeout: Seconds to wait for the connection, and then for the answer.
        proxy_url: The proxy to take, whatever the host; None goes by `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
        ca_file: The authorities to trust, a PEM file or a folder of them; None goes by `REQUESTS_CA_BUNDLE` and
            `CURL_CA_BUNDLE`, else it is the bundle of `certifi`.
        cert: The client's certificate: one PEM file with its key, or a file of each.
        verify: False takes every server's certificate.
    """

    timeout: float = 10.0
    proxy_url: str | None = field(default=None, repr=False)  # it may hold a password
    ca_file: str | None = None
    cert: str | tuple[str, str] | None = None
    verify: bool = True


class Route:
    """The way to one host, and the connections that are kept there.

    `urlopen` of the pool would take as long to write a request and to wrap its answer as everything else that is done for an
    event, so its connections are used directly, and kept here. The pool's own names for that have been the same since
    urllib3 1.0.

    Attributes:
        proxied: Connections go by a proxy.
        prefix: Stands before the path in a request's first line: a proxy that reads requests wants the whole URL.
        headers: The lines that all requests to this host have.
    """

    def __init__(self, pool: HTTPConnectionPool, *, proxied: bool, prefix: str, headers: Sequence[str]) -> None:
        self.proxied, self.prefix, self.headers = proxied, prefix, headers
        self._pool = pool
        self._idle: list[HTTPConnection] = []  # the last one is taken first
        self._closed = False

    def take(self) -> HTTPConnection:
        """A connection that was kept and is open still, or one that is to be opened."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return cast("HTTPConnection", self._pool._new_conn())
        if is_connection_dropped(connection):
            connection.close()
        return connection

    def open(self, connection: HTTPConnection, seconds: float) -> None:
        """Connect.

        Raises:
            HTTPError, OSError, ValueError: That is not possible. `ssl.SSLError` and `TimeoutError` are OSErrors; a
                certificate for another host is a ValueError.
        """
        connection.timeout = seconds
        if self._pool.proxy is not None and not self.prefix:
            self._pool._prepare_proxy(connection)  # its tunnel
        if connection.sock is None:
            connection.connect()

    def keep(self, connection: HTTPConnection) -> None:
        """Give back what `take` gave."""
        self._idle.append(connection)
        if self._closed:
            self.close()

    def close(self) -> None:
        """Close the connections that are not in use now, and the others when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()


class Pools:
    """The ways of one transport."""

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._adapter = HTTPAdapter()
        self._routes: dict[str, Route] = {}
        self._closed = False

    def route(self, url: str) -> Route:
        """The way to the URL's host, which is looked up once.

        Raises:
            OSError, ValueError, requests.RequestException: A file of certificates cannot be read, or a URL is none.
        """
        route = self._routes.get(url) or self._routes.setdefault(url, self._look_up(url))
        if self._closed:
            route.close()
        return route

    def _look_up(self, url: str) -> Route:
        settings = self._settings
        verify = settings.ca_file if settings.verify else False
        found = requests.Session().merge_environment_settings(url, {}, None, verify, None)
        trusted: bool | str = True if found["verify"] is None else found["verify"]
        proxy: str = settings.proxy_url or select_proxy(url, found["proxies"]) or ""
        secure = url.startswith("https:")
        tls = tls_context(trusted, settings.cert) if secure else None
        manager: Any = self._adapter.poolmanager
        if proxy:
            proxy = proxy if "://" in proxy else f"http://{proxy}"
            through = {"proxy_ssl_context": tls_context(trusted, None)} if proxy.startswith("https:") else {}
            manager = self._adapter.proxy_manager_for(proxy, **through)
        pool = manager.connection_from_url(url, {"ssl_context": tls} if secure else None)
        headers = {"Host": str(parse_url(url)._replace(auth=None).netloc), "Accept-Encoding": "identity"}
        forwarded = bool(proxy) and not secure and not proxy.startswith("socks")
        if forwarded:
            headers |= pool.proxy_headers
        lines = tuple(f"{name}: {value}" for name, value in headers.items())
        return Route(pool, proxied=bool(proxy), prefix=url if forwarded else "", headers=lines)

    def close(self) -> None:
        """Close the connections that are not in use now, and the others when they are given back."""
        self._closed = True
        for route in list(self._routes.values()):
            route.close()


def tls_context(verify: bool | str, cert: str | tuple[str, str] | None) -> ssl.SSLContext:
    """What a connection trusts and shows; one for all connections, since to read the authorities takes milliseconds.

    Args:
        verify: The authorities' file or folder; True is the bundle of `certifi`, False trusts everybody.

    Raises:
        OSError: A file cannot be read, or is none of certificates (`ssl.SSLError`).
    """
    authorities = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
    files = (*((authorities,) if authorities else ()), *((cert,) if isinstance(cert, str) else cert or ()))
    # With the times of the files, so that a transport that is opened after one was renewed reads the new one.
    return _tls_context(ssl.SSLContext, authorities, cert, tuple(os.stat(file).st_mtime_ns for file in files))


@lru_cache(maxsize=16)
def _tls_context(
    kind: type[ssl.SSLContext],
    authorities: str | bool,
    cert: str | tuple[str, str] | None,
    _changed: tuple[int, ...],
) -> ssl.SSLContext:
    # gevent may have replaced the class after urllib3 took it over, as in a worker of gunicorn --preload; the old one, its
    # name gone, calls itself without end.
    ssl_.SSLContext = kind  # type: ignore[assignment]
    # Whether `ssl` compares the host's name or urllib3 does so itself depends on its version.
    context = ssl_.create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if authorities else ssl.CERT_NONE)
    if isinstance(authorities, str):
        folder = os.path.isdir(authorities)
        context.load_verify_locations(None if folder else authorities, authorities if folder else None)
    if cert is not None:
        context.load_cert_chain(*((cert,) if isinstance(cert, str) else cert))
    return context

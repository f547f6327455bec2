"""How requests travel: proxies and certificates, from the settings and from the environment, over real sockets."""

from __future__ import annotations

import os
import select
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from eventflows.pools import TransportSettings, tls_context
from eventflows.providers.base import Request, Response
from eventflows.transport import HttpTransport
from tests.conftest import environment

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Answering(BaseHTTPRequestHandler):
    """A platform, and as well a plain proxy that answers in the platform's place. It remembers what it was asked."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str | None]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers.get("Proxy-Authorization")))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_CONNECT(self) -> None:
        self.seen.append((self.path, self.headers.get("Proxy-Authorization")))
        self.send_response(407)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off a handshake is what these tests are about."""


def serve(tls: ssl.SSLContext | None = None) -> tuple[ThreadingHTTPServer, list[tuple[str, str | None]]]:
    seen: list[tuple[str, str | None]] = []
    server = Quiet(("127.0.0.1", 0), type("Handler", (Answering,), {"seen": seen}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server, seen


def stop(server: socketserver.BaseServer) -> None:
    server.shutdown()
    server.server_close()


@pytest.fixture
def plain() -> Iterator[tuple[int, list[tuple[str, str | None]]]]:
    server, seen = serve()
    yield server.server_port, seen
    stop(server)


authority = trustme.CA()
stranger = trustme.CA()


@pytest.fixture
def secure(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server with a certificate of `authority`; of clients it wants one as well, or none."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(getattr(request, "param", "127.0.0.1")).configure_cert(tls)
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_OPTIONAL
    server, _ = serve(tls)
    yield f"https://127.0.0.1:{server.server_port}/"
    stop(server)


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def post(url: str, **settings: Any) -> Response:
    transport = HttpTransport(TransportSettings(timeout=5, **settings))
    try:
        return transport.send(Request("POST", url, {}, ["data"]), [b'{"n":1}'])
    finally:
        transport.close()


def test_a_server_that_nobody_vouches_for_gets_no_request(secure: str) -> None:
    """So what must not come twice goes again once the certificate is mended."""
    response = post(secure)
    assert (response.status, response.sent, response.error) == (0, False, "the certificate is not trusted")


def test_a_ca_file_is_trusted(secure: str, ca_file: str) -> None:
    assert post(secure, ca_file=ca_file).status == 200


@pytest.mark.parametrize("secure", ["platform.example", "127.0.0.2"], indirect=True)
def test_a_certificate_for_another_host_is_not_trusted(secure: str, ca_file: str) -> None:
    response = post(secure, ca_file=ca_file)
    assert (response.status, response.sent, response.error) == (0, False, "the certificate is not trusted")


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_bundle_of_the_environment_is_trusted(
    name: str, secure: str, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, ca_file)
    assert post(secure).status == 200


def test_the_settings_ca_file_comes_before_the_environments(
    secure: str, ca_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca_file)
    assert post(secure, ca_file=str(tmp_path / "stranger.pem")).status == 0


def test_without_verification_every_server_is_taken(secure: str) -> None:
    assert post(secure, verify=False).status == 200


@pytest.mark.parametrize("parts", [1, 2], ids=["one file", "two files"])
def test_a_client_shows_its_certificate(parts: int, secure: str, ca_file: str, tmp_path: Path) -> None:
    """One that the server does not trust is refused, so it is shown."""
    for issuer, status in ((authority, 200), (stranger, 0)):
        issued = issuer.issue_cert("shop.example")
        both = tmp_path / f"{status}.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(both)
        certificate, key = tmp_path / f"{status}.crt", tmp_path / f"{status}.key"
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        cert = str(both) if parts == 1 else (str(certificate), str(key))
        assert post(secure, ca_file=ca_file, cert=cert).status == status


@pytest.mark.parametrize("broken", ["missing", "nonsense"])
def test_a_file_of_no_certificates_costs_no_event(broken: str, secure: str, tmp_path: Path) -> None:
    (tmp_path / "nonsense").write_text("not a certificate")
    response = post(secure, ca_file=str(tmp_path / broken))
    assert (response.status, response.sent) == (0, False)


def test_the_authorities_are_read_once_and_again_when_their_file_changes(ca_file: str) -> None:
    """To read them takes tens of milliseconds; all transports of a process share what was read."""
    first = tls_context(ca_file, None)
    assert tls_context(ca_file, None) is first
    stranger.cert_pem.write_to_path(ca_file)
    os.utime(ca_file, (1, 1))
    assert tls_context(ca_file, None) is not first


def test_the_proxy_of_the_environment_gets_the_whole_url_and_its_own_password(
    plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, seen = plain
    monkeypatch.setenv("HTTP_PROXY", f"http://me:pass@127.0.0.1:{port}")
    assert post("http://platform.invalid/a?b=c").status == 200
    assert seen == [("http://platform.invalid/a?b=c", "Basic bWU6cGFzcw==")]


def test_no_proxy_is_obeyed(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port, seen = plain
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert post(f"http://127.0.0.1:{port}/a").status == 200
    assert seen == [("/a", None)]


def test_the_proxy_of_the_settings_comes_before_the_environment(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port, seen = plain
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    assert post("http://platform.invalid/a", proxy_url=f"127.0.0.1:{port}").status == 200
    assert seen == [("http://platform.invalid/a", None)]


class Tunnel(Answering):
    """A proxy that connects, and passes on what it cannot read."""

    def do_CONNECT(self) -> None:
        self.seen.append((self.path, self.headers.get("Proxy-Authorization")))
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as platform:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: platform, platform: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    if not (passed := end.recv(65_536)):
                        return
                    ends[end].sendall(passed)


def test_a_secure_platform_is_reached_through_the_proxys_tunnel(
    secure: str, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is kept: the second request needs no other."""
    seen: list[tuple[str, str | None]] = []
    proxy = Quiet(("127.0.0.1", 0), type("Handler", (Tunnel,), {"seen": seen}))
    threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:pass@127.0.0.1:{proxy.server_port}")
    transport = HttpTransport(TransportSettings(timeout=5, ca_file=ca_file))
    for _ in range(2):
        assert transport.send(Request("POST", secure, {}, ["data"]), [b'{"n":1}']).status == 200
    transport.close()
    assert seen == [(secure.removeprefix("https://").strip("/"), "Basic bWU6cGFzcw==")]
    stop(proxy)


def test_a_proxy_that_refuses_the_tunnel_got_no_request(plain: Any) -> None:
    port, seen = plain
    response = post("https://platform.invalid/a", proxy_url=f"http://127.0.0.1:{port}")
    assert (response.status, response.sent) == (0, False)
    assert seen == [("platform.invalid:443", None)]


def test_a_proxy_that_is_not_there_got_no_request() -> None:
    response = post("https://platform.invalid/a", proxy_url="http://127.0.0.1:1")
    assert (response.status, response.sent) == (0, False)


LATE = """
import os, sys
from eventflows.pools import TransportSettings
from eventflows.providers.base import Request
from eventflows.transport import HttpTransport

def post():
    transport = HttpTransport(TransportSettings(timeout=5, ca_file=sys.argv[2]))
    return transport.send(Request("POST", sys.argv[1], {}, ["data"]), [b'{"n":1}'])

if sys.argv[3] == "used":
    assert post().status == 200
from gevent import monkey
monkey.patch_all()
response = post()
assert response.status == 200, response
"""


@pytest.mark.parametrize("before", ["used", "unused"])
def test_tls_that_gevent_replaces_later(before: str, secure: str, ca_file: str) -> None:
    """As in a worker of gunicorn --preload: urllib3 has taken over the class by then, and it calls itself without end."""
    pytest.importorskip("gevent")
    done = subprocess.run(
        [sys.executable, "-c", LATE, secure, ca_file, before],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

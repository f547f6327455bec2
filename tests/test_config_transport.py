"""Certificates and proxies from the configuration file, on real sockets: a private authority, and a proxy with a password."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

import eventflows
from eventflows import ConfigurationError, config
from eventflows.pipeline import Pipeline

PURCHASE = {"value": 1, "currency": "EUR", "order_id": "1", "user.email": "a@b.example"}
authority = trustme.CA()


class _Platform(BaseHTTPRequestHandler):
    """Answers as Meta does; as a proxy it is asked for a whole URL, and answers in the platform's place."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers.get("Proxy-Authorization"), len(body["data"])))  # type: ignore[attr-defined]
        answer = b'{"events_received": %d}' % len(body["data"])
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Not into the tests' output."""


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Platform)
    made.seen = []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def secure(server: Any) -> str:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    return f"https://127.0.0.1:{server.server_port}"


def start(tmp_path: Path, text: str) -> Pipeline:
    (tmp_path / "c.yaml").write_text(text)
    pipeline = eventflows.configure(config=tmp_path / "c.yaml")
    pipeline.record("Purchase", PURCHASE)
    return pipeline


def test_a_provider_behind_a_private_authority(secure: str, tmp_path: Path) -> None:
    """Its own `tls` goes before the one for all, and only the right authority is trusted."""
    authority.cert_pem.write_to_path(tmp_path / "right.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "wrong.pem")
    pipeline = start(
        tmp_path,
        f"""
providers:
  meta: {{pixel_id: "1", access_token: t, endpoint: "{secure}", tls: {{ca_file: {tmp_path}/right.pem}}}}
  meta/eu: {{pixel_id: "2", access_token: t, endpoint: "{secure}"}}
tls: {{ca_file: {tmp_path}/wrong.pem}}
sending_queue: {{flush_interval: 50ms}}
""",
    )
    assert not pipeline.force_flush(1_500)
    stats = pipeline.stats()
    assert (stats["meta"].delivered, stats["meta/eu"].delivered, stats["meta/eu"].pending) == (1, 0, 1)
    # Mended by a reload, what waited is delivered.
    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "c.yaml").write_text(
        text.replace(f"tls: {{ca_file: {tmp_path}/wrong.pem}}\n", "tls: {insecure_skip_verify: true}\n")
    )
    pipeline.reload()
    assert pipeline.force_flush(10_000)
    assert pipeline.stats()["meta/eu"].delivered == 1


def test_a_proxy_with_a_password(server: Any, tmp_path: Path, caplog: Any) -> None:
    """It is asked for the whole URL; its password is seen by nobody else."""
    caplog.set_level(1)
    pipeline = start(
        tmp_path,
        f"""
providers:
  meta: {{pixel_id: "1", access_token: t, endpoint: "http://platform.invalid"}}
proxy_url: http://user:canary@127.0.0.1:{server.server_port}
""",
    )
    assert pipeline.force_flush(10_000)
    ((path, authorization, events),) = server.seen
    assert (path, events) == ("http://platform.invalid/v26.0/1/events", 1)
    assert base64.b64decode(authorization.removeprefix("Basic ")) == b"user:canary"
    shown = repr(pipeline.settings) + repr([lane.given for lane in pipeline._lanes]) + caplog.text
    assert "canary" not in shown


@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
def test_a_file_of_no_certificates_is_an_error_at_start(key: str, tmp_path: Path) -> None:
    (tmp_path / "nonsense.pem").write_text("not a certificate")
    with pytest.raises(ConfigurationError, match=rf"tls\.{key}: cannot be used"):
        config.settings({"console": {}}, tls={key: str(tmp_path / "nonsense.pem")})

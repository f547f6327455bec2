"""Servers that answer before they have the whole request, as one that is too large for them, and take no more of it."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from pathlib import Path
from typing import ClassVar

import pytest

import eventflows
from eventflows import MetaProvider
from eventflows.conversion import Conversion
from eventflows.pools import TransportSettings
from eventflows.providers.base import Encoded
from eventflows.transport import HttpTransport

from .test_pools import authority
from .test_transport import post


class Hasty:
    """Answers as soon as it has the head of a request, and then reads no more of it.

    Args:
        answer: What it says of requests that are longer than `most`; others it takes.
        then: `close` the connection, or `wait` and leave it open.
    """

    def __init__(self, answer: bytes, *, then: str = "close", most: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.answer, self.then, self.most, self.tls = answer, then, most, tls
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.listener.getsockname()[1]}"
        self.lengths: list[int] = []
        self.waiting: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=self.listener.accept()[:1], daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += connection.recv(4096)
        length = int(received.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.lengths.append(length)
        if length <= self.most:
            left = length - (len(received) - end - 4)
            while left:
                left -= len(piece := connection.recv(65_536))
                received += piece
            body = b'{"events_received": %d}' % len(json.loads(received[end + 4 :])["data"])
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
        else:
            connection.sendall(self.answer)
            if self.then == "wait":
                self.waiting.append(connection)
                return
        connection.close()


MANY = [b'{"n":"%d"}' % number for number in range(1_000_000)]
TOO_LARGE = b'HTTP/1.1 413 Content Too Large\r\nRetry-After: 7\r\nContent-Length: 12\r\n\r\n{"error": 1}'


@pytest.mark.parametrize("then", ["close", "wait"])
def test_an_answer_before_the_request_is_whole_is_read(then: str) -> None:
    transport = HttpTransport(TransportSettings(timeout=0.5))
    for _ in range(3):
        server = Hasty(TOO_LARGE, then=then)
        response = transport.send(post(server.url), MANY)
        assert (response.status, response.json, response.retry_after) == (413, {"error": 1}, 7)
        server.listener.close()
    transport.close()


def test_an_early_answer_over_tls_is_read(tmp_path: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = Hasty(TOO_LARGE, tls=tls)
    transport = HttpTransport(TransportSettings(timeout=2, ca_file=str(tmp_path / "ca.pem")))
    assert transport.send(post(server.url), MANY).status == 413
    server.listener.close()
    transport.close()


def test_no_success_is_read_before_the_request_is_whole() -> None:
    """Whoever says so did not read what it says so of."""
    server = Hasty(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    transport = HttpTransport(TransportSettings(timeout=2))
    response = transport.send(post(server.url), MANY)
    assert (response.status, response.sent) == (0, True)
    server.listener.close()
    transport.close()


class Large(MetaProvider):
    """Its requests are larger than what a kernel takes for a server that does not read."""

    MAX_BYTES: ClassVar[int] = 100_000_000

    def encode(self, conversion: Conversion) -> Encoded:
        encoded = super().encode(conversion)
        encoded.event["note"] = "n" * 300_000
        return encoded


def test_a_batch_that_is_too_large_for_a_server_that_reads_no_more_is_halved() -> None:
    server = Hasty(TOO_LARGE, most=2_000_000)
    pipeline = eventflows.configure(
        [Large("1", "x", endpoint=server.url)], retry_on_failure={"initial_interval": "60s"}
    )
    for _ in range(40):
        eventflows.get_tracer("x").add_event("Lead", {"user.id": "7", "client.address": "198.51.100.4"})
    assert eventflows.force_flush(10_000)
    stats = pipeline.stats()["meta"]
    assert (stats.delivered, stats.refused, max(server.lengths) > 10_000_000) == (40, {}, True)
    server.listener.close()

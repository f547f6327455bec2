"""The transport over real sockets: where credentials may go, and what a failure is reported as."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import eventflows
from eventflows import GA4Provider, MetaProvider
from eventflows.pools import TransportSettings
from eventflows.providers.base import Request, Response
from eventflows.transport import HttpTransport, all_headers, secret_url


class Recorder(BaseHTTPRequestHandler):
    """Answers by path, and remembers each request."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str | None]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers.get("Authorization")))
        answers = {"/html": b"<html>oops", "/ok": b'{"ok": true}', "/packed": gzip.compress(b'{"ok": true}')}
        body = answers.get(self.path, b"")
        self.send_response({"/moved": 307, "/html": 502, "/busy": 429}.get(self.path, 200))
        if self.path == "/moved":
            self.send_header("Location", "/elsewhere")
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        if self.path == "/busy":
            self.send_header("Retry-After", "7")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    seen: list[tuple[str, str | None]] = []
    handler = type("Handler", (Recorder,), {"seen": seen})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", seen
    running.shutdown()
    running.server_close()


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    made = HttpTransport(TransportSettings(timeout=2))
    yield made
    made.close()


EVENTS = [b'{"n":1}']


def post(url: str) -> Request:
    return Request("POST", url, {}, ["data"], secret_headers={"Authorization": "Bearer t0ken"})


def test_a_redirect_is_not_followed_with_the_credentials(server: Any, transport: HttpTransport) -> None:
    url, seen = server
    assert transport.send(post(f"{url}/moved"), EVENTS).status == 307
    assert [path for path, _ in seen] == ["/moved"]


def test_a_netrc_file_does_not_replace_the_credentials(
    server: Any, transport: HttpTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    url, seen = server
    assert transport.send(post(f"{url}/ok"), EVENTS).json == {"ok": True}
    assert seen == [("/ok", "Bearer t0ken")]


def test_what_is_not_json_is_a_status_without_a_body(server: Any, transport: HttpTransport) -> None:
    url, _ = server
    response = transport.send(post(f"{url}/html"), EVENTS)
    assert (response.status, response.json) == (502, None)


def test_an_answer_that_came_packed_is_read(server: Any, transport: HttpTransport) -> None:
    """Nobody asked for that, but proxies do it."""
    url, _ = server
    assert transport.send(post(f"{url}/packed"), EVENTS).json == {"ok": True}


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "a\rb"])
def test_no_header_is_smuggled_in(value: str, server: Any, transport: HttpTransport) -> None:
    url, seen = server
    response = transport.send(Request("POST", f"{url}/ok", {}, ["data"], headers={"X-Shop": value}), EVENTS)
    assert (response.status, response.sent, seen) == (0, False, [])


def test_a_path_is_sent_encoded(server: Any, transport: HttpTransport) -> None:
    url, seen = server
    assert transport.send(post(f"{url}/Malmö x"), EVENTS).status == 200
    assert transport.send(post(f"{url}?a=%20b#c"), EVENTS).status == 200
    assert [path for path, _ in seen] == ["/Malm%C3%B6%20x", "/?a=%20b"]


def test_a_request_of_many_events_arrives_whole(server: Any, transport: HttpTransport) -> None:
    url, seen = server
    assert transport.send(post(f"{url}/ok"), [b'{"n":"%d"}' % number for number in range(100_000)]).status == 200
    assert len(seen) == 1


def test_retry_after_is_read(server: Any, transport: HttpTransport) -> None:
    url, _ = server
    assert transport.send(post(f"{url}/busy"), EVENTS).retry_after == 7


def test_a_refused_connection_was_never_sent(transport: HttpTransport) -> None:
    """So even what must not come twice may go again."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    response = transport.send(post(f"http://127.0.0.1:{port}/"), EVENTS)
    assert (response.status, response.sent) == (0, False)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf"])
def test_an_answer_that_breaks_off_may_have_been_taken(answer: bytes, transport: HttpTransport) -> None:
    response = answered(answer, transport)
    assert (response.status, response.sent) == (0, True)


def test_an_answer_without_an_end_is_not_read_to_the_end(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventflows.answer.MOST", 100_000)
    response = answered(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 500_000, transport)
    assert (response.status, response.sent) == (0, True)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 429 No\r\nRetry-After: \xb2\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 No\r\n\r\n" + b"[" * 99_999,
    ],
)
def test_what_cannot_be_made_out_in_an_answer_leaves_its_status(answer: bytes, transport: HttpTransport) -> None:
    response = answered(answer, transport)
    assert (response.status in (429, 500), response.sent, response.retry_after) == (True, True, None)


def answered(answer: bytes, transport: HttpTransport) -> Response:
    """What the transport makes of these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.recv(65_536)
            with contextlib.suppress(OSError):
                connection.sendall(answer)
            connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return transport.send(post(f"http://127.0.0.1:{listener.getsockname()[1]}/"), EVENTS)


class Forgetful:
    """Answers the first request of each connection, and closes it on the second, as at the end of a kept connection."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.requests = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=self.listener.accept()[:1], daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n" + b'{"events_received":  1}', b""):
                received = b""
                while b"}" not in received:  # the end of any body
                    received += connection.recv(65_536)
                self.requests += 1
                connection.sendall(answer)


def test_a_kept_connection_that_is_closed_on_a_request_is_told_from_a_new_one() -> None:
    server = Forgetful()
    transport = HttpTransport(TransportSettings(timeout=2))
    first, second = transport.send(post(server.url), EVENTS), transport.send(post(server.url), EVENTS)
    assert (first.status, second.status, second.sent, second.dropped) == (200, 0, True, True)
    server.listener.close()
    assert not transport.send(post(server.url), EVENTS).dropped
    transport.close()


@pytest.mark.parametrize("when", ["after the answer", "before the answer", "before the request"])
def test_a_closed_transport_leaves_no_connection_open(when: str) -> None:
    """Nor does it fail: a lane that was renewed lets its last requests end."""
    transport = HttpTransport(TransportSettings(timeout=5))
    left_open: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(2)
                connection.recv(65_536)
                if when == "before the answer":
                    transport.close()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                try:
                    left_open.append(bool(connection.recv(1)))
                except TimeoutError:
                    left_open.append(True)

        serving = threading.Thread(target=serve)
        serving.start()
        if when == "before the request":
            transport.close()
        assert transport.send(post(f"http://127.0.0.1:{listener.getsockname()[1]}/"), EVENTS).status == 200
        if when == "after the answer":
            transport.close()
        serving.join()
    assert left_open == [False]


@pytest.mark.parametrize(
    ("provider", "delivered", "requests"), [(MetaProvider, 2, 3), (GA4Provider, 1, 2)], ids=["repeatable", "once only"]
)
def test_what_may_come_twice_goes_again_at_once_when_a_kept_connection_is_closed(
    provider: Any, delivered: int, requests: int
) -> None:
    """Only that; of another event nobody knows whether it was counted already."""
    server = Forgetful()
    pipeline = eventflows.configure([provider("G-1", "x", endpoint=server.url)], sending_queue={"num_consumers": 1},
                                    retry_on_failure={"initial_interval": "60s"})  # fmt: skip
    for number in range(2):
        eventflows.get_tracer("x").add_event("Lead", {"user.id": "7", "client.address": "198.51.100.4", "n": number})
        assert eventflows.force_flush(5_000)
    (stats,) = pipeline.stats().values()
    assert (stats.delivered, server.requests) == (delivered, requests)
    server.listener.close()


def test_secrets_are_in_the_request_and_masked_elsewhere() -> None:
    request = Request(
        "POST",
        "https://x.example/c?id=1",
        {},
        [],
        secret_params={"api_secret": "a&b"},
        secret_headers={"Token": "t0ken"},
    )
    assert secret_url(request) == "https://x.example/c?id=1&api_secret=a%26b"
    assert secret_url(request, masked=True) == "https://x.example/c?id=1&api_secret=***"
    assert all_headers(request)["Token"] == "t0ken"
    assert "t0ken" not in repr(all_headers(request, masked=True)) + repr(request)

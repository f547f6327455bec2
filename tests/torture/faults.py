"""A proxy before the sandbox that answers as networks do on a bad day."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

FAULTS = ("html 502", "html 200", "truncated", "reset before", "reset after", "no answer", "closed")
UNDECIDED = frozenset({"truncated", "reset after", "no answer"})
"""After these the platform has the events, and the sender cannot know."""


class Bad(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    target: ClassVar[int]
    faults: ClassVar[tuple[str, ...]] = FAULTS
    share: ClassVar[float] = 0.4
    dice: ClassVar[random.Random]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = Bad.dice.choice(Bad.faults) if Bad.dice.random() < Bad.share else ""
        if fault.startswith("html"):
            self._answer(int(fault[-3:]), b"<html><body>Bad gateway</body></html>", "text/html")
        elif fault == "reset before":
            self._reset()
        else:
            upstream = http.client.HTTPConnection("127.0.0.1", Bad.target, timeout=10)
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            upstream.request("POST", self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if fault == "reset after":
                self._reset()
            elif fault == "no answer":
                self.close_connection = True
                threading.Event().wait(1.5)
            elif fault == "truncated" and len(content) > 2:
                self._answer(answer.status, content[: len(content) // 2], "application/json")
            else:
                self._answer(answer.status, content, "application/json")
                self.close_connection = fault == "closed"

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            """The connection was reset on purpose."""

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            """The same."""

    def log_message(self, *_: Any) -> None:
        """Nothing to say."""


@contextmanager
def bad_network(target: int, seed: int, share: float, faults: tuple[str, ...] = FAULTS) -> Iterator[str]:
    """The URL of a proxy to this port, on which so large a share of the requests goes wrong."""
    Bad.target, Bad.share, Bad.faults, Bad.dice = target, share, faults, random.Random(seed)  # noqa: S311
    server = Bad(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

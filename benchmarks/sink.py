"""The local stand-in for every platform and collector: one process that answers each API with success and counts events by id.

It does no more than it must, so that it is never what limits: it reads bodies whole, and finds the ids in their bytes whatever
the format (JSON, form, protobuf), after the answer has been written. `Sink` starts the process; `Control` asks and tells it
things, over a port of its own which keeps answering while the platforms' port is down.
"""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ID = re.compile(rb"ev-[a-z0-9]+-\d{7}")
"""Every event carries such an id, and every library passes it on unchanged."""
ROOT = Path(__file__).resolve().parent.parent
PHRASES = {200: "OK", 204: "No Content", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}


# --- what each API answers


def success(path: str, body: bytes) -> tuple[int, str, bytes]:
    """Status, content type and body of the answer that the API at this path gives to a good request."""
    json_type = "application/json"
    if path.startswith(("/v1/logs", "/v1/traces", "/v1/metrics")):
        return 200, "application/x-protobuf", b""
    if "/mp/collect" in path:
        return 204, json_type, b""
    if "/events" in path and "/pixels/" not in path and "/event/" not in path:
        return 200, json_type, b'{"events_received":%d,"messages":[],"fbtrace_id":"A"}' % body.count(b"event_name")
    if "/event/track" in path:
        return 200, json_type, b'{"code":0,"message":"OK","request_id":"1","data":{}}'
    if "/conversion_events" in path:
        return 200, json_type, b'{"data":{"message":"Successfully processed the conversion events."}}'
    if path.startswith("/track"):
        return 200, json_type, b'{"status":1,"error":null}'
    if "httpapi" in path:
        return 200, json_type, b'{"code":200,"events_ingested":1,"payload_size_bytes":1,"server_upload_time":1}'
    return 200, json_type, b'{"success":true,"status":1}'


# --- the process


class State:
    """What arrived, and how requests are answered at the moment.

    Attributes:
        mode: `status` (instead of success), `delay` (seconds), `hold` (no answer until the mode changes), `hang_up` (the
            connection is closed once the request is read), `down` (nobody listens), `counted` (ids are taken note of).
    """

    def __init__(self) -> None:
        self.mode: dict[str, Any] = {}
        self.connections: set[Platform] = set()
        self.held: list[tuple[Platform, str, bytes]] = []
        self.waiters: list[tuple[str, int, asyncio.Future[None]]] = []
        self.forget()

    def forget(self) -> None:
        self.ids: dict[str, set[bytes]] = defaultdict(set)
        self.twice: dict[str, int] = defaultdict(int)
        self.requests: dict[str, int] = defaultdict(int)
        self.bytes: dict[str, int] = defaultdict(int)

    def count(self, path: str, body: bytes) -> None:
        """Take note of the ids, by the first part of the path."""
        lane = path.split("/", 2)[1].partition("?")[0]
        found = set(ID.findall(body))
        known = self.ids[lane]
        new = found - known
        known |= new
        self.twice[lane] += len(found) - len(new)
        self.requests[lane] += 1
        self.bytes[lane] += len(body)
        for waiter in [one for one in self.waiters if self.arrived(one[0]) >= one[1]]:
            self.waiters.remove(waiter)
            if not waiter[2].done():
                waiter[2].set_result(None)

    def arrived(self, lane: str) -> int:
        return len(self.ids[lane]) if lane else sum(map(len, self.ids.values()))

    def report(self) -> dict[str, Any]:
        lanes = sorted(self.requests)
        return {
            "arrived": self.arrived(""),
            "twice": sum(self.twice.values()),
            "requests": sum(self.requests.values()),
            "lanes": {lane: {"arrived": len(self.ids[lane]), "requests": self.requests[lane]} for lane in lanes},
            "bytes": sum(self.bytes.values()),
        }


class Http(asyncio.Protocol):
    """As much of HTTP/1.1 as the clients need."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = bytearray()
        self.need = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= self.need:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end])
            match = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            self.need = end + 4 + (int(match[1]) if match else 0)
            if len(self.buffer) < self.need:
                if b"100-continue" in head:
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = bytes(self.buffer[end + 4 : self.need])
            del self.buffer[: self.need]
            self.need = 0
            if re.search(rb"content-encoding: *gzip", head, re.IGNORECASE):
                body = gzip.decompress(body)
            self.requested(head.split(b" ", 2)[1].decode(), body)

    def write(self, status: int, kind: str, body: bytes, more: str = "") -> None:
        length = "" if status == 204 else f"Content-Length: {len(body)}\r\n"
        head = f"HTTP/1.1 {status} {PHRASES.get(status, 'Other')}\r\nContent-Type: {kind}\r\n{length}{more}\r\n"
        self.transport.write(head.encode() + body)

    def requested(self, path: str, body: bytes) -> None:
        raise NotImplementedError


class Platform(Http):
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.state.connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.state.connections.discard(self)

    def requested(self, path: str, body: bytes) -> None:
        mode = self.state.mode
        if mode.get("hold"):
            self.state.held.append((self, path, body))
        elif mode.get("delay"):
            asyncio.get_running_loop().call_later(mode["delay"], self.answer, path, body)
        else:
            self.answer(path, body)

    def answer(self, path: str, body: bytes) -> None:
        mode = self.state.mode
        if mode.get("hang_up"):
            self.transport.abort()
            return
        status = mode.get("status", 200)
        if status >= 400:
            self.write(status, "application/json", b'{"error":"unavailable"}')
            return
        self.write(*success(path, body))
        if mode.get("counted", True):
            self.state.count(path, body)


class Controls(Http):
    listener: Any = None
    port = 0

    def requested(self, path: str, body: bytes) -> None:
        self.task = asyncio.ensure_future(self.handle(path, json.loads(body or b"{}")))

    async def handle(self, path: str, given: dict[str, Any]) -> None:
        state = self.state
        if path == "/mode":
            await self.change(given)
        elif path == "/forget":
            state.forget()
        elif path == "/wait" and state.arrived(given["lane"]) < given["count"]:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            state.waiters.append((given["lane"], given["count"], future))
            await asyncio.wait([future], timeout=given["timeout"])
        elif path == "/missing":
            known = {one.decode() for ids in state.ids.values() for one in ids}
            answer = {"missing": [one for one in given["ids"] if one not in known]}
            self.write(200, "application/json", json.dumps(answer).encode())
            return
        self.write(200, "application/json", json.dumps(state.report()).encode())

    async def change(self, mode: dict[str, Any]) -> None:
        cls, state = Controls, self.state
        state.mode = mode
        loop = asyncio.get_running_loop()
        if mode.get("down") and cls.listener is not None:
            cls.listener.close()
            cls.listener = None
            for connection in list(state.connections):
                connection.transport.abort()
        elif not mode.get("down") and cls.listener is None:
            cls.listener = await loop.create_server(lambda: Platform(state), "127.0.0.1", cls.port, backlog=1024)
        held, state.held = state.held, []
        for connection, path, body in held:
            connection.requested(path, body)


async def serve() -> None:
    state = State()
    loop = asyncio.get_running_loop()
    Controls.listener = await loop.create_server(lambda: Platform(state), "127.0.0.1", 0, backlog=1024)
    Controls.port = Controls.listener.sockets[0].getsockname()[1]
    control = await loop.create_server(lambda: Controls(state), "127.0.0.1", 0)
    print(json.dumps([Controls.port, control.sockets[0].getsockname()[1]]), flush=True)
    # The one who started us holds our standard input: its end is ours.
    await loop.run_in_executor(None, sys.stdin.read)


# --- those who use it


class Control:
    """Tells the sink's process what to do, and asks it what arrived."""

    def __init__(self, port: int) -> None:
        self.port = port

    def _ask(self, path: str, given: dict[str, Any], timeout: float = 30) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, json.dumps(given))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer

    def mode(self, **mode: Any) -> None:
        """Replace the mode; without arguments everything succeeds at once."""
        self._ask("/mode", mode)

    def forget(self) -> None:
        self._ask("/forget", {})

    def report(self) -> dict[str, Any]:
        return self._ask("/report", {})

    def wait(self, count: int, timeout: float, lane: str = "") -> dict[str, Any]:
        """Come back when so many different ids have arrived, on this lane or on all together, or at the timeout."""
        return self._ask("/wait", {"lane": lane, "count": count, "timeout": timeout}, timeout + 30)

    def missing(self, ids: list[str]) -> list[str]:
        """Which of these never arrived."""
        found: list[str] = self._ask("/missing", {"ids": ids})["missing"]
        return found


class Sink:
    """A running sink: `url` for the clients, `control` for us, `process` is its id. A context manager."""

    def __enter__(self) -> Sink:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sink"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port, control = json.loads(self._process.stdout.readline())
        self.process = self._process.pid
        self.url = f"http://127.0.0.1:{self.port}"
        self.control = Control(control)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    asyncio.run(serve())

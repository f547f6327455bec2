"""The sandbox's HTTP server: routes requests to the platforms, lets faults befall them, and tells what arrived."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from . import ga4, meta, reddit, schema, tiktok
from .page import page
from .store import Credentials, Fault, Store
from .wire import Answer, Platform, Request, load_json

PLATFORMS: dict[str, Platform] = {module.PLATFORM.name: module.PLATFORM for module in (meta, ga4, tiktok, reddit)}
# Far above what any of the platforms takes in one request.
MAX_BODY = 32 * 1024 * 1024


class Sandbox:
    """A strict local stand-in for the platforms' APIs. Works as a context manager, or with `start` and `stop`.

    Args:
        port: 0 for any free one; see `url`.
        accounts: Tokens that are known from the start, as {"meta": {"123": "abc"}}. Other accounts trust the first
            token they see.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, accounts: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        unknown = set(accounts or {}) - set(PLATFORMS)
        if unknown:
            raise ValueError(f"accounts: unknown {', '.join(sorted(unknown))}; known are {', '.join(PLATFORMS)}")
        self._address = (host, port)
        self._store = Store()
        self._credentials = Credentials(accounts)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Sandbox:
        """Binds the port and serves in a daemon thread.

        Raises:
            ImportError: The extra `sandbox` is not installed.
            OSError: The port is taken.
        """
        if self._server is None:
            schema.fastjsonschema()
            self._server = _Server(self._address, self._store, self._credentials)
            # The interval is what `stop` waits at most; the default of half a second adds up over a test suite.
            self._thread = threading.Thread(
                target=self._server.serve_forever, args=(0.02,), name="eventflows-sandbox", daemon=True
            )
            self._thread.start()
        return self

    def stop(self) -> None:
        """Closes the port and every open connection. What arrived stays readable."""
        server, thread, self._server, self._thread = self._server, self._thread, None, None
        if server is not None and thread is not None:
            server.close()
            thread.join()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self) -> None:
        """Blocks until the sandbox is stopped."""
        thread = self._thread
        while thread is not None and thread.is_alive():
            thread.join(1)  # in steps, so that Ctrl-C gets through on every system

    @property
    def url(self) -> str:
        """Where it listens, such as "http://127.0.0.1:8787"."""
        if self._server is None:
            raise RuntimeError("the sandbox is not running")
        host, port = self._server.server_address[:2]
        name = host.decode() if isinstance(host, (bytes, bytearray)) else str(host)
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def events(self, provider: str | None = None) -> list[dict[str, Any]]:
        """The accepted events in order of arrival, as {"provider", "account", "received_at", "event"}."""
        return self._store.accepted(provider)

    def refused(self, provider: str | None = None) -> list[dict[str, Any]]:
        """The refused events; the same keys and "reason". The event is None where the request held no readable one."""
        return self._store.refused(provider)

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The last 10 000 requests to platforms: "provider", "method", "path", "query", "headers", "status", ..."""
        return self._store.requests()

    def fault(
        self,
        provider: str,
        status: int | None = None,
        delay: float = 0,
        retry_after: float | None = None,
        body: Any = None,
        times: int = 1,
    ) -> None:
        """Lets the next requests to a provider fail or wait; see `store.Fault`."""
        fault = Fault(provider, status, delay, retry_after, body, times)
        fault.check(PLATFORMS)
        self._store.add_fault(fault)

    def reset(self) -> None:
        """Forgets everything that arrived, the faults to come and the learned tokens."""
        self._store.clear()
        self._credentials.forget()


def serve(
    host: str = "127.0.0.1",
    port: int = 8787,
    accounts: Mapping[str, Mapping[str, str]] | None = None,
    *,
    as_json: bool = False,
) -> None:
    """Runs a sandbox until Ctrl-C, for the command line.

    Args:
        as_json: Say where it listens as one line of JSON.
    """
    try:
        with Sandbox(host, port, accounts) as sandbox:
            print(json.dumps({"url": sandbox.url}) if as_json else _start_message(sandbox.url), flush=True)  # noqa: T201
            sandbox.wait()
    except KeyboardInterrupt:
        if not as_json:
            print("Sandbox stopped.", flush=True)  # noqa: T201


def _start_message(url: str) -> str:
    lines = [f"EventFlows sandbox on {url} (Ctrl-C stops it). Nothing leaves this machine.", ""]
    for platform in PLATFORMS.values():
        lines += [f"  {platform.title:<28} {url}/{platform.name}{path}" for path in platform.paths]
    lines += ["", f"  {'What arrived':<28} {url}/"]
    lines += [f"  {'The same as JSON':<28} {url}/_sandbox/events"]
    lines += [f"  {'Let requests fail (POST)':<28} {url}/_sandbox/faults"]
    lines += [f"  {'Forget everything (POST)':<28} {url}/_sandbox/reset"]
    return "\n".join(lines)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], store: Store, credentials: Credentials) -> None:
        self.store = store
        self.credentials = credentials
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up the host's full name, which takes seconds on a machine with a broken resolver.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close(self) -> None:
        """Stops listening, and ends kept-alive connections too: their threads would go on answering otherwise."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._open_lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):  # closed by the other side in the meantime
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients hang up (timeouts are what faults are for); that is nothing to print a traceback for.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "eventflows-sandbox"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: what arrived is told at /_sandbox/events."""

    def _serve(self) -> None:
        body = self._read_body()
        if body is None:
            return
        target = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(target.query, keep_blank_values=True).items()}
        _, _, rest = target.path.partition("/")
        name, slash, path = rest.partition("/")
        platform = PLATFORMS.get(name)
        if platform is not None:
            headers = {key.lower(): value for key, value in self.headers.items()}
            request = Request(self.command, unquote(slash + path), query, headers, body)
            self._platform(platform, request, target.path)
        elif name == "_sandbox":
            self._reply(*self._control(path, body))
        elif rest == "":
            self._reply(200, self._page(), {"Content-Type": "text/html; charset=utf-8"})
        else:
            self._reply(404, {"error": f"The sandbox has nothing at {target.path}; it has {', '.join(PLATFORMS)}"})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve  # noqa: N815

    def _read_body(self) -> bytes | None:
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            self.close_connection = True
            self._reply(411, {"error": "Send a Content-Length"})
            return None
        length = self.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            self._reply(413, {"error": f"Content-Length must be a number up to {MAX_BODY}"})
            return None
        return self.rfile.read(int(length))

    def _platform(self, platform: Platform, request: Request, full_path: str) -> None:
        store, now = self.server.store, time.time()
        fault = store.take_fault(platform.name)
        if fault is not None and fault.delay:
            self.server.stopping.wait(fault.delay)
        headers: dict[str, str] = {}
        if fault is not None and fault.status is not None:
            answer = Answer(fault.status, fault.body)
            if fault.retry_after is not None:
                headers["Retry-After"] = f"{fault.retry_after:g}"
        else:
            answer = platform.answer(request, self.server.credentials, now)
        note = {
            "provider": platform.name,
            "account": answer.account,
            "method": request.method,
            "path": full_path,
            "query": dict(request.query),
            "headers": dict(request.headers),
            "status": answer.status,
            "received_at": now,
            "envelope": dict(answer.envelope),
        }
        # Before the reply, so that whoever has the answer also finds the events.
        store.record(note, answer.account, answer.accepted, answer.refused)
        self._reply(answer.status, answer.body, headers)

    def _control(self, path: str, body: bytes) -> tuple[int, Any]:
        if (self.command, path) == ("GET", "events"):
            return 200, self.server.store.both()
        if (self.command, path) == ("POST", "reset"):
            self.server.store.clear()
            self.server.credentials.forget()
            return 200, {"reset": True}
        if (self.command, path) == ("POST", "faults"):
            try:
                fault = Fault(**load_json(body))
                fault.check(PLATFORMS)
            except (TypeError, ValueError) as error:
                return 400, {"error": f"Not a fault: {error}"}
            self.server.store.add_fault(fault)
            return 200, {"faults": fault.times}
        return 404, {"error": f"The sandbox has nothing at {self.command} /_sandbox/{path}"}

    def _page(self) -> str:
        both = self.server.store.both()
        return page(PLATFORMS.values(), both["events"], both["refused"])

    def _reply(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        if body is None:
            payload = b""
        elif isinstance(body, str):
            payload = body.encode()
        else:
            payload = json.dumps(body).encode()
        if payload and status not in (204, 304):
            kind = "text/plain" if isinstance(body, str) else "application/json"
            headers = {"Content-Type": kind, **(headers or {})}
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if status not in (204, 304) and self.command != "HEAD":
            self.wfile.write(payload)

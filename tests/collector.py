"""A real OpenTelemetry collector (`rotel`) on loopback, and everything that it passes on."""

from __future__ import annotations

import gzip
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(holds: Callable[[], Any], seconds: float, what: Callable[[], Any] = lambda: "") -> None:
    """Wait until it holds; fails after so many seconds and says what is there instead."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        time.sleep(0.02)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def end(process: subprocess.Popen[Any]) -> None:
    """Ask the process to end, and make it."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Collector:
    """The collector's process, which hands on all that it receives to a server of ours; a context manager.

    Attributes:
        url: For `OTEL_EXPORTER_OTLP_ENDPOINT`, with the protocol `http/protobuf`.
    """

    def __init__(self, program: Path, log: Path) -> None:
        self._program = program
        self._log = log
        self._received: list[tuple[str, bytes]] = []
        self.url = ""

    def __enter__(self) -> Collector:
        received = self._received

        class Backend(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                packed = self.headers.get("Content-Encoding") == "gzip"
                received.append((self.path, gzip.decompress(body) if packed else body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        threading.Thread(target=self._backend.serve_forever, args=(0.02,), daemon=True).start()
        http, grpc = free_ports(2)
        self.url = f"http://127.0.0.1:{http}"
        command = [str(self._program), "start", "--otlp-http-endpoint", f"127.0.0.1:{http}",
                   "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--batch-timeout", "50ms",
                   "--exporter", "otlp", "--otlp-exporter-protocol", "http",
                   "--otlp-exporter-endpoint", f"http://127.0.0.1:{self._backend.server_port}"]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            until(lambda: listens(http) or self._process.poll() is not None, 10)
            assert self._process.poll() is None, self._log.read_text()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        end(self._process)
        self._backend.shutdown()
        self._backend.server_close()

    @property
    def everything(self) -> bytes:
        """All that arrived, unpacked and in lower case, to be searched. OTLP holds texts as they are."""
        return b"\n".join(body for _, body in list(self._received)).lower()

    def logs(self, event_name: str) -> list[dict[str, Any]]:
        """The log records of this event name, as {"attributes", "trace_id", "span_id", "scope"}."""
        return [
            {
                "attributes": _attributes(record.attributes),
                "trace_id": record.trace_id.hex(),
                "span_id": record.span_id.hex(),
                "scope": scope.scope.name,
            }
            for path, body in list(self._received)
            if path.endswith("/logs")
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
            if record.event_name == event_name
        ]

    def spans(self) -> list[dict[str, Any]]:
        """The spans, as {"name", "kind", "trace_id", "span_id", "attributes", "events": [(name, attributes)]}."""
        return [
            {
                "name": span.name,
                "kind": span.kind,
                "trace_id": span.trace_id.hex(),
                "span_id": span.span_id.hex(),
                "attributes": _attributes(span.attributes),
                "events": [(event.name, _attributes(event.attributes)) for event in span.events],
            }
            for path, body in list(self._received)
            if path.endswith("/traces")
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind) if kind else None

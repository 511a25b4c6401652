"""A small OTLP/HTTP receiver that keeps what arrives, or refuses it the way a test asks for."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span


class Receiver:
    """``answer(path)`` gives the HTTP status of a request, or None to accept it and never answer."""

    def __init__(self, answer: Callable[[str], int | None] = lambda path: 200, *, port: int = 0) -> None:
        self.answer = answer
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.logs: list[ExportLogsServiceRequest] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def resource_spans(self) -> list[ResourceSpans]:
        return [group for request in self.traces for group in request.resource_spans]

    def spans(self) -> list[Span]:
        return [span for group in self.resource_spans() for scope in group.scope_spans for span in scope.spans]

    def wait_for_spans(self, count: int, seconds: float = 10.0) -> list[Span]:
        deadline = time.monotonic() + seconds
        while len(self.spans()) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.spans()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.paths.append(self.path)
                receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                status = receiver.answer(self.path)
                if status is None:
                    receiver._stopping.wait(30)
                    self.close_connection = True
                    return
                if status == 200:
                    receiver._keep(self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                if 300 <= status < 400:
                    self.send_header("Location", "https://elsewhere/")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Stay silent."""

        return Handler

    def _keep(self, path: str, body: bytes) -> None:
        kinds = {"/v1/traces": self.traces, "/v1/metrics": self.metrics, "/v1/logs": self.logs}
        requests = {
            "/v1/traces": ExportTraceServiceRequest,
            "/v1/metrics": ExportMetricsServiceRequest,
            "/v1/logs": ExportLogsServiceRequest,
        }
        kinds[path].append(requests[path].FromString(body))

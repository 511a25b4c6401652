"""A real collector (rotel) between the code under test and a receiver that keeps what comes out of it.

A test elsewhere takes the fixture by importing it: ``from tests.export.collector import collector``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from tests.export.receiver import Receiver


class Collector:
    """A running rotel: OTLP over HTTP and gRPC in, OTLP out to ``receiver``."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        self._receiver = receiver
        grpc, http = _free_ports(2)
        self.grpc_endpoint = f"http://127.0.0.1:{grpc}"
        self.http_endpoint = f"http://127.0.0.1:{http}"
        self._log = folder / "rotel.log"
        import rotel

        command = [
            str(Path(rotel.__file__).with_name("rotel-agent")),
            "start",
            *("--otlp-grpc-endpoint", f"127.0.0.1:{grpc}"),
            *("--otlp-http-endpoint", f"127.0.0.1:{http}"),
            *("--exporter", "otlp"),
            *("--otlp-exporter-endpoint", receiver.url),
            *("--otlp-exporter-protocol", "http"),
            *("--batch-timeout", "50ms"),
            *("--pid-file", str(folder / "rotel.pid")),
            *("--log-file", str(self._log)),
        ]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("ROTEL_", "OTEL_"))}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environ)
        for port in (grpc, http):
            self._wait_for(port)

    def spans(self, count: int = 0) -> list[Span]:
        """Every span that came out so far, as protobuf; waits up to ten seconds until there are ``count``."""
        return self._receiver.wait_for_spans(count)

    def resource_spans(self) -> list[ResourceSpans]:
        """The same with their resources and scopes."""
        return self._receiver.resource_spans()

    def close(self) -> None:
        """Stop the collector."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self.close()
        raise RuntimeError(f"rotel did not start: {self._log.read_text()[-2000:]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A real collector with an empty memory; ``.http_endpoint``, ``.grpc_endpoint``, ``.spans(count)``."""
    with Receiver() as receiver:
        running = Collector(tmp_path_factory.mktemp("rotel"), receiver)
        yield running
        running.close()

"""A real backend on 127.0.0.1, on a free port, for as long as a test needs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import lstm_trace
from lstm_trace.evaluate.sinks.base import Sink
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(command: Sequence[str], url: str, folder: Path, **environ: str) -> Iterator[str]:
    """Run a server until the block ends; its output goes to a file that a failure shows."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *command], stdout=output, stderr=output, env={**os.environ, **environ}, cwd=folder)
        try:
            deadline = time.monotonic() + 400
            while not _answers(url):
                assert process.poll() is None, log.read_text(errors="replace")[-3000:]
                assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
                time.sleep(0.5)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@contextmanager
def judged_answer(otlp: str, sink: Sink, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Send one answer over OTLP, then let everything that is recorded about it go to the sink alone; yields its reference."""
    answers = TracerProvider(shutdown_on_exit=False)
    answers.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(otlp, headers=headers)))
    with answers.get_tracer("app").start_as_current_span("chain claims") as span:
        ref = lstm_trace.trace_ref(span)
    answers.shutdown()
    scores = TracerProvider(shutdown_on_exit=False)
    scores.add_span_processor(SimpleSpanProcessor(sink))
    set_default_recorder(Recorder(Settings(), tracer_provider=scores))
    yield ref
    scores.shutdown()

"""`configure(durable=True)`: what a killed process wrote is delivered by the next one, and nothing is delivered by two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan

from lstm_trace.export.durable import DurableExporter, durable_store
from lstm_trace.export.endpoint import resolve
from lstm_trace.export.forward import forward
from lstm_trace.export.outage import Outages
from tests.export.collector import Collector
from tests.export.receiver import Receiver

_ROOT = Path(__file__).parents[2]
_PROGRAM = """
import json, os, signal, sys, time, lstm_trace
from opentelemetry import trace
providers = lstm_trace.configure(endpoint={url!r}, durable=True)
def work(name, count):
    for _ in range(count):
        with trace.get_tracer("app").start_as_current_span(name): pass
"""


class Program:
    """A program with a durable store in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, url: str, code: str) -> subprocess.Popen[str]:
        base = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LSTM_TRACE_"))}
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(url=url) + code],
            cwd=self.folder,
            env={**base, "PYTHONPATH": str(_ROOT), "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, url: str, code: str) -> str:
        """Run to the end and return what was logged."""
        running = self.start(url, code)
        _, errors = running.communicate(timeout=60)
        return errors

    def left(self) -> list[str]:
        return sorted(path.suffix for path in (self.folder / "lstm-traces").glob("*"))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def _names(receiver: Receiver) -> Counter[str]:
    return Counter(span.name for span in receiver.spans())


def test_a_normal_run_delivers_everything_and_leaves_nothing(program: Program, receiver: Receiver) -> None:
    assert program.run(receiver.url, "work('a', 700); print(providers.force_flush()); work('b', 5)") == ""
    assert _names(receiver) == {"a": 700, "b": 5}
    assert program.left() == []


def test_what_a_killed_process_wrote_is_delivered_once_by_the_next(program: Program, receiver: Receiver) -> None:
    receiver.answer = lambda path: 503
    program.run(receiver.url, "work('killed', 30); time.sleep(1); work('lost', 1); os.kill(os.getpid(), signal.SIGKILL)")
    assert program.left() == [".jsonl"]
    receiver.answer = lambda path: 200
    program.run(receiver.url, "work('next', 2)")
    assert _names(receiver) == {"killed": 30, "next": 2}
    assert program.left() == []
    program.run(receiver.url, "work('third', 1)")
    assert _names(receiver) == {"killed": 30, "next": 2, "third": 1}


def test_an_outage_costs_one_line_and_the_next_process_delivers(program: Program, receiver: Receiver) -> None:
    receiver.answer = lambda path: 503
    said = program.run(receiver.url, "work('a', 10); time.sleep(1); work('b', 10)")
    assert said.count("\n") == 1
    assert (
        f"{receiver.url}/v1/traces does not take spans (503 Service Unavailable): they are waiting in {program.folder / 'lstm-traces'}"
        in said
    )
    receiver.answer = lambda path: 200
    assert program.run(receiver.url, "pass") == ""
    assert _names(receiver) == {"a": 10, "b": 10}


def test_a_short_outage_is_waited_out_without_a_line(program: Program, receiver: Receiver) -> None:
    answers = iter([503, 503])
    receiver.answer = lambda path: next(answers, 200)
    assert program.run(receiver.url, "work('a', 10); time.sleep(4)") == ""
    assert _names(receiver) == {"a": 10}


def test_a_silent_receiver_does_not_hold_up_the_exit(program: Program) -> None:
    with Receiver(lambda path: None) as silent:
        began = time.monotonic()
        said = program.run(silent.url, "work('a', 10)")
        assert time.monotonic() - began < 20
    assert said.count("\n") == 1
    with Receiver() as receiver:
        program.run(receiver.url, "pass")
        assert _names(receiver) == {"a": 10}


def test_a_line_torn_by_a_kill_is_passed_over(program: Program, receiver: Receiver) -> None:
    receiver.answer = lambda path: 503
    program.run(receiver.url, "work('a', 10); time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)")
    (file,) = (program.folder / "lstm-traces").glob("*.jsonl")
    with file.open("ab") as opened:
        opened.write(b'{"resourceSpans":[{"resou')
    receiver.answer = lambda path: 200
    assert program.run(receiver.url, "pass") == ""
    assert _names(receiver) == {"a": 10}
    assert program.left() == []


def test_what_the_receiver_finds_fault_with_is_set_aside_and_named(program: Program, receiver: Receiver) -> None:
    answers = iter([400])
    receiver.answer = lambda path: next(answers, 200)
    said = program.run(receiver.url, "work('bad', 3); providers.force_flush(); work('good', 2)")
    assert said.count("\n") == 1
    assert "finds fault with (400 Bad Request) are kept in" in said
    assert _names(receiver) == {"good": 2}
    (file,) = (program.folder / "lstm-traces").glob("*")
    assert file.name.startswith("refused-")
    assert b'"bad"' in file.read_bytes()


def test_forward_delivers_what_no_living_process_has_in_hand(program: Program, receiver: Receiver) -> None:
    receiver.answer = lambda path: 503
    program.run(receiver.url, "work('killed', 10); time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)")
    living = program.start(receiver.url, "work('living', 10); providers.force_flush(); print('ready', flush=True); input()")
    assert living.stdout is not None
    living.stdout.readline()
    with Receiver() as other:
        assert forward(program.folder / "lstm-traces", other.url).spans == 10
        assert forward(program.folder / "lstm-traces", other.url).spans == 0
        assert _names(other) == {"killed": 10}
    receiver.answer = lambda path: 200
    living.communicate("\n", timeout=60)
    program.run(receiver.url, "pass")
    assert _names(receiver) == {"living": 10}
    assert program.left() == [".json"]  # what forward remembers


@pytest.mark.real
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_every_span_arrives_through_a_real_collector(
    collector: Collector, tmp_path: Path, spans: list[ReadableSpan], protocol: str
) -> None:
    endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
    target = resolve("traces", endpoint, {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    exporter = DurableExporter(target, durable_store(tmp_path, strict=True, delivered=True), keep=False, outages=Outages())
    exporter.export(spans)
    assert exporter.force_flush(10_000)
    exporter.shutdown()
    sent = {span.span_id: str(span) for group in encode_spans(spans).resource_spans for scope in group.scope_spans for span in scope.spans}
    assert {span.span_id: str(span) for span in collector.spans(len(spans))} == sent
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs file locks and fork")
def test_processes_that_run_side_by_side_deliver_their_own(program: Program, receiver: Receiver) -> None:
    forks = "[os.fork() for _ in range(2)]\nfor n in range(5): work(str(os.getpid()), 20); time.sleep(0.1)\nif 0 in forks: sys.exit(0)\n"
    # Python 3.12 and later warn of every fork beside threads, which are what is tried here.
    quiet = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
    code = f"{quiet}work('before', 3); providers.force_flush(); forks = {forks}for _ in range(2): os.wait()\n"
    running = [program.start(receiver.url, code) for _ in range(2)]
    assert [each.communicate(timeout=60)[1] for each in running] == ["", ""]
    names = _names(receiver)
    assert names.pop("before") == 6
    assert set(names.values()) == {100}
    assert len(names) == 8  # two programs, each four processes
    assert len({span.span_id for span in receiver.spans()}) == len(receiver.spans())
    assert program.left() == []


def test_without_an_endpoint_the_store_is_on_the_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, time, lstm_trace\nfrom opentelemetry import trace\nlstm_trace.configure(store='kept', durable=True)\n"
            "trace.get_tracer('a').start_span('work').end(); time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    (file,) = (tmp_path / "kept").glob("spans-*.jsonl")
    assert file.read_bytes().count(b'"name":"work"') == 1

"""The accelerator's path, run on the CPU through the same code: nothing is read on the caller's thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lstm_trace import LSTMInstrumentor, trace_lstm
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import copies, device
from tests.lstm.models import Intent, Masked, Padded
from tests.tracing import Traced

IDS = torch.tensor([[3, 4, 5, 6, 0], [7, 8, 0, 0, 0], [1, 2, 3, 4, 5]])


@pytest.fixture(autouse=True)
def _as_if_on_a_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(device, "on_cpu_too", True)
    yield
    assert device.flush(10)


def facts_of(seen: Traced) -> list[Any]:
    return [(dict(span.attributes), [dict(event.attributes) for event in span.events]) for span in seen.spans]


@pytest.mark.parametrize(
    ("model", "args"),
    [
        (Padded(), (IDS,)),
        (Padded(), (IDS[:1],)),
        (Intent(), (IDS, torch.tensor([4, 2, 5]))),
        (Masked(), (torch.randn(2, 4, 4), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]))),
        (Intent(classes=3000), (IDS,)),
    ],
)
def test_the_span_is_the_same_as_without(seen: Traced, model: Any, args: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trace_lstm(model, name="it")
    model(*args)
    assert device.flush(10)
    monkeypatch.setattr(device, "on_cpu_too", False)
    model(*args)
    deferred, direct = facts_of(seen)
    assert (
        deferred[0].keys() == {*direct[0], *(name for name in deferred[0] if name.startswith("lstm.upstream"))}
        or deferred[0].keys() <= direct[0].keys()
    )
    for name, value in direct[0].items():
        if not name.startswith("lstm.upstream"):
            assert deferred[0][name] == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value)
    assert len(deferred[1]) == len(direct[1])


def test_the_caller_reads_nothing(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trace_lstm(Padded(), name="it")
    model(IDS)
    device.flush(10)
    readers: set[str] = set()

    def noted(kind: str) -> Any:
        own = getattr(torch.Tensor, kind)

        def read(self: torch.Tensor, *args: Any) -> Any:
            readers.add(threading.current_thread().name)
            return own(self, *args)

        return read

    for kind in ("tolist", "item", "cpu", "numpy", "__bool__"):
        monkeypatch.setattr(torch.Tensor, kind, noted(kind))
    model(IDS)
    assert device.flush(10)
    assert readers == {"lstm-trace finisher"}
    assert len(seen.spans) == 2


def test_the_span_ends_when_the_device_is_done(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies._PlainCopies, "wait", lambda self, clock: (time.sleep(0.2), clock())[1])
    model = trace_lstm(Padded(), name="it")
    began = time.perf_counter()
    model(IDS)
    assert time.perf_counter() - began < 0.15
    assert not seen.spans
    assert device.pending() == 1
    assert device.flush(10)
    (span,) = seen.spans
    assert span.end_time - span.start_time >= 0.2e9


def test_what_is_open_is_bounded(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(copies._PlainCopies, "wait", lambda self, clock: (gate.wait(20), clock())[1])
    monkeypatch.setattr(device, "OPEN_LIMIT", 4)
    before = device.dropped()
    model = trace_lstm(Padded(), name="it")
    for _ in range(10):
        model(IDS[:1])
    assert device.pending() <= 5
    gate.set()
    assert device.flush(20)
    assert len(seen.spans) == 10, "no span is lost"
    without = [span for span in seen.spans if "lstm.prediction.confidence" not in span.attributes]
    assert len(without) == device.dropped() - before > 0


@pytest.mark.parametrize("what", ["wait", "copy"])
def test_a_device_that_fails_costs_the_prediction_and_not_the_span(seen: Traced, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def fails(*given: Any) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(shield, "strict", False)
    if what == "wait":
        monkeypatch.setattr(copies._PlainCopies, "wait", fails)
    else:
        monkeypatch.setattr(device, "make_copies", fails)
    before = shield.mistakes
    trace_lstm(Padded(), name="it")(IDS)
    assert device.flush(10)
    (span,) = seen.spans
    assert "lstm.prediction.confidence_min" not in span.attributes
    assert shield.mistakes == before + 1


def test_force_flush_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(memory, schedule_delay_millis=60_000))
    instrumentor = LSTMInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    own = copies._PlainCopies.wait

    def slow(self: Any, clock: Any) -> int:
        time.sleep(0.1)
        return own(self, clock)

    monkeypatch.setattr(copies._PlainCopies, "wait", slow)
    model = trace_lstm(Padded(), name="it")
    for _ in range(3):
        model(IDS)
    provider.force_flush()
    assert len(memory.get_finished_spans()) == 3
    instrumentor.uninstrument()
    provider.shutdown()


def test_nothing_is_written_while_a_graph_is_captured(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "is_capturing", lambda: True)
    model = trace_lstm(Padded(), name="it")
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    model(IDS)
    assert device.pending() == 0
    assert not seen.spans


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "on_cpu_too", False)
    model = trace_lstm(Padded().cuda(), name="it")
    for _ in range(20):
        model(IDS.cuda())
    assert device.flush(30)
    assert len(seen.spans) == 20
    assert seen.spans[0].attributes["lstm.sequence.length_source"] == "padding"

"""The accelerator's path, run on the CPU through the same code: nothing is read on the caller's thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any
from weakref import ref

import pytest
import torch
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from lstm_trace import LSTMInstrumentor, Prediction, batch_scope, trace_lstm, trace_ref, traced_session
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import copies, device, handing, outputs
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


class _Feeds(nn.Module):
    """Is given features and, beside them, what says how long they are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Any, lengths: Any = None, mask: Any = None, gaps: Any = None) -> Any:
        return self.head(self.layer(x)[1][0][-1])


X = torch.randn(3, 5, 4)


@pytest.mark.parametrize(
    ("options", "args"),
    [
        ({}, (X, torch.tensor([5.0, 2.0, 3.0]))),
        ({}, (X, [5, 2, 3])),
        ({}, (X, None, torch.tensor([[1.0] * 5, [1.0, 1.0, 0, 0, 0], [1.0, 1.0, 1.0, 0, 0]]))),
        ({"time_gap": "gaps"}, (X, None, None, torch.tensor([[1.0, 9.5], [2.0, 3.0], [0.0, 1.0]]))),
        ({"lengths": lambda args, kwargs: (args[0][..., 0] < 9).sum(1)}, (X,)),
        ({}, (pack_padded_sequence(X, torch.tensor([2, 5, 3]), batch_first=True, enforce_sorted=False),)),
        ({"output": "none"}, (X, torch.tensor([5, 2, 3]))),
        ({"output": "regression"}, (X,)),
        ({"output": lambda out: out * 2.0}, (X,)),
        ({"output": "multilabel"}, (X,)),
        ({"labels": ["a", "b", "c"]}, (X[:1],)),
        ({"prediction": lambda out: [Prediction(index=int(each)) for each in out.argmax(1)]}, (X,)),
    ],
)
def test_whatever_says_lengths_and_predictions_is_read(seen: Traced, options: Any, args: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trace_lstm(_Feeds(), name="it", **options)
    model(*args)
    assert device.flush(10)
    monkeypatch.setattr(device, "on_cpu_too", False)
    model(*args)
    deferred, direct = facts_of(seen)
    assert deferred[0] == pytest.approx(direct[0], abs=1e-9)
    assert len(deferred[1]) == len(direct[1])


@pytest.mark.parametrize(
    ("output", "shape"), [("tagging", (3, 5, 6)), ("tagging", (3, 5, 2000)), ("ctc", (5, 3, 6)), ("logits", (700, 90))]
)
def test_long_outputs_are_reduced_on_the_device(seen: Traced, output: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    copied: list[int] = []
    own = copies._PlainCopies.add

    def add(self: Any, tensor: torch.Tensor) -> int:
        copied.append(tensor.numel())
        return own(self, tensor)

    monkeypatch.setattr(copies._PlainCopies, "add", add)
    rows = 700 if output == "logits" else 3
    model = trace_lstm(lambda x, lengths: values, name="it", output=output)
    lengths = [5, 2, 3] * 300
    model(torch.zeros(rows, 5, 2), lengths[:rows])
    assert device.flush(10)
    assert max(copied) <= 5 * rows * 4
    monkeypatch.setattr(device, "on_cpu_too", False)
    model(torch.zeros(rows, 5, 2), lengths[:rows])
    deferred, direct = facts_of(seen)
    assert deferred[0] == pytest.approx(direct[0], abs=1e-6)
    assert [each["lstm.batch.index"] for each in deferred[1]] == [each["lstm.batch.index"] for each in direct[1]]
    for one, other in zip(deferred[1], direct[1], strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_hidden_states_that_nobody_reads_are_not_copied(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies._PlainCopies, "add", lambda self, tensor: pytest.fail("a copy"))
    instrumentor = LSTMInstrumentor(auto=True)
    instrumentor.instrument(tracer_provider=traced.provider)
    nn.LSTM(4, 8, batch_first=True)(X)
    assert device.flush(10)
    instrumentor.uninstrument()
    assert traced.spans[0].attributes["lstm.sequence.length"] == 5


def test_what_the_caller_does_next_comes_too_late(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    own = copies._PlainCopies.wait
    monkeypatch.setattr(copies._PlainCopies, "wait", lambda self, clock: (gate.wait(20), own(self, clock))[1])
    model = trace_lstm(lambda ids: ids[:, :3] * torch.tensor([0.0, 1.0, 0.0]), name="it", padding_idx=0)
    buffer = torch.tensor([[3, 9, 3, 0, 0], [3, 8, 3, 3, 0]])
    output = model(buffer)
    output.fill_(float("nan"))
    buffer.zero_()
    gate.set()
    assert device.flush(20)
    (span,) = seen.spans
    assert (span.attributes["lstm.sequence.length_min"], span.attributes["lstm.sequence.length_max"]) == (3, 4)
    assert [event.attributes["lstm.prediction.index"] for event in span.events] == [1, 1]


def test_a_batch_for_many_requests_reads_nothing_on_the_callers_thread(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    own = copies._PlainCopies.wait
    monkeypatch.setattr(copies._PlainCopies, "wait", lambda self, clock: (gate.wait(20), own(self, clock))[1])
    tracer = seen.provider.get_tracer("app")
    requests = [tracer.start_span(f"request {number}", context.Context()) for number in range(3)]
    model = trace_lstm(Padded(), name="it")
    with batch_scope([trace.set_span_in_context(each, context.Context()) for each in requests]):
        model(IDS)
    assert not seen.spans
    gate.set()
    assert device.flush(10)
    assert sorted(span.name for span in seen.spans) == ["lstm batch it", "lstm it", "lstm it", "lstm it"]
    assert [span.attributes["lstm.sequence.length"] for span in seen.spans if span.name == "lstm it"] == [4, 2, 5]
    for each in requests:
        each.end()


def test_a_session_reads_nothing_on_the_callers_thread(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    own = copies._PlainCopies.wait
    monkeypatch.setattr(copies._PlainCopies, "wait", lambda self, clock: (gate.wait(20), own(self, clock))[1])
    monkeypatch.setattr(outputs, "is_small", lambda output: False)
    scores = iter([[0.0, 1.0], [0.0, 2.0], [3.0, 0.0]])
    model = trace_lstm(lambda x: torch.tensor([next(scores)]), name="it")
    with traced_session(model, "s", step_duration=0.02) as session:
        for _ in range(3):
            model(torch.zeros(1, 5, 2))
    assert session.calls == 3
    assert not seen.spans
    gate.set()
    assert device.flush(10)
    (span,) = seen.spans
    assert span.attributes["lstm.stream.calls"] == 3
    (event,) = span.events
    assert (event.attributes["lstm.stream.calls"], event.attributes["lstm.prediction.index"]) == (3, 0)


def test_a_span_that_starts_once_the_device_is_done_sees_the_prediction(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    own = device._Handed.finish

    def slow(self: Any) -> None:
        time.sleep(0.01)  # the finisher has not come to it
        own(self)

    monkeypatch.setattr(device._Handed, "finish", slow)
    model = trace_lstm(Padded(), name="it")
    tracer = seen.provider.get_tracer("app")
    with tracer.start_as_current_span("request"):
        model(IDS[:1])
        with tracer.start_as_current_span("answer"):
            pass
    assert seen.named("answer").attributes["lstm.upstream.component"] == "it"


def test_nothing_of_a_call_is_held_when_it_is_said_to_be_done(seen: Traced) -> None:
    model = trace_lstm(Padded(), name="it", prediction=lambda out: Prediction(index=0))
    for _ in range(50):
        output = model(IDS)
        gone = ref(output)
        del output
        assert device.flush(10)
        assert gone() is None, "a thread that lets go of it while the process ends would abort it"


def test_the_trace_can_be_asked_for_at_once(seen: Traced) -> None:
    trace_lstm(Padded(), name="it")(IDS)
    ref = trace_ref()
    assert device.flush(10)
    assert ref.split("-")[2] == f"{seen.spans[0].context.span_id:016x}"


def test_an_exception_has_the_length_that_needs_no_waiting(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(4, 8, batch_first=True)

        def forward(self, x: Any, lengths: Any) -> Any:
            self.layer(x)
            raise ValueError("no")

    lengths = torch.tensor([5, 2, 3])
    monkeypatch.setattr(handing.outputs, "is_tensor", lambda value: isinstance(value, torch.Tensor))
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda self: self is not lengths))
    with pytest.raises(ValueError, match="no"):
        trace_lstm(Fails(), name="it")(X, lengths)
    assert seen.spans[0].attributes["lstm.sequence.length_source"] == "shape"


def test_a_span_that_was_asked_for_during_a_capture_is_ended(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "is_capturing", lambda: True)

    class Asks(Padded):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            trace.get_current_span().set_attribute("user", 1)
            return super().forward(ids)

    trace_lstm(Asks(), name="it")(IDS)
    assert [span.name for span in seen.spans] == ["lstm it"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "on_cpu_too", False)
    model = trace_lstm(Padded().cuda(), name="it")
    for _ in range(20):
        model(IDS.cuda())
    assert device.flush(30)
    assert len(seen.spans) == 20
    assert seen.spans[0].attributes["lstm.sequence.length_source"] == "padding"

"""One forward for many requests, many calls for one session, and layers that nobody named."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import numpy as np
import pytest
import torch
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from torch import nn

from lstm_trace import LSTMInstrumentor, Prediction, batch_scope, trace_lstm, traced_session, upstream_prediction
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings
from tests.lstm.models import Keeps, Padded
from tests.tracing import Traced

IDS = torch.tensor([[1, 2, 3, 0], [1, 2, 0, 0], [1, 0, 0, 0]])


def unsampled(number: int) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(SpanContext(1000 + number, 1 + number, True, TraceFlags(0))), Context())


# --- batch_scope ----------------------------------------------------------------------------------------------------------


def test_each_sampled_request_gets_a_span_in_its_own_trace(seen: Traced) -> None:
    model = trace_lstm(Padded(), name="intent", labels=["a", "b", "c"])
    tracer = seen.provider.get_tracer("app")
    first, last = tracer.start_span("request 0"), tracer.start_span("request 2")
    contexts = [trace.set_span_in_context(first, Context()), unsampled(1), trace.set_span_in_context(last, Context())]
    with batch_scope(contexts, enqueued_at=[time.time_ns() - 250_000_000] * 3):
        output = model(IDS)
    upstream = upstream_prediction()
    first.end()
    last.end()
    assert output.shape == (3, 3)
    assert upstream is None, "the batch says nothing to whoever made it"
    batch = seen.named("lstm batch intent")
    assert batch.parent is None
    assert [(link.context.span_id, link.attributes["lstm.link.kind"], link.attributes["lstm.batch.index"]) for link in batch.links] == [
        (first.get_span_context().span_id, "batch", 0),
        (last.get_span_context().span_id, "batch", 2),
    ]
    requests = [span for span in seen.spans if span.name == "lstm intent"]
    expected = output.double().softmax(1).max(1).values
    for span, request, row, length in zip(requests, (first, last), (0, 2), (3, 1), strict=True):
        facts = span.attributes
        assert span.parent.span_id == request.get_span_context().span_id
        assert (facts["lstm.batch.index"], facts["lstm.batch.size"]) == (row, 3)
        assert (facts["lstm.sequence.length"], facts["lstm.sequence.padding_ratio"]) == (length, 1 - length / 4)
        assert facts["lstm.prediction.confidence"] == pytest.approx(expected[row].item(), abs=1e-6)
        assert 0.25 <= facts["lstm.batch.queue_wait"] < 5
        assert facts["lstm.batch.compute"] == pytest.approx((batch.end_time - batch.start_time) / 1e9)
        assert [link.context.span_id for link in span.links] == [batch.context.span_id]
    assert len(seen.spans) == 5


def test_numbers_of_a_readers_own_library_are_plain_on_a_requests_span(seen: Traced) -> None:
    classified: Any = Prediction("a", np.int64(1), np.float32(0.5), np.float32(math.nan))
    model = trace_lstm(Padded(), name="intent", prediction=lambda output: [classified, Prediction(value=np.float32(2.5))])
    request = seen.provider.get_tracer("app").start_span("request")
    with batch_scope([trace.set_span_in_context(request, Context())] * 2):
        model(IDS[:2])
    request.end()
    first, second = (span.attributes for span in seen.spans if span.name == "lstm intent")
    assert (type(first["lstm.prediction.index"]), type(first["lstm.prediction.confidence"])) == (int, float)
    assert "lstm.prediction.margin" not in first
    assert (second["lstm.prediction.value"], type(second["lstm.prediction.value"])) == (2.5, float)


@pytest.mark.parametrize("first", ["still open", "ended"])
def test_a_batcher_that_was_started_inside_a_request_is_not_below_it(seen: Traced, first: str) -> None:
    model = trace_lstm(Padded(), name="intent")
    tracer = seen.provider.get_tracer("app")
    requests = [tracer.start_span(f"request {number}", Context()) for number in range(3)]
    contexts = [trace.set_span_in_context(request, Context()) for request in requests]
    token = context.attach(contexts[0])  # what the batcher's task inherited, for good
    with batch_scope(contexts[:2]):
        model(IDS[:2])
    if first == "ended":
        requests[0].end()
    with batch_scope(contexts[2:]):
        model(IDS[2:])
    context.detach(token)
    for request in requests[1 if first == "ended" else 0 :]:
        request.end()
    assert [span.parent for span in seen.spans if span.name == "lstm batch intent"] == [None, None]


def test_a_batch_stands_below_the_batchers_own_span(seen: Traced) -> None:
    tracer = seen.provider.get_tracer("app")
    request = tracer.start_span("request", Context())
    with tracer.start_as_current_span("round"), batch_scope([trace.set_span_in_context(request, Context())]):
        trace_lstm(Padded(), name="intent")(IDS[:1])
    request.end()
    assert seen.named("lstm batch intent").parent.span_id == seen.named("round").context.span_id


def test_the_prediction_stands_upstream_in_each_request(seen: Traced) -> None:
    model = trace_lstm(Padded(), name="intent")
    tracer = seen.provider.get_tracer("app")
    requests = [tracer.start_span(f"request {row}") for row in range(3)]
    contexts = [trace.set_span_in_context(request, Context()) for request in requests]
    with batch_scope(contexts):
        model(IDS)
    for row, here in enumerate(contexts):
        token = context.attach(here)
        found = upstream_prediction()
        context.detach(token)
        assert found is not None
        assert found.length == [3, 2, 1][row]
    for request in requests:
        request.end()


def test_a_regressions_number_reaches_its_request(seen: Traced) -> None:
    model = trace_lstm(lambda ids: torch.tensor([[0.5], [1.5]]), name="risk", output="regression")
    requests = [seen.provider.get_tracer("app").start_span("request", Context()) for _ in range(2)]
    with batch_scope([trace.set_span_in_context(request, Context()) for request in requests]):
        model(IDS[:2])
    for request in requests:
        request.end()
    assert [span.attributes["lstm.prediction.value"] for span in seen.spans if span.name == "lstm risk"] == [0.5, 1.5]


@pytest.fixture
def metered(traced: Traced) -> Iterator[tuple[Traced, InMemoryMetricReader]]:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    set_default_recorder(Recorder(Settings(strict=True), tracer_provider=traced.provider, meter_provider=meters))
    yield traced, reader
    meters.shutdown()


def test_requests_that_are_not_sampled_are_only_counted(metered: tuple[Traced, InMemoryMetricReader]) -> None:
    seen, reader = metered
    with batch_scope([unsampled(row) for row in range(3)]):
        trace_lstm(Padded(), name="intent")(IDS)
    assert not seen.spans
    (points,) = (
        metric.data.data_points
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "lstm.inference.duration"
    )
    assert sum(point.count for point in points) == 3


def test_more_links_than_a_span_holds(seen: Traced) -> None:
    rows = 300
    tracer = seen.provider.get_tracer("app")
    requests = [tracer.start_span("request") for _ in range(rows)]
    with batch_scope([trace.set_span_in_context(request, Context()) for request in requests]):
        trace_lstm(Padded(), name="intent")(IDS[:1].expand(rows, 4))
    for request in requests:
        request.end()
    batches = [span for span in seen.spans if span.name == "lstm batch intent"]
    assert sorted(len(span.links) for span in batches) == [44, 128, 128]
    assert len({link.context.span_id for span in batches for link in span.links}) == rows
    assert len({span.context.trace_id for span in batches}) == 1


def test_an_error_reaches_every_request(seen: Traced) -> None:
    def fails(ids: torch.Tensor) -> torch.Tensor:
        raise RuntimeError

    tracer = seen.provider.get_tracer("app")
    request = tracer.start_span("request")
    with pytest.raises(RuntimeError), batch_scope([trace.set_span_in_context(request, Context())]):
        trace_lstm(fails, name="intent")(IDS)
    request.end()
    assert [span.attributes.get("error.type") for span in seen.spans if span.name.startswith("lstm")] == ["RuntimeError"] * 2


def test_a_wrong_count_is_said_once(seen: Traced, caplog: pytest.LogCaptureFixture) -> None:
    request = seen.provider.get_tracer("app").start_span("request")
    with caplog.at_level("WARNING", "lstm_trace"), batch_scope([trace.set_span_in_context(request, Context())]):
        trace_lstm(Padded(), name="intent")(IDS)
    request.end()
    assert "batch_scope names 1 requests for a batch of 3" in caplog.text


@pytest.mark.parametrize(
    ("contexts", "enqueued", "error"),
    [
        ([{}], None, TypeError),
        (None, None, TypeError),
        ([Context()], [1, 2], ValueError),
        ([Context()], [1.5], TypeError),
        ([Context()], ["now"], TypeError),
    ],
)
def test_wrong_arguments(contexts: Any, enqueued: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="accepted is one"):
        batch_scope(contexts, enqueued_at=enqueued)


# --- traced_session -------------------------------------------------------------------------------------------------------


class Turns(nn.Module):
    """Says speech after every tenth call, silence after every twentieth."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.tensor([[0.9 if (self.calls - 1) // 10 % 2 else 0.2]])


def test_thousands_of_calls_are_one_span(seen: Traced) -> None:
    model = trace_lstm(Turns(), name="vad", output="probs", labels=["silence", "speech"])
    with traced_session(model, "call-7", step_duration=0.032):
        for _ in range(2000):
            model(torch.zeros(1, 512))
    (span,) = seen.spans
    assert span.attributes["session.id"] == "call-7"
    assert span.attributes["lstm.stream.calls"] == 2000
    assert span.attributes["lstm.stream.decisions"] == 199
    assert len(span.events) == 64
    assert [event.attributes["lstm.prediction.label"] for event in span.events[:3]] == ["speech", "silence", "speech"]
    assert [event.attributes["lstm.stream.calls"] for event in span.events[:3]] == [11, 21, 31]
    assert span.attributes["lstm.prediction.confidence_min"] == pytest.approx(0.8, abs=1e-6)
    assert span.attributes["lstm.prediction.confidence_mean"] == pytest.approx(0.85, abs=1e-6)
    assert 0 < span.attributes["lstm.stream.real_time_factor"] < 1


@pytest.mark.parametrize("form", ["function", "method", "callable object", "class"])
def test_a_session_of_every_form(seen: Traced, form: str) -> None:
    inner = Padded()

    class Object:
        def __call__(self, ids: torch.Tensor) -> torch.Tensor:
            return inner(ids)

        def method(self, ids: torch.Tensor) -> torch.Tensor:
            return inner(ids)

    given: Any = {"function": lambda ids: inner(ids), "method": Object().method, "callable object": Object(), "class": Object}[form]
    component = trace_lstm(given, name="it")
    call = component() if form == "class" else component
    with traced_session(component, "s"):
        for _ in range(5):
            call(torch.tensor([[1, 2, 3]]))
    (span,) = seen.spans
    assert span.attributes["lstm.stream.calls"] == 5


def test_a_decision_of_ones_own_and_every_nth_call(seen: Traced) -> None:
    asked: list[Any] = []

    def decision(previous: Prediction | None, now: Any) -> bool:
        asked.append(now)
        return now.confidence > 0.85

    model = trace_lstm(Turns(), name="vad", output="probs")
    with traced_session(model, "s", every=10, decision=decision):
        for _ in range(100):
            model(torch.zeros(1, 512))
    (span,) = seen.spans
    assert len(asked) == 10
    assert len(span.events) == 5
    assert span.attributes["lstm.stream.calls"] == 100


def test_only_its_own_component_and_only_inside(seen: Traced) -> None:
    one, other = trace_lstm(Turns(), name="one", output="probs"), trace_lstm(Turns(), name="other", output="probs")
    with traced_session(one, "s"):
        one(torch.zeros(1, 512))
        other(torch.zeros(1, 512))
    one(torch.zeros(1, 512))
    assert seen.tree() == "lstm one\n  lstm other\nlstm one"


def test_two_components_that_stream_at_once_have_a_span_each(seen: Traced) -> None:
    voice, turns = trace_lstm(Turns(), name="voice", output="probs"), trace_lstm(Turns(), name="turns", output="probs")
    with traced_session(voice, "s"), traced_session(turns, "s"):
        for _ in range(3):
            voice(torch.zeros(1, 512))
        turns(torch.zeros(1, 512))
    assert seen.tree() == "lstm voice\n  lstm turns"
    assert {span.name: span.attributes["lstm.stream.calls"] for span in seen.spans} == {"lstm voice": 3, "lstm turns": 1}


def test_a_session_is_counted_anew_each_time_it_is_entered(seen: Traced) -> None:
    model = trace_lstm(Turns(), name="it", output="probs")
    session = traced_session(model, "s")
    for calls in (2, 1):
        with session, session:
            for _ in range(calls):
                model(torch.zeros(1, 512))
    assert [span.attributes["lstm.stream.calls"] for span in seen.spans] == [2, 1]


def test_a_task_that_outlives_its_session_or_its_batch_has_spans_of_its_own(seen: Traced) -> None:
    model = trace_lstm(Turns(), name="it", output="probs")

    async def later(left: asyncio.Event) -> None:
        await left.wait()
        model(torch.zeros(1, 512))

    async def serve() -> None:
        left = asyncio.Event()
        with traced_session(model, "s"):
            in_session = asyncio.create_task(later(left))
        with batch_scope([Context()]):
            in_batch = asyncio.create_task(later(left))
        left.set()
        await asyncio.gather(in_session, in_batch)

    asyncio.run(serve())
    calls = [span.attributes.get("lstm.stream.calls") for span in seen.spans]
    assert calls == [0, None, None]
    assert [span.name for span in seen.spans] == ["lstm it"] * 3


@pytest.mark.parametrize("block", ["session", "batch"])
def test_a_block_may_be_left_in_another_context(seen: Traced, caplog: pytest.LogCaptureFixture, block: str) -> None:
    """As frameworks do with a dependency that yields: it is entered and left in a copied context each."""
    model = trace_lstm(Turns(), name="it", output="probs")

    def held() -> Iterator[None]:
        with traced_session(model, "s") if block == "session" else batch_scope([Context()]):
            model(torch.zeros(1, 512))
            yield

    dependency = held()
    copy_context().run(next, dependency)
    copy_context().run(next, dependency, None)
    assert len(seen.spans) == (1 if block == "session" else 2)
    assert not caplog.records


def test_an_error_ends_the_session(seen: Traced) -> None:
    model = trace_lstm(Turns(), name="vad", output="probs")

    def interrupted() -> None:
        with traced_session(model, "s"):
            model(torch.zeros(1, 512))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen.spans[0].attributes["error.type"] == "KeyboardInterrupt"


def test_resets_are_counted(seen: Traced) -> None:
    class Resets(Keeps):
        def reset_states(self) -> None:
            self.state = None

    model = trace_lstm(Resets(), name="it")
    with traced_session(model, "s"):
        for _ in range(3):
            for _ in range(4):
                model(torch.zeros(1, 1, 4))
            model.reset_states()
    assert seen.spans[0].attributes["lstm.stream.resets"] == 3


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"component": nn.LSTM(2, 3)}, ValueError),
        ({"every": 0}, ValueError),
        ({"decision": 3}, TypeError),
        ({"step_duration": 0}, ValueError),
        ({"step_duration": math.nan}, ValueError),
        ({"step_duration": "0.032"}, TypeError),
    ],
)
def test_wrong_arguments_of_a_session(given: dict[str, Any], error: type[Exception]) -> None:
    component = given.pop("component", None) or trace_lstm(Turns(), name="it")
    with pytest.raises(error, match="accepted"):
        traced_session(component, "s", **given)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_silero_as_it_is(seen: Traced) -> None:
    silero = pytest.importorskip("silero_vad")
    bare, model = silero.load_silero_vad(), silero.load_silero_vad()
    trace_lstm(model, name="vad", output="probs", labels=["silence", "speech"])
    chunks = torch.randn(40, 512, generator=torch.Generator().manual_seed(0)) * 0.1
    expected = [bare(chunk, 16000) for chunk in chunks]
    with traced_session(model, "call-7", step_duration=0.032):
        found = [model(chunk, 16000) for chunk in chunks]
        model.reset_states()
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    (span,) = seen.spans
    assert (span.attributes["lstm.cell"], span.attributes["lstm.stream.calls"], span.attributes["lstm.stream.resets"]) == (
        "LSTMCell",
        40,
        1,
    )
    model(chunks[0], 16000)
    assert "lstm.sequence.length" not in seen.spans[-1].attributes, "512 samples are not 512 steps"


# --- Nothing named --------------------------------------------------------------------------------------------------------


def test_layers_of_undecorated_models(traced: Traced) -> None:
    instrumentor = LSTMInstrumentor(auto=True)
    instrumentor.instrument(tracer_provider=traced.provider)
    Padded()(IDS)
    nn.LSTM(4, 8, bidirectional=True)(torch.zeros(5, 2, 4))
    nn.RNN(4, 8)(torch.zeros(5, 4))
    trace_lstm(Padded(), name="decorated")(IDS)
    instrumentor.uninstrument()
    Padded()(IDS)
    assert [span.name for span in traced.spans] == ["lstm GRU", "lstm LSTM", "lstm RNN", "lstm decorated"]
    facts = traced.spans[1].attributes
    assert (facts["lstm.sequence.length"], facts["lstm.batch.size"], facts["lstm.cell"], facts["lstm.bidirectional"]) == (
        5,
        2,
        "LSTM",
        True,
    )
    assert facts["lstm.state.origin"] == "none"
    assert not any(name.startswith("lstm.prediction") for name in facts)


def test_layers_inside_a_session_are_its_own_affair(traced: Traced) -> None:
    instrumentor = LSTMInstrumentor(auto=True)
    instrumentor.instrument(tracer_provider=traced.provider)
    model = trace_lstm(Keeps(), name="vad")
    with traced_session(model, "call-7"):
        for _ in range(5):
            model(torch.zeros(1, 2, 4))
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 2, 5))
        nn.GRU(4, 8)(torch.zeros(2, 4))  # somebody else's
    instrumentor.uninstrument()
    assert [span.name for span in traced.spans] == ["lstm GRU", "lstm vad"]


def test_auto_from_the_environment(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTM_TRACE_AUTO", "1")
    instrumentor = LSTMInstrumentor()
    instrumentor.instrument(tracer_provider=traced.provider)
    Padded()(IDS)
    instrumentor.uninstrument()
    assert [span.name for span in traced.spans] == ["lstm GRU"]

"""Layers that nobody named, in compiled models: seen wherever the graph may be broken, and else one line says that they are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from lstm_trace import LSTMInstrumentor, trace_lstm
from lstm_trace.instrument.lstm import dynamo
from tests.lstm.models import Intent
from tests.tracing import Traced

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

IDS = torch.tensor([[1, 2, 3, 4]])


@pytest.fixture
def compile_it(seen: Traced) -> Iterator[Callable[..., Any]]:
    """``LSTM_TRACE_AUTO`` is on; what compiles returns the model and how many graphs it came to."""
    from torch._dynamo.testing import CompileCounterWithBackend

    def compiled(model: Any, **given: Any) -> Any:
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("eager")
        return torch.compile(model, backend=counter, **given), counter

    instrumentor = LSTMInstrumentor(auto=True)
    instrumentor.instrument(tracer_provider=seen.provider)
    yield compiled
    instrumentor.uninstrument()
    torch._dynamo.config.allow_rnn = False
    torch._dynamo.reset()
    dynamo._told.clear()


@pytest.mark.parametrize("allow_rnn", [False, True])
def test_every_call_of_a_layer_is_seen(seen: Traced, compile_it: Callable[..., Any], allow_rnn: bool) -> None:
    torch._dynamo.config.allow_rnn = allow_rnn
    bare = Intent().eval()
    model, graphs = compile_it(bare)
    for _ in range(3):
        assert torch.equal(model(IDS), bare(IDS))
    compiled = [span for span in seen.spans if span.attributes.get("lstm.code.compiled")]
    assert [(span.name, span.attributes["lstm.sequence.length"]) for span in compiled] == [("lstm LSTM", 4)] * 3
    assert graphs.frame_count <= 2


@pytest.mark.parametrize("sampled", [True, False])
def test_a_decorated_component_keeps_its_one_graph(seen: Traced, compile_it: Callable[..., Any], sampled: bool) -> None:
    from opentelemetry import context, trace
    from opentelemetry.trace import NonRecordingSpan, SpanContext

    torch._dynamo.config.allow_rnn = True
    model, graphs = compile_it(trace_lstm(Intent().eval(), name="it"))
    unsampled = trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 1, is_remote=True)))
    token = None if sampled else context.attach(unsampled)
    model(IDS)
    if token is not None:
        context.detach(token)
    model(IDS)
    assert [span.name for span in seen.spans] == ["lstm it"] * (2 if sampled else 1)
    assert graphs.frame_count == 1


def test_in_a_full_graph_one_line_says_that_it_is_not_seen(
    seen: Traced, compile_it: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    torch._dynamo.config.allow_rnn = True
    model, graphs = compile_it(Intent().eval(), fullgraph=True)
    with caplog.at_level("WARNING", "lstm_trace"):
        for _ in range(2):
            model(IDS)
    assert [record.getMessage() for record in caplog.records] == [
        "component LSTM is part of a larger graph compiled with fullgraph=True: its calls are not traced"
    ]
    assert not seen.spans
    assert graphs.frame_count == 1

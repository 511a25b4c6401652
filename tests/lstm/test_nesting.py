"""Whatever runs inside the forward hangs below the component's span, and what is set on the current span lands on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from opentelemetry import context, trace
from torch import nn

from lstm_trace import record_prediction, suppress, trace_lstm
from lstm_trace.recorder.late import LateSpan
from tests.lstm.models import Padded
from tests.tracing import Traced

IDS = torch.tensor([[1, 2, 3]])


def test_a_component_a_users_span_and_what_the_user_sets(seen: Traced) -> None:
    tracer = seen.provider.get_tracer("app")
    inner = trace_lstm(Padded(), name="inner")

    class Outer(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            trace.get_current_span().set_attribute("user.note", "seen")
            trace.get_current_span().add_event("user.event")
            with tracer.start_as_current_span("http"):
                pass
            return inner(ids)

    with tracer.start_as_current_span("request"):
        trace_lstm(Outer(), name="outer")(IDS)
    assert seen.tree() == "request\n  lstm outer\n    http\n    lstm inner"
    outer = seen.named("lstm outer")
    assert outer.attributes["user.note"] == "seen"
    assert [event.name for event in outer.events] == ["user.event", "lstm.prediction"]
    assert outer.attributes["lstm.prediction.confidence"] == seen.named("lstm inner").attributes["lstm.prediction.confidence"]
    assert outer.start_time <= seen.named("http").start_time


def test_untouched_the_real_span_is_made_after_the_forward(seen: Traced) -> None:
    current: list[trace.Span] = []

    class Net(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            current.append(trace.get_current_span())
            assert isinstance(current[0], LateSpan)
            assert current[0].real is None
            return torch.zeros(1, 3)

    trace_lstm(Net(), name="it")(IDS)
    assert current[0].real is None
    assert seen.named("lstm it").end_time >= seen.named("lstm it").start_time


def test_the_callers_context_is_current_again(seen: Traced) -> None:
    before = context.get_current()
    trace_lstm(Padded(), name="it")(IDS)
    assert context.get_current() is before


def test_a_prediction_made_elsewhere_inside(seen: Traced) -> None:
    trace_lstm(lambda x: record_prediction("remote", label="a", confidence=0.5) or torch.zeros(1, 3), name="outer")(IDS)
    assert seen.tree() == "lstm outer\n  lstm remote"


def test_suppressed(seen: Traced) -> None:
    model = trace_lstm(Padded(), name="it")
    with suppress():
        model(IDS)
    assert not seen.spans


def test_below_an_unsampled_parent_nothing_is_made(seen: Traced) -> None:
    parent = trace.SpanContext(1, 2, False, trace.TraceFlags(0))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(parent)))
    trace_lstm(Padded(), name="it")(IDS)
    context.detach(token)
    assert not seen.spans


# --- LSTM_TRACE_SPAN=event ------------------------------------------------------------------------------------------------


def test_event_on_the_current_span(settle: Callable[..., Traced]) -> None:
    seen = settle(span="event")
    model = trace_lstm(Padded(), name="it", labels=["a", "b", "c"])
    tracer = seen.provider.get_tracer("app")
    with tracer.start_as_current_span("request"):
        model(IDS)
        model(IDS)
        model(IDS)
        model(IDS)
        model(IDS)
        model(IDS)
    (request,) = seen.spans
    assert [event.name for event in request.events] == ["lstm.prediction"] * 6
    facts = request.events[-1].attributes
    assert facts["lstm.component.name"] == "it"
    assert facts["lstm.sequence.length"] == 3
    assert facts["lstm.prediction.label"] in "abc"


@pytest.mark.parametrize("rows", [1, 3])
def test_without_a_current_span_it_is_a_span_after_all(settle: Callable[..., Traced], rows: int) -> None:
    seen = settle(span="event")
    trace_lstm(Padded(), name="it")(IDS.expand(rows, 3))
    assert [span.name for span in seen.spans] == ["lstm it"]


# --- Both ways of the recorder say the same -------------------------------------------------------------------------------


def test_the_short_way_and_the_general_way_write_the_same_span(seen: Traced) -> None:
    model = trace_lstm(Padded(), name="it", version="3", labels=["a", "b", "c"])
    for _ in range(6):
        model(IDS)
    general = trace_lstm(model, name="it", version="3", labels=["a", "b", "c"], prediction=lambda out: _as_prediction(out))
    for _ in range(6):
        general(IDS)
    short, long = seen.spans[5], seen.spans[11]
    assert dict(short.attributes) == pytest.approx(dict(long.attributes))
    assert [(each.name, dict(each.attributes)) for each in short.events] == [(each.name, dict(each.attributes)) for each in long.events]


def _as_prediction(out: torch.Tensor) -> object:
    from lstm_trace import Prediction
    from lstm_trace.instrument.lstm.prediction import of_logits

    return Prediction(*of_logits(out.tolist()[0], {0: "a", 1: "b", 2: "c"}))

"""Whatever runs inside the forward hangs below the component's span, and what is set on the current span lands on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from opentelemetry import context, trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from torch import nn

from lstm_trace import batch_scope, record_prediction, suppress, trace_lstm
from lstm_trace.recorder.late import LateSpan
from tests.lstm.models import Given, Padded
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
    started: list[str] = []

    class Starts(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            started.append(span.name)

    seen.provider.add_span_processor(Starts())

    class Net(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            assert isinstance(trace.get_current_span(), LateSpan)
            assert not started
            return torch.zeros(1, 3)

    trace_lstm(Net(), name="it")(IDS)
    assert started == ["lstm it"]
    assert seen.named("lstm it").end_time >= seen.named("lstm it").start_time


def test_what_was_set_on_the_current_span_can_be_read_there(seen: Traced) -> None:
    read: list[Any] = []

    class Net(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            span: Any = trace.get_current_span()
            span.set_attribute("user.note", "seen")
            read.extend((span.name, span.attributes["user.note"], span.parent, span.end_time))
            return torch.zeros(1, 3)

    with seen.provider.get_tracer("app").start_as_current_span("request") as request:
        trace_lstm(Net(), name="it")(IDS)
    assert read == ["lstm it", "seen", request.get_span_context(), None]


def test_what_was_started_inside_and_goes_on_after_it_still_hangs_below(seen: Traced) -> None:
    kept: list[context.Context] = []

    class Net(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            kept.append(context.get_current())
            return torch.zeros(len(ids), 3)

    model = trace_lstm(Net(), name="it")
    for batch in (IDS, IDS.repeat(4, 1)):
        seen.memory.clear()
        model(batch)
        token = context.attach(kept.pop())
        assert not trace.get_current_span().is_recording()
        with seen.provider.get_tracer("app").start_as_current_span("later"):
            pass
        context.detach(token)
        assert seen.tree() == "lstm it\n  later"
        assert len(seen.spans) == 2


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


class _Touches(nn.Module):
    """Uses the current span inside, and another component."""

    def __init__(self, tracer: Any) -> None:
        super().__init__()
        self.inner = trace_lstm(Padded(), name="inner")
        self.tracer = tracer

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        trace.get_current_span().set_attribute("user", 1)
        with self.tracer.start_as_current_span("inside"):
            return self.inner(ids)


def test_an_event_leaves_the_current_span_to_what_runs_inside(settle: Callable[..., Traced]) -> None:
    seen = settle(span="event")
    tracer = seen.provider.get_tracer("app")
    model = trace_lstm(_Touches(tracer), name="it")
    with tracer.start_as_current_span("request") as request:
        model(IDS)
    inside, _ = seen.spans
    assert [span.name for span in seen.spans] == ["inside", "request"]
    assert inside.parent.span_id == request.get_span_context().span_id
    assert request.attributes["user"] == 1
    assert [event.attributes["lstm.component.name"] for event in (*inside.events, *request.events)] == ["inner", "it"]


def test_below_a_parent_that_cannot_be_written_on_it_is_a_span_after_all(settle: Callable[..., Traced]) -> None:
    seen = settle(span="event")
    far = NonRecordingSpan(SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(1)))
    token = context.attach(trace.set_span_in_context(far))
    trace_lstm(Padded(), name="it")(IDS)
    context.detach(token)
    (span,) = seen.spans
    assert (span.name, span.parent.span_id) == ("lstm it", 6)


@pytest.mark.parametrize("rows", [1, 3])
def test_an_event_where_nothing_is_predicted(settle: Callable[..., Traced], rows: int) -> None:
    seen = settle(span="event")
    with seen.provider.get_tracer("app").start_as_current_span("request"):
        trace_lstm(Padded(), name="it", output="none")(IDS.expand(rows, 3))
    (event,) = seen.spans[0].events
    assert (event.attributes["lstm.batch.size"], event.attributes["lstm.sequence.length"]) == (rows, 3)


def test_events_of_a_large_batch_name_their_rows(settle: Callable[..., Traced]) -> None:
    seen = settle(span="event")
    values = torch.randn(700, 90, generator=torch.Generator().manual_seed(1))
    with seen.provider.get_tracer("app").start_as_current_span("request"):
        trace_lstm(lambda x: values, name="it")(torch.zeros(700, 5, 2))
    confidences = values.double().softmax(1).amax(1)
    events = seen.spans[0].events
    assert len(events) == 8
    for event in events:
        assert event.attributes["lstm.batch.size"] == 700
        row = event.attributes["lstm.batch.index"]
        assert event.attributes["lstm.prediction.confidence"] == pytest.approx(confidences[row].item(), abs=1e-6)
        assert event.attributes["lstm.prediction.confidence_mean"] == pytest.approx(confidences.mean().item(), abs=1e-6)


@pytest.mark.parametrize("kind", ["logits", "regression"])
def test_an_event_stands_upstream_too(settle: Callable[..., Traced], kind: str) -> None:
    seen = settle(span="event")
    tracer = seen.provider.get_tracer("app")
    with tracer.start_as_current_span("request"):
        trace_lstm(lambda x: torch.ones(1, 1 if kind == "regression" else 3), name="it", output=kind)(torch.zeros(1, 5, 2))
        with tracer.start_as_current_span("answer"):
            pass
    assert seen.spans[0].attributes["lstm.upstream.component"] == "it"


def test_a_foreign_state_is_an_event_beside_it(settle: Callable[..., Traced]) -> None:
    seen = settle(span="event")
    model = trace_lstm(Given(), name="it", session="session")
    with seen.provider.get_tracer("app").start_as_current_span("request"):
        _, state = model(torch.ones(1, 3, 4), None, session="a")
        for _ in range(5):
            model(torch.ones(1, 3, 4), state, session="b")
    assert [span.name for span in seen.spans] == ["request"]
    assert "lstm.state.foreign" in [event.name for event in seen.spans[0].events]


def test_a_request_of_a_batch_has_its_event_on_its_own_span(settle: Callable[..., Traced]) -> None:
    seen = settle(span="event")
    tracer = seen.provider.get_tracer("app")
    requests = [tracer.start_span(f"request {number}", context.Context()) for number in range(2)]
    ended = tracer.start_span("ended", context.Context())
    ended.end()
    spans = [*requests, ended]
    model = trace_lstm(Padded(), name="it")
    with batch_scope([trace.set_span_in_context(each, context.Context()) for each in spans], enqueued_at=[1, 1, 1]):
        model(torch.tensor([[3, 4, 0], [5, 6, 7], [8, 0, 0]]))
    for each in requests:
        each.end()
    assert [span.name for span in seen.spans] == ["ended", "lstm it", "request 0", "request 1"], "only what ended before gets a span"
    for row, length in enumerate((2, 3)):
        (event,) = seen.named(f"request {row}").events
        assert event.attributes["lstm.sequence.length"] == length
        assert event.attributes["lstm.batch.index"] == row
        assert event.attributes["lstm.batch.size"] == 3
        assert event.attributes["lstm.batch.queue_wait"] > 0
        assert 0 < event.attributes["lstm.prediction.confidence"] < 1


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

"""The recorder's short way to the SDK makes the spans that the public way makes, and steps aside where it is not sure."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from lstm_trace import trace_lstm
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.recorder.lane import Lane
from lstm_trace.settings import Settings
from tests.lstm.models import Padded
from tests.tracing import CountedIds

IDS = torch.tensor([[1, 2, 3, 0]])


def spans_of(limits: SpanLimits | None, monkeypatch: pytest.MonkeyPatch, *, short: bool, parent: SpanContext | None) -> list[Any]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(id_generator=CountedIds(), span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    ticks = iter(range(1_700_000_000_000_000_000, 1_800_000_000_000_000_000, 1_000_000))
    if not short:
        monkeypatch.setattr(Lane, "_prepare", lambda self, limits: None)
    set_default_recorder(Recorder(Settings(strict=True), tracer_provider=provider, clock=lambda: next(ticks)))
    torch.manual_seed(0)
    model = trace_lstm(Padded(), name="it", labels=["a", "b", "c"])
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(parent)) if parent is not None else context.Context())
    for rows in (1, 1, 1, 5, 1, 2):
        model(IDS.repeat(rows, 1))
    context.detach(token)
    return [json.loads(span.to_json()) for span in memory.get_finished_spans()]


@pytest.mark.parametrize(
    "parent",
    [
        None,
        SpanContext(0xABC, 0xDEF, True, TraceFlags(1), TraceState([("vendor", "x")])),
        SpanContext(0xABC, 0xDEF, False, TraceFlags(3)),
    ],
)
def test_the_same_spans(monkeypatch: pytest.MonkeyPatch, parent: SpanContext | None) -> None:
    short = spans_of(None, monkeypatch, short=True, parent=parent)
    assert short == spans_of(None, monkeypatch, short=False, parent=parent)
    assert len(short) == 6


@pytest.mark.parametrize(
    "limits",
    [SpanLimits(max_span_attributes=5), SpanLimits(max_event_attributes=2), SpanLimits(max_attribute_length=3), SpanLimits(max_events=3)],
)
def test_the_users_limits_hold(monkeypatch: pytest.MonkeyPatch, limits: SpanLimits) -> None:
    assert spans_of(limits, monkeypatch, short=True, parent=None) == spans_of(limits, monkeypatch, short=False, parent=None)


@pytest.mark.parametrize("short", [True, False])
def test_a_span_that_is_full_of_events_drops_the_oldest_and_counts_them(monkeypatch: pytest.MonkeyPatch, short: bool) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(span_limits=SpanLimits(max_events=3), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    if not short:
        monkeypatch.setattr(Lane, "_prepare", lambda self, limits: None)
    set_default_recorder(Recorder(Settings(strict=True, span="event"), tracer_provider=provider))
    model = trace_lstm(Padded(), name="it")
    with provider.get_tracer("user").start_as_current_span("request") as request:
        request.add_event("mine")
        for length in (1, 2, 3, 4):
            model(torch.tensor([[1] * length]))
    (span,) = memory.get_finished_spans()
    assert [event.attributes["lstm.sequence.length"] for event in span.events] == [2, 3, 4]
    assert span.dropped_events == 2


def test_an_event_is_as_immutable_as_any(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    set_default_recorder(Recorder(Settings(strict=True), tracer_provider=provider))
    trace_lstm(Padded(), name="it")(IDS)
    (span,) = memory.get_finished_spans()
    with pytest.raises(TypeError):
        span.events[0].attributes["x"] = 1
    with pytest.raises(TypeError):
        span.attributes["x"] = 1


class Marks(SpanProcessor):
    """A user's processor that writes on spans as they start."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        span.set_attribute("user.mark", "seen")


def test_a_processor_that_listens_to_starts_is_heard_from_the_moment_it_is_added() -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    set_default_recorder(Recorder(Settings(strict=True), tracer_provider=provider))
    model = trace_lstm(Padded(), name="it")
    model(IDS)
    provider.add_span_processor(Marks())
    model(IDS)
    before, after = memory.get_finished_spans()
    assert "user.mark" not in before.attributes
    assert after.attributes["user.mark"] == "seen"
    assert {*before.attributes} == {*after.attributes} - {"user.mark"}

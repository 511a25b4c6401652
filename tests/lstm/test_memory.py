"""Nothing grows: what a call makes is gone after it, without the garbage collector's help."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from lstm_trace import batch_scope, trace_lstm, traced_session, upstream
from lstm_trace.instrument.lstm import batch
from lstm_trace.instrument.lstm.call import live_calls
from lstm_trace.instrument.lstm.decorated import traced_of
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings
from lstm_trace.upstream import UpstreamProcessor, live
from tests.lstm.models import Keeps, Padded


def test_calls_leave_nothing() -> None:
    set_default_recorder(Recorder(Settings(strict=True), tracer_provider=TracerProvider(shutdown_on_exit=False)))
    model, keeps = trace_lstm(Padded(), name="it"), trace_lstm(Keeps(), name="keeps", session="session")
    ids, x = torch.tensor([[1, 2, 3, 0]]), torch.zeros(1, 2, 4)

    def run(calls: int) -> None:
        with torch.no_grad():
            for _ in range(calls):
                model(ids)
                keeps(x, "a")

    # the bounded memories (recent predictions, states) fill up first
    live._recent.clear()
    run(300)
    gc.collect()
    gc.disable()
    try:
        before, recent = sys.getallocatedblocks(), len(live._recent)
        run(700)
        grown = sys.getallocatedblocks() - before
    finally:
        gc.enable()
    kept = len(live._recent) - recent
    assert grown < kept * 40 + 1000, f"{grown} blocks for 1400 calls, of which {kept} predictions are remembered"
    assert len(live) == 0
    assert live_calls() == 0


def test_modules_are_forgotten_with_their_facts() -> None:
    cls = trace_lstm(type("Short", (Padded,), {}), name="short")
    set_default_recorder(Recorder(Settings(strict=True), tracer_provider=TracerProvider(shutdown_on_exit=False)))
    for _ in range(5):
        cls()(torch.tensor([[1, 2]]))
    gc.collect()
    assert len(traced_of(cls)) == 0


def _sampled(provider: TracerProvider) -> Callable[[], object]:
    model, x = trace_lstm(Padded(), name="it"), torch.tensor([[1, 2, 3, 0]])
    return lambda: model(x)


def _unsampled(provider: TracerProvider) -> Callable[[], object]:
    model, x = trace_lstm(Padded(), name="it"), torch.tensor([[1, 2, 3, 0]])
    parent = trace.NonRecordingSpan(trace.SpanContext(1, 1, True, trace.TraceFlags(0)))

    def call() -> None:
        with trace.use_span(parent):
            model(x)

    return call


def _streamed(provider: TracerProvider) -> Callable[[], object]:
    model, x = trace_lstm(Keeps(), name="it"), torch.zeros(1, 2, 4)

    def call() -> None:
        with traced_session(model, "s"):
            model(x)

    return call


def _batched(provider: TracerProvider) -> Callable[[], object]:
    model, x = trace_lstm(Padded(), name="it"), torch.tensor([[1, 2, 3, 0], [1, 2, 0, 0]])

    def call() -> None:
        requests = [provider.get_tracer("app").start_span("request", Context()) for _ in range(2)]
        with batch_scope([trace.set_span_in_context(request, Context()) for request in requests]):
            model(x)
        for request in requests:
            request.end()

    return call


class _Dropping(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


@pytest.mark.parametrize("how", [_sampled, _unsampled, _streamed, _batched])
def test_memory_stays_flat_in_every_way_of_serving(
    how: Callable[[TracerProvider], Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The short version of a soak run: what is remembered on purpose is bounded, and its bounds are small here.
    monkeypatch.setattr(upstream, "_RECENT_LIMIT", 16)
    monkeypatch.setattr(batch, "_REQUESTS", 16)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(UpstreamProcessor())
    provider.add_span_processor(SimpleSpanProcessor(_Dropping()))
    set_default_recorder(Recorder(Settings(strict=True), tracer_provider=provider))
    call = how(provider)
    blocks = []
    with torch.no_grad():
        for calls in (200, 300, 300):
            for _ in range(calls):
                call()
            gc.collect()
            blocks.append(sys.getallocatedblocks())
    assert blocks[2] - blocks[1] < 300, f"one block a call and more: {blocks}"
    assert len(live) == 0
    provider.shutdown()

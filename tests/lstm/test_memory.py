"""Nothing grows: what a call makes is gone after it, without the garbage collector's help."""

from __future__ import annotations

import gc
import sys

import torch
from opentelemetry.sdk.trace import TracerProvider

from lstm_trace import trace_lstm
from lstm_trace.instrument.lstm.call import live_calls
from lstm_trace.instrument.lstm.forms import traced_of
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings
from lstm_trace.upstream import live
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

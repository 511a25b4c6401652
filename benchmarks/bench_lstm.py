"""Added thread-CPU time of tracing one component call, after a real forward pass, every way from one interleaved run.

Run it with ``make bench-lstm``. Short blocks of calls, one way each, follow one another in a new random order, so that a slow moment of
the machine favours none; within a block the caches hold what they hold in a process that does the same thing again and again: the forward
pass, and then the way that is measured. A block is one request, with a span of its own around it where the way has one. What is printed is
the lower quartile over all calls (a busy machine only ever adds), less the
bare model's. The same work in a tight loop without a forward pass costs a half to a quarter.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, NoOpTracerProvider, SpanContext, TraceFlags

from lstm_trace import LSTMInstrumentor, Settings, trace_lstm
from lstm_trace import conventions as c
from lstm_trace.instrument.lstm import large
from lstm_trace.instrument.processor import add_upstream_processor
from lstm_trace.recorder import Recorder, set_default_recorder

LABELS = [f"intent-{index}" for index in range(10)]
STEPS, FEATURES, HIDDEN = 20, 32, 64
BLOCK, WARM = 25, 3
"""Calls of one way in a row, and how many of them are not counted."""


class Intent(torch.nn.Module):
    """Embedding, LSTM, head: the shape of the issue's measure."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(100, FEATURES)
        self.lstm = torch.nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.head = torch.nn.Linear(HIDDEN, len(LABELS))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embedding(ids))[1][0][-1])


class Discard(SpanExporter):
    """An exporter that costs nothing, behind the batch processor that an application has."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def provider_of(**given: Any) -> TracerProvider:
    provider = TracerProvider(**given)
    provider.add_span_processor(BatchSpanProcessor(Discard(), max_queue_size=1 << 16, schedule_delay_millis=200))
    return provider


# --- What others would write ----------------------------------------------------------------------------------------------


def floor_of(model: torch.nn.Module, tracer: trace.Tracer) -> Callable[[torch.Tensor], Any]:
    """Write the least that a careful engineer would: the span made after the forward, one dict, one event, the same facts."""

    def call(ids: torch.Tensor) -> Any:
        start = time.time_ns()
        output = model(ids)
        end = time.time_ns()
        row = output.tolist()[0]
        top = max(row)
        finite = math.isfinite(sum(row))
        weights = [math.exp(value - top) for value in row]
        total = sum(weights)
        index = row.index(top)
        entropy = math.log(total) - sum(weight * (value - top) for weight, value in zip(weights, row, strict=True)) / total
        confidence = 1.0 / total
        weights[index] = 0.0
        margin = (1.0 - max(weights)) / total
        length = ids.shape[1]
        span = tracer.start_span(
            "lstm intent",
            start_time=start,
            attributes={
                c.OI_KIND: "CHAIN",
                c.COMPONENT_NAME: "intent",
                c.CELL: "LSTM",
                c.LAYERS: 1,
                c.HIDDEN_SIZE: HIDDEN,
                c.BIDIRECTIONAL: False,
                c.BATCH_SIZE: 1,
                c.SEQUENCE_LENGTH: length,
                c.SEQUENCE_COHORT: "13-20",
                c.SEQUENCE_LENGTH_SOURCE: "shape",
                c.PREDICTION_LABEL: LABELS[index],
                c.PREDICTION_INDEX: index,
                c.PREDICTION_CONFIDENCE: confidence,
                c.PREDICTION_MARGIN: margin,
                c.PREDICTION_ENTROPY: entropy,
                c.STATE_ORIGIN: "none",
            }
            if finite
            else {c.PREDICTION_NONFINITE: True},
        )
        span.add_event(
            c.EVENT_PREDICTION,
            {
                c.BATCH_INDEX: 0,
                c.SEQUENCE_LENGTH: length,
                c.PREDICTION_LABEL: LABELS[index],
                c.PREDICTION_INDEX: index,
                c.PREDICTION_CONFIDENCE: confidence,
                c.PREDICTION_MARGIN: margin,
                c.PREDICTION_ENTROPY: entropy,
            },
            end,
        )
        span.end(end)
        return output

    return call


def naive_of(model: torch.nn.Module, tracer: trace.Tracer) -> Callable[[torch.Tensor], Any]:
    """Write what a first try looks like: the span around the forward, and a tensor read per number."""

    def call(ids: torch.Tensor) -> Any:
        with tracer.start_as_current_span("lstm intent") as span:
            output = model(ids)
            probabilities = output.softmax(-1)
            top = probabilities.topk(2, -1)
            index = top.indices[0, 0].item()
            span.set_attribute(c.COMPONENT_NAME, "intent")
            span.set_attribute(c.BATCH_SIZE, ids.shape[0])
            span.set_attribute(c.SEQUENCE_LENGTH, ids.shape[1])
            span.set_attribute(c.PREDICTION_INDEX, index)
            span.set_attribute(c.PREDICTION_LABEL, LABELS[int(index)])
            span.set_attribute(c.PREDICTION_CONFIDENCE, top.values[0, 0].item())
            span.set_attribute(c.PREDICTION_MARGIN, (top.values[0, 0] - top.values[0, 1]).item())
            span.set_attribute(c.PREDICTION_ENTROPY, -(probabilities * probabilities.log()).sum().item())
            span.add_event(c.EVENT_PREDICTION, {c.PREDICTION_INDEX: index, c.PREDICTION_CONFIDENCE: top.values[0, 0].item()})
        return output

    return call


# --- The run --------------------------------------------------------------------------------------------------------------


@dataclass
class Variant:
    """One way to call the model: ``recorder`` is in force, and each block of calls belongs to a request of its own below ``request``."""

    call: Callable[[torch.Tensor], Any]
    recorder: Recorder | None = None
    request: Callable[[], trace.Span] | None = None
    times: list[int] | None = None


def unsampled() -> trace.Span:
    return NonRecordingSpan(SpanContext(0x1234567890ABCDEF1234567890ABCDEF, 0x1234567890ABCDEF, False, TraceFlags(0)))


def variants() -> dict[str, Variant]:
    torch.manual_seed(0)
    bare = Intent()
    provider = provider_of()
    tracer = provider.get_tracer("bench")
    settings = Settings()
    ours = trace_lstm(Intent(), name="intent", labels=LABELS)
    quiet = trace_lstm(Intent(), name="intent", labels=LABELS)
    for model in (bare, ours, quiet):
        model.load_state_dict(bare.state_dict())
    with_ours = provider_of()
    recorder = Recorder(settings, tracer_provider=with_ours)
    add_upstream_processor(with_ours, settings)
    request = partial(with_ours.get_tracer("bench").start_span, "request", context.Context())
    floor_request = partial(tracer.start_span, "request", context.Context())
    off = Recorder(settings, tracer_provider=TracerProvider(sampler=ALWAYS_OFF))
    no_op = Recorder(settings, tracer_provider=NoOpTracerProvider())
    unset = Recorder(settings)
    event = Recorder(Settings(span="event"), tracer_provider=with_ours)
    return {
        "bare": Variant(bare),
        "floor": Variant(floor_of(bare, tracer), None, floor_request),
        "naive": Variant(naive_of(bare, tracer), None, floor_request),
        "ours": Variant(ours, recorder, request),
        "ours, a trace of its own": Variant(ours, recorder, None),
        "ours, event mode": Variant(ours, event, request),
        "ours, unsampled parent": Variant(ours, recorder, unsampled),
        "ours, ALWAYS_OFF": Variant(ours, off, None),
        "ours, no-op provider": Variant(ours, no_op, None),
        "ours, no provider": Variant(ours, unset, None),
        "bare again": Variant(bare),
    }


def measure(found: dict[str, Variant], rounds: int) -> dict[str, float]:
    """Return each variant's lower-quartile thread-CPU time of one call, in microseconds."""
    inputs = [torch.randint(0, 100, (1, STEPS)) for _ in range(BLOCK)]
    names = list(found)
    for variant in found.values():
        variant.times = []
    clock = time.thread_time_ns
    shuffle = random.Random(7)
    with torch.no_grad():
        for turn in range(1 + max(1, rounds // (BLOCK - WARM))):
            for name in shuffle.sample(names, len(names)):
                variant = found[name]
                set_default_recorder(variant.recorder)
                span = variant.request() if variant.request is not None else trace.INVALID_SPAN
                token = context.attach(trace.set_span_in_context(span, context.Context()))
                call = variant.call
                for number, ids in enumerate(inputs):
                    began = clock()
                    call(ids)
                    ended = clock()
                    if turn and number >= WARM:
                        variant.times.append(ended - began)
                context.detach(token)
                span.end()
    return {name: statistics.quantiles(variant.times or [0, 0], n=4)[0] / 1000 for name, variant in found.items()}


def uninstrumented(rounds: int) -> float:
    """Return the added microseconds after ``uninstrument()``: alternating blocks of a bare and a once decorated model."""
    bare, once = Intent(), trace_lstm(Intent(), name="intent", labels=LABELS)
    LSTMInstrumentor().instrument()
    LSTMInstrumentor().uninstrument()
    added: list[float] = []
    ids = torch.randint(0, 100, (1, STEPS))
    with torch.no_grad():
        for turn in range(rounds):
            pair = {}
            for name, model in (("bare", bare), ("once", once)) if turn % 2 else (("once", once), ("bare", bare)):
                began = time.thread_time_ns()
                model(ids)
                pair[name] = time.thread_time_ns() - began
            added.append((pair["once"] - pair["bare"]) / 1000)
    LSTMInstrumentor().instrument()
    return statistics.median(added)


class Head(torch.nn.Module):
    """Returns logits that are already there, so that only our reading is measured."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits


def large_batch(rounds: int) -> dict[str, float]:
    """Return microseconds at 1024 x 1000: the ways to a largest probability, and all that our call adds."""
    logits = torch.randn(1024, 1000)
    x = torch.zeros(1024, 20, 4)
    provider = provider_of()
    recorder = Recorder(Settings(), tracer_provider=provider)
    bare, ours = Head(logits), trace_lstm(Head(logits), name="head")
    ways: dict[str, Callable[[], Any]] = {
        "softmax().max()": lambda: logits.softmax(1).max(1).values,
        "softmax().amax()": lambda: logits.softmax(1).amax(1),
        "(amax - logsumexp).exp()": lambda: (logits.amax(1) - logits.logsumexp(1)).exp(),
        "bare": lambda: bare(x),
        "ours, every confidence and eight rows whole": lambda: large.read(logits, "logits", None, 1.0, 64),
        "ours, all of it": lambda: ours(x),
    }
    times: dict[str, list[int]] = {name: [] for name in ways}
    shuffle = random.Random(3)
    set_default_recorder(recorder)
    with torch.no_grad():
        for turn in range(rounds + 5):
            for name in shuffle.sample(list(ways), len(ways)):
                began = time.thread_time_ns()
                ways[name]()
                if turn >= 5:
                    times[name].append(time.thread_time_ns() - began)
                else:
                    time.thread_time_ns()
    found = {name: statistics.quantiles(values, n=4)[0] / 1000 for name, values in times.items()}
    found["ours, all of it"] -= found.pop("bare")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    medians = measure(variants(), given.rounds)
    bare = medians["bare"]
    floor = medians["floor"] - bare
    added = {name: value - bare for name, value in medians.items() if name != "bare"}
    added["ours, uninstrumented"] = uninstrumented(given.rounds)
    batch = large_batch(max(20, given.rounds // 10))
    if given.json:
        print(
            json.dumps(
                {
                    "bare_us": bare,
                    "added_us": added,
                    "of_floor": {name: value / floor for name, value in added.items()},
                    "large_batch_us": batch,
                }
            )
        )
        return
    print(f"bare forward (1, {STEPS}), hidden {HIDDEN}, {len(LABELS)} classes: {bare:.1f} µs thread-CPU, lower quartile of {given.rounds}")
    print(f"{'added by':32}{'µs':>8}{'× floor':>10}")
    for name, value in added.items():
        print(f"{name:32}{value:8.1f}{value / floor:10.2f}")
    cheapest = min(value for name, value in batch.items() if not name.startswith("ours"))
    print(f"\n{'1024 x 1000 classes':45}{'µs':>8}{'× cheapest':>12}")
    for name, value in batch.items():
        print(f"{name:45}{value:8.0f}{value / cheapest:12.2f}")


if __name__ == "__main__":
    main()

"""Stores of traces as an application would have written them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry import context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from lstm_trace import conventions as c
from lstm_trace import upstream
from lstm_trace.export.otlp_json import StoreExporter
from lstm_trace.facts import Component, Prediction, SequenceFacts, Step
from lstm_trace.recorder import Recorder
from lstm_trace.settings import Settings
from lstm_trace.upstream import UpstreamProcessor


@dataclass(frozen=True)
class Answered:
    """One session: what was predicted and done, and under which trace id it lies in the store."""

    trace_id: str
    predicted: str
    branch: str
    length: int
    release: str


INTENTS = ("refund", "repair", "cancel")


def write_store(
    folder: Path, count: int, *, release: str = "v1", seed: int = 0, content: bool = False, lengths: Sequence[int] = (3, 14)
) -> list[Answered]:
    """Answer ``count`` sessions into ``folder``; what is answered follows from the seed."""
    provider = TracerProvider(resource=Resource({"service.name": "agent", "service.version": release}), shutdown_on_exit=False)
    provider.add_span_processor(UpstreamProcessor())
    provider.add_span_processor(SimpleSpanProcessor(StoreExporter(folder)))
    recorder = Recorder(Settings(), tracer_provider=provider)
    rng = random.Random(seed)
    answered = [_answer(provider, recorder, rng, release, content, lengths) for _ in range(count)]
    provider.shutdown()
    return answered


def _answer(
    provider: TracerProvider, recorder: Recorder, rng: random.Random, release: str, content: bool, lengths: Sequence[int]
) -> Answered:
    tracer = provider.get_tracer("app")
    predicted, length = rng.choice(INTENTS), rng.choice(lengths)
    question, article = f"How do I {predicted}?", f"To {predicted}, bring the receipt."

    def said(**texts: Any) -> dict[str, Any]:
        return texts if content else {}

    with tracer.start_as_current_span("chain claims", attributes={c.OI_KIND: "CHAIN"}) as root:
        root.set_attributes(said(**{c.OI_INPUT: question}))
        component = Component("intent")
        opened = recorder.open_component(component)
        assert opened is not None
        recorder.finish_component(opened, component, (Prediction(predicted, confidence=0.75),), SequenceFacts((length,), "declared"))
        branch = f"retrieve_{predicted}"
        retrieval = {c.OI_KIND: "RETRIEVER", **said(**{c.OI_INPUT: question, f"{c.OI_DOCUMENTS}0.document.content": article})}
        with running_step(recorder, Step(2, branch)), tracer.start_as_current_span(f"retrieval {predicted}", attributes=retrieval):
            pass
        root.set_attributes(said(**{c.OI_OUTPUT: article}))
        trace_id = f"{root.get_span_context().trace_id:032x}"
    return Answered(trace_id, predicted, branch, length, release)


@contextmanager
def running_step(recorder: Recorder, step: Step) -> Iterator[None]:
    """Run a block as one step of the trajectory."""
    opened = recorder.open(f"chain {step.branch}", attributes=upstream.step_facts(step))
    assert opened is not None
    token = context.attach(upstream.with_facts(opened.context, upstream.step_facts(step)))
    try:
        yield
    finally:
        context.detach(token)
        opened.finish()

"""Below a run that the sampler did not take: nothing is opened, the trace's identity is carried on, and what is sampled is still traced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from opentelemetry import context, propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from lstm_trace import LangChainInstrumentor, Settings
from tests.langchain.models import Scripted

SAMPLED = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1))


@pytest.fixture
def memory() -> Iterator[InMemorySpanExporter]:
    found = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(0.0), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(found))
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider, settings=Settings(strict=True))
    yield found
    left = instrumentor.live_runs()
    instrumentor.uninstrument()
    assert left == 0


def test_every_step_carries_the_unsampled_trace_on(memory: InMemorySpanExporter) -> None:
    sent: list[str] = []

    def step(x: Any) -> Any:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        sent.append(carrier["traceparent"])
        return x

    chain: Any = RunnableLambda(step) | {"a": RunnableLambda(step), "b": RunnableLambda(lambda x: (RunnableLambda(step)).invoke(x))}
    chain.invoke(1)
    assert len({each.split("-")[1] for each in sent}) == 1
    assert {each.split("-")[3][-1] for each in sent} <= {"0", "2"}, "sampled is the lowest bit"
    assert len(sent) == 3
    assert memory.get_finished_spans() == ()


def test_a_chain_inside_a_sampled_trace_of_its_own_is_traced(memory: InMemorySpanExporter) -> None:
    inner: Any = RunnableLambda(str).with_config(run_name="inner") | Scripted()

    def step(x: Any) -> Any:
        token = context.attach(trace.set_span_in_context(NonRecordingSpan(SAMPLED)))
        try:
            return inner.invoke(x).content
        finally:
            context.detach(token)

    assert (RunnableLambda(str) | RunnableLambda(step)).invoke("x") == "yes"
    assert {span.name for span in memory.get_finished_spans()} == {"chain RunnableSequence", "chain inner", "chat scripted-1"}
    assert {span.context.trace_id for span in memory.get_finished_spans()} == {7}

"""A span started without asking the sampler is the span that the tracer would have started."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanLimits, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

from lstm_trace.recorder.starting import Starting
from tests.tracing import CountedIds

PARENTS = {
    "none": INVALID_SPAN_CONTEXT,
    "local": SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(1)),
    "remote": SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "x")])),
    "random": SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(3)),
}
ATTRIBUTES: dict[str, Any] = {"lstm.component.name": "intent", "n": 3, "share": 0.5, "on": True, "list": ("a", "b")}


def finished(parent: SpanContext, *, short: bool, limits: SpanLimits | None = None) -> dict[str, object]:
    """Start and end one span, by the short way or the tracer's own, and return all that an exporter sees of it."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(id_generator=CountedIds(), shutdown_on_exit=False, span_limits=limits, sampler=sampling.DEFAULT_ON)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("scope", "1")
    current = trace.set_span_in_context(NonRecordingSpan(parent), Context()) if parent.is_valid else Context()
    links = [Link(SpanContext(1, 2, is_remote=True), {"link.kind": "upstream"})]
    if short:
        span = Starting(tracer).start("name", current, parent, SpanKind.CLIENT, dict(ATTRIBUTES), links, 10)
    else:
        span = tracer.start_span("name", current, SpanKind.CLIENT, ATTRIBUTES, links, 10)
    span.add_event("event", {"k": 1}, 15)
    span.end(20)
    (seen,) = memory.get_finished_spans()
    return {
        "context": (seen.context.trace_id, seen.context.span_id, int(seen.context.trace_flags), dict(seen.context.trace_state)),
        "parent": seen.parent,
        "attributes": dict(seen.attributes or {}),
        "links": [(link.context.span_id, dict(link.attributes or {})) for link in seen.links],
        "events": [(event.name, event.timestamp, dict(event.attributes or {})) for event in seen.events],
        "times": (seen.start_time, seen.end_time),
        "rest": (seen.name, seen.kind, seen.status.status_code, seen.resource, seen.instrumentation_scope, seen.dropped_attributes),
    }


@pytest.mark.parametrize("parent", PARENTS.values(), ids=PARENTS)
@pytest.mark.parametrize("limits", [None, SpanLimits(max_span_attributes=2), SpanLimits(max_span_attribute_length=3)])
def test_the_same_span(parent: SpanContext, limits: SpanLimits | None) -> None:
    assert finished(parent, short=True, limits=limits) == finished(parent, short=False, limits=limits)

"""Finished spans that use every field and value type of OTLP."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

VALUES = {
    "text": 'naïve 😀 " \\ \n\u2028',
    "empty": "",
    "yes": True,
    "no": False,
    "whole": 20,
    "zero": 0,
    "negative": -(2**63),
    "largest": 2**63 - 1,
    "share": 0.91,
    "minus_zero": -0.0,
    "tiny": 5e-324,
    "round": 3.0,
    "bytes": b"\x00\xff\x10",
    "texts": ("a", "b"),
    "flags": (True, False),
    "numbers": (1, 2, 3),
    "shares": (0.5, float("inf")),
    "nothing": (),
    "nested": {"a": {"b": [1, "x", 0.5]}, "n": None},
    "nan": float("nan"),
    "inf": float("inf"),
    "minus_inf": float("-inf"),
}


def every_shape() -> list[ReadableSpan]:
    memory = InMemorySpanExporter()
    resource = Resource(
        {"service.name": "claims", "service.version": "v2", "ports": (80, 443)}, schema_url="https://opentelemetry.io/schemas/1.40.0"
    )
    provider = TracerProvider(
        resource=resource, shutdown_on_exit=False, span_limits=SpanLimits(max_events=4, max_links=2, max_span_attributes=64)
    )
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("lstm_trace", "0.1", schema_url="https://example.org/1", attributes={"scope.fact": 1})
    plain = provider.get_tracer("other")

    remote = SpanContext(
        0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True, TraceFlags(1), TraceState([("vendor", "x"), ("b", "2")])
    )
    # No trace state: the official encoder forgets it on links, ours is tested by itself.
    linked = SpanContext(remote.trace_id, remote.span_id, True, TraceFlags(1))
    below_remote = trace.set_span_in_context(NonRecordingSpan(remote))
    with tracer.start_as_current_span("server", context=below_remote, kind=SpanKind.SERVER, attributes={"a": 1}):
        with plain.start_as_current_span("client", kind=SpanKind.CLIENT, links=[Link(linked, {"lstm.link.kind": "upstream"})]) as client:
            client.set_status(Status(StatusCode.ERROR, "it failed — twice"))
        with tracer.start_as_current_span("values", attributes=VALUES) as values:
            values.set_status(StatusCode.OK)
            values.add_event("lstm.prediction", VALUES, timestamp=1_700_000_000_000_000_001)
            values.add_event("bare")
    with tracer.start_as_current_span("overfull", kind=SpanKind.PRODUCER, links=[Link(linked)] * 3) as overfull:
        for number in range(6):
            overfull.add_event(f"event {number}", {"number": number})
    with tracer.start_as_current_span("consumer", kind=SpanKind.CONSUMER):
        pass
    provider.shutdown()
    return list(memory.get_finished_spans())

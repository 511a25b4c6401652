"""The whole run through a real collector: every span, attribute, event and link arrives, over HTTP and over gRPC."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import lstm_trace
from tests.export.collector import Collector, collector
from tests.tracing import Traced
from tests.whole_run import EVENTS, build

__all__ = ["collector"]

pytestmark = pytest.mark.real


def python(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return tuple(python(each) for each in value.array_value.values) if kind == "array_value" else getattr(value, str(kind))


def plain(attributes: Any) -> dict[str, Any]:
    return {each.key: python(each.value) for each in attributes} if not isinstance(attributes, dict) else attributes


def received(span: Any) -> Any:
    number = lambda raw: int.from_bytes(raw, "big")  # noqa: E731
    return (
        span.name,
        number(span.trace_id),
        number(span.span_id),
        number(span.parent_span_id),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        plain(span.attributes),
        [(event.name, event.time_unix_nano, plain(event.attributes)) for event in span.events],
        [(number(link.trace_id), number(link.span_id), plain(link.attributes)) for link in span.links],
    )


def sent(span: Any) -> Any:
    return (
        span.name,
        span.context.trace_id,
        span.context.span_id,
        span.parent.span_id if span.parent is not None else 0,
        span.start_time,
        span.end_time,
        dict(span.attributes),
        [(event.name, event.timestamp, dict(event.attributes)) for event in span.events],
        [(link.context.trace_id, link.context.span_id, dict(link.attributes)) for link in span.links],
    )


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_nothing_is_lost_on_the_way(traced: Traced, collector: Collector, protocol: str) -> None:
    over_http = HttpExporter(endpoint=f"{collector.http_endpoint}/v1/traces")
    exporter = over_http if protocol == "http" else GrpcExporter(endpoint=collector.grpc_endpoint, insecure=True)
    traced.provider.add_span_processor(SimpleSpanProcessor(exporter))
    lstm_trace.instrument(tracer_provider=traced.provider, settings=lstm_trace.Settings(release="v1", strict=True))
    try:
        _, ref = build()("s-1", [1 + n % 7 for n in range(EVENTS)] + [0, 0])
        lstm_trace.record_feedback(ref, "down")
    finally:
        lstm_trace.uninstrument()
    arrived = collector.spans(len(traced.spans))
    by_id = lambda each: each[2]  # noqa: E731
    assert sorted(map(received, arrived), key=by_id) == sorted(map(sent, traced.spans), key=by_id)

"""Through a real collector: every span, attribute, event and link that goes in over HTTP or gRPC comes out."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan

from lstm_trace.export.delivery import DeliveringSpanExporter
from lstm_trace.export.endpoint import resolve
from lstm_trace.export.otlp_json import StoreExporter
from lstm_trace.export.outage import Outages
from tests.export.collector import Collector

pytestmark = pytest.mark.real


def _by_id(spans: list[Span]) -> dict[bytes, str]:
    return {span.span_id: str(span) for span in spans}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_every_span_attribute_event_and_link_arrives(
    collector: Collector, spans: list[ReadableSpan], protocol: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = tmp_path_factory.mktemp("store")
    endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
    target = resolve("traces", endpoint, {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    exporter = DeliveringSpanExporter(target, StoreExporter(store), keep_all=False, outages=Outages())
    exporter.export(spans)
    assert exporter.force_flush(10_000)
    arrived = collector.spans(len(spans))
    exporter.shutdown()

    sent = encode_spans(spans).resource_spans
    assert _by_id(arrived) == _by_id([span for group in sent for scope in group.scope_spans for span in scope.spans])
    assert {str(group.resource.attributes) for group in collector.resource_spans()} == {str(sent[0].resource.attributes)}
    assert not list(store.iterdir())

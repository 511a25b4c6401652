"""Encoding one batch three ways, interleaved: ours, protobuf by the SDK's encoder, and that encoder's JSON. Ratios of CPU time, one run.

The spans are of LSTM shape: 10 attributes, 4 events of 6 attributes. Then what the store's writer adds, and the size of each form.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from google.protobuf import json_format
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lstm_trace.export.otlp_json import StoreExporter, encode_lines

_BATCH, _ROUNDS = 512, 11


def _batch() -> list[ReadableSpan]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("lstm_trace", "0.1")
    attributes = {
        "openinference.span.kind": "CHAIN",
        "lstm.component.name": "intent",
        "lstm.release": "v2",
        "lstm.cell": "LSTM",
        "lstm.batch.size": 1,
        "lstm.sequence.length": 20,
        "lstm.sequence.cohort": "13-20",
        "lstm.prediction.label": "refund",
        "lstm.prediction.confidence": 0.91,
        "lstm.prediction.margin": 0.82,
    }
    event = {
        "lstm.batch.index": 0,
        "lstm.sequence.length": 20,
        "lstm.prediction.label": "refund",
        "lstm.prediction.index": 2,
        "lstm.prediction.confidence": 0.91,
        "lstm.state.origin": "none",
    }
    for _ in range(_BATCH):
        with tracer.start_as_current_span("lstm intent", attributes=attributes) as span:
            for _ in range(4):
                span.add_event("lstm.prediction", event)
    return list(memory.get_finished_spans())


def main() -> None:
    spans = _batch()
    with tempfile.TemporaryDirectory() as folder:
        store = StoreExporter(Path(folder))
        ways: dict[str, Callable[[], object]] = {
            "ours, OTLP JSON": lambda: encode_lines(spans),
            "ours, into the store": lambda: store.export(spans),
            "protobuf, SDK": lambda: encode_spans(spans).SerializeToString(),
            "JSON of protobuf": lambda: json_format.MessageToJson(encode_spans(spans), indent=None),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(_ROUNDS):
            for name, way in ways.items():
                began = time.process_time()
                way()
                times[name].append(time.process_time() - began)
        store.shutdown()
    median = {name: statistics.median(values) for name, values in times.items()}
    base = median["ours, OTLP JSON"]
    for name, seconds in median.items():
        print(f"{name:22} {seconds / _BATCH * 1e6:7.1f} µs a span   × {seconds / base:.2f}")
    json_bytes, protobuf_bytes = len(encode_lines(spans)[0][0]), len(encode_spans(spans).SerializeToString())
    print(f"{'bytes a span':22} {json_bytes / _BATCH:7.0f} JSON, {protobuf_bytes / _BATCH:.0f} protobuf")


if __name__ == "__main__":
    main()

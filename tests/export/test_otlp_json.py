"""What our encoder writes is what the official one writes, field by field, and always JSON."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, TraceState

from lstm_trace.export.otlp_json import any_value, encode_lines, request_to_dict, span_to_dict

_IDS = ("traceId", "spanId", "parentSpanId")


def _base64_ids(value: Any) -> Any:
    """Undo OTLP's one deviation from protobuf's JSON: ids are hex."""
    if isinstance(value, dict):
        return {key: base64.b64encode(bytes.fromhex(item)).decode() if key in _IDS else _base64_ids(item) for key, item in value.items()}
    return [_base64_ids(item) for item in value] if isinstance(value, list) else value


def _as_protobuf(line: bytes) -> ExportTraceServiceRequest:
    return json_format.ParseDict(_base64_ids(json.loads(line)), ExportTraceServiceRequest())


def _official_json(spans: list[ReadableSpan]) -> Any:
    """The official encoder's JSON, with hex ids."""
    found = json_format.MessageToDict(encode_spans(spans), use_integers_for_enums=True)

    def hex_ids(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: base64.b64decode(item).hex() if key in _IDS else hex_ids(item) for key, item in value.items()}
        return [hex_ids(item) for item in value] if isinstance(value, list) else value

    return hex_ids(found)


def _sorted(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True))


def test_a_line_parses_into_the_official_encoders_message(spans: list[ReadableSpan]) -> None:
    ((line, count),) = encode_lines(spans)
    assert count == len(spans) == 5
    # NaN is unequal to itself in protobuf too: compare the text form.
    assert str(_as_protobuf(line)) == str(encode_spans(spans))


def test_the_json_itself_equals_the_official_one(spans: list[ReadableSpan]) -> None:
    ours, official = json.loads(encode_lines(spans)[0][0]), _official_json(spans)
    # The two spell an empty array and an empty attribute list differently; both are the same message, as the test above shows.
    text = json.dumps(_sorted(ours)).replace('{"arrayValue": {"values": []}}', '{"arrayValue": {}}')
    assert text == json.dumps(_sorted(official))


def test_one_line_has_the_collectors_shape(spans: list[ReadableSpan]) -> None:
    line = encode_lines(spans)[0][0]
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    (group,) = json.loads(line)["resourceSpans"]
    assert [scope["scope"]["name"] for scope in group["scopeSpans"]] == ["other", "lstm_trace"]
    span = group["scopeSpans"][0]["spans"][0]
    assert (span["name"], span["kind"], span["traceId"]) == ("client", 3, "0af7651916cd43dd8448eb211c80319c")
    assert span["status"] == {"code": 2, "message": "it failed — twice"}
    assert isinstance(span["startTimeUnixNano"], str)


@pytest.mark.parametrize(("value", "text"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_a_nonfinite_double_is_the_string_of_the_protojson_mapping(value: float, text: str) -> None:
    assert any_value(value) == {"doubleValue": text}


def test_numpy_scalars_keep_their_type() -> None:
    numpy = pytest.importorskip("numpy")
    assert json.loads(json.dumps(any_value(numpy.float64(0.5)))) == {"doubleValue": 0.5}


def _span_with(attributes: dict[str, Any]) -> list[ReadableSpan]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.get_tracer("t").start_span("s", attributes=attributes).end()
    return list(memory.get_finished_spans())


def test_a_lone_surrogate_costs_one_character_not_the_request() -> None:
    ((line, _),) = encode_lines(_span_with({"file": "a\udce9b", "cut": "\ud83d", "whole": "😀"}))
    written = {
        item["key"]: item["value"]["stringValue"]
        for item in json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"]
    }
    assert written == {"file": "a\ufffdb", "cut": "\ufffd", "whole": "😀"}


def test_an_integer_beyond_64_bits_is_kept_as_text() -> None:
    ((line, _),) = encode_lines(_span_with({"huge": 2**64}))
    assert b'{"key":"huge","value":{"stringValue":"18446744073709551616"}}' in line


def test_a_long_request_is_split_into_lines_that_hold_every_span_once(spans: list[ReadableSpan]) -> None:
    lines = encode_lines(spans, longest=2500)
    assert len(lines) > 1
    assert sum(count for _, count in lines) == len(spans)
    names = [
        span["name"]
        for line, _ in lines
        for group in json.loads(line)["resourceSpans"]
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    ]
    assert sorted(names) == sorted(span.name for span in spans)
    assert all(len(line) <= 2500 or count == 1 for line, count in lines)


def test_a_links_trace_state_is_kept() -> None:
    remote = SpanContext(1, 2, True, trace_state=TraceState([("vendor", "x"), ("b", "2")]))
    span = ReadableSpan("s", context=_CONTEXT, links=[Link(remote)], start_time=1, end_time=2)
    assert span_to_dict(span)["links"] == [{"traceId": f"{1:032x}", "spanId": f"{2:016x}", "traceState": "vendor=x,b=2", "flags": 0x300}]


def test_no_spans_make_no_line() -> None:
    assert encode_lines([]) == []


_SCALARS = st.one_of(st.text(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.binary(max_size=20), st.none())
_ANY = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=8)


@settings(deadline=None)  # a loaded machine is no bug
@given(st.dictionaries(st.text(min_size=1), _ANY, max_size=6))
def test_every_attribute_value_survives_as_the_official_encoder_has_it(attributes: dict[str, Any]) -> None:
    span = ReadableSpan("s", context=_CONTEXT, attributes=attributes, start_time=1, end_time=2)
    ((line, _),) = encode_lines([span])
    assert str(_as_protobuf(line)) == str(encode_spans([span]))


_CONTEXT = _span_with({})[0].context


def test_spans_of_two_resources_stand_in_two_groups() -> None:
    spans = [*_span_with({"a": 1}), *_span_with({"a": 2})]
    assert len(request_to_dict(spans)["resourceSpans"]) == 2

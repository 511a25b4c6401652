"""OTLP protobuf files as lines of OTLP JSON: one request a file, or many with a length before each.

The Collector's file exporter writes four bytes of length, most significant first, before each request, and compresses request by request;
protobuf's own ``writeDelimitedTo`` writes a varint. Both are read, and either may hold JSON instead (the Collector's ``format: json`` with
``compression: zstd``).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson
import pyarrow as pa

from lstm_trace.store.files import Unpacked
from lstm_trace.store.lenient import Tally

_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_LONGEST_MESSAGE: Final = 1 << 30
_LARGEST_UNPACKED: Final = 1 << 30

Json = dict[str, Any]


def blocks_of(stream: Unpacked, size: int, tally: Tally) -> Iterator[bytes]:
    """Blocks of about ``size`` bytes, each line one request as OTLP JSON. A message that is cut off or damaged is counted in ``tally``."""
    lines: list[bytes] = []
    held = 0
    for message in _messages(stream, tally):
        line = _line(message)
        if line is None:
            tally.malformed += 1
            continue
        lines.append(line)
        held += len(line)
        if held >= size:
            yield b"\n".join(lines)
            lines, held = [], 0
    if lines:
        yield b"\n".join(lines)


def _messages(stream: Unpacked, tally: Tally) -> Iterator[bytes]:
    head = stream.read(4)
    if head[:1] == b"\0":
        yield from _delimited(stream, head, tally)
        return
    data = head + stream.read()
    single = _line(data)
    if single is not None:
        yield data
    else:
        yield from _varint_delimited(data, tally)


def _delimited(stream: Unpacked, head: bytes, tally: Tally) -> Iterator[bytes]:
    while len(head) == 4:
        size = int.from_bytes(head, "big")
        message = stream.read(size) if size <= _LONGEST_MESSAGE else b""
        if len(message) < size:
            tally.malformed += 1
            return
        yield message
        head = stream.read(4)
    tally.malformed += bool(head)


def _varint_delimited(data: bytes, tally: Tally) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size, shift = 0, 0
        while at < len(data) and shift < 35:
            byte = data[at]
            size |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        if at + size > len(data):
            tally.malformed += 1
            return
        yield data[at : at + size]
        at += size


def _line(message: bytes) -> bytes | None:
    """One request as a line of OTLP JSON; None when it is no request."""
    if message.startswith(_ZSTD):
        try:
            message = pa.CompressedInputStream(pa.BufferReader(message), "zstd").read(_LARGEST_UNPACKED)
        except (OSError, pa.ArrowInvalid):
            return None
    if message[:1] == b"{":
        return message.replace(b"\n", b" ")
    request = decoded(message)
    return None if request is None else orjson.dumps(request, option=orjson.OPT_NON_STR_KEYS)


def decoded(message: bytes) -> Json | None:
    """An ExportTraceServiceRequest as its OTLP JSON; None when the bytes are not one."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(message)
    except DecodeError:
        return None
    groups: list[Json] = []
    for group in request.resource_spans:
        scopes = [{"scope": {"name": scope.scope.name}, "spans": [_span(span) for span in scope.spans]} for scope in group.scope_spans]
        groups.append({"resource": {"attributes": _attributes(group.resource.attributes)}, "scopeSpans": scopes})
    return {"resourceSpans": groups}


def _span(span: Any) -> Json:
    return {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "parentSpanId": span.parent_span_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": span.start_time_unix_nano,
        "endTimeUnixNano": span.end_time_unix_nano,
        "attributes": _attributes(span.attributes),
        "events": [
            {"timeUnixNano": event.time_unix_nano, "name": event.name, "attributes": _attributes(event.attributes)} for event in span.events
        ],
        "links": [
            {"traceId": link.trace_id.hex(), "spanId": link.span_id.hex(), "attributes": _attributes(link.attributes)}
            for link in span.links
        ],
        "status": {"code": span.status.code},
    }


def _attributes(entries: Iterable[Any]) -> list[Json]:
    return [{"key": entry.key, "value": _value(entry.value)} for entry in entries]


def _value(value: Any) -> Json:
    which = value.WhichOneof("value")
    if which == "string_value":
        return {"stringValue": value.string_value}
    if which == "int_value":
        return {"intValue": value.int_value}
    if which == "double_value":
        return {"doubleValue": value.double_value if math.isfinite(value.double_value) else str(value.double_value)}
    if which == "bool_value":
        return {"boolValue": value.bool_value}
    if which == "array_value":
        return {"arrayValue": {"values": [_value(item) for item in value.array_value.values]}}
    if which == "kvlist_value":
        return {"kvlistValue": {"values": _attributes(value.kvlist_value.values)}}
    if which == "bytes_value":
        return {"bytesValue": base64.b64encode(value.bytes_value).decode()}
    return {}

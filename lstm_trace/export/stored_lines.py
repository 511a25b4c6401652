"""Lines of a store read back as protobuf requests, in batches worth a request."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_SPANS_A_REQUEST: Final = 512
_BYTES_A_REQUEST: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One whole line: ``end`` is the byte after it, ``message`` None where it is no OTLP request."""

    file: str
    number: int
    end: int
    raw: bytes
    message: ExportTraceServiceRequest | None

    @property
    def spans(self) -> int:
        """Spans in this line."""
        return 0 if self.message is None else sum(len(scope.spans) for group in self.message.resource_spans for scope in group.scope_spans)

    @property
    def place(self) -> str:
        """Where it stands, for a person."""
        return f"{self.file}:{self.number}"


def batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Gather lines into requests of some 512 spans or 2 MiB."""
    batch: list[Line] = []
    spans = size = 0
    for line in lines:
        batch.append(line)
        spans += line.spans
        size += line.message.ByteSize() if line.message is not None else 0
        if spans >= _SPANS_A_REQUEST or size >= _BYTES_A_REQUEST:
            yield batch
            batch, spans, size = [], 0, 0
    if batch:
        yield batch


def lines(file: Path, start: int, *, numbered: bool = True) -> Iterator[Line]:
    """Read the whole lines of ``file`` from byte ``start`` on; one without its newline is being written, or was torn by a kill.

    Without ``numbered`` what stands before ``start`` is not read, and lines count from there.
    """
    with file.open("rb") as opened:
        number, end = opened.read(start).count(b"\n") if numbered else 0, start
        opened.seek(start)
        for raw in opened:
            if not raw.endswith(b"\n"):
                return
            number, end = number + 1, end + len(raw)
            if raw.strip():
                yield Line(file.name, number, end, raw, _message(raw))


def _message(raw: bytes) -> ExportTraceServiceRequest | None:
    try:
        request = orjson.loads(raw)
        for group in request["resourceSpans"]:
            for scope in group.get("scopeSpans", ()):
                for span in scope.get("spans", ()):
                    for item in (span, *span.get("links", ())):
                        _ids_as_protobuf_has_them(item)
        message = ExportTraceServiceRequest()
        json_format.ParseDict(request, message, ignore_unknown_fields=True)
    except (ValueError, TypeError, KeyError, AttributeError, json_format.ParseError):
        return None
    return message


def _ids_as_protobuf_has_them(item: dict[str, Any]) -> None:
    # OTLP JSON has hex where protobuf's own JSON mapping has base64.
    for name in ("traceId", "spanId", "parentSpanId"):
        if item.get(name):
            item[name] = b64encode(bytes.fromhex(item[name])).decode()


def together(batch: Iterable[Line]) -> ExportTraceServiceRequest:
    """Put a batch into one request."""
    request = ExportTraceServiceRequest()
    for line in batch:
        if line.message is not None:
            request.resource_spans.extend(line.message.resource_spans)
    return request

"""Finished spans as OTLP JSON lines, one export request a line, in the shape of the Collector's file exporter.

The dictionaries are built straight from the SDK's span, without protobuf messages in between. Ids are lower-case hex, 64-bit integers
are strings, bytes are base64, NaN and the infinities are the strings that the ProtoJSON mapping names, enums are numbers, and fields
that hold their default are left out. Sources: OTLP 1.10 "JSON Protobuf Encoding"; https://protobuf.dev/programming-guides/json/.
"""

from __future__ import annotations

import logging
import math
import os
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext

from lstm_trace.errors import BadInput
from lstm_trace.export.line_file import LineFile, usable
from lstm_trace.guard import shield
from lstm_trace.settings import Settings

_log = logging.getLogger("lstm_trace")

Json = dict[str, Any]

_LONGEST_LINE: Final = 4 * 1024 * 1024
"""Bytes. Readers take a file in blocks and need each line to fit into one; a request that is longer is split."""

_DEFAULT_STORE: Final = Settings().store
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200


def any_value(value: Any) -> Json:
    """Encode one attribute value as an OTLP AnyValue.

    An integer beyond 64 bits, which OTLP cannot hold, becomes a string rather than nothing.

    >>> any_value(7), any_value(0.5), any_value((True, "a"))
    ({'intValue': '7'}, {'doubleValue': 0.5}, {'arrayValue': {'values': [{'boolValue': True}, {'stringValue': 'a'}]}})
    >>> any_value(float("-inf")), any_value(2**64)
    ({'doubleValue': '-Infinity'}, {'stringValue': '18446744073709551616'})
    """
    if value is None:
        return {}
    if isinstance(value, str):
        return {"stringValue": str.__str__(value)}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue" if -(2**63) <= value < 2**63 else "stringValue": str(int(value))}
    if isinstance(value, float):
        return {"doubleValue": float(value) if math.isfinite(value) else _nonfinite(value)}
    if isinstance(value, bytes | bytearray):
        return {"bytesValue": b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": [{"key": str(key), "value": any_value(item)} for key, item in value.items()]}}
    if isinstance(value, Sequence):
        return {"arrayValue": {"values": [any_value(item) for item in value]}}
    return {"stringValue": str(value)}


def _nonfinite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def key_values(attributes: Mapping[str, Any] | None) -> list[Json]:
    """Encode attributes as a list of OTLP KeyValue."""
    if not attributes:
        return []
    # The SDK's mapping reads through two Python calls an item; its copy() is one of a plain dict.
    copy = getattr(attributes, "copy", None)
    plain: Mapping[str, Any] = copy() if copy is not None else attributes
    encoded: list[Json] = []
    for key, value in plain.items():
        # The exact types, inline: nearly every value is one of them, and this loop is most of the encoder's time.
        kind = type(value)
        if kind is str:
            encoded.append({"key": key, "value": {"stringValue": value}})
        elif kind is float and value - value == 0.0:  # finite
            encoded.append({"key": key, "value": {"doubleValue": value}})
        else:
            encoded.append({"key": key, "value": any_value(value)})
    return encoded


def span_to_dict(span: ReadableSpan) -> Json:
    """Encode one finished span as an OTLP Span."""
    context = span.context
    if context is None:
        raise ValueError("this span has no context, so it has no ids to be told apart by")
    encoded: Json = {"traceId": f"{context.trace_id:032x}", "spanId": f"{context.span_id:016x}"}
    if context.trace_state:
        encoded["traceState"] = _trace_state(context)
    parent = span.parent
    if parent is not None:
        encoded["parentSpanId"] = f"{parent.span_id:016x}"
    encoded["flags"] = _flags(parent)
    encoded["name"] = span.name
    encoded["kind"] = span.kind.value + 1  # OTLP counts from 1; 0 is "unspecified"
    encoded["startTimeUnixNano"] = str(span.start_time or 0)
    encoded["endTimeUnixNano"] = str(span.end_time or 0)
    attributes = key_values(span.attributes)
    if attributes:
        encoded["attributes"] = attributes
    events = span.events
    if events:
        encoded["events"] = [_event(event) for event in events]
    links = span.links
    if links:
        encoded["links"] = [_link(link) for link in links]
    status = span.status
    encoded["status"] = _status(status.status_code.value, status.description) if status is not None else {}  # pyright: ignore[reportUnnecessaryComparison]
    for name, dropped in (
        ("droppedAttributesCount", span.dropped_attributes),
        ("droppedEventsCount", span.dropped_events),
        ("droppedLinksCount", span.dropped_links),
    ):
        if dropped:
            encoded[name] = dropped
    return encoded


def _event(event: Event) -> Json:
    encoded: Json = {"timeUnixNano": str(event.timestamp), "name": event.name}
    attributes = key_values(event.attributes)
    if attributes:
        encoded["attributes"] = attributes
    if event.dropped_attributes:
        encoded["droppedAttributesCount"] = event.dropped_attributes
    return encoded


def _link(link: Link) -> Json:
    context = link.context
    encoded: Json = {"traceId": f"{context.trace_id:032x}", "spanId": f"{context.span_id:016x}"}
    if context.trace_state:
        encoded["traceState"] = _trace_state(context)
    attributes = key_values(link.attributes)
    if attributes:
        encoded["attributes"] = attributes
    if link.dropped_attributes:
        encoded["droppedAttributesCount"] = link.dropped_attributes
    encoded["flags"] = _flags(context)
    return encoded


def _status(code: int, message: str | None) -> Json:
    encoded: Json = {}
    if code:
        encoded["code"] = code
    if message:
        encoded["message"] = message
    return encoded


def _flags(context: SpanContext | None) -> int:
    return _HAS_IS_REMOTE | _IS_REMOTE if context is not None and context.is_remote else _HAS_IS_REMOTE


def _trace_state(context: SpanContext) -> str:
    return ",".join(f"{key}={value}" for key, value in context.trace_state.items())


def request_to_dict(spans: Sequence[ReadableSpan]) -> Json:
    """Encode finished spans as one OTLP ExportTraceServiceRequest, grouped by resource and scope in the order of their arrival."""
    # By identity: a provider has one Resource and a tracer one scope, and hashing a Resource serialises it.
    resources: dict[int, tuple[Resource, dict[int, tuple[InstrumentationScope | None, list[Json]]]]] = {}
    for span in spans:
        resource, scope = span.resource, span.instrumentation_scope
        scopes = resources.setdefault(id(resource), (resource, {}))[1]
        scopes.setdefault(id(scope), (scope, []))[1].append(span_to_dict(span))
    return {"resourceSpans": [_resource_spans(resource, list(scopes.values())) for resource, scopes in resources.values()]}


def _resource_spans(resource: Resource, scopes: list[tuple[InstrumentationScope | None, list[Json]]]) -> Json:
    encoded: Json = {"resource": {"attributes": key_values(resource.attributes)}, "scopeSpans": []}
    for scope, spans in scopes:
        group: Json = {"scope": _scope(scope), "spans": spans}
        if scope is not None and scope.schema_url:
            group["schemaUrl"] = scope.schema_url
        encoded["scopeSpans"].append(group)
    if resource.schema_url:
        encoded["schemaUrl"] = resource.schema_url
    return encoded


def _scope(scope: InstrumentationScope | None) -> Json:
    if scope is None:
        return {}
    encoded: Json = {"name": scope.name}
    if scope.version:
        encoded["version"] = scope.version
    attributes = key_values(scope.attributes)
    if attributes:
        encoded["attributes"] = attributes
    return encoded


def encode_lines(spans: Sequence[ReadableSpan], *, longest: int = _LONGEST_LINE) -> list[tuple[bytes, int]]:
    """Encode spans as (line with its newline, spans in it): one line, or more where one would be longer than ``longest`` bytes."""
    if not spans:
        return []
    line = _dump(request_to_dict(spans))
    if len(line) <= longest or len(spans) == 1:
        return [(line, len(spans))]
    middle = len(spans) // 2
    return encode_lines(spans[:middle], longest=longest) + encode_lines(spans[middle:], longest=longest)


def _dump(request: Json) -> bytes:
    try:
        return orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        # A lone surrogate (a file name, a cut emoji) is no Unicode text and would cost the whole request: put U+FFFD in its place.
        return orjson.dumps(_mended(request), option=orjson.OPT_APPEND_NEWLINE)


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: _mended(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_mended(item) for item in value]
    return value


def _usable_or_default(store: str | os.PathLike[str]) -> str | os.PathLike[str]:
    # What an operator set must not keep an application from starting.
    try:
        usable(store)
    except BadInput as error:
        # About the default itself the first export speaks: beside an endpoint that takes every span it is never needed.
        if os.fspath(store) != _DEFAULT_STORE:
            _log.error("%s; the default %r stands", error, _DEFAULT_STORE)
        return _DEFAULT_STORE
    return store


class StoreExporter(SpanExporter):
    """Append finished spans to the local store: a folder of OTLP JSON lines, one file a process.

    Without arguments the folder is ``LSTM_TRACE_STORE`` (default ``lstm-traces``), so that
    ``opentelemetry-instrument --traces_exporter lstm_trace`` works. A new file is begun when ``max_file_bytes`` are reached.

    Raises BadInput (a ValueError) when the ``store`` given is a file or cannot be written to; without ``strict``, as for one that the
    environment names, that is logged and the default stands. Later on nothing is raised: when the disk is full or the folder is taken
    away, one log line says so, and a second one that spans are taken again and how many were dropped.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | None = None,
        *,
        strict: bool = True,
        max_file_bytes: int = 256 * 1024 * 1024,
        file: Callable[..., LineFile] = LineFile,
    ) -> None:
        if store is None:
            store, strict = Settings.from_env().store, False
        self.file = file(usable(store) if strict else _usable_or_default(store), max_file_bytes=max_file_bytes)
        self._dropped = 0
        self._closed = False

    @property
    def store(self) -> str:
        """The folder's absolute path."""
        return str(self.file.folder)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append ``spans`` as one line; never raises for what the disk does."""
        if self._closed:
            return SpanExportResult.FAILURE
        lines: list[tuple[bytes, int]] = []
        with shield:
            lines = encode_lines(spans)
        if not lines:
            return SpanExportResult.FAILURE if spans else SpanExportResult.SUCCESS
        written = 0
        try:
            for line, count in lines:
                self.file.append(line)
                written += count
        except OSError as error:
            self._refused(len(spans) - written, error)
            return SpanExportResult.FAILURE
        if self._dropped:
            _log.warning("the store %s takes spans again; %d were dropped in between", self.store, self._dropped)
            self._dropped = 0
        return SpanExportResult.SUCCESS

    def _refused(self, lost: int, error: OSError) -> None:
        if not self._dropped:
            _log.error("the store %s takes no spans (%s): they are dropped until it does", self.store, error.strerror or error)
        self._dropped += lost

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return True: what was exported is with the operating system already."""
        return True

    def shutdown(self) -> None:
        """Close the file; what is exported later is refused."""
        self._closed = True
        self.file.close()

"""Lines that are JSON but no export request as specified, brought into that form.

Accepted: the protobuf's own field names, the older ``instrumentationLibrarySpans``, Jaeger's ``{"result": …}`` around a request,
several requests in one JSON array, half surrogate pairs. Everything else that is no request is counted in a ``Tally``; nothing is raised.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

Json = dict[str, Any]

_OTHER_SIGNALS: Final = ("resourceLogs", "resourceMetrics", "resourceProfiles")
_RENAMED: Final = {
    snake: camel
    for camel, snake in (
        ("resourceSpans", "resource_spans"),
        ("resourceLogs", "resource_logs"),
        ("resourceMetrics", "resource_metrics"),
        ("resourceProfiles", "resource_profiles"),
        ("scopeSpans", "scope_spans"),
        ("scopeSpans", "instrumentationLibrarySpans"),
        ("scopeSpans", "instrumentation_library_spans"),
        ("scope", "instrumentationLibrary"),
        ("scope", "instrumentation_library"),
        ("traceId", "trace_id"),
        ("spanId", "span_id"),
        ("parentSpanId", "parent_span_id"),
        ("startTimeUnixNano", "start_time_unix_nano"),
        ("endTimeUnixNano", "end_time_unix_nano"),
        ("timeUnixNano", "time_unix_nano"),
        ("stringValue", "string_value"),
        ("intValue", "int_value"),
        ("doubleValue", "double_value"),
        ("boolValue", "bool_value"),
        ("arrayValue", "array_value"),
        ("kvlistValue", "kvlist_value"),
        ("bytesValue", "bytes_value"),
    )
}


@dataclass(slots=True)
class Tally:
    """What was met: ``malformed`` lines and spans and lines of ``other_signals``, all left out; and ``evaluation_events``."""

    malformed: int = 0
    other_signals: int = 0
    evaluation_events: int = 0

    def add(self, other: Tally) -> None:
        """Count another tally into this one."""
        self.malformed += other.malformed
        self.other_signals += other.other_signals
        self.evaluation_events += other.evaluation_events


def mended_lines(lines: Iterable[str], tally: Tally) -> Iterator[str]:
    """The lines that hold spans after all, each as one request in the specified form."""
    for line in lines:
        if not line.strip():
            continue
        try:
            yield from (orjson.dumps(request).decode() for request in _requests(load(line), tally))
        except (ValueError, TypeError, RecursionError):
            tally.malformed += 1


def load(line: str) -> Any:
    """Any JSON, also what is none by the book. Raises ValueError where it is not even that, RecursionError where it is nested too deep."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)  # takes half a surrogate pair and NaN tokens


def _requests(value: Any, tally: Tally) -> Iterator[Json]:
    for held in value if isinstance(value, list) else [value]:
        request = _renamed(held)
        if isinstance(request, dict) and isinstance(request.get("result"), dict):
            request = request["result"]
        if isinstance(request, dict) and isinstance(request.get("resourceSpans"), list):
            yield request
        elif isinstance(request, dict) and (not request or any(name in request for name in _OTHER_SIGNALS)):
            tally.other_signals += 1
        else:
            tally.malformed += 1


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {_RENAMED.get(key, _text(key)): _renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    if isinstance(value, str):
        return _text(value)
    # orjson writes a number that is not finite as null, and refuses an integer beyond 64 bits.
    return str(value) if isinstance(value, float | int) and not isinstance(value, bool) else value


def _text(value: str) -> str:
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def mended_id(value: str | None, size: int) -> str | None:
    """An id of ``size`` bytes as lower-case hex, from hex in either case or base64; None when it is neither, or all zeros.

    >>> mended_id("CvdlGRbNQ92ESOshHIAxnA==", 16)
    '0af7651916cd43dd8448eb211c80319c'
    """
    text = (value or "").strip()
    try:
        if len(text) == 2 * size:
            raw = bytes.fromhex(text)
        elif len(text) == (size + 2) // 3 * 4:
            raw = base64.b64decode(text, validate=True)
        else:
            return None
    except (ValueError, binascii.Error):
        return None
    return raw.hex() if len(raw) == size and any(raw) else None

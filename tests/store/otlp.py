"""OTLP JSON made by hand: one span, one request, one store of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lstm_trace.store.blocks import blocks_of
from lstm_trace.store.files import sniff
from lstm_trace.store.flatten import spans_of
from lstm_trace.store.lenient import Tally
from lstm_trace.store.parse import parse_block

TRACE = "0af7651916cd43dd8448eb211c80319c"
START = 1_750_000_000_000_000_000


def value(held: Any) -> dict[str, Any]:
    """An AnyValue as the Collector writes it; a dict is taken as it is."""
    if isinstance(held, bool):
        return {"boolValue": held}
    if isinstance(held, int):
        return {"intValue": str(held)}
    if isinstance(held, float):
        return {"doubleValue": held}
    if isinstance(held, list):
        return {"arrayValue": {"values": [value(item) for item in held]}}
    return held if isinstance(held, dict) else {"stringValue": held}


def attributes(held: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value(item)} for key, item in held.items()]


def span(number: int, held: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Span ``number`` of the trace, ``held`` as its attributes; ``fields`` replace OTLP fields, None takes one away."""
    made = {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "name": f"span {number}",
        "kind": 1,
        "startTimeUnixNano": str(START + number),
        "endTimeUnixNano": str(START + number + 1_500_000_000),
        "attributes": attributes(held or {}),
        "status": {},
    } | fields
    return {name: item for name, item in made.items() if item is not None}


def request(*spans: Any, resource: Mapping[str, Any] | None = None, scope: str = "lib") -> dict[str, Any]:
    group = {"scope": {"name": scope}, "spans": list(spans)}
    return {"resourceSpans": [{"resource": {"attributes": attributes(resource or {"service.name": "claims"})}, "scopeSpans": [group]}]}


def write(path: Path, *lines: Any) -> Path:
    """A file of lines: texts and bytes as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = [line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode() for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in raw))
    return path


def rows(store: Any, *columns: str) -> list[Any]:
    """The spans of a store in the order of their ids: tuples of ``columns``, or the value where it is one."""
    table = store.spans.order_by("trace_id", "span_id").select(*columns).to_pyarrow().to_pylist()
    return [row[columns[0]] if len(columns) == 1 else tuple(row.values()) for row in table]


def evaluations(store: Any, *columns: str) -> list[tuple[Any, ...]]:
    table = store.evaluations.select(*columns).to_pyarrow().to_pylist()
    return sorted((tuple(row.values()) for row in table), key=repr)


def spans_in(path: Path) -> tuple[list[dict[str, Any]], Tally]:
    """The spans in a file and what was met on the way, by the readers alone: no database is opened."""
    sniffed, tally = sniff(path), Tally()
    if sniffed.form not in ("json", "protobuf", "framed"):
        return [], tally
    requests = (lists for block in blocks_of(path, sniffed, tally) for lists in parse_block(block, tally))
    return [row for lists in requests for row in spans_of(lists, tally).to_pylist()], tally


def one(tmp_path: Path, made: Mapping[str, Any], *columns: str) -> Any:
    """What the columns say of one span that was written to a file and read back."""
    (row,), _ = spans_in(write(tmp_path / "one.jsonl", request(made)))
    return row[columns[0]] if len(columns) == 1 else tuple(row[name] for name in columns)

"""A block of OTLP JSON lines as one nested Arrow table, by DuckDB's JSON reader.

``json_transform`` reads a whole block into a given nested type without inferring anything, integers as numbers or strings alike, and
a field of another type as null. On lines of many spans it takes half the time of pyarrow's reader, which also refuses a block for
one odd line. The lines that are no request as specified are looked at one by one (``lenient``).
"""

# pyarrow.compute makes its functions when it is imported, where no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
import threading
from array import array
from itertools import pairwise
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lstm_trace import conventions as c
from lstm_trace.store.lenient import Tally, mended_lines

_TEXT: Final = "VARCHAR"
_PLAIN: Final = {"stringValue": _TEXT, "intValue": _TEXT, "doubleValue": "DOUBLE", "boolValue": "BOOLEAN"}
_PLAIN_ATTRIBUTES: Final = [{"key": _TEXT, "value": _PLAIN}]
_ATTRIBUTES: Final = [{"key": _TEXT, "value": _PLAIN | {"arrayValue": "JSON", "kvlistValue": "JSON", "bytesValue": _TEXT}}]
_IDS: Final = dict.fromkeys(("traceId", "spanId"), _TEXT)
_SPAN: Final = {
    **_IDS,
    **dict.fromkeys(("parentSpanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano"), _TEXT),
    "status": {"code": _TEXT},
}
_EVENTS: Final = [{"timeUnixNano": _TEXT, "name": _TEXT, "attributes": _ATTRIBUTES}]
_PIECE: Final = 1 << 18
"""Bytes of lines that DuckDB transforms at a time. What it makes of them on the way stays in the processor's cache and is used again
for the next ones: that takes a quarter less time than a whole block at once."""
_OLDER_FORM: Final = b'"instrumentationLibrarySpans"'

_own = threading.local()


def parse_block(block: bytes, tally: Tally, *, flat: bool = False, plain: bool = False) -> list[Any]:
    """Arrow list arrays of OTLP ResourceSpans, one list a line, from a block of whole lines; what is no request is counted in ``tally``.

    ``flat``: without what is needed for nested columns only (``flatten.arrow_schema``). ``plain``: attributes of spans and resources
    without arrays, maps and bytes (``attributes.NestedValue``).
    """
    form = _form(flat=flat, events=not flat or _may_judge(block), attributes=_PLAIN_ATTRIBUTES if plain else _ATTRIBUTES)
    lines = _text_lines(block)
    groups = _transformed(lines, form)
    # No list of ResourceSpans there: another signal, another form, or no JSON. The older form hides one level down.
    odd = pa.array([True] * len(lines)) if _older(groups, block) else pc.is_null(groups)
    if not pc.any(odd).as_py():
        return [groups]
    kept = [groups.filter(pc.invert(odd))]
    mended = list(mended_lines(lines.filter(odd).to_pylist(), tally))
    if mended:
        kept.append(_transformed(pa.array(mended, pa.string()), form))
    return [part for part in kept if len(part)]


def _form(*, flat: bool, events: bool, attributes: Any) -> Any:
    links = [_IDS if flat else _IDS | {"attributes": _ATTRIBUTES}]
    span = _SPAN | {"attributes": attributes, "links": links} | ({"events": _EVENTS} if events else {})
    return [{"resource": {"attributes": attributes}, "scopeSpans": [{"scope": {"name": _TEXT}, "spans": [span]}]}]


def _may_judge(block: bytes) -> bool:
    """Whether an event may be an evaluation. Its name may be written with escapes: then only reading it tells."""
    return c.EVENT_EVALUATION.encode() in block or (b"\\" in block and b"\\u00" in block)


def _older(groups: Any, block: bytes) -> bool:
    """Whether a line may be of the older form; a search of the whole block, so only where a group lacks scopes."""
    scopes = pc.struct_field(pc.list_flatten(groups), "scopeSpans")
    lacking = pc.equal(pc.list_value_length(scopes).fill_null(0), 0)
    return bool(pc.any(lacking).as_py()) and _OLDER_FORM in block


def _text_lines(block: bytes) -> Any:
    """The lines as an Arrow string array on the memory of ``block``, newlines and all: to JSON they are white space."""
    size = len(block)
    while size and block[size - 1] in b" \t\r\n\v\f":
        size -= 1
    bounds = array("i", [0])
    while (end := block.find(b"\n", bounds[-1], size) + 1) > 0:
        bounds.append(end)
    bounds.append(size)
    lines = pa.StringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(block))
    try:
        lines.validate(full=True)
    except pa.ArrowInvalid:  # bytes that are no UTF-8
        return pa.array([line.decode("utf-8", "replace") for line in block[:size].split(b"\n")], pa.string())
    return lines


def _transformed(lines: Any, form: Any) -> Any:
    read = f"json_transform(line, '{json.dumps({'resourceSpans': form})}').resourceSpans"
    connection = _connection()
    connection.register("lines", pa.table({"line": _in_pieces(lines)}))
    try:
        try:
            table = connection.sql(f"select {read} as groups from lines").to_arrow_table()
        except (duckdb.InvalidInputException, UnicodeDecodeError):  # a line that is no JSON; DuckDB's message may cut a letter of it in two
            table = connection.sql(f"select case when json_valid(line) then {read} end as groups from lines").to_arrow_table()
        # A copy, even of a single chunk: DuckDB's buffers are up to twice as large as what they hold.
        return table.column("groups").combine_chunks()
    finally:
        connection.unregister("lines")


def _in_pieces(lines: Any) -> Any:
    """The same lines as a chunked array, in chunks of ``_PIECE`` bytes or of a single line."""
    starts = np.frombuffer(lines.buffers()[1], dtype=np.int32)[lines.offset : lines.offset + len(lines)]
    cuts = np.flatnonzero(np.diff(starts // _PIECE)) + 1
    return pa.chunked_array([lines[start:end] for start, end in pairwise((0, *cuts.tolist(), len(lines)))])


def _connection() -> duckdb.DuckDBPyConnection:
    # One a thread, each with one thread of its own: the caller reads as many blocks at once as it wants processors busy.
    if not hasattr(_own, "connection"):
        _own.connection = duckdb.connect(config={"threads": 1})
    connection: duckdb.DuckDBPyConnection = _own.connection
    return connection

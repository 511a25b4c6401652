"""Nested requests as rows of the canonical spans table, column by column and without a Python loop over spans."""

# pyarrow.compute makes its functions when it is imported, where no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lstm_trace import conventions as c
from lstm_trace.store.attributes import Attributes, offsets
from lstm_trace.store.foreign import KIND_OF_OPERATION, OPERATIONS
from lstm_trace.store.lenient import Tally, mended_id
from lstm_trace.store.marks import EXPECTED, WEIGHT
from lstm_trace.store.schema import PROMOTED, Column, spans_schema

Array = Any
Indices = Any

KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES: Final = ("unset", "ok", "error")
_CASED: Final = {"lower": pc.utf8_lower, "upper": pc.utf8_upper}
_NONE: Final = pa.scalar(None, pa.string())
_TIME: Final = "^[0-9]{1,19}$"
_LOWER_HEX: Final = b"0123456789abcdef"
_ZEROS: Final = int.from_bytes(b"00000000", "little")


_WHOLE_ONLY: Final = ("attributes", "resource", "links")


@lru_cache(maxsize=2)
def arrow_schema(*, flat: bool = False) -> Any:
    """The canonical spans table's Arrow schema; ``flat``: without what is nested, but with evaluations among events and their notes."""
    whole = spans_schema().to_pyarrow()
    if not flat:
        return whole
    return pa.schema([*(field for field in whole if field.name not in _WHOLE_ONLY), (WEIGHT, pa.float64()), (EXPECTED, pa.string())])


def spans_of(requests: Array, tally: Tally, *, flat: bool = False) -> Any:
    """The spans in a list array of OTLP ResourceSpans (``parse.parse_block``) as an Arrow table of ``arrow_schema(flat=flat)``.

    A span without a trace id and a span id, or with one of zeros, is left out and counted as malformed.
    """
    groups = pc.list_flatten(requests)
    scopes_of_group = pc.struct_field(groups, "scopeSpans")
    scopes = pc.list_flatten(scopes_of_group)
    spans_of_scope = pc.struct_field(scopes, "spans")
    spans = pc.list_flatten(spans_of_scope)
    scope_of = pc.list_parent_indices(spans_of_scope)
    group_of = pc.list_parent_indices(scopes_of_group).take(scope_of)

    trace_id, span_id = _hex(spans, "traceId", 16), _hex(spans, "spanId", 8)
    known = pc.and_(pc.is_valid(trace_id), pc.is_valid(span_id))
    lost = len(known) - known.true_count
    if lost:
        tally.malformed += lost
        spans, trace_id, span_id = spans.filter(known), trace_id.filter(known), span_id.filter(known)
        scope_of, group_of = scope_of.filter(known), group_of.filter(known)

    own = Attributes(pc.struct_field(spans, "attributes"))
    resources = Attributes(pc.struct_field(groups, ["resource", "attributes"]))
    start, end = _time(spans, "startTimeUnixNano"), _time(spans, "endTimeUnixNano")
    columns: dict[str, Array] = {
        "trace_id": trace_id,
        "span_id": span_id,
        "parent_span_id": _hex(spans, "parentSpanId", 8),
        "name": pc.struct_field(spans, "name"),
        "kind": _named(pc.struct_field(spans, "kind"), KINDS, "SPAN_KIND_"),
        "scope": pc.struct_field(scopes, ["scope", "name"]).take(scope_of),
        "start_ns": start,
        "end_ns": end,
        "duration_s": _seconds(start, end),
        "status": _named(pc.struct_field(spans, ["status", "code"]), STATUSES, "STATUS_CODE_"),
        "events": _events(spans, tally),
    }
    if flat:
        columns |= {WEIGHT: _weight(own), EXPECTED: own.column((c.EVALUATION_EXPECTED,), "string")}
    else:
        columns |= {"attributes": own.maps(), "resource": resources.maps().take(group_of)}
    for column in PROMOTED:
        value = own.column(column.attributes, column.type)
        if column.resource:
            value = _else(value, partial(_of_resource, resources, column, group_of))
        columns[column.name] = _CASED[column.case](value) if column.case else value
    columns["span_kind"] = _else(columns["span_kind"], lambda: _derived_kind(own))
    links = columns["links"] = _links(pc.struct_field(spans, "links"))
    columns |= _judgement(columns, links)
    schema = arrow_schema(flat=flat)
    return pa.table([_typed(columns[field.name], field.type) for field in schema], schema=schema)


def _typed(values: Array, type_: Any) -> Array:
    return values if values.type.equals(type_) else values.cast(type_)


def _of_resource(resources: Attributes, column: Column, group_of: Array) -> Array:
    return resources.column(column.resource, column.type).take(group_of)


def _else(values: Array, other: Callable[[], Array]) -> Array:
    """``values``, and where they are null the ``other`` ones, which are worked out only then."""
    return values if values.null_count == 0 else pc.coalesce(values, other())


def _hex(items: Array, name: str, size: int) -> Array:
    text = pc.struct_field(items, name)
    plain = _plain_ids(text, size) if len(text) else None
    if plain is not None:
        return text if plain.all() else pc.if_else(pa.array(plain), text, _NONE)
    whole = pc.match_substring_regex(text, f"^[0-9a-f]{{{2 * size}}}$")
    good = pc.and_(whole, pc.not_equal(text, "0" * 2 * size)).fill_null(False)
    other = pc.and_(pc.invert(good), pc.not_equal(text, "")).fill_null(False)
    ids = [mended_id(value, size) for value in text.filter(other).to_pylist()]
    return pc.replace_with_mask(pc.if_else(good, text, _NONE), other, pa.array(ids, pa.string()))


def _plain_ids(text: Array, size: int) -> Indices | None:
    """Which texts are ids, where all are either empty or lower-case hex of ``size`` bytes, as nearly always; else None."""
    _, bounds, data = text.buffers()
    starts = np.frombuffer(bounds, dtype=np.int32)[text.offset : text.offset + len(text) + 1]
    sizes = np.diff(starts)
    held = sizes > 0
    digits = np.frombuffer(data or b"", dtype=np.uint8)[starts[0] : starts[-1]]
    if not (sizes[held] == 2 * size).all() or digits.tobytes().translate(None, _LOWER_HEX):
        return None
    words = digits.view(np.uint64).reshape(-1, size // 4)
    held[held] = (words != _ZEROS).any(axis=1)
    return held


def _time(items: Array, name: str) -> Array:
    written = pc.struct_field(items, name)
    try:
        time = written.cast(pa.int64())
    except pa.ArrowInvalid:
        digits = pc.if_else(pc.match_substring_regex(written, _TIME), written, _NONE)
        time = digits.cast(pa.decimal128(19, 0))
        time = pc.if_else(pc.less(time, pa.scalar(2**63, pa.decimal128(19, 0))), time, None).cast(pa.int64())
    return pc.if_else(pc.greater(time, 0), time, pa.scalar(None, pa.int64()))


def _seconds(start: Array, end: Array) -> Array:
    seconds = pc.divide(pc.subtract(end, start).cast(pa.float64(), safe=False), 1e9)
    return pc.if_else(pc.greater_equal(seconds, 0.0), seconds, pa.scalar(None, pa.float64()))


def _named(written: Array, names: tuple[str, ...], prefix: str) -> Array:
    """Enum values, written as numbers or by name, by our name; the first name where it is neither."""
    encoded = written.dictionary_encode()
    known = {str(number): name for number, name in enumerate(names)} | {prefix + name.upper(): name for name in names}
    read = pa.array([known.get(str(value).upper(), names[0]) for value in encoded.dictionary.to_pylist()], pa.string())
    return read.take(encoded.indices).fill_null(names[0])


def _derived_kind(own: Attributes) -> Array:
    at = pc.index_in(own.column(OPERATIONS, "string"), pa.array(list(KIND_OF_OPERATION)))
    return pa.array(list(KIND_OF_OPERATION.values())).take(at)


def _judgement(columns: dict[str, Array], links: Array) -> dict[str, Array]:
    """What the columns of an evaluation say in the end: a foreign one names neither its target nor its status."""
    judges = pc.is_valid(columns["evaluation_name"])
    said = pc.and_(pc.is_valid(columns["target_trace_id"]), pc.is_valid(columns["evaluation_status"]))
    if not pc.any(pc.and_not(judges, said)).as_py():
        return {}
    linked_trace, linked_span = (first.take(_first_items(links)) for first in pc.list_flatten(links).flatten()[:2])
    parent = pc.if_else(pc.equal(columns["span_kind"], "EVALUATOR"), columns["parent_span_id"], _NONE)
    itself = pc.coalesce(parent, columns["span_id"])
    target_trace = pc.coalesce(columns["target_trace_id"], linked_trace, columns["trace_id"])
    target_span = pc.if_else(pc.is_valid(linked_trace), linked_span, itself)
    target_span = pc.if_else(pc.is_valid(columns["target_trace_id"]), columns["target_span_id"], target_span)
    judged = pc.or_(pc.is_valid(columns["evaluation_score"]), pc.is_valid(columns["evaluation_label"]))
    status = pc.coalesce(columns["evaluation_status"], pc.if_else(judged, "ok", "error"))
    meant = {"target_trace_id": target_trace, "target_span_id": target_span, "evaluation_status": status}
    return {name: pc.if_else(judges, value, columns[name]) for name, value in meant.items()}


def _first_items(lists: Array) -> Array:
    """Where the first item of each list is in the flattened lists; null for an empty one."""
    sizes = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return pa.array(np.cumsum(sizes) - sizes, mask=sizes == 0)


def _weight(own: Attributes) -> Array:
    weight = own.column((c.EVALUATION_WEIGHT,), "float64")
    return pc.if_else(pc.greater(weight, 0.0), weight, pa.scalar(None, pa.float64()))


def _events(spans: Array, tally: Tally) -> Array:
    if spans.type.get_field_index("events") < 0:  # none of them is an evaluation, and nobody asks for others
        return pa.nulls(len(spans), arrow_schema().field("events").type)
    lists = pc.struct_field(spans, "events")
    events = pc.list_flatten(lists)
    name = pc.struct_field(events, "name")
    tally.evaluation_events += pc.equal(name, c.EVENT_EVALUATION).true_count
    fields = [name, _time(events, "timeUnixNano"), Attributes(pc.struct_field(events, "attributes")).maps()]
    return _regrouped(lists, pa.StructArray.from_arrays(fields, ["name", "time_ns", "attributes"]))


def _links(lists: Array) -> Array:
    links = pc.list_flatten(lists)
    fields = {"trace_id": _hex(links, "traceId", 16), "span_id": _hex(links, "spanId", 8)}
    if links.type.get_field_index("attributes") >= 0:
        fields["attributes"] = Attributes(pc.struct_field(links, "attributes")).maps()
    return _regrouped(lists, pa.StructArray.from_arrays(list(fields.values()), list(fields)))


def _regrouped(lists: Array, items: Array) -> Array:
    """``items`` in lists of the lengths of ``lists``; a null list becomes an empty one."""
    return pa.ListArray.from_arrays(offsets(pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)), items)

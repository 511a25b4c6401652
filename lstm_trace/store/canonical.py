"""The canonical spans table as an expression over a table that holds attributes as maps of text: the readers' rules, as a query.

This is what ``flatten`` does in Arrow, for engines that keep the Collector's own table. Both follow ``schema.COLUMNS``, and a test holds
them to equal rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from lstm_trace.store.foreign import KIND_OF_OPERATION, OPERATIONS
from lstm_trace.store.schema import COLUMNS, Column

INTEGER: Final = "^-?[0-9]{1,18}$"
NUMBER: Final = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


_JUDGED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "target_trace_id": ("evaluation_name", "links", "trace_id"),
    "target_span_id": ("evaluation_name", "links", "target_trace_id", "span_kind", "parent_span_id", "span_id"),
    "evaluation_status": ("evaluation_name", "evaluation_score", "evaluation_label"),
}
"""The columns of a judgement, and what they are made of besides themselves."""


def promoted(raw: Any, names: Iterable[str] | None = None) -> Any:
    """``raw`` with every column of ``schema.COLUMNS``, or with ``names`` of them: less to write out, to send and to understand.

    ``raw`` has the columns of the span itself (``trace_id`` to ``status``), ``attributes`` and ``resource`` as maps of text, ``events`` and
    ``links``. An empty text is a null one.
    """
    asked = [column.name for column in COLUMNS] if names is None else list(dict.fromkeys(names))
    made = {*asked}.union(*(_JUDGED_BY.get(name, ()) for name in asked))
    columns = [column for column in COLUMNS if column.name in made]
    values: dict[str, Any] = {}
    for column in columns:
        if column.name in raw.columns and not column.attributes:
            values[column.name] = raw[column.name]
        else:
            values[column.name] = _coalesced(raw, column)
    if "span_kind" in values:
        operation = _first(*(_text(raw.attributes, name) for name in OPERATIONS))
        derived = operation.cases(*KIND_OF_OPERATION.items())
        values["span_kind"] = _first(values["span_kind"], derived)
    table = raw.select(**{name: value.cast(column.type) for (name, value), column in zip(values.items(), columns, strict=True)})
    return _judged(table, [name for name in asked if name in _JUDGED_BY]).select(*asked)


def _coalesced(raw: Any, column: Column) -> Any:
    held = [_read(_text(raw.attributes, name), column) for name in column.attributes]
    held += [_read(_text(raw.resource, name), column) for name in column.resource]
    return _first(*held)


def _first(*values: Any) -> Any:
    import ibis

    return values[0] if len(values) == 1 else ibis.coalesce(*values)


def _text(held: Any, name: str) -> Any:
    return _element()(held, name).nullif("")


@lru_cache(maxsize=1)
def _element() -> Any:
    """ClickHouse's ``map[key]``, ``""`` where there is no such key: ibis's ``get`` looks through the map twice."""
    import ibis

    def engine(held: Any, key: Any) -> Any:
        """Name the types of a function that ClickHouse has: ibis reads the signature and never calls it."""

    signature = (("map<string, string>", "string"), "string")
    return ibis.udf.scalar.builtin(engine, name="arrayElement", signature=signature)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _read(text: Any, column: Column) -> Any:
    import ibis

    none = ibis.null("string")
    if column.type == "int64":
        return text.re_search(INTEGER).ifelse(text, none).cast("int64")
    if column.type == "float64":
        number = text.re_search(NUMBER).ifelse(text, none).cast("float64")
        return number.isinf().ifelse(ibis.null("float64"), number)
    if column.type == "boolean":
        return text.cases(("true", True), ("false", False))
    return text.lower() if column.case == "lower" else text.upper() if column.case == "upper" else text


def _judged(table: Any, names: Iterable[str]) -> Any:
    """What the columns of an evaluation say in the end: a foreign one names neither its target nor its status."""
    import ibis

    def target_trace_id() -> Any:
        return ibis.coalesce(table.target_trace_id, (table.links.length() > 0).ifelse(table.links[0]["trace_id"], table.trace_id))

    def target_span_id() -> Any:
        itself = ibis.coalesce((table.span_kind == "EVALUATOR").ifelse(table.parent_span_id, ibis.null("string")), table.span_id)
        aimed_at = (table.links.length() > 0).ifelse(table.links[0]["span_id"], itself)
        return table.target_trace_id.notnull().ifelse(table.target_span_id, aimed_at)

    def evaluation_status() -> Any:
        judged = table.evaluation_score.notnull() | table.evaluation_label.notnull()
        return ibis.coalesce(table.evaluation_status, judged.ifelse("ok", "error"))

    said = {"target_trace_id": target_trace_id, "target_span_id": target_span_id, "evaluation_status": evaluation_status}
    judges = {name: table.evaluation_name.notnull().ifelse(said[name](), table[name]) for name in names}
    return table.mutate(**judges) if judges else table

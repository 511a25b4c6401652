"""The canonical spans table as an expression over a table that holds attributes as maps of text: the readers' rules, as a query.

This is what ``flatten`` does in Arrow, for engines that keep the Collector's own table. Both follow ``schema.COLUMNS``, and a test holds
them to equal rows.
"""

from __future__ import annotations

from typing import Any, Final

from lstm_trace import conventions as c
from lstm_trace.store.foreign import KIND_OF_OPERATION
from lstm_trace.store.schema import COLUMNS, Column

INTEGER: Final = "^-?[0-9]{1,18}$"
NUMBER: Final = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def promoted(raw: Any) -> Any:
    """``raw`` with every column of ``schema.COLUMNS``.

    ``raw`` has the columns of the span itself (``trace_id`` to ``status``), ``attributes`` and ``resource`` as maps of text, ``events`` and
    ``links``. An empty text is a null one.
    """
    values: dict[str, Any] = {}
    for column in COLUMNS:
        if column.name in raw.columns and not column.attributes:
            values[column.name] = raw[column.name]
        else:
            values[column.name] = _coalesced(raw, column)
    operation = _text(raw.attributes, c.GEN_AI_OPERATION)
    derived = operation.cases(*KIND_OF_OPERATION.items())
    values["span_kind"] = _first(values["span_kind"], derived)
    table = raw.select(**{name: value.cast(column.type) for (name, value), column in zip(values.items(), COLUMNS, strict=True)})
    return _judged(table)


def _coalesced(raw: Any, column: Column) -> Any:
    held = [_read(_text(raw.attributes, name), column) for name in column.attributes]
    held += [_read(_text(raw.resource, name), column) for name in column.resource]
    return _first(*held)


def _first(*values: Any) -> Any:
    import ibis

    return values[0] if len(values) == 1 else ibis.coalesce(*values)


def _text(held: Any, name: str) -> Any:
    return held.get(name, "").nullif("")


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


def _judged(table: Any) -> Any:
    """What the columns of an evaluation say in the end: a foreign one names neither its target nor its status."""
    import ibis

    judges = table.evaluation_name.notnull()
    linked = table.links.length() > 0
    link = table.links[0]
    itself = ibis.coalesce((table.span_kind == "EVALUATOR").ifelse(table.parent_span_id, ibis.null("string")), table.span_id)
    named = table.target_trace_id.notnull()
    judged = table.evaluation_score.notnull() | table.evaluation_label.notnull()
    target_trace = ibis.coalesce(table.target_trace_id, linked.ifelse(link["trace_id"], table.trace_id))
    target_span = named.ifelse(table.target_span_id, linked.ifelse(link["span_id"], itself))
    status = ibis.coalesce(table.evaluation_status, judged.ifelse("ok", "error"))
    return table.mutate(
        target_trace_id=judges.ifelse(target_trace, table.target_trace_id),
        target_span_id=judges.ifelse(target_span, table.target_span_id),
        evaluation_status=judges.ifelse(status, table.evaluation_status),
    )

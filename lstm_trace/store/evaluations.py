"""Every form in which an evaluation was recorded, as rows of one table: the latest of equal identifiers, once.

Forms: a span of its own (ours, or OpenInference's ``evaluations.0.evaluation.*``) and a ``gen_ai.evaluation.result`` event on the
judged span. The expression runs on DuckDB and ClickHouse alike.
"""

from __future__ import annotations

from typing import Any, Final

from lstm_trace import conventions as c
from lstm_trace.store.schema import EVALUATION_COLUMNS

_COPIES: Final = ("release", "cohort", "confidence", "session_id", "trace_id", "span_id")
_EVALUATOR: Final = "EVALUATOR"


def evaluations_of(spans: Any) -> Any:
    """The evaluations table (see ``schema.EVALUATION_COLUMNS``) as an expression over the canonical spans table."""
    import ibis

    rows = ibis.union(_of_spans(spans), _of_events(spans))
    rows = rows.filter(rows.evaluation_name.notnull(), rows.target_trace_id.notnull())
    judged = rows.score.notnull() | rows.label.notnull()
    rows = rows.mutate(status=ibis.coalesce(rows.status, judged.ifelse("ok", "error")))
    # An evaluation without an identifier is known by what makes up ours: target, name and version.
    known_as = ibis.coalesce(
        rows.identifier,
        _joined(rows.target_trace_id, rows.target_span_id, rows.evaluation_name, rows.version, rows.annotator),
    )
    rows = rows.mutate(_known_as=known_as)
    latest = ibis.row_number().over(
        ibis.window(group_by=rows._known_as, order_by=[rows.time_ns.desc(nulls_first=False), rows.span_id.desc()])
    )
    rows = rows.mutate(_age=latest)
    return rows.filter(rows._age == 0).select([column.name for column in EVALUATION_COLUMNS])


def _of_spans(spans: Any) -> Any:
    import ibis

    carried = spans.filter(spans.evaluation_name.notnull())
    first_link = carried.links.length() > 0
    link = carried.links[0]
    # A foreign evaluator names no target: it judges what it links to, else (as a span of its own kind) its parent, else itself.
    own_kind = (carried.span_kind == _EVALUATOR).fill_null(False)
    target_trace = ibis.coalesce(carried.target_trace_id, first_link.ifelse(link["trace_id"], ibis.null("string")), carried.trace_id)
    foreign_span = first_link.ifelse(
        link["span_id"], own_kind.ifelse(ibis.coalesce(carried.parent_span_id, carried.span_id), carried.span_id)
    )
    return _row(
        carried,
        evaluation_name=carried.evaluation_name,
        score=carried.evaluation_score,
        label=carried.evaluation_label,
        status=carried.evaluation_status,
        identifier=carried.evaluation_identifier,
        version=carried.evaluation_version,
        annotator=carried.evaluation_annotator,
        explanation=carried.evaluation_explanation,
        error_type=carried.error_type,
        target_trace_id=target_trace,
        target_span_id=carried.target_trace_id.notnull().ifelse(carried.target_span_id, foreign_span),
        time_ns=ibis.coalesce(carried.end_ns, carried.start_ns),
    )


def _of_events(spans: Any) -> Any:
    import ibis

    events = spans.select(*_COPIES, event=spans.events.unnest())
    events = events.filter(events.event["name"] == c.EVENT_EVALUATION)
    said = events.event["attributes"]

    def text(name: str) -> Any:
        return said.get(name, ibis.null("string"))

    def number(name: str) -> Any:
        value = text(name).try_cast("float64")
        return (value.isnan() | value.isinf()).ifelse(ibis.null("float64"), value)

    return _row(
        events,
        evaluation_name=text(c.EVALUATION_NAME),
        score=number(c.EVALUATION_SCORE),
        label=text(c.EVALUATION_LABEL),
        status=text(c.EVALUATION_STATUS),
        identifier=text(c.EVALUATION_IDENTIFIER),
        version=text(c.EVALUATION_EVALUATOR_VERSION),
        annotator=text(c.EVALUATION_ANNOTATOR),
        explanation=text(c.EVALUATION_EXPLANATION),
        error_type=text(c.ERROR_TYPE),
        target_trace_id=ibis.coalesce(text(c.EVALUATION_TARGET_TRACE_ID), events.trace_id),
        target_span_id=ibis.coalesce(text(c.EVALUATION_TARGET_SPAN_ID), events.span_id),
        time_ns=events.event["time_ns"],
    )


def _row(table: Any, **values: Any) -> Any:
    copies = {name: table[name] for name in _COPIES}
    said = values | copies
    return table.select(**{column.name: said[column.name].cast(column.type) for column in EVALUATION_COLUMNS})


def _joined(*parts: Any) -> Any:
    import ibis

    whole = ibis.literal("")
    for part in parts:
        whole = whole.concat(ibis.coalesce(part, ibis.literal("")), ibis.literal("\x1f"))
    return whole

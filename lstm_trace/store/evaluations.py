"""Every form in which an evaluation was recorded, as rows of one table: the latest of equal identifiers, once.

Forms: a span of its own (ours, or one with OpenInference's ``evaluations.0.evaluation.*``), and a ``gen_ai.evaluation.result`` event on
the judged span. The expressions run on DuckDB and ClickHouse alike.
"""

from __future__ import annotations

from typing import Any, Final

from lstm_trace import conventions as c
from lstm_trace.store.schema import EVALUATION_COLUMNS

_COPIES: Final = ("release", "cohort", "confidence", "session_id", "trace_id", "span_id")
_NUMBER: Final = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


NEEDED: Final = (
    "trace_id", "span_id", "start_ns", "end_ns", "release", "session_id", "cohort", "confidence", "evaluation_name", "evaluation_score",
    "evaluation_label", "evaluation_status", "evaluation_identifier", "evaluation_version", "evaluation_annotator",
    "evaluation_explanation", "error_type", "target_trace_id", "target_span_id", "events",
)  # fmt: skip
"""The columns of the spans table that evaluations are made of."""


def evaluations_of(spans: Any, *, events: bool = True) -> Any:
    """The evaluations table (``schema.EVALUATION_COLUMNS``) as an expression over the canonical spans table.

    ``events=False`` leaves the events unread where it is known that none of them is an evaluation.
    """
    rows = by_age(spans, events=events)
    return rows.filter(rows.age == 0).select([column.name for column in EVALUATION_COLUMNS])


def by_age(spans: Any, *, events: bool = True) -> Any:
    """Every evaluation ever recorded, with its ``age`` among those of equal identifier (0: the latest) and whether it ``is_event``.

    One without an identifier is known by what makes up ours (target, name, version) and its annotator.
    """
    import ibis

    rows = of_spans(spans).mutate(is_event=False)
    if events:
        rows = rows.union(of_events(spans).mutate(is_event=True))
    made_up = _joined(rows.target_trace_id, rows.target_span_id, rows.evaluation_name, rows.version, rows.annotator)
    known_as = ibis.coalesce(rows.identifier, made_up)
    # At one time the span before the event: both were written by one evaluation, and the span says more.
    newest_first = [ibis.coalesce(rows.time_ns, 0).desc(), rows.is_event, rows.span_id.desc()]
    return rows.mutate(age=ibis.row_number().over(ibis.window(group_by=known_as, order_by=newest_first)))


def of_spans(spans: Any) -> Any:
    """The spans that are evaluations, as rows of the evaluations table."""
    import ibis

    carried = spans.filter(spans.evaluation_name.notnull())
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
        target_trace_id=carried.target_trace_id,
        target_span_id=carried.target_span_id,
        time_ns=ibis.coalesce(carried.end_ns, carried.start_ns),
    )


def of_events(spans: Any) -> Any:
    """The evaluations that stand as events on the span they judge, as rows of the evaluations table."""
    import ibis

    events = spans.select(*_COPIES, event=spans.events.unnest())
    events = events.filter(events.event["name"] == c.EVENT_EVALUATION)
    said = events.event["attributes"]

    def text(name: str) -> Any:
        return said.get(name, "").nullif("")

    score = text(c.EVALUATION_SCORE)
    score = score.re_search(_NUMBER).ifelse(score, ibis.null("string")).try_cast("float64")
    judged = score.notnull() | text(c.EVALUATION_LABEL).notnull()
    rows = _row(
        events,
        evaluation_name=text(c.EVALUATION_NAME),
        score=score,
        label=text(c.EVALUATION_LABEL),
        status=ibis.coalesce(text(c.EVALUATION_STATUS), judged.ifelse("ok", "error")),
        identifier=text(c.EVALUATION_IDENTIFIER),
        version=text(c.EVALUATION_EVALUATOR_VERSION),
        annotator=text(c.EVALUATION_ANNOTATOR),
        explanation=text(c.EVALUATION_EXPLANATION),
        error_type=text(c.ERROR_TYPE),
        target_trace_id=events.trace_id,
        target_span_id=events.span_id,
        time_ns=events.event["time_ns"],
    )
    return rows.filter(rows.evaluation_name.notnull())


def _row(table: Any, **values: Any) -> Any:
    said = values | {name: table[name] for name in _COPIES}
    return table.select(**{column.name: said[column.name].cast(column.type) for column in EVALUATION_COLUMNS})


def _joined(*parts: Any) -> Any:
    import ibis

    whole = ibis.literal("")
    for part in parts:
        whole = whole.concat(ibis.coalesce(part, ibis.literal("")), ibis.literal("\x1f"))  # pyright: ignore[reportAttributeAccessIssue]
    return whole

"""What `convert` works out once about every span, so that analyses of a large store need not: columns beside the canonical ones.

Each says what a query over the canonical columns says too; a test holds them to equal answers.
"""

from __future__ import annotations

from typing import Any, Final

from lstm_trace.store.evaluations import by_age
from lstm_trace.store.schema import COLUMNS

SUPERSEDED: Final = "superseded"
"""True where a later evaluation has this span's identifier."""
JUDGED: Final = "judged"
"""True where an evaluation that counts judges this very span."""
WITHOUT_CALL: Final = "without_call"
"""True on own work of a trace in which no component call is recorded."""
LEADS_TRACE: Final = "leads_trace"
"""True on the first component call of a trace."""
LEADS_STEP: Final = "leads_step"
"""True on one of the spans of a trace's step: the one that stands for them."""
STEP_RELEASE: Final = "step_release"
"""On own work within a step of the trajectory: the release of that step, ``""`` where none of its spans has one."""

MARKS: Final = {
    SUPERSEDED: "boolean",
    JUDGED: "boolean",
    WITHOUT_CALL: "boolean",
    LEADS_TRACE: "boolean",
    LEADS_STEP: "boolean",
    STEP_RELEASE: "string",
}
"""Every mark and its ibis type; null where it does not hold, so that whole row groups are passed over by their statistics."""

EVALUATOR: Final = "EVALUATOR"


def own_work(spans: Any) -> Any:
    """Which spans are the application's own work: neither an evaluator's span nor what ran for one."""
    return ((spans.span_kind != EVALUATOR) | spans.span_kind.isnull()) & spans.target_trace_id.isnull() & spans.judge.isnull()


def is_first(calls: Any) -> Any:
    """Which component calls are the first of their trace."""
    import ibis

    return ibis.row_number().over(ibis.window(group_by="trace_id", order_by=["start_ns", "span_id"])) == 0


def marked(spans: Any) -> Any:
    """The canonical spans table with ``MARKS``, as an expression."""
    work = spans.filter(own_work(spans))
    calls = work.filter(work.component.notnull()).select("trace_id", "span_id", "start_ns")
    called = calls.select("trace_id").distinct().mutate(called=True)
    first = calls.filter(is_first(calls)).select("trace_id", "span_id").mutate(leads_trace=True)
    rows = by_age(spans)
    older = rows.filter(rows.age > 0, ~rows.is_event).select("trace_id", "span_id").distinct().mutate(older=True)
    aims = rows.filter(rows.age == 0, rows.target_span_id.notnull())
    aims = aims.select(trace_id=aims.target_trace_id, span_id=aims.target_span_id).distinct().mutate(aimed_at=True)
    whole = _joined(spans, called, "trace_id")
    for told in (first, older, aims, _steps(work)):
        whole = _joined(whole, told)
    return whole.select(
        *(column.name for column in COLUMNS),
        **{
            SUPERSEDED: whole.older,
            JUDGED: whole.aimed_at,
            WITHOUT_CALL: (own_work(whole) & whole.called.isnull()).nullif(False),
            LEADS_TRACE: whole.leads_trace,
            LEADS_STEP: whole.leads_step,
            STEP_RELEASE: whole.of_release,
        },
    )


def _steps(work: Any) -> Any:
    """The spans within a step: the release of their step, and which of them leads it."""
    import ibis

    steps = work.filter(work.step.notnull()).select("trace_id", "span_id", "step", "release")
    # The lowest release counts, as min() has it, and null only where there is no other.
    order = ibis.window(group_by=["trace_id", "step"], order_by=[steps.release.asc(nulls_first=False), "span_id"])
    of_release = steps.release.first().over(order).fill_null("")
    leads: Any = ibis.row_number().over(order) == 0
    return steps.select("trace_id", "span_id", of_release=of_release, leads_step=leads.nullif(False))


def _joined(table: Any, other: Any, *keys: str) -> Any:
    joined = table.left_join(other, list(keys or ("trace_id", "span_id")))
    return joined.drop([name for name in joined.columns if name.endswith("_right")])

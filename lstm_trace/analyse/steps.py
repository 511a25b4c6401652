"""Fail rate by step of the trajectory, apart from the cohorts: so that drift in late steps shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lstm_trace.analyse import cases, prepared
from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.dimensions import UNKNOWN
from lstm_trace.analyse.intervals import wilson
from lstm_trace.analyse.values import fetched
from lstm_trace.store import Store
from lstm_trace.store.marks import LEADS_STEP, OF_STEP, OF_STEP_FAILED, OF_STEP_RELEASE, STEP_FAILED, STEP_RELEASE


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of the trajectory: traces that reached it, and those in which a span or a judgement of that step failed."""

    release: str
    step: int
    n: int
    failed: int
    fail_rate: float
    ci_low: float
    ci_high: float


def late_steps(store: Store, view: View = EVERYTHING) -> tuple[StepRow, ...]:
    """Fail rate by step of the trajectory and release: a step failed when one of its spans ended in error or was judged as failed."""
    rows: list[StepRow] = []
    for row in _steps(store, view) if store.judging is None else _marked_steps(store, view):
        low, high = wilson(row["failed"], row["n"]) or (0.0, 1.0)
        rows.append(StepRow(row["release"] or UNKNOWN, row["step"], row["n"], row["failed"], row["failed"] / row["n"], low, high))
    return tuple(sorted(rows, key=lambda row: (row.release, row.step)))


def _steps(store: Store, view: View) -> list[dict[str, Any]]:
    """One row a release and step: in how many traces it was reached (``n``), and ``failed`` there."""
    made = store.evaluations
    bad = made.mutate(failed=cases.failed(made)).filter(lambda e: e.failed == 1)
    bad = bad.select(trace_id=bad.target_trace_id, span_id=bad.target_span_id).distinct()
    spans = cases.working(store, "trace_id", "span_id", "release", "step", "status")
    spans = _seen(store, view, spans.filter(spans.step.notnull()))
    marked = spans.left_join(bad.mutate(judged_bad=1), ["trace_id", "span_id"])
    wrong = ((marked.status == "error") | (marked.judged_bad == 1)).fill_null(False)
    each = marked.group_by("trace_id", "step").aggregate(release=marked.release.min(), wrong=wrong.cast("int64").max())
    return fetched(each.group_by("release", "step").aggregate(n=each.count(), failed=each.wrong.sum()))


def _marked_steps(store: Store, view: View) -> list[dict[str, Any]]:
    """What ``_steps`` says, from the marks of a converted store: no span has to be grouped by its trace."""
    reached = _reached(store, view)
    if store.known is not None and not store.known.steps_judged:
        return reached
    of_step = (OF_STEP, OF_STEP_RELEASE, OF_STEP_FAILED)
    judged = prepared.judgements(store, view.edges, of_step, only=("trace_id", "failed", *of_step))
    bad = judged.filter(judged.failed == 1, judged[OF_STEP].notnull(), judged[OF_STEP_FAILED].isnull())
    bad = _seen(store, view, bad.select("trace_id", step=bad[OF_STEP], release=bad[OF_STEP_RELEASE])).distinct()
    more = {(row["release"], row["step"]): row["n"] for row in fetched(bad.group_by("release", "step").aggregate(n=bad.count()))}
    return [row | {"failed": row["failed"] + more.get((row["release"], row["step"]), 0)} for row in reached]


def _reached(store: Store, view: View) -> list[dict[str, Any]]:
    """The same but for what was judged: as the file says, else of the spans that stand for a step each."""
    assert store.marked is not None
    if store.known is not None and store.known.steps is not None and view == View(view.edges):
        return [dict(row) for row in store.known.steps]
    spans = store.marked(("trace_id", "step", LEADS_STEP, STEP_RELEASE, STEP_FAILED))
    leading = spans.filter(spans[LEADS_STEP]).select("trace_id", "step", release=spans[STEP_RELEASE], failed=spans[STEP_FAILED])
    leading = _seen(store, view, leading)
    return fetched(leading.group_by("release", "step").aggregate(n=leading.count(), failed=leading.failed.count()))


def _seen(store: Store, view: View, spans: Any) -> Any:
    # Cohorts cut otherwise are the same traces.
    return spans if view == View(view.edges) else spans.semi_join(cases.traces(store, view, ("trace_id",)), "trace_id")

"""Where a trace came in its session, and how far its run went: facts of a trace that its component's call does not hold."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lstm_trace.analyse import cases
from lstm_trace.analyse.dimensions import UNKNOWN
from lstm_trace.analyse.facets import binned
from lstm_trace.analyse.slices import POSITIONS, STEPS
from lstm_trace.store import Store
from lstm_trace.store.marks import LEADS_STEP


def last_steps(store: Store) -> Any:
    """The last step that each trace reached: ``trace_id`` and ``step``."""
    if store.marked is not None:
        spans = store.marked(("trace_id", "step", LEADS_STEP))
        spans = spans.filter(spans[LEADS_STEP])
    else:
        spans = cases.working(store, "trace_id", "step")
        spans = spans.filter(spans.step.notnull())
    return spans.group_by("trace_id").aggregate(step=spans.step.max())


def positions(store: Store) -> Any:
    """The place of each trace in its session, from 1, by the start of its first call: ``trace_id`` and ``position``.

    Traces that began at the same nanosecond share a place: to tell them apart by their ids takes half as long again.
    """
    import ibis

    traces = cases.traces(store, facts=("session_id",))
    traces = traces.filter(traces.session_id.nullif("").notnull())
    place = ibis.rank().over(ibis.window(group_by="session_id", order_by="start_ns")) + 1
    return traces.select("trace_id", position=place)


def vary(store: Store) -> bool:
    """Whether runs may have ended at different steps; a converted store counts how many traces reached each."""
    if store.known is None or store.known.steps is None:
        return True
    reached: Counter[int] = Counter()
    for row in store.known.steps:
        reached[row["step"]] += row["n"]
    return len(set(reached.values())) > 1


def placed(store: Store, wide: Any, column: str) -> Any:
    """``wide`` (one row a trace) with its ``position`` or ``step`` as the number of a bin; as it is where it has ``column`` already."""
    import ibis

    if column in wide.columns:
        return wide

    told, edges = (positions(store), POSITIONS) if column == "position" else (last_steps(store), STEPS)
    told = told.select("trace_id", **{column: binned(told[column], edges)})
    joined = wide.left_join(told, "trace_id")
    # ClickHouse joins an empty text where DuckDB joins null.
    return joined.select(*wide.columns, **{column: ibis.coalesce(joined[column].nullif(""), UNKNOWN)})

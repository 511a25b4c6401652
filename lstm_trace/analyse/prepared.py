"""Units and judgements of a converted store, read from its marks (``store/marks.py``): one pass over the rows that hold them, no join.

``cases`` answers the same of any store; a test holds both to equal rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

from lstm_trace.analyse.dimensions import UNKNOWN, cohort_of
from lstm_trace.analyse.passing import failed, judged
from lstm_trace.store import Store
from lstm_trace.store.marks import EXPECTED, FACTS, TRACE_CALLS, WEIGHT, of
from lstm_trace.store.marks import noted as said_of

Edges = tuple[int, ...] | None


def calls(store: Store, edges: Edges, component: str | None, columns: Iterable[str]) -> Any:
    """The component calls with these facts and marks."""
    assert store.marked is not None
    shown = tuple(columns)
    found = store.marked((*shown, TRACE_CALLS, "component", *(("length",) if "cohort" in shown else ())))
    found = found.filter(found[TRACE_CALLS] > 0)
    if component is not None:
        found = found.filter(found.component == component)
    return found.select(**{name: cohort_of(found.length, found.cohort, edges) if name == "cohort" else found[name] for name in shown})


def standing(store: Store, edges: Edges, columns: Iterable[str]) -> Any:
    """One row a trace without a call, as if it were one: with these facts and marks."""
    assert store.marked is not None
    shown = tuple(columns)
    rest = store.marked((*_carriers(shown), TRACE_CALLS))
    rest = rest.filter(rest[TRACE_CALLS] == 0)
    return rest.select(**{name: _told(rest, name, edges) for name in shown})


_JUDGEMENT: Final = (
    "trace_id", "span_id", "start_ns", "end_ns", "release", "cohort", "confidence", "target_trace_id", "target_span_id", "evaluation_name",
    "evaluation_score", "evaluation_label", "evaluation_status", "evaluation_version", "evaluation_annotator",
)  # fmt: skip


def judgements(store: Store, edges: Edges, facts: Iterable[str], only: Iterable[str] | None = None) -> Any:
    """One row an evaluation, with these facts of the call that it judges; see ``cases.judgements``. ``only``: no other columns."""
    import ibis

    assert store.judging is not None
    told = ("release", "cohort", "confidence", *(fact for fact in facts if fact not in ("trace_id", "span_id")))
    rows = store.judging((*_JUDGEMENT, *_carriers(told)))
    said = SimpleNamespace(status=rows.evaluation_status, score=rows.evaluation_score, label=rows.evaluation_label)
    known: dict[str, Callable[[], Any]] = {
        "evaluation_name": lambda: rows.evaluation_name,
        "target_trace_id": lambda: rows.target_trace_id,
        "target_span_id": lambda: rows.target_span_id,
        "version": lambda: rows.evaluation_version,
        "annotator": lambda: rows.evaluation_annotator,
        "time_ns": lambda: ibis.coalesce(rows.end_ns, rows.start_ns),
        "score": lambda: rows.evaluation_score,
        "judged": lambda: judged(said),
        "failed": lambda: failed(said),
        "carrier_trace_id": lambda: rows.trace_id,
        "carrier_span_id": lambda: rows.span_id,
        "trace_id": lambda: rows.target_trace_id,
        **{name: partial(_told, rows, name, edges) for name in told},
        "release": lambda: ibis.coalesce(rows[of("release")], rows.release),
        "cohort": lambda: ibis.coalesce(_told(rows, "cohort", edges).nullif(UNKNOWN), rows.cohort, UNKNOWN),
        "confidence": lambda: ibis.coalesce(rows[of("confidence")], rows.confidence),
    }
    return rows.select(**{name: known[name]() for name in (known if only is None else dict.fromkeys(only))})


def noted(store: Store) -> Any:
    """One row an evaluation that carries a weight or the right label: ``carrier_trace_id`` and ``carrier_span_id``, and what it carries."""
    if store.judging is not None:
        rows = store.judging(("trace_id", "span_id", WEIGHT, EXPECTED))
    elif store.noted is not None:
        rows = store.noted(("trace_id", "span_id", "evaluation_name", WEIGHT, EXPECTED))
        rows = rows.filter(rows.evaluation_name.notnull())
    else:
        rows = store.only("trace_id", "span_id", "evaluation_name", "attributes")
        rows = rows.filter(rows.evaluation_name.notnull())
        rows = rows.select("trace_id", "span_id", **said_of(rows))
    rows = rows.filter(rows[WEIGHT].notnull() | rows[EXPECTED].notnull())
    return rows.select(WEIGHT, EXPECTED, carrier_trace_id=rows.trace_id, carrier_span_id=rows.span_id)


def _carriers(names: Iterable[str]) -> tuple[str, ...]:
    """The columns that hold these facts of another span, and those of them that are no such facts themselves."""
    return tuple(of(name) if name in FACTS else name for name in (*names, "length"))


def _told(rows: Any, name: str, edges: Edges) -> Any:
    if name == "cohort":
        return cohort_of(rows[of("length")], rows[of("cohort")], edges)
    return rows[of(name)] if name in FACTS else rows[name]

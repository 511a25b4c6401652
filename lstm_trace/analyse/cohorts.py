"""Fail rate, confidence, latency and cost a cohort: counts that anyone can count again in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from lstm_trace.analyse import cases, prepared
from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.dimensions import ALIASES, DIMENSIONS, UNKNOWN, dimension, rank
from lstm_trace.analyse.intervals import wilson
from lstm_trace.analyse.placing import last_steps
from lstm_trace.analyse.steps import StepRow as StepRow
from lstm_trace.analyse.steps import late_steps as late_steps
from lstm_trace.analyse.values import fetched, plain, quantile
from lstm_trace.errors import BadInput
from lstm_trace.store import Store
from lstm_trace.store.marks import GIVEN, MADE, TRACE_CALLS

ESCALATION: Final = "escalation"
FEEDBACK: Final = "feedback"
Facts = dict[tuple[str, ...], dict[str, Any]]
_TOLD_BY: Final = {"state": "state_origin"}
"""Dimensions that are called otherwise than the fact they are read from."""


@dataclass(frozen=True, slots=True)
class CohortRow:
    """One cohort under one evaluation.

    ``n`` counts evaluations with a score or label, ``errors`` those without; the interval is Wilson's, 95 %. ``calls`` and ``traces``,
    confidence, latency (seconds, of the component's span) and tokens (a trace's sum over its model calls) are the whole cohort's,
    judged or not; so are the shares of traces that were escalated or got a thumbs-down. ``evaluation`` is None for a cohort without any.
    """

    group: Mapping[str, str]
    evaluation: str | None
    n: int
    failed: int
    errors: int
    fail_rate: float | None
    ci_low: float | None
    ci_high: float | None
    calls: int
    traces: int
    confidence_mean: float | None
    latency_p50_s: float | None
    latency_p99_s: float | None
    escalation_rate: float
    thumbs_down_rate: float
    input_tokens_mean: float | None
    output_tokens_mean: float | None

    def as_dict(self) -> dict[str, Any]:
        """The row as plain values, its group's dimensions first."""
        rest = plain(self)
        return {**rest.pop("group"), **rest}


@dataclass(frozen=True, slots=True)
class CohortTable:
    """Cohorts of a store, with how much was read and what was skipped."""

    by: tuple[str, ...]
    traces: int
    spans: int
    skipped: Mapping[str, int]
    rows: tuple[CohortRow, ...]
    late_steps: tuple[StepRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """The table as plain values, ready for JSON."""
        return {
            "traces": self.traces,
            "spans": self.spans,
            "skipped": dict(self.skipped),
            "rows": [row.as_dict() for row in self.rows],
            "late_steps": [plain(row) for row in self.late_steps],
        }


def cohorts(
    store: Store, by: Sequence[str] = ("cohort", "release"), *, evaluation: str | None = None, view: View = EVERYTHING
) -> CohortTable:
    """Group component calls and their evaluations by one to three dimensions.

    ``by``: `cohort` `release` `time_gap` `label` `branch` `step` `position` `component` …, or any attribute's name. A trace counts in
    each branch that it took, and at the last step that it reached. Raises BadInput for an unknown dimension or an evaluation that the
    store does not hold.
    """
    names = tuple(dict.fromkeys(ALIASES.get(name, name) for name in by))
    if not 1 <= len(names) <= 3:
        raise BadInput(f"cannot group by {','.join(by)!r}: give one to three dimensions, such as cohort,release")
    told = [_TOLD_BY.get(name, name) for name in names]
    needed = [name for name in told if name in cases.CARRIED]
    marks = () if store.marked is None else (TRACE_CALLS, GIVEN, MADE)
    units = grouped(store, _units(store, view, (*needed, "confidence", "duration_s", *marks)), names)
    judged = grouped(store, _judgements(store, view, needed), names)
    facts = {_key(row, names): row for row in (_facts if store.marked is None else _marked_facts)(store, units, names)}
    signals = {(_key(row, names), row["evaluation_name"]): row for row in _counts(judged, names)}
    if evaluation is not None and not any(name == evaluation for _, name in signals):
        _known_evaluation(store, evaluation)
    rows: list[CohortRow] = []
    keys = {*facts, *(key for key, _ in signals)}
    for key in sorted(keys, key=lambda key: [rank(n, v) for n, v in zip(names, key, strict=True)]):
        shown = sorted(name for at, name in signals if at == key and (name == evaluation or (evaluation is None and name != ESCALATION)))
        marked = [(signals.get((key, name)) or {}).get("failed_traces", 0) for name in (ESCALATION, FEEDBACK)]
        group = dict(zip(names, key, strict=True))
        rows += [_row(group, name, signals[key, name], facts.get(key, {}), marked) for name in shown]
        if not shown and evaluation is None:
            rows.append(_row(group, None, {}, facts.get(key, {}), marked))
    spans, traces = cases.once(store, "size", EVERYTHING, lambda: _size(store))
    steps = cases.once(store, "late_steps", view, lambda: late_steps(store, view))
    return CohortTable(names, traces, spans, store.skipped, tuple(rows), steps)


def _size(store: Store) -> tuple[int, int]:
    """Spans in the store, and traces that hold more than an evaluation."""
    if store.known is not None:
        return store.known.spans, store.known.traces
    work = cases.working(store, "trace_id")
    ids = store.only("span_id")
    whole = ids.aggregate(spans=ids.count()).cross_join(work.aggregate(traces=work.trace_id.nunique()))
    (row,) = fetched(whole)
    return int(row["spans"]), int(row["traces"])


def grouped(store: Store, table: Any, names: Iterable[str]) -> Any:
    """Add a text column ``by_{i}`` for each dimension in ``names`` to calls or judgements."""
    own: dict[str, Any] = {}
    for index, name in enumerate(names):
        column = f"by_{index}"
        if name not in _OF_TRACES and (expression := dimension(name)) is not None:
            own[column] = expression
            continue
        of_traces = _OF_TRACES.get(name, partial(_said, name=name))
        # Calls and judgements both are joined to it, and it reads every span of the store.
        told = cases.once(store, f"by {name}", EVERYTHING, lambda make=of_traces: cases.held(store, "by", make(store)))  # type: ignore[misc]
        table = _joined(table, told.select("trace_id", **{column: told.value}))
        # A trace that it does not know has no value in DuckDB, and an empty text in ClickHouse.
        table = table.mutate(**{column: table[column].nullif("").fill_null(UNKNOWN)})
    return table.mutate(**{column: expression(table) for column, expression in own.items()}) if own else table


def _joined(table: Any, other: Any) -> Any:
    joined = table.left_join(other, "trace_id")
    return joined.drop([name for name in joined.columns if name.endswith("_right")])


def _last_steps(store: Store) -> Any:
    """The last step that each trace reached."""
    told = last_steps(store)
    return told.select("trace_id", value=told.step.cast("string"))


def _branches(store: Store) -> Any:
    """Each branch that a trace took."""
    spans = cases.working(store, "trace_id", "branch")
    return spans.filter(spans.branch.notnull()).select("trace_id", value=spans.branch).distinct()


def _positions(store: Store) -> Any:
    """The place of each trace in its session, counted from 1, as a group; traces without a session have none."""
    import ibis

    spans = cases.working(store, "trace_id", "session_id", "start_ns")
    begun = spans.filter(spans.session_id.notnull()).group_by("trace_id", "session_id").aggregate(at_ns=spans.start_ns.min())
    place = ibis.row_number().over(ibis.window(group_by="session_id", order_by=["at_ns", "trace_id"])) + 1
    placed = begun.mutate(position=place)
    return placed.select("trace_id", value=DIMENSIONS["position"](placed))


def _said(store: Store, name: str) -> Any:
    """What a trace's spans, else their resource, say of an attribute; the first value in sorted order where they differ."""
    import ibis

    spans = cases.working(store, "trace_id", "attributes", "resource")
    value = ibis.coalesce(spans.attributes.get(name, ibis.null("string")), spans.resource.get(name, ibis.null("string")))
    said = spans.select("trace_id", value=value)
    return said.filter(said.value.notnull()).group_by("trace_id").aggregate(value=said.value.min())


_OF_TRACES: Final[Mapping[str, Callable[[Store], Any]]] = {"step": _last_steps, "branch": _branches, "position": _positions}
"""Dimensions that all spans of a trace tell together: tables of ``trace_id`` and ``value``."""


def _facts(store: Store, units: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    tokens = cases.tokens(store)
    keys = [f"by_{index}" for index in range(len(names))]
    latency = units.group_by(keys).aggregate(
        **_of_calls(units), latency_p50_s=quantile(units.duration_s, 0.5), latency_p99_s=quantile(units.duration_s, 0.99)
    )
    whole = units.select("trace_id", *keys).distinct().left_join(tokens, "trace_id")
    spent = whole.group_by(keys).aggregate(traces=whole.count(), input_tokens_mean=whole.given.mean(), output_tokens_mean=whole.made.mean())
    return fetched(latency.inner_join(spent, keys))


def _units(store: Store, view: View, needed: Sequence[str]) -> Any:
    if store.known is not None and store.known.all_called and view == View(view.edges, component=view.component):
        return prepared.calls(store, view.edges, view.component, dict.fromkeys(("trace_id", *needed)))
    return cases.units(store, view, needed)


def _judgements(store: Store, view: View, needed: Sequence[str]) -> Any:
    if store.judging is not None and view == View(view.edges):  # the longer a query, the longer it takes to make it
        return prepared.judgements(store, view.edges, needed, only=("trace_id", "evaluation_name", "judged", "failed", *needed))
    return cases.judgements(store, view, needed)


def _of_calls(units: Any) -> dict[str, Any]:
    return {"calls": units.count(), "confidence_mean": units.confidence.mean()}


def _marked_facts(_: Store, units: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """What ``_facts`` says, from the marks of a converted store: only traces of several calls have to be told apart by their ids."""
    keys = [f"by_{index}" for index in range(len(names))]
    spent = {"given": units[GIVEN], "made": units[MADE]}
    found = fetched(
        units.group_by(keys).aggregate(
            **_of_calls(units),
            latency=units.duration_s.quantile([0.5, 0.99]),  # both of one sorting
            shared=(units[TRACE_CALLS] > 1).sum(),
            **_sums(spent),
        )
    )
    # Counted as often as its trace has calls; of those traces that takes them all out, and puts them in once.
    out, back = ({}, {}) if not any(row["shared"] for row in found) else _of_shared(units, keys, names, spent)
    for row in found:
        less, more = out.get(_key(row, names), {}), back.get(_key(row, names), {})

        def traces(column: str, row: dict[str, Any] = row, less: dict[str, Any] = less, more: dict[str, Any] = more) -> int:
            return int((row[column] or 0) - (less.get(column) or 0) + (more.get(column) or 0))

        row["latency_p50_s"], row["latency_p99_s"] = row["latency"] or (None, None)
        row["traces"] = traces("calls")
        for name, mean in (("given", "input_tokens_mean"), ("made", "output_tokens_mean")):
            n = traces(f"with_{name}")
            row[mean] = traces(name) / n if n else None
    return found


def _of_shared(units: Any, keys: Sequence[str], names: Sequence[str], spent: Mapping[str, Any]) -> tuple[Facts, Facts]:
    """The sums over calls that share their trace with another, each counted, and each trace counted once a group."""
    shared = units.filter(units[TRACE_CALLS] > 1).select("trace_id", *keys, **spent)
    once = shared.distinct()
    each, single = (
        fetched(rows.group_by(keys).aggregate(calls=rows.count(), **_sums({name: rows[name] for name in spent}))) for rows in (shared, once)
    )
    return {_key(row, names): row for row in each}, {_key(row, names): row for row in single}


def _sums(spent: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tokens.sum() for name, tokens in spent.items()} | {f"with_{name}": tokens.count() for name, tokens in spent.items()}


def _counts(judged: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    keys = [*(f"by_{index}" for index in range(len(names))), "evaluation_name"]
    found = fetched(
        judged.group_by(keys).aggregate(
            n=judged.failed.count(), failed=judged.failed.sum().fill_null(0), errors=(~judged.judged).sum().fill_null(0)
        )
    )
    # Of these two the share of traces is told, so they alone are counted by trace.
    if any(row["evaluation_name"] in (ESCALATION, FEEDBACK) for row in found):
        bad = judged.filter(judged.evaluation_name.isin((ESCALATION, FEEDBACK)), judged.failed == 1)
        traces = fetched(bad.group_by(keys).aggregate(failed_traces=bad.trace_id.nunique()))
        told = {tuple(row[key] for key in keys): row["failed_traces"] for row in traces}
        found = [row | {"failed_traces": told.get(tuple(row[key] for key in keys), 0)} for row in found]
    return found


def _key(row: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(row[f"by_{index}"] for index in range(len(names)))


def _row(
    group: Mapping[str, str], name: str | None, counted: Mapping[str, Any], facts: Mapping[str, Any], marked: Sequence[int]
) -> CohortRow:
    n, failed, whole = int(counted.get("n", 0)), int(counted.get("failed", 0)), int(facts.get("traces", 0))
    interval = wilson(failed, n)
    return CohortRow(
        group,
        name,
        n,
        failed,
        int(counted.get("errors", 0)),
        failed / n if n else None,
        interval[0] if interval else None,
        interval[1] if interval else None,
        int(facts.get("calls", 0)),
        whole,
        facts.get("confidence_mean"),
        facts.get("latency_p50_s"),
        facts.get("latency_p99_s"),
        marked[0] / whole if whole else 0.0,
        marked[1] / whole if whole else 0.0,
        facts.get("input_tokens_mean"),
        facts.get("output_tokens_mean"),
    )


def _known_evaluation(store: Store, name: str) -> None:
    known = sorted(store.evaluations.select("evaluation_name").distinct().to_pyarrow().column(0).to_pylist())
    if name not in known:
        raise BadInput(f"evaluation {name!r} is not in {store.address}; it holds {', '.join(map(repr, known)) or 'none'}{store.left_out}")

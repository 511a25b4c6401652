"""Working out the marks of one Parquet file (``marks.MARKS``), however large it is.

Narrow tables, by the number of the row, are written to disk first; then they are joined to the wide rows, one range of rows at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lstm_trace.store import allowance
from lstm_trace.store import marks as m
from lstm_trace.store.evaluations import by_age
from lstm_trace.store.marks import ROW
from lstm_trace.store.opened import Known, Store, rows_of
from lstm_trace.store.schema import COLUMNS

_RANGE: Final = 1 << 17
"""Rows that are joined to their marks at a time."""
_SMALL_RANGE: Final = 1 << 14
"""Likewise where memory is limited: rows may be wide."""
_MOST_STEPS: Final = 2_000
"""Steps, of every release, above which they are not counted in the file's metadata, which every reader reads."""
_NARROW: Final = ("units", "leaders", "judgements")
"""The tables of marks, sorted by ``ROW``, so that a range of them is a few row groups."""


class Marking:
    """The marks of ``store``, which is one Parquet file, as tables on disk in ``folder``.

    ``latest_marked``: every evaluation that counts is a span of its own. ``known``: what the whole file says of itself.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._connection = store.connection
        self._folder = folder
        spans = store.numbered
        self._numbered = store.connection.compile(spans)
        work = spans.filter(m.own_work(spans))
        rows = self._held("evaluations", _evaluations(spans, store.evaluation_events))
        calls = self._held("calls", _calls(work))
        standing = self._held("standing", _standing(work, calls))
        steps = self._held("steps", _steps(work))
        self._held("units", _units(work, calls, standing, rows).order_by(ROW))
        self._held("leaders", steps.select(ROW, m.LEADS_STEP, m.STEP_RELEASE, m.STEP_FAILED).order_by(ROW))
        judgements = self._held("judgements", _judgements(spans, work, rows, calls, standing, steps).order_by(ROW))
        self.latest_marked = not _count(rows.filter(rows.age == 0, rows.is_event))
        self.known = _known(spans, work, standing, judgements, steps)
        self._rows = int((spans[ROW].max() + 1).to_pyarrow().as_py() or 0)

    def batches(self, size: int) -> Iterator[Any]:
        """All spans with their marks as Arrow record batches of about ``size`` rows."""
        many = _RANGE if allowance.memory() is None else _SMALL_RANGE
        for start in range(0, self._rows, many):
            yield from rows_of(self._connection, self._range(f"{ROW} >= {start} and {ROW} < {start + many}"), size)

    def _range(self, within: str) -> str:
        told = {m.of(fact) for fact in m.FACTS}
        shown = [f"coalesce(units.{name}, judgements.{name}) as {name}" if name in told else name for name in m.MARKS]
        narrow = [f"left join (from {self._file(name)} where {within}) as {name} using ({ROW})" for name in _NARROW]
        columns = ", ".join((*(column.name for column in COLUMNS), *shown))
        return f"select {columns} from (from ({self._numbered}) where {within}) as spans {' '.join(narrow)}"

    def _held(self, name: str, rows: Any) -> Any:
        """Write a table to disk, and return it as it lies there."""
        self._connection.con.execute(f"copy ({self._connection.compile(rows)}) to {self._file(name)} (format parquet, compression lz4_raw)")
        return self._connection.sql(f"from {self._file(name)}", schema=rows.schema())

    def _file(self, name: str) -> str:
        return "'" + os.fspath(self._folder / f"{name}.parquet").replace("'", "''") + "'"


def _known(spans: Any, work: Any, standing: Any, judgements: Any, steps: Any) -> Known:
    dated = work.filter(work.release.notnull(), work.start_ns.notnull())
    each = dated.group_by("release").aggregate(first=dated.start_ns.min(), last=dated.start_ns.max()).to_pyarrow().to_pylist()
    return Known(
        spans=_count(spans),
        traces=int(work.trace_id.nunique().to_pyarrow().as_py()),
        all_called=not _count(standing),
        releases={row["release"]: (row["first"], row["last"]) for row in each},
        steps_judged=bool(_count(judgements.filter(judgements[m.OF_STEP].notnull()))),
        steps=_reached(steps),
    )


def _reached(steps: Any) -> list[dict[str, Any]] | None:
    counted = steps.group_by(release=steps[m.STEP_RELEASE], step=steps.step).aggregate(n=steps.count(), failed=steps[m.STEP_FAILED].count())
    rows: list[dict[str, Any]] = counted.order_by("release", "step").limit(_MOST_STEPS + 1).to_pyarrow().to_pylist()
    return rows if len(rows) <= _MOST_STEPS else None


def _count(rows: Any) -> int:
    return int(rows.count().to_pyarrow().as_py())


def _evaluations(spans: Any, events: bool) -> Any:
    """Every evaluation: what carries it, what it is about, and how many later ones of its identifier there are."""
    rows = by_age(spans, events=events)
    return rows.select("trace_id", "span_id", "target_trace_id", "target_span_id", "age", "is_event")


def _calls(work: Any) -> Any:
    """The component calls, with how many there are in the trace and whether this is the first."""
    calls = work.filter(work.component.notnull())
    calls = calls.select("trace_id", "span_id", ROW, *m.FACTS)
    return calls.mutate(trace_calls=calls.count().over(group_by="trace_id"), first=m.is_first(calls))


def _standing(work: Any, calls: Any) -> Any:
    """One row a trace without a call: its facts, and the span that stands for it."""
    import ibis

    rest = work.anti_join(calls, "trace_id")
    known = m.told(rest) | {ROW: ibis.coalesce(rest[ROW].argmin(rest.start_ns), rest[ROW].min())}
    made = rest.group_by("trace_id").aggregate(**known)
    kinds = work.schema()
    return made.select("trace_id", ROW, **{fact: made[fact] if fact in known else ibis.null(kinds[fact]) for fact in m.FACTS})


def _steps(work: Any) -> Any:
    """One row a step of a trace: the span that stands for it, its release (the lowest, ``""`` without one), and whether a span failed."""
    steps = work.filter(work.step.notnull())
    return steps.group_by("trace_id", "step").aggregate(
        **{
            ROW: steps[ROW].min(),
            m.LEADS_STEP: (steps.step.count() > 0),
            m.STEP_RELEASE: steps.release.min().fill_null(""),
            m.STEP_FAILED: (steps.status == "error").fill_null(False).any().nullif(False),
        }
    )


def _aimed_at(rows: Any) -> Any:
    """The spans that an evaluation which counts is about."""
    aims = rows.filter(rows.age == 0, rows.target_span_id.notnull())
    return aims.select(trace_id=aims.target_trace_id, span_id=aims.target_span_id).distinct()


def _units(work: Any, calls: Any, standing: Any, rows: Any) -> Any:
    """The marks of component calls, and of the spans that stand for traces without one."""
    import ibis

    tokens = m.spent(work)
    own = _joined(calls, _aimed_at(rows).mutate(aimed=True), "trace_id", "span_id")
    own = _joined(own, tokens, "trace_id")
    other = _joined(standing, tokens, "trace_id")
    kinds = work.schema()
    return ibis.union(
        own.select(
            ROW,
            **{m.JUDGED: own.aimed, m.TRACE_CALLS: own.trace_calls, m.LEADS_TRACE: own["first"].nullif(False)},
            **{m.GIVEN: own.given, m.MADE: own.made},
            **{m.of(fact): ibis.null(kinds[fact]) for fact in m.FACTS},
        ),
        other.select(
            ROW,
            **{m.JUDGED: ibis.null("boolean"), m.TRACE_CALLS: ibis.literal(0, "int64"), m.LEADS_TRACE: ibis.null("boolean")},
            **{m.GIVEN: other.given, m.MADE: other.made},
            **{m.of(fact): other[fact] for fact in m.FACTS},
        ),
    )


def _judgements(spans: Any, work: Any, rows: Any, calls: Any, standing: Any, steps: Any) -> Any:
    """The marks of evaluations: which are superseded, and the facts and the step of what each is about."""
    import ibis

    carriers = spans.filter(spans.evaluation_name.notnull())
    carriers = carriers.select("trace_id", "span_id", ROW, **m.noted(carriers))
    own = rows.filter(~rows.is_event)
    made = carriers.inner_join(own, ["trace_id", "span_id"]).select(
        ROW, m.WEIGHT, m.EXPECTED, about=own.target_trace_id, aim=own.target_span_id, superseded=(own.age > 0).nullif(False)
    )
    direct = calls.select(about="trace_id", aim="span_id", itself=True, **{f"call_{fact}": fact for fact in m.FACTS})
    first = ibis.union(calls.filter(calls["first"]).select("trace_id", *m.FACTS), standing.select("trace_id", *m.FACTS))
    first = first.select(about="trace_id", **{f"first_{fact}": fact for fact in m.FACTS})
    stepped = work.filter(work.step.notnull()).select("trace_id", "span_id", "step").semi_join(_aimed_at(rows), ["trace_id", "span_id"])
    stepped = stepped.inner_join(steps, ["trace_id", "step"]).select(
        about="trace_id", aim="span_id",
        **{m.OF_STEP: stepped.step, m.OF_STEP_RELEASE: steps[m.STEP_RELEASE], m.OF_STEP_FAILED: steps[m.STEP_FAILED]},
    )  # fmt: skip
    table = _joined(_joined(_joined(made, direct, "about", "aim"), first, "about"), stepped, "about", "aim")
    return table.select(
        ROW,
        **{m.SUPERSEDED: table.superseded},
        **{name: table[name] for name in (m.WEIGHT, m.EXPECTED, m.OF_STEP, m.OF_STEP_RELEASE, m.OF_STEP_FAILED)},
        **{m.of(fact): ibis.ifelse(table.itself.notnull(), table[f"call_{fact}"], table[f"first_{fact}"]) for fact in m.FACTS},
    )


def _joined(table: Any, other: Any, *keys: str) -> Any:
    joined = table.left_join(other, list(keys))
    return joined.drop([name for name in joined.columns if name.endswith("_right")])

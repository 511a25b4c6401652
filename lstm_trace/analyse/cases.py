"""Component calls, and the judgements joined to them: the two tables that every analysis starts from, as ibis expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Literal, TypeVar
from weakref import WeakKeyDictionary

from lstm_trace.analyse import prepared
from lstm_trace.analyse.dimensions import UNKNOWN, cohort_of
from lstm_trace.analyse.passing import PASS_SCORE as PASS_SCORE
from lstm_trace.analyse.passing import failed as failed
from lstm_trace.analyse.passing import judged as judged
from lstm_trace.store import Store
from lstm_trace.store.marks import EVALUATOR as EVALUATOR
from lstm_trace.store.marks import FACTS, JUDGED, LEADS_TRACE, is_first, own_work, spent, told


@dataclass(frozen=True, slots=True)
class View:
    """Which calls are looked at: upper cohort ``edges`` in steps (None: as recorded), a window of nanoseconds, one component."""

    edges: tuple[int, ...] | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    component: str | None = None


CARRIED: Final = ("trace_id", "span_id", *FACTS)
"""The facts of a component call."""
_TOLD: Final = ("upstream_component", "upstream_length", "upstream_cohort", "upstream_label", "upstream_confidence")
_KEPT: Final[WeakKeyDictionary[Store, dict[tuple[str, View], Any]]] = WeakKeyDictionary()
"""What is known of an open store already: every analysis of it starts from the same tables."""
_NUMBERS: Final = count()
"""Tables that are held have names of their own."""
T = TypeVar("T")


EVERYTHING: Final = View()


def working(store: Store, *columns: str) -> Any:
    """These columns of the spans of the application's own work: neither the evaluators' spans nor what ran for them."""
    needed = dict.fromkeys((*columns, "span_kind", "target_trace_id", "judge"))
    spans = store.only(*needed)
    return spans.filter(own_work(spans))


def calls(store: Store, view: View = EVERYTHING) -> Any:
    """One row a component call, with its own facts; ``duration_s`` and the like as in the store."""
    return _within(_own(store, view).select(*CARRIED), view)


def traces(store: Store, view: View = EVERYTHING, facts: Iterable[str] = CARRIED) -> Any:
    """One row a trace: the facts of its first component call; of those ``facts`` that an analysis needs, where it names them.

    A trace whose component ran elsewhere takes them from the first upstream facts on its spans, without ``duration_s``; a trace that
    knows of no prediction at all has only its release, session and service.
    """
    import ibis

    needed = _with_place(facts)
    own = _own(store, view, needed)
    known = store.marked is not None and view.component is None
    led = own.filter(own[LEADS_TRACE] if known else is_first(own)).select(*needed)
    called = view.component is not None or (store.known is not None and store.known.all_called)
    return _within(led if called else ibis.union(led, _elsewhere(store, view, needed)), view)


def units(store: Store, view: View = EVERYTHING, facts: Iterable[str] = CARRIED) -> Any:
    """One row a component call, and one a trace without any: what a cohort is made of. ``facts``: those that an analysis needs."""
    import ibis

    needed = _with_place(facts)
    own = _own(store, view, needed).select(*needed)
    called = view.component is not None or (store.known is not None and store.known.all_called)
    return _within(own if called else ibis.union(own, _elsewhere(store, view, needed)), view)


def _with_place(facts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("trace_id", "span_id", "start_ns", *facts)))


def _own(store: Store, view: View, needed: Iterable[str] = CARRIED) -> Any:
    """The component calls: with ``needed`` at least, and in a converted store with the marks that joins go by."""
    if store.marked is not None:
        columns = dict.fromkeys((*_with_place(needed), JUDGED, LEADS_TRACE))
        return prepared.calls(store, view.edges, view.component, columns)

    def make(columns: Iterable[str] = CARRIED) -> Any:
        spans = working(store, *columns, "component", "length", "cohort")
        found = spans.filter(spans.component.notnull() if view.component is None else spans.component == view.component)
        found = found.mutate(cohort=cohort_of(found.length, found.cohort, view.edges)) if "cohort" in columns else found
        return found.select(*columns)

    if not _holds(store):
        return make(_with_place(needed))
    # A view: reading the few columns that an analysis asks for costs less than writing all of them down.
    return _kept(store, "calls", View(view.edges, component=view.component), make, form="view")


def _elsewhere(store: Store, view: View, needed: Iterable[str] = CARRIED) -> Any:
    """One row a trace without a call, as if it were one: with ``needed`` only."""
    import ibis

    if store.marked is not None:
        return prepared.standing(store, view.edges, needed)
    every = View(view.edges)

    def make(columns: Iterable[str] = CARRIED) -> Any:
        place = ("trace_id", "span_id", "start_ns", "release", "session_id", "service")
        rest = working(store, *place, *_TOLD).anti_join(_own(store, every, ("trace_id",)).select("trace_id"), "trace_id")
        found = told(rest)
        wanted = {*columns, "length"} if "cohort" in columns else {*columns}
        made = rest.group_by("trace_id").aggregate(**{name: value for name, value in found.items() if name in wanted})
        types = store.spans.schema()
        unknown = {name: ibis.null(types[name]) for name in columns if name not in made.columns}
        if "cohort" in columns:
            unknown["cohort"] = cohort_of(made.length, made.cohort, view.edges)
        return made.mutate(**unknown).select(*columns)

    return _kept(store, "elsewhere", every, make).select(*needed) if _holds(store) else make(tuple(needed))


def _holds(store: Store) -> bool:
    """Whether tables and views can be held beside the store: a ClickHouse account that may only read cannot hold one."""
    return getattr(store.connection, "name", None) == "duckdb"


def _kept(store: Store, name: str, view: View, make: Callable[[], Any], form: Literal["table", "view"] = "table") -> Any:
    """Hold an intermediate table, so that it is computed once an open store, or a view of it, so that it is compiled once.

    Elsewhere than in DuckDB it stays an expression.
    """
    return once(store, name, view, lambda: held(store, name, make(), form))


def held(store: Store, name: str, made: Any, form: Literal["table", "view"] = "table") -> Any:
    """``made`` as a temporary table of DuckDB, for an analysis that asks it several times; elsewhere it stays an expression."""
    if not _holds(store):
        return made
    place = f"lstm_trace_{name}_{next(_NUMBERS)}"
    # Not create_table(), which compiles twice and writes the rows twice.
    store.connection.con.execute(f"create temp {form} {place} as {store.connection.compile(made)}")
    return store.connection.sql(f"select * from {place}", schema=made.schema())


def once(store: Store, name: str, view: View, make: Callable[[], T]) -> T:
    """Make something of an open store once; a store does not change while it is open."""
    held = _KEPT.setdefault(store, {})
    if (name, view) not in held:
        held[name, view] = make()
    made: T = held[name, view]
    return made


def tokens(store: Store) -> Any:
    """One row a trace that called a model: ``given`` and ``made``, the sums of its input and output tokens."""
    return once(store, "tokens", EVERYTHING, lambda: spent(working(store, "trace_id", "input_tokens", "output_tokens")))


def judgements(store: Store, view: View = EVERYTHING, facts: Iterable[str] | None = None) -> Any:
    """One row an evaluation, with the facts of the call it judges: the component's own span, else its trace's first call.

    An analysis that looks only once names the ``facts`` that it needs: then nothing else is joined, and nothing is held.

    ``judged`` says that it has a score or a label, ``failed`` that it failed (null where nothing says). An evaluation of a trace that is
    not in the store keeps the release, cohort and confidence that were copied onto it; it is left out of a window of time.
    """
    if store.judging is not None and view == View(view.edges):
        return prepared.judgements(store, view.edges, CARRIED if facts is None else facts)
    if facts is not None:
        return _judgements(store, view, facts)
    return _kept(store, "judgements", view, lambda: _judgements(store, view, CARRIED))


def _judgements(store: Store, view: View, asked: Iterable[str]) -> Any:
    import ibis

    made = store.evaluations
    made = made.select(
        "evaluation_name", "version", "annotator", "target_trace_id", "target_span_id", "time_ns", "score",
        judged=judged(made), failed=failed(made), copied_release=made.release, copied_cohort=made.cohort,
        copied_confidence=made.confidence, carrier_trace_id=made.trace_id, carrier_span_id=made.span_id,
    )  # fmt: skip
    # Release, cohort and confidence are copied onto evaluations.
    facts = [name for name in dict.fromkeys(("release", "cohort", "confidence", *asked)) if name not in ("trace_id", "span_id")]
    own = _within(_own(store, view, facts), view)
    judged_calls = own if store.marked is None else own.filter(own[JUDGED])
    direct = judged_calls.select(call_trace="trace_id", call_span="span_id", **{f"call_{name}": name for name in facts})
    whole = traces(store, view, facts).select(first_trace="trace_id", **{f"first_{name}": name for name in facts})
    # Left joins, each table once: ClickHouse writes a table out again wherever it is named.
    rows = made.left_join(direct, [made.target_trace_id == direct.call_trace, made.target_span_id == direct.call_span])
    rows = rows.left_join(whole, [rows.target_trace_id == whole.first_trace])
    itself, known = (column.notnull() & (column != "") for column in (rows.call_span, rows.first_trace))
    if view != View(view.edges):
        rows = rows.filter(itself | known)
    rows = rows.select(
        *made.columns,
        trace_id=rows.target_trace_id, **{name: ibis.ifelse(itself, rows[f"call_{name}"], rows[f"first_{name}"]) for name in facts},
    )  # fmt: skip
    return rows.mutate(
        release=ibis.coalesce(rows.release, rows.copied_release),
        cohort=ibis.coalesce(rows.cohort.nullif(UNKNOWN), rows.copied_cohort, UNKNOWN),
        confidence=ibis.coalesce(rows.confidence, rows.copied_confidence),
    ).drop("copied_release", "copied_cohort", "copied_confidence")


def _within(table: Any, view: View) -> Any:
    if view.since_ns is not None:
        table = table.filter(table.start_ns >= view.since_ns)
    if view.until_ns is not None:
        table = table.filter(table.start_ns < view.until_ns)
    return table

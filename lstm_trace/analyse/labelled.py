"""The judged traces of two releases as a table of cells: cohort, which mechanisms went wrong, whether the outcome failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse import cases, prepared
from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.cells import Cells
from lstm_trace.analyse.completing import Observed
from lstm_trace.analyse.dimensions import UNKNOWN
from lstm_trace.analyse.facets import MOST, Facets, divisible, facets_of
from lstm_trace.analyse.judging import FEW, MECHANISMS, common_versions, of_all, outcome_in, seen_in, selection, short, used_in
from lstm_trace.analyse.placing import placed, vary
from lstm_trace.analyse.sessions import FEWEST as FEWEST_SESSIONS
from lstm_trace.analyse.sessions import Sessions, sessions_of
from lstm_trace.analyse.shapley import Floats
from lstm_trace.analyse.sides import sided, two_sides
from lstm_trace.analyse.slices import CUTS, Cut, Slice, slices
from lstm_trace.analyse.values import fetched
from lstm_trace.errors import BadInput
from lstm_trace.store import Store


@dataclass(frozen=True, slots=True)
class Labelled:
    """Judged traces of two releases.

    ``counts`` are numbers of traces a cell, ``weights`` the weight of each of them; both are (2, strata, 2, …, 2, weights): baseline
    first, a two for each of ``mechanisms`` and one for the outcome, then one entry a distinct weight. ``strata`` are the cohorts of the
    strata; one stands there several times where something else divides it. ``observed`` is there where labels are missing: what the counts
    were completed from. ``sessions`` (of the cells of ``observed``, else of ``counts``, one after the other) are there where traces share
    a session. ``untold`` are the components after one that too few labels measure: what that one did would stand under theirs. ``slices``
    are some of the traces by themselves.
    """

    outcome: str
    strata: tuple[str, ...]
    mechanisms: tuple[str, ...]
    counts: Floats
    weights: Floats
    judged: tuple[int, int]
    notes: tuple[str, ...]
    confounded: frozenset[str]
    wide: Any
    sessions: tuple[Sessions, Sessions] | None = None
    observed: Observed | None = None
    untold: frozenset[str] = frozenset()
    slices: tuple[Sliced, ...] = ()

    @property
    def n(self) -> tuple[int, int]:
        """Traces whose outcome was judged and that count, a release."""
        return self.judged if self.observed is not None else (int(self.counts[0].sum()), int(self.counts[1].sum()))

    def weighted(self) -> Floats:
        """Weighted cells (2, strata, 2, …, 2)."""
        return np.asarray((self.counts * self.weights).sum(axis=-1))


@dataclass(frozen=True, slots=True)
class Sliced:
    """The cells of one slice, as if its traces were all; ``clustered`` adds their sessions, which takes longer to count."""

    of: Slice
    cells: Labelled
    clustered: Callable[[], Labelled]


def labelled(
    store: Store,
    baseline: str,
    candidate: str,
    *,
    outcome: str | None = None,
    mechanisms: Mapping[str, str] | None = None,
    view: View = EVERYTHING,
) -> Labelled:
    """Read the cells of two releases. Raises BadInput where a release, the outcome or a mechanism is not in the store."""
    sides = two_sides(store, baseline, candidate)
    if unknown := sorted(set(mechanisms or {}) - set(MECHANISMS)):
        raise BadInput(f"mechanism {unknown[0]!r}: accepted are {', '.join(MECHANISMS)}, each as NAME=EVALUATION")
    judged = sided(cases.judgements(store, view), *sides)
    judged = judged.filter(judged.failed.notnull())
    seen = seen_in(judged, (baseline, candidate))
    outcome = outcome_in(store, seen, outcome, mechanisms or {})
    notes: list[str] = []
    used = used_in(store, seen, outcome, mechanisms or {}, notes)
    confounded: set[str] = set()
    for mechanism, name in [*used.items(), ("generation", outcome)]:
        common, note = common_versions(seen[name], mechanism, name)
        notes += [note] if note else []
        if common is None:
            confounded.add(mechanism)
        elif note:
            judged = judged.filter((judged.evaluation_name != name) | judged.version.isin(common))
    used = {mechanism: name for mechanism, name in used.items() if mechanism not in confounded}
    names = (baseline, candidate)
    wide = cases.held(store, "judged", divisible(_wide(store, judged, outcome, used)))
    facets = facets_of(wide, names)
    notes += facets.notes
    counted = fetched(wide.group_by("release", "cohort", *facets.facts, *used, "failed", "weight").aggregate(n=wide.count()))
    found: list[dict[str, Any]] = [{**row, "facet": facets.of(row)} for row in counted]
    untold: set[str] = set()
    while used and (least := short(found, used, names)):
        notes.append(f"{least} is left out: fewer than {FEW} traces of a release have {used[least]}; what comes after it is not blamed")
        order = (*MECHANISMS, "generation")
        untold |= {*order[order.index(least) + 1 :]}
        del used[least]
        found = [{key: value for key, value in row.items() if key != least} for row in found]
    selected = selection(found, used)
    notes += [*of_all(found, used, names), *selected.values()]
    cells = Cells.of(found, tuple(used))
    counts, observed = cells.counted(found, names)
    sessions = _sessions(wide, names, cells, facets, notes)
    whole = Labelled(
        outcome, cells.strata, tuple(used), counts, cells.weights, judged_of(found, names), tuple(notes), frozenset(confounded), wide,
        sessions, observed, frozenset(untold),
    )  # fmt: skip

    return replace(whole, slices=sliced(whole, names, _Read(store, whole, names, facets, frozenset(selected))))


class Counted(Protocol):
    """Where the slices of a comparison are counted."""

    def rows(self, cut: Cut) -> Sequence[Mapping[str, Any]]:
        """Rows as ``Cells`` takes them, with the fact of a cut; none where it may not be asked."""
        ...

    def traces(self, part: Slice) -> Any:
        """The traces of a slice: that much of ``Labelled.wide``."""
        ...

    def sessions(self, part: Slice, axes: Cells) -> tuple[Sessions, Sessions] | None:
        """Its sessions, of the cells that ``axes`` makes."""
        ...


def sliced(whole: Labelled, names: tuple[str, str], counted: Counted) -> tuple[Sliced, ...]:
    """The slices of a comparison, from its rows counted by one fact more at a time."""
    made: list[Sliced] = []
    for cut in CUTS:
        rows = counted.rows(cut)
        of_all = [row for row in rows if all(row[label] is not None for label in (*whole.mechanisms, "failed"))]
        for part in slices(cut, of_all, names):
            inside = [row for row in rows if row[cut.column] in part.values]
            axes = Cells.of(inside, whole.mechanisms)
            counts, observed = axes.counted(inside, names)
            cells = replace(
                whole, strata=axes.strata, counts=counts, weights=axes.weights, judged=judged_of(inside, names), observed=observed,
                sessions=None, wide=counted.traces(part),
            )  # fmt: skip

            def clustered(part: Slice = part, axes: Cells = axes, cells: Labelled = cells) -> Labelled:
                return cells if whole.sessions is None else replace(cells, sessions=counted.sessions(part, axes))

            made.append(Sliced(part, cells, clustered))
    return tuple(made)


@dataclass(frozen=True, slots=True)
class _Read:
    """Slices counted in a store. ``selected``: mechanisms whose labels were drawn by the outcome."""

    store: Store
    whole: Labelled
    names: tuple[str, str]
    facets: Facets
    selected: frozenset[str]

    def rows(self, cut: Cut) -> list[dict[str, Any]]:
        # Right labels of those only that were drawn by the outcome say nothing; a place in a session is looked at where traces share one.
        if (cut.column == "expected" and "classifier" in self.selected) or (cut.column == "position" and self.whole.sessions is None):
            return []
        if cut.column == "step" and not vary(self.store):
            return []
        table = placed(self.store, self.whole.wide, cut.column)
        keys = dict.fromkeys(("release", "cohort", *self.facets.facts, cut.column, *self.whole.mechanisms, "failed", "weight"))
        rows = fetched(table.group_by(*keys).aggregate(n=table.count()).limit(MOST + 1))
        return [{**row, "facet": self.facets.of(row)} for row in rows] if len(rows) <= MOST else []

    def traces(self, part: Slice) -> Any:
        table = placed(self.store, self.whole.wide, part.cut.column)
        return table.filter(part.holds(table))

    def sessions(self, part: Slice, axes: Cells) -> tuple[Sessions, Sessions] | None:
        return _sessions(self.traces(part), self.names, axes, self.facets, [])


def judged_of(rows: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> tuple[int, int]:
    """How many traces of each release have a judged outcome."""
    n = [sum(row["n"] for row in rows if row["release"] == name and row["failed"] is not None) for name in names]
    return n[0], n[1]


def _wide(store: Store, judged: Any, outcome: str, used: Mapping[str, str]) -> Any:
    """One row a judged trace: release, cohort, weight, right label, 0/1 (or null) a mechanism and ``failed``, and facts of its call."""
    import ibis

    rows = judged.filter(judged.evaluation_name.isin((*used.values(), outcome)))
    rows = rows.left_join(prepared.noted(store), ["carrier_trace_id", "carrier_span_id"])
    of = rows.evaluation_name
    wide = rows.group_by("trace_id").aggregate(
        release=rows.release.max(),
        cohort=ibis.coalesce(rows.cohort.max(where=of == outcome), rows.cohort.max(), UNKNOWN),
        session=rows.session_id.max(),
        time_gap=ibis.coalesce(rows.time_gap.max(where=of == outcome), rows.time_gap.max()),
        expected=rows.expected.max(where=of == used.get("classifier", "")),
        weight=rows.weight.max().fill_null(1.0),
        score=rows.score.min(where=of == outcome),
        confidence=rows.confidence.min(where=of == outcome),
        length=rows.length.max(where=of == outcome),
        label=ibis.coalesce(rows.label.max(where=of == outcome), rows.label.max()),
        failed=rows.failed.max(where=of == outcome),
        **{mechanism: rows.failed.max(where=of == name) for mechanism, name in used.items()},
    )
    return wide.filter(ibis.or_(*(wide[label].notnull() for label in (*used, "failed"))))


def _sessions(wide: Any, names: tuple[str, str], cells: Cells, facets: Facets, notes: list[str]) -> tuple[Sessions, Sessions] | None:
    """The sessions of both releases, where traces share one and there are enough of them."""
    import ibis

    labels = (*cells.mechanisms, "failed")
    whole = wide
    for label in () if cells.partial else (*facets.facts, *labels):
        whole = whole.filter(whole[label].notnull())
    session: Any = ibis.coalesce(whole.session.nullif(""), whole.trace_id)
    shared = fetched(whole.group_by("release").aggregate(traces=whole.count(), sessions=session.nunique()))
    if len(shared) < 2 or all(row["traces"] == row["sessions"] for row in shared):
        return None
    if min(row["sessions"] for row in shared) < FEWEST_SESSIONS:
        notes.append(f"traces share fewer than {FEWEST_SESSIONS} sessions a release: they are counted as if they were independent")
        return None
    # Numbered here: by dense_rank() in ClickHouse every trace came out as a session of its own.
    told = whole.mutate(known_as=session, **{label: whole[label].fill_null(2) for label in labels})
    counted = told.group_by("release", "known_as", "cohort", *facets.facts, *labels, "weight").aggregate(n=told.count()).to_pyarrow()
    # Numbered here: by dense_rank() in ClickHouse every trace came out as a session of its own.
    numbered = counted.column("known_as").combine_chunks().dictionary_encode().indices.to_numpy()
    column = {name: counted.column(name).to_numpy() for name in ("release", *labels, "weight", "n")}
    stratum = _strata_of(counted.select(["cohort", *facets.facts]), cells, facets)
    cell = cells.places(stratum, [column[label].astype(np.int64) for label in labels], column["weight"])
    made: list[Sessions] = []
    for name in names:
        of = column["release"] == name
        made.append(sessions_of(numbered[of], cell[of], column["n"][of].astype(np.float64), int(np.prod(cells.shape))))
    return made[0], made[1]


def _strata_of(rows: Any, cells: Cells, facets: Facets) -> NDArray[np.int64]:
    """The stratum of each row of an Arrow table, looked up once for each kind of row."""
    codes: list[NDArray[np.int64]] = []
    values: list[list[str | None]] = []
    for column in rows.columns:
        coded = column.combine_chunks().dictionary_encode()
        values.append([*coded.dictionary.to_pylist(), None])
        codes.append(coded.indices.fill_null(len(coded.dictionary)).to_numpy().astype(np.int64))
    sizes = tuple(map(len, values))
    kinds, kind = np.unique(np.ravel_multi_index(tuple(codes), sizes), return_inverse=True)
    found: list[int] = []
    for places in np.array(np.unravel_index(kinds, sizes)).T:
        row = {name: held[place] for name, held, place in zip(rows.column_names, values, places, strict=True)}
        found.append(cells.stratum(row | {"facet": facets.of(row)}))
    return np.array(found)[kind]

"""The judged traces of two releases as a table of cells: cohort, which mechanisms went wrong, whether the outcome failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse import cases, prepared
from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.cells import Cells
from lstm_trace.analyse.completing import Observed
from lstm_trace.analyse.dimensions import UNKNOWN
from lstm_trace.analyse.facets import Facets, divisible, facets_of
from lstm_trace.analyse.sessions import FEWEST as FEWEST_SESSIONS
from lstm_trace.analyse.sessions import Sessions, sessions_of
from lstm_trace.analyse.shapley import Floats
from lstm_trace.analyse.sides import sided, two_sides
from lstm_trace.analyse.values import fetched
from lstm_trace.errors import BadInput
from lstm_trace.store import Store

MECHANISMS: Final[Mapping[str, str]] = {
    "classifier": "ground_truth_match",
    "routing": "branch_match",
    "retrieval": "context_relevance",
}
"""Mechanisms in causal order, and the evaluation that says whether each went wrong."""
NOT_AN_OUTCOME: Final = ("escalation", "feedback")
FEW: Final = 50
"""Judged traces a release below which a mechanism is left out rather than measured."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Judged traces of two releases.

    ``counts`` are numbers of traces a cell, ``weights`` the weight of each of them; both are (2, strata, 2, …, 2, weights): baseline
    first, a two for each of ``mechanisms`` and one for the outcome, then one entry a distinct weight. ``strata`` are the cohorts of the
    strata; one stands there several times where something else divides it. ``observed`` is there where labels are missing: what the counts
    were completed from. ``sessions`` (of the cells of ``observed``, else of ``counts``, one after the other) are there where traces share
    a session. ``untold`` are the components after one that too few labels measure: what that one did would stand under theirs.
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

    @property
    def n(self) -> tuple[int, int]:
        """Traces whose outcome was judged and that count, a release."""
        return self.judged if self.observed is not None else (int(self.counts[0].sum()), int(self.counts[1].sum()))

    def weighted(self) -> Floats:
        """Weighted cells (2, strata, 2, …, 2)."""
        return np.asarray((self.counts * self.weights).sum(axis=-1))


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
    seen = _seen(judged, (baseline, candidate))
    outcome = _outcome(store, seen, outcome, mechanisms or {})
    notes: list[str] = []
    used = _used(store, seen, outcome, mechanisms or {}, notes)
    confounded: set[str] = set()
    for mechanism, name in [*used.items(), ("generation", outcome)]:
        common, note = _versions(seen[name], mechanism, name)
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
    while used and (short := _short(found, used, names)):
        notes.append(f"{short} is left out: fewer than {FEW} traces of a release have {used[short]}; what comes after it is not blamed")
        order = (*MECHANISMS, "generation")
        untold |= {*order[order.index(short) + 1 :]}
        del used[short]
        found = [{key: value for key, value in row.items() if key != short} for row in found]
    notes += [*_rates_of_all(found, used, names), *_selection(found, used)]
    judged_n = tuple(sum(row["n"] for row in found if row["release"] == name and row["failed"] is not None) for name in names)
    cells = Cells.of(found, tuple(used))
    counts, observed = cells.counted(found, names)
    sessions = _sessions(wide, names, cells, facets, notes)
    return Labelled(
        outcome, cells.strata, tuple(used), counts, cells.weights, (judged_n[0], judged_n[1]), tuple(notes), frozenset(confounded), wide,
        sessions, observed, frozenset(untold),
    )  # fmt: skip


def _seen(judged: Any, names: tuple[str, str]) -> dict[str, dict[str, dict[tuple[str | None, str | None], int]]]:
    """Count judgements: evaluation → release → (evaluator version, annotator) → n."""
    counted = judged.group_by("evaluation_name", "release", "version", "annotator").aggregate(n=judged.count())
    seen: dict[str, dict[str, dict[tuple[str | None, str | None], int]]] = {}
    for row in fetched(counted):
        sides = seen.setdefault(row["evaluation_name"], {name: {} for name in names})
        sides[row["release"]][row["version"], row["annotator"]] = row["n"]
    return seen


def _outcome(store: Store, seen: Mapping[str, Any], given: str | None, mechanisms: Mapping[str, str]) -> str:
    taken = {*MECHANISMS.values(), *mechanisms.values(), *NOT_AN_OUTCOME}
    free = {name: min(sum(side.values()) for side in sides.values()) for name, sides in seen.items() if name not in taken}
    if given is None and not free:
        raise BadInput(
            f"{store.address} holds no evaluation of the two releases that could be the outcome; name one with --outcome, "
            f"out of {', '.join(map(repr, sorted(seen))) or 'none'}{store.left_out}"
        )
    if given is not None and given not in seen:
        known = ", ".join(map(repr, sorted(seen))) or "none"
        raise BadInput(f"outcome {given!r} is not an evaluation of the two releases in {store.address}; it holds {known}{store.left_out}")
    return given or min(free, key=lambda name: (name != "answer_quality", -free[name], name))


def _used(store: Store, seen: Mapping[str, Any], outcome: str, given: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    used: dict[str, str] = {}
    for mechanism, name in {**MECHANISMS, **given}.items():
        if mechanism in given and name not in seen:
            raise BadInput(
                f"mechanism {mechanism}={name}: {store.address} holds no evaluation {name!r} of the two releases{store.left_out}"
            )
        if name == outcome:
            continue
        if name in seen and all(seen[name].values()):
            used[mechanism] = name
        else:
            notes.append(f"{mechanism} is not measured ({name} has no scores on both sides): its part stands under what comes after it")
    for mechanism, name in used.items():
        if any(annotator == "LLM" for side in seen[name].values() for _, annotator in side) and mechanism == "classifier":
            notes.append(f"gold of {mechanism} is not independent: {name} was judged by an LLM")
    return used


def _versions(sides: Mapping[str, Mapping[tuple[str | None, str | None], int]], mechanism: str, name: str) -> tuple[Any, str | None]:
    """The evaluator versions to compare on, and what to say. No common version: (None, note); nothing to say: (…, None)."""
    versions = [{version for version, _ in side} for side in sides.values()]
    if versions[0] == versions[1] and len(versions[0]) == 1:
        return versions[0], None
    common = versions[0] & versions[1]
    shares = [sum(n for (v, _), n in side.items() if v in common) / max(sum(side.values()), 1) for side in sides.values()]
    spelled = " against ".join("/".join(sorted(str(version) for version in side)) for side in versions)
    if common and min(shares) >= 0.3 and None not in common:
        return common, f"evaluator version of {name} changed ({spelled}): compared on {'/'.join(sorted(map(str, common)))} only"
    if versions[0] == versions[1]:
        return versions[0], None
    return None, f"evaluator version of {name} changed ({spelled}): {mechanism} cannot be told from its evaluator"


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
        label=rows.label.max(where=of == outcome),
        failed=rows.failed.max(where=of == outcome),
        **{mechanism: rows.failed.max(where=of == name) for mechanism, name in used.items()},
    )
    return wide.filter(ibis.or_(*(wide[label].notnull() for label in (*used, "failed"))))


def _short(found: Sequence[Mapping[str, Any]], used: Mapping[str, str], names: tuple[str, str]) -> str | None:
    """The mechanism with the fewest labels, where too few traces of a release have every label."""

    def having(mechanisms: Sequence[str]) -> int:
        labelled = [row for row in found if all(row[mechanism] is not None for mechanism in (*mechanisms, "failed"))]
        return min(sum(int(row["n"]) for row in labelled if row["release"] == name) for name in names)

    outcomes = having(())
    if having(tuple(used)) >= min(FEW, outcomes):
        return None
    return min(used, key=lambda mechanism: having((mechanism,)))


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


def _rates_of_all(found: Sequence[Mapping[str, Any]], used: Mapping[str, str], names: tuple[str, str]) -> list[str]:
    """Say how many judged traces have every label, where some do not, and how the others count."""
    judged = [row for row in found if row["failed"] is not None]
    whole = [row for row in judged if all(row[mechanism] is not None for mechanism in used)]
    n = [[sum(row["n"] for row in rows if row["release"] == name) for name in names] for rows in (whole, judged)]
    if n[0] == n[1]:
        return []
    told = f"few labels: {n[0][0]} of {n[1][0]} and {n[0][1]} of {n[1][1]} judged traces have every label"
    even = all(row["weight"] == 1.0 for row in found)
    return [f"{told}; the others {'count as those that are like them in the labels they have' if even else 'are left out'}"]


def _selection(found: Sequence[Mapping[str, Any]], used: Mapping[str, str]) -> list[str]:
    """Say where labels were not drawn independently of the outcome: labelled and unlabelled traces fail at different rates."""
    notes: list[str] = []
    for mechanism, name in used.items():
        table = np.zeros((2, 2), dtype=int)
        for row in found:
            if row["failed"] is not None:
                table[int(row[mechanism] is not None), row["failed"]] += row["n"]
        if table.sum(axis=1).min() > 0 and len({row["weight"] for row in found}) == 1 and _exact(table) < 0.001:
            rates = table[:, 1] / table.sum(axis=1)
            told = f"traces with {name} fail at {rates[1]:.1%}, those without at {rates[0]:.1%}"
            notes.append(f"gold of {mechanism} is not independent of the outcome: {told}")
    return notes


def _exact(table: NDArray[np.int64]) -> float:
    from scipy.stats import fisher_exact  # takes a second and more to import

    found: Any = fisher_exact(table)
    return float(found.pvalue)

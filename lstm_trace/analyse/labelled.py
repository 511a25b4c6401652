"""The judged traces of two releases as a table of cells: cohort, which mechanisms went wrong, whether the outcome failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstm_trace import conventions as c
from lstm_trace.analyse import cases
from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.dimensions import UNKNOWN, cohort_rank
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
WEIGHTS: Final = 64
"""Distinct inclusion weights that are told apart; more are rounded to the nearest of as many in equal ratios."""
FEW: Final = 50
"""Judged traces a release below which a mechanism is left out rather than measured."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Judged traces of two releases.

    ``counts`` are numbers of traces a cell, ``weights`` the weight of each of them; both are (2, strata, 2, …, 2, weights): baseline
    first, a two for each of ``mechanisms`` and one for the outcome, then one entry a distinct weight. ``sessions`` (of the same cells, one
    after the other) are there where traces share a session.
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

    @property
    def n(self) -> tuple[int, int]:
        """Traces with every label, a release."""
        return int(self.counts[0].sum()), int(self.counts[1].sum())

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
    wide = _wide(store, judged, outcome, used)
    found = fetched(wide.group_by("release", "cohort", *used, "failed", "weight").aggregate(n=wide.count()))
    while used and (short := _short(found, used, (baseline, candidate))):
        notes.append(f"{short} is left out: fewer than {FEW} traces of a release have {used[short]}")
        del used[short]
        found = [{key: value for key, value in row.items() if key != short} for row in found]
    whole = [row for row in found if all(row[mechanism] is not None for mechanism in used)]
    judged_n = tuple(sum(row["n"] for row in found if row["release"] == name) for name in (baseline, candidate))
    strata, counts, weights = _tables(whole, (baseline, candidate), tuple(used))
    notes += [*_rates_of_all(found, whole, (baseline, candidate)), *_selection(found, used)]
    sessions = _sessions(wide, (baseline, candidate), strata, tuple(used), weights, notes)
    return Labelled(
        outcome, strata, tuple(used), counts, weights, (judged_n[0], judged_n[1]), tuple(notes), frozenset(confounded), wide, sessions
    )


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
    """One row a trace with a judged outcome: release, cohort, weight, 0/1 (or null) a mechanism, ``failed``, and facts of its call."""
    import ibis

    spans = store.spans
    weight = spans.attributes.get(c.EVALUATION_WEIGHT, ibis.null("string")).try_cast("float64")
    weighted = spans.filter(spans.evaluation_name.notnull(), weight > 0).select(
        carrier_trace_id=spans.trace_id, carrier_span_id=spans.span_id, weight=weight
    )
    rows = judged.filter(judged.evaluation_name.isin((*used.values(), outcome)))
    rows = rows.left_join(weighted, ["carrier_trace_id", "carrier_span_id"])
    of = rows.evaluation_name
    wide = rows.group_by("trace_id").aggregate(
        release=rows.release.max(where=of == outcome),
        cohort=rows.cohort.max(where=of == outcome).fill_null(UNKNOWN),
        session=rows.session_id.max(where=of == outcome),
        weight=rows.weight.max().fill_null(1.0),
        score=rows.score.min(where=of == outcome),
        confidence=rows.confidence.min(where=of == outcome),
        length=rows.length.max(where=of == outcome),
        label=rows.label.max(where=of == outcome),
        failed=rows.failed.max(where=of == outcome),
        **{mechanism: rows.failed.max(where=of == name) for mechanism, name in used.items()},
    )
    return wide.filter(wide.failed.notnull())


def _short(found: Sequence[Mapping[str, Any]], used: Mapping[str, str], names: tuple[str, str]) -> str | None:
    """The mechanism with the fewest labels, where too few traces of a release have every label."""

    def having(mechanisms: Sequence[str]) -> int:
        labelled = [row for row in found if all(row[mechanism] is not None for mechanism in mechanisms)]
        return min(sum(int(row["n"]) for row in labelled if row["release"] == name) for name in names)

    outcomes = having(())
    if having(tuple(used)) >= min(FEW, outcomes):
        return None
    return min(used, key=lambda mechanism: having((mechanism,)))


def _tables(found: Sequence[Mapping[str, Any]], names: tuple[str, str], used: tuple[str, ...]) -> tuple[tuple[str, ...], Floats, Floats]:
    strata = tuple(sorted({row["cohort"] for row in found}, key=cohort_rank)) or (UNKNOWN,)
    weights = _few(np.array([[row["weight"], row["n"]] for row in found] or [[1.0, 1.0]]))
    shape = (2, len(strata), *[2] * (len(used) + 1), len(weights))
    counts = np.zeros(shape)
    for row in found:
        before = (names.index(row["release"]), strata.index(row["cohort"]), *(row[m] for m in used))
        place = (*before, row["failed"], int(_nearest(weights, np.array([row["weight"]]))[0]))
        counts[place] += row["n"]
    return strata, counts, weights


def _few(weighed: Floats) -> Floats:
    """The distinct weights of rows of (weight, traces), rising. Where there are more than ``WEIGHTS``, as many that lie between them."""
    weights = np.unique(weighed[:, 0])
    if weights.size <= WEIGHTS:
        return weights
    return np.geomspace(weights[0], weights[-1], WEIGHTS)


def _nearest(weights: Floats, given: Floats) -> NDArray[np.int64]:
    """For each weight given, the place of the nearest one in ``weights``, which rise."""
    after = np.clip(np.searchsorted(weights, given), 1, max(weights.size - 1, 1)) if weights.size > 1 else np.zeros(given.size, np.int64)
    before = np.maximum(after - 1, 0)
    return np.asarray(np.where(np.abs(given - weights[before]) <= np.abs(weights[after] - given), before, after))


def _sessions(
    wide: Any, names: tuple[str, str], strata: tuple[str, ...], used: tuple[str, ...], weights: Floats, notes: list[str]
) -> tuple[Sessions, Sessions] | None:
    """The sessions of both releases, where traces share one and there are enough of them."""
    import ibis

    whole = wide
    for mechanism in used:
        whole = whole.filter(whole[mechanism].notnull())
    session: Any = ibis.coalesce(whole.session.nullif(""), whole.trace_id)
    shared = fetched(whole.group_by("release").aggregate(traces=whole.count(), sessions=session.nunique()))
    if len(shared) < 2 or all(row["traces"] == row["sessions"] for row in shared):
        return None
    if min(row["sessions"] for row in shared) < FEWEST_SESSIONS:
        notes.append(f"traces share fewer than {FEWEST_SESSIONS} sessions a release: they are counted as if they were independent")
        return None
    # Numbered here: by dense_rank() in ClickHouse every trace came out as a session of its own.
    coded = whole.mutate(known_as=session, stratum=whole.cohort.cases(*((name, index) for index, name in enumerate(strata)), else_=-1))
    counted = coded.group_by("release", "known_as", "stratum", *used, "failed", "weight").aggregate(n=coded.count()).to_pyarrow()
    numbered = counted.column("known_as").combine_chunks().dictionary_encode().indices.to_numpy()
    column = {name: counted.column(name).to_numpy() for name in counted.column_names if name != "known_as"}
    shape = (len(strata), *[2] * (len(used) + 1), weights.size)
    places = [column[name].astype(np.int64) for name in ("stratum", *used, "failed")]
    cell = np.ravel_multi_index((*places, _nearest(weights, column["weight"])), shape)
    made: list[Sessions] = []
    for name in names:
        of = column["release"] == name
        made.append(sessions_of(numbered[of], cell[of], column["n"][of].astype(np.float64), int(np.prod(shape))))
    return made[0], made[1]


def _rates_of_all(found: Sequence[Mapping[str, Any]], whole: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> list[str]:
    """Say how often all judged traces fail, where only a part of them has every label: the verdict rests on that part."""
    rest = [row for row in found if row not in whole]
    if not rest or any(row["weight"] != 1.0 for row in rest):  # a weighted outcome's own rate is not its share of rows
        return []
    sides = [[row for row in found if row["release"] == name] for name in names]
    n = [sum(row["n"] for row in side) for side in sides]
    rates = [sum(row["n"] for row in side if row["failed"]) / max(size, 1) for side, size in zip(sides, n, strict=True)]
    told = f"all {n[0]} and {n[1]} judged traces fail at {rates[0]:.1%} and {rates[1]:.1%}"
    return [f"{told}; contributions and intervals rest on those with every label"]


def _selection(found: Sequence[Mapping[str, Any]], used: Mapping[str, str]) -> list[str]:
    """Say where labels were not drawn independently of the outcome: labelled and unlabelled traces fail at different rates."""
    from scipy.stats import fisher_exact

    notes: list[str] = []
    for mechanism, name in used.items():
        table = np.zeros((2, 2), dtype=int)
        for row in found:
            table[int(row[mechanism] is not None), row["failed"]] += row["n"]
        exact: Any = fisher_exact(table)
        if table.sum(axis=1).min() > 0 and len({row["weight"] for row in found}) == 1 and exact.pvalue < 0.001:
            rates = table[:, 1] / table.sum(axis=1)
            told = f"traces with {name} fail at {rates[1]:.1%}, those without at {rates[0]:.1%}"
            notes.append(f"gold of {mechanism} is not independent of the outcome: {told}")
    return notes

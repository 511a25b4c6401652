"""The figures behind a verdict, from cells alone: contributions with bootstrap intervals, direct tests, and the cohorts they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse import shapley
from lstm_trace.analyse.dimensions import longer_than
from lstm_trace.analyse.discoveries import adjusted
from lstm_trace.analyse.labelled import Labelled
from lstm_trace.analyse.sessions import AT_ONCE, design_effect
from lstm_trace.analyse.shapley import Floats
from lstm_trace.analyse.stratified import rise

PRIMARY_LENGTH: Final = 12
"""The one contrast stated before looking: sequences longer than this, in steps."""
FALSE_ALARMS: Final = 0.008
"""Share of quiet comparisons in which a component may look worse over all cohorts or over the primary contrast; shared out among them."""
FALSE_ALARMS_SINGLE: Final = 0.002
"""The same for single cohorts, which nobody named beforehand: a false discovery rate (Benjamini–Hochberg)."""
FALSE_ALARMS_MIX: Final = 0.02
"""Share of comparisons whose mix moved without harm in which it is flagged all the same."""
EXPLORATORY: Final = 0.05
"""False discovery rate of the cohorts that are named for a component once it is flagged."""
BORROWED: Final = 2.0
"""Cases that every cell borrows from both releases together; lowers the error of contributions at 800 traces by a fifth."""
REPLICATES: Final = 1000
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class ComponentPart:
    """One component's contribution in percentage points.

    ``proven_pp`` is its contribution in those cohorts where its own rate rose and the interval of it lies above zero, the most of several
    contrasts; 0.0 where none shows it.
    """

    name: str
    pp: float
    ci_low: float
    ci_high: float
    p_value: float
    proven_pp: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """One direct test: did a component's own rate rise in these strata? ``q_value`` is set for a single cohort, adjusted."""

    component: str
    strata: NDArray[np.bool_]
    p_value: float
    significant: bool
    q_value: float | None = None


@dataclass(frozen=True, slots=True)
class Attribution:
    """Every figure of a comparison, percentage points unless said. ``places`` are (component, cohort, baseline rate, candidate rate)."""

    rates: tuple[float, float]
    change_pp: float
    change_se_pp: float
    parts: tuple[ComponentPart, ...]
    mix: tuple[float, float, float]
    rate: tuple[float, float, float]
    places: tuple[tuple[str, str, float, float], ...]


def attribute(cells: Labelled, *, seed: int = 0) -> Attribution:
    """Compute the contributions of mix, each measured mechanism and generation, and test each one's own rate directly."""
    names = ("mix", *cells.mechanisms, "generation")
    if min(cells.n) == 0:
        nothing = tuple(ComponentPart(name, 0.0, 0.0, 0.0, 1.0, 0.0) for name in names)
        return Attribution((0.0, 0.0), 0.0, 0.0, nothing, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), ())
    before, after = cells.weighted()
    drawn = _bootstrap(cells, np.random.default_rng(seed))
    each = _per_case(cells)
    alike = [each * cases for cases in shapley.alike(before / each, after / each)]
    shares = 100.0 * shapley.contributions(before[None], after[None], borrowed=BORROWED, alike=alike)[0]
    replicates = 100.0 * shapley.contributions(*drawn, borrowed=BORROWED, alike=alike)
    tests = _direct(cells, drawn)
    parts: list[ComponentPart] = []
    for index, name in enumerate(names):
        low, high = _interval(replicates[:, index].sum(axis=-1))
        own = [test for test in tests if test.component == name]
        proven = [
            float(shares[index][test.strata].sum())
            for test in own
            if test.significant and _above_zero(replicates[:, index][:, test.strata].sum(axis=-1), harm=name == "mix")
        ]
        p_value = min(test.p_value if test.q_value is None else test.q_value for test in own)
        parts.append(ComponentPart(name, float(shares[index].sum()), low, high, p_value, max(proven, default=0.0)))
    rates = (_rate(before), _rate(after))
    spread = float(replicates.sum(axis=(1, 2)).std())
    mix, rate = _kitagawa(before, after, drawn)
    return Attribution(rates, 100.0 * (rates[1] - rates[0]), spread, tuple(parts), mix, rate, _places(cells, shares, tests))


def _per_case(cells: Labelled) -> float:
    """The weight that says as much of the fail rate as one independent case: above 1 where sessions or weights make traces alike."""
    weighed = (cells.counts * cells.weights).reshape(2, -1).sum(axis=1)
    cases = weighed**2 / np.maximum((cells.counts * cells.weights**2).reshape(2, -1).sum(axis=1), 1e-300)
    if cells.sessions is None:
        return float(weighed.sum() / cases.sum())
    held = cells.counts if cells.observed is None else cells.observed.counts
    scores: list[Floats] = []
    for rate, side in zip((_rate(table) for table in cells.weighted()), held, strict=True):
        score = np.zeros_like(side)
        by_outcome = np.moveaxis(score, -2 if cells.observed is None else -1, 0)  # a view
        by_outcome[0], by_outcome[1] = -rate, 1.0 - rate
        scores.append((score if cells.observed is not None else score * cells.weights).ravel())
    return float(design_effect(cells.sessions, scores) * weighed.sum() / cases.sum())


def _rate(table: Floats) -> float:
    return float(table[..., 1].sum() / table.sum())


def _interval(values: Floats, level: float = LEVEL) -> tuple[float, float]:
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _above_zero(replicates: Floats, *, harm: bool) -> bool:
    """Whether a contribution lies above zero. ``harm``: nothing else has tested that it harms, so it must at ``FALSE_ALARMS_MIX``.

    The mix is such a one: its own test says that it moved, which it may without any effect on the outcome.
    """
    from scipy.special import ndtri

    if _interval(replicates)[0] <= 0:
        return False
    return not harm or bool(replicates.mean() > -ndtri(FALSE_ALARMS_MIX) * replicates.std())


def _bootstrap(cells: Labelled, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Resample each release's sessions (its traces where a session is one), weigh, complete: two tables (replicates, strata, 2, …, 2)."""
    held = cells.counts if cells.observed is None else cells.observed.counts
    at_once = max(1, AT_ONCE // held[0].size)
    parts: list[tuple[Floats, Floats]] = []
    for done in range(0, REPLICATES, at_once):
        replicates, drawn = min(at_once, REPLICATES - done), list[Floats]()
        for index, counts in enumerate(held):
            if cells.sessions is not None:
                flat = cells.sessions[index].resample(replicates, random)
            else:
                flat = shapley.resample(counts.ravel(), replicates, random)
            drawn.append(flat.reshape(replicates, *counts.shape))
        if cells.observed is not None:
            parts.append(cells.observed.completed(drawn[0], drawn[1]))
        else:
            parts.append((drawn[0] @ cells.weights, drawn[1] @ cells.weights))
    return np.concatenate([before for before, _ in parts]), np.concatenate([after for _, after in parts])


def _kitagawa(before: Floats, after: Floats, drawn: tuple[Floats, Floats]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mix against rate (Kitagawa, 1955): the two-factor case of the same decomposition."""
    flat: list[Floats] = []
    for table in (before[None], after[None], *drawn):
        sides = [shapley.last_summed(table[..., index], table.ndim - 3) for index in range(2)]
        flat.append(np.stack(sides, axis=-1))
    point = 100.0 * shapley.contributions(flat[0], flat[1])[0].sum(axis=-1)
    spread = 100.0 * shapley.contributions(flat[2], flat[3]).sum(axis=-1)
    mix, rate = ((float(point[i]), *_interval(spread[:, i])) for i in range(2))
    return mix, rate


def _own(table: Floats, depth: int) -> Floats:
    """Weights of one factor: (strata, cells of everything before it, 2)."""
    kept = table.sum(axis=tuple(range(1 + depth, table.ndim)))
    return np.asarray(kept.reshape(table.shape[0], -1, 2))


def _effective(cells: Labelled, depth: int) -> Floats:
    """Effective numbers of cases of each cell before a factor: (2, strata, cells). Plain numbers where every weight is one."""
    once, squared = ((cells.counts * cells.weights**power).sum(axis=-1) for power in (1, 2))
    pairs = [np.stack([_own(side, depth).sum(axis=-1) for side in table]) for table in (once, squared)]
    return np.asarray(np.divide(pairs[0] ** 2, pairs[1], out=np.zeros_like(pairs[0]), where=pairs[1] > 0))


def _direct(cells: Labelled, drawn: tuple[Floats, Floats]) -> list[Contrast]:
    """Test each factor's own rate, one-sided, where everything before it went right: over all cohorts, the primary contrast, and each.

    The first two share ``FALSE_ALARMS`` with those of the other components; single cohorts are exploratory and pass Benjamini–Hochberg
    at a lower rate. The mix is tested by a chi-square over strata. Traces of one session, and those that lack a label, count as far as they
    tell something new.
    """
    everywhere = np.ones(len(cells.strata), dtype=bool)
    long = np.array([longer_than(cohort, PRIMARY_LENGTH) for cohort in cells.strata])
    names = (*cells.mechanisms, "generation")
    alpha = FALSE_ALARMS / (2 * (len(names) + 1))
    made: list[Contrast] = []
    for depth, name in enumerate(names, start=1):
        for chosen in (everywhere, long):
            p_value = _clean_rise(cells, drawn, depth, chosen)
            made.append(Contrast(name, chosen, p_value, p_value < alpha))
    singles = [
        (name, depth, np.array([of == cohort for of in cells.strata]))
        for depth, name in enumerate(names, 1)
        for cohort in dict.fromkeys(cells.strata)
    ]
    p_values = [_clean_rise(cells, drawn, depth, chosen) for _, depth, chosen in singles]
    made += [
        Contrast(name, chosen, p_value, bool(q < FALSE_ALARMS_SINGLE), float(q))
        for (name, _, chosen), p_value, q in zip(singles, p_values, adjusted(p_values), strict=True)
    ]
    p_value = _mix_moved(cells, drawn)
    return [*made, Contrast("mix", everywhere, p_value, p_value < 2 * alpha)]


def _clean_rise(cells: Labelled, drawn: tuple[Floats, Floats], depth: int, chosen: NDArray[np.bool_]) -> float:
    before, after = (_own(side, depth)[chosen, 0] for side in cells.weighted())
    n = _effective(cells, depth)[:, chosen, 0]
    if cells.observed is not None:
        inflation = _inflation(before, after, n, [_clean(table, depth)[:, chosen] for table in drawn])
        freedom = np.inf if cells.sessions is None else max(sum(side.n for side in cells.sessions) - 2.0, 1.0)
        return rise(before, after, n[0], n[1], inflation=inflation, freedom=freedom)
    if cells.sessions is None:
        return rise(before, after, n[0], n[1])
    # What each case adds to the statistic: in which stratum it lies, whether it went wrong, and how much it weighs.
    balance = np.divide(n[0] * n[1], n.sum(axis=0), out=np.zeros_like(n[0]), where=n.sum(axis=0) > 0)
    strata, scores = np.flatnonzero(chosen)[balance > 0], np.zeros_like(cells.counts)
    for index, side in enumerate((before, after)):
        share = balance / np.maximum(side.sum(axis=1), 1e-300)
        wrong = side[:, 1] / np.maximum(side.sum(axis=1), 1e-300)
        each = np.stack([-wrong * share, (1.0 - wrong) * share], axis=-1)[balance > 0]
        clean: tuple[Any, ...] = (index, strata, *[0] * (depth - 1))
        view = scores[clean]
        view = np.zeros_like(view) + each.reshape(strata.size, 2, *[1] * (view.ndim - 2)) * cells.weights
        scores[clean] = view
    flat = scores.reshape(2, -1)
    counted = sum(side.touching(score != 0) for side, score in zip(cells.sessions, flat, strict=True))
    return rise(before, after, n[0], n[1], inflation=design_effect(cells.sessions, list(flat)), freedom=max(counted - 2.0, 1.0))


def _clean(tables: Floats, depth: int) -> Floats:
    """Replicates of one factor where everything before it went right: (replicates, strata, 2)."""
    right: tuple[Any, ...] = (slice(None), slice(None), *[0] * (depth - 1))
    clean = np.asarray(tables[right])
    return shapley.last_summed(clean, clean.ndim - 3)


def _inflation(before: Floats, after: Floats, n: Floats, replicates: Sequence[Floats]) -> float:
    """How many times the variance of a test's sum over strata, as it is among replicates, is that of as many fully labelled traces."""
    balance = np.divide(n[0] * n[1], n.sum(axis=0), out=np.zeros_like(n[0]), where=n.sum(axis=0) > 0)
    rates = [side[:, 1] / np.maximum(side.sum(axis=-1), 1e-300) for side in (before, after)]
    nominal = sum(
        (balance**2 * np.divide(rate * (1.0 - rate), size, out=np.zeros_like(size), where=size > 0)).sum()
        for rate, size in zip(rates, n, strict=True)
    )
    moves = [side[..., 1] / np.maximum(shapley.last_summed(side), 1e-300) for side in replicates]
    seen = float(((moves[1] - moves[0]) @ balance).var())
    return max(1.0, seen / nominal) if nominal > 0 else 1.0


def _mix_moved(cells: Labelled, drawn: tuple[Floats, Floats]) -> float:
    """Chi-square over strata, divided by the mean design effect of weights and sessions (Rao and Scott, 1984)."""
    from scipy.special import chdtrc

    sums = np.stack([side.reshape(side.shape[0], -1).sum(axis=1) for side in cells.weighted()])
    shares, n = sums / sums.sum(axis=1, keepdims=True), np.array(cells.n, dtype=np.float64)
    together = n @ shares / n.sum()
    seen = np.flatnonzero(together)
    if seen.size < 2:
        return 1.0
    expected = together[seen] * (1.0 / n).sum()
    statistic = ((shares[1] - shares[0])[seen] ** 2 / expected).sum()
    effect = 1.0
    if cells.observed is not None:
        parts = [side.reshape(*side.shape[:2], -1).sum(axis=2) for side in drawn]
        spread = np.sum([(part / part.sum(axis=1, keepdims=True)).var(axis=0) for part in parts], axis=0)
        effect = max(1.0, (spread[seen] / expected).sum() / (seen.size - 1))
    elif cells.sessions is not None or cells.weights.size > 1:
        spread = _share_variances(cells, 0, shares[0]) + _share_variances(cells, 1, shares[1])
        effect = max(1.0, (spread[seen] / expected).sum() / (seen.size - 1))
    return float(chdtrc(seen.size - 1, statistic / effect))


def _share_variances(cells: Labelled, index: int, shares: Floats) -> Floats:
    """Variance of each stratum's share of one release's weight."""
    counts = cells.counts[index]
    whole = float((counts * cells.weights).sum())
    found: list[float] = []
    for stratum, share in enumerate(shares):
        inside = (np.arange(shares.size) == stratum).reshape(-1, *[1] * (counts.ndim - 1))
        scores = np.broadcast_to((inside - share) * cells.weights / whole, counts.shape).ravel()
        independent = float(counts.ravel() @ scores**2)
        found.append(max(independent, cells.sessions[index].variances(scores)[0]) if cells.sessions is not None else independent)
    return np.array(found)


def _places(cells: Labelled, shares: Floats, tests: Sequence[Contrast]) -> tuple[tuple[str, str, float, float], ...]:
    """Cohorts in which a factor's own rate rose: its largest contribution, and what Benjamini–Hochberg lets stand beside it."""
    weighted = cells.weighted()
    cohorts = tuple(dict.fromkeys(cells.strata))
    inside = np.array([[of == cohort for of in cells.strata] for cohort in cohorts], dtype=np.float64)
    by_cohort = shares @ inside.T
    found: list[tuple[str, str, float, float]] = []
    for depth, name in enumerate((*cells.mechanisms, "generation"), start=1):
        before, after = (inside @ _own(side, depth)[:, 0] for side in weighted)
        own = [test.q_value for test in tests if test.component == name and test.q_value is not None]
        largest = int(by_cohort[depth].argmax())
        for k, q in enumerate(own):
            if k == largest or (q < EXPLORATORY and by_cohort[depth, k] > 0):
                rates = [float(side[k, 1] / max(side[k].sum(), 1e-300)) for side in (before, after)]
                found.append((name, cohorts[k], rates[0], rates[1]))
    traffic = [inside @ side.reshape(side.shape[0], -1).sum(axis=1) / side.sum() for side in weighted]
    grown = [k for k in range(len(cohorts)) if traffic[1][k] > traffic[0][k] and by_cohort[0, k] > 0]
    return (*found, *(("mix", cohorts[k], float(traffic[0][k]), float(traffic[1][k])) for k in grown))

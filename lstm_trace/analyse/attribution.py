"""The figures behind a verdict, from cells alone: contributions with bootstrap intervals, direct tests, and the cohorts they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from lstm_trace.analyse import shapley
from lstm_trace.analyse.contrasts import ALL, Contrast, Drawn, contrasts, rates
from lstm_trace.analyse.discoveries import adjusted
from lstm_trace.analyse.labelled import Labelled
from lstm_trace.analyse.sessions import AT_ONCE, design_effect
from lstm_trace.analyse.shapley import Floats

FALSE_ALARMS_MIX: Final = 0.02
"""Share of comparisons whose mix moved without harm in which it is flagged all the same."""
EXPLORATORY: Final = 0.05
"""False discovery rate of the cohorts and slices that are named for a component once it is flagged; shared out among components."""
LEFT_SE: Final = 1.0
"""Standard errors by which a component may look worse outside of where it is said to be."""
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
    shares, replicates = _contributions(cells, drawn)

    @cache
    def closely(part: int) -> tuple[Labelled, Drawn]:
        near = cells.slices[part].clustered()
        return near, _bootstrap(near, np.random.default_rng([seed, part]))

    def added(test: Contrast, index: int) -> tuple[float, Floats]:
        """What a component added in the traces of one test, and its replicates; a slice is compared as if its traces were all."""
        if test.strata is not None:
            return float(shares[index][test.strata].sum()), replicates[:, index][:, test.strata].sum(axis=-1)
        near, again = closely(test.part)
        held = sum(float(one.sum() / whole.sum()) for one, whole in zip(near.weighted(), (before, after), strict=True)) / 2.0
        own, resampled = _contributions(near, again)
        return float(held * own[index].sum()), held * resampled[:, index].sum(axis=-1)

    tests = contrasts(cells, drawn, closely)
    parts: list[ComponentPart] = []
    for index, name in enumerate(names):
        low, high = _interval(replicates[:, index].sum(axis=-1))
        own = [test for test in tests if test.component == name]
        proven = 0.0
        for test in own:
            # Slices come last, and take longest to look at: not where the component is found without them.
            if test.significant and (test.part is None or proven == 0.0):
                pp, again = added(test, index)
                proven = max(proven, pp) if _above_zero(again, harm=name == "mix") else proven
        parts.append(ComponentPart(name, float(shares[index].sum()), low, high, min(test.adjusted for test in own), proven))
    spread = float(replicates.sum(axis=(1, 2)).std())
    mix, rate = _kitagawa(before, after, drawn)
    was, is_ = _rate(before), _rate(after)
    return Attribution((was, is_), 100.0 * (is_ - was), spread, tuple(parts), mix, rate, _places(cells, shares, tests))


def _contributions(cells: Labelled, drawn: Drawn) -> tuple[Floats, Floats]:
    """What each factor added by stratum, percentage points: (factors, strata), and of the replicates (replicates, factors, strata)."""
    before, after = cells.weighted()
    each = _per_case(cells)
    alike = [each * cases for cases in shapley.alike(before / each, after / each)]
    point = shapley.contributions(before[None], after[None], borrowed=BORROWED, alike=alike)[0]
    return 100.0 * point, 100.0 * shapley.contributions(*drawn, borrowed=BORROWED, alike=alike)


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


def _bootstrap(cells: Labelled, random: np.random.Generator) -> Drawn:
    """Resample each release's sessions (its traces where a session is one), weigh, complete: two tables (replicates, strata, 2, …, 2)."""
    held = cells.counts if cells.observed is None else cells.observed.counts
    at_once = max(1, AT_ONCE // held[0].size)
    parts: list[Drawn] = []
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


def _kitagawa(before: Floats, after: Floats, drawn: Drawn) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mix against rate (Kitagawa, 1955): the two-factor case of the same decomposition."""
    flat: list[Floats] = []
    for table in (before[None], after[None], *drawn):
        sides = [shapley.last_summed(table[..., index], table.ndim - 3) for index in range(2)]
        flat.append(np.stack(sides, axis=-1))
    point = 100.0 * shapley.contributions(flat[0], flat[1])[0].sum(axis=-1)
    spread = 100.0 * shapley.contributions(flat[2], flat[3]).sum(axis=-1)
    mix, rate = ((float(point[i]), *_interval(spread[:, i])) for i in range(2))
    return mix, rate


def _place(own: Sequence[Contrast]) -> Contrast:
    """The contrast that says best where a component got worse: the most certain one, and the simplest of equal ones.

    Of all traces only where it got worse in the others too: many traces may make it more certain than the few in which it did.
    """
    ranked = sorted(own, key=lambda test: (not test.significant, test.adjusted, -test.rose.above))
    if ranked[0].cohort != ALL:
        return ranked[0]
    return next((test for test in ranked[1:] if test.significant and test.leaves(ranked[0]) < LEFT_SE), ranked[0])


def _places(cells: Labelled, shares: Floats, tests: Sequence[Contrast]) -> tuple[tuple[str, str, float, float], ...]:
    """Where a factor's own rate rose: all traces, cohorts or slices, whichever of them is most certain, the simplest of equal ones.

    Of cohorts the one with the largest contribution and what Benjamini–Hochberg lets stand beside it; of slices by one fact, likewise,
    those that have no trace in common.
    """
    cohorts = tuple(dict.fromkeys(cells.strata))
    inside = np.array([[of == cohort for of in cells.strata] for cohort in cohorts])
    by_cohort = shares @ inside.T
    beside = EXPLORATORY / (len(cells.mechanisms) + 1)
    found: list[tuple[str, str, float, float]] = []
    for depth, name in enumerate((*cells.mechanisms, "generation"), start=1):
        own = [test for test in tests if test.component == name]
        best = _place(own)
        if best.part is not None:
            cut = cells.slices[best.part].of.cut
            like = [(test, one.cells) for test in own if test.part is not None for one in (cells.slices[test.part],) if one.of.cut is cut]
            for (test, inside_it), q in zip(like, adjusted([test.rose.p_value for test, _ in like]), strict=True):
                if test is best or (q < beside and cut.bounds is None):
                    found.append((name, test.cohort, *rates(inside_it, depth)))
            continue
        if best.cohort == ALL and best.significant:
            found.append((name, ALL, *rates(cells, depth)))
            continue
        largest = int(by_cohort[depth].argmax())
        singles = [test for test in own if test.strata is not None and test.q_value is not None]
        for k, (test, q) in enumerate(zip(singles, adjusted([test.rose.p_value for test in singles]), strict=True)):
            if k == largest or (q < beside and by_cohort[depth, k] > 0):
                found.append((name, cohorts[k], *rates(cells, depth, test.strata)))
    traffic = [inside @ side.reshape(side.shape[0], -1).sum(axis=1) / side.sum() for side in cells.weighted()]
    grown = [k for k in range(len(cohorts)) if traffic[1][k] > traffic[0][k] and by_cohort[0, k] > 0]
    return (*found, *(("mix", cohorts[k], float(traffic[0][k]), float(traffic[1][k])) for k in grown))

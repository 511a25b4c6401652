"""Direct tests that a component's own rate rose where all before it went right: over all cohorts, the long ones, each one, each slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse import shapley
from lstm_trace.analyse.dimensions import longer_than
from lstm_trace.analyse.discoveries import adjusted
from lstm_trace.analyse.labelled import Labelled
from lstm_trace.analyse.sessions import design_effect
from lstm_trace.analyse.shapley import Floats
from lstm_trace.analyse.stratified import Rise, rise

ALL: Final = "all"
"""The contrast over all cohorts."""
PRIMARY_LENGTH: Final = 12
"""The one contrast stated before looking: sequences longer than this, in steps."""
FALSE_ALARMS: Final = 0.008
"""Share of quiet comparisons in which a component may look worse over all cohorts or over the primary contrast; shared out among them."""
FALSE_ALARMS_SECONDARY: Final = 0.004
"""The same for single cohorts and slices, which nobody named beforehand: a false discovery rate (Benjamini–Hochberg) within each component,
so that a component with many findings does not make those of another one easier; shared out among them."""

Drawn = tuple[Floats, Floats]
"""Bootstrap replicates of both releases, each (replicates, strata, 2, …, 2)."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One direct test of a component. ``cohort``: a cohort, a slice, ``all`` or the primary contrast.

    ``strata`` are those of all traces that it covers, ``part`` the number of a slice instead; ``share`` is theirs of what the component is
    tested by. ``q_value`` is set where nobody named it beforehand: the p-value, adjusted for the others like it.
    """

    component: str
    cohort: str
    rose: Rise
    significant: bool
    share: float = 1.0
    strata: NDArray[np.bool_] | None = None
    part: int | None = None
    q_value: float | None = None

    @property
    def adjusted(self) -> float:
        """The p-value, adjusted where there were many looks."""
        return self.rose.p_value if self.q_value is None else self.q_value

    def leaves(self, every: Contrast) -> float:
        """By how many standard errors the component got worse in the other traces, out of what it did over ``every`` one.

        >>> late, every = Contrast("generation", "step>=4", Rise(0.0, 5.0), True, 0.36), Contrast("generation", ALL, Rise(0.0, 3.0), True)
        >>> late.leaves(every)
        0.0
        """
        return float((every.rose.above - np.sqrt(self.share) * self.rose.above) / np.sqrt(max(1.0 - self.share, 1e-300)))


def contrasts(cells: Labelled, drawn: Drawn, closely: Callable[[int], tuple[Labelled, Drawn]]) -> list[Contrast]:
    """Test every component, simplest contrast first: over all cohorts, the primary one, each cohort, each slice; then the mix.

    The first two share ``FALSE_ALARMS`` with those of the other components; the others are exploratory and pass Benjamini–Hochberg.
    The mix is tested by a chi-square over strata. Traces of one session, and those that lack a label, count as far as they tell something
    new; of a slice only ``closely`` knows that (by its number: its cells with sessions, and replicates), which takes time. It is asked
    where a slice would be found if they all told something new, and is not outdone by what was found over all cohorts.
    """
    everywhere = np.ones(len(cells.strata), dtype=bool)
    long = np.array([longer_than(cohort, PRIMARY_LENGTH) for cohort in cells.strata])
    names = (*cells.mechanisms, "generation")
    alpha, alpha_secondary = FALSE_ALARMS / (2 * (len(names) + 1)), FALSE_ALARMS_SECONDARY / len(names)
    made: list[Contrast] = []
    for depth, name in enumerate(names, start=1):
        n = _tested(cells, depth, everywhere)
        stated = [
            Contrast(name, cohort, rose, rose.p_value < alpha, _tested(cells, depth, strata) / n, strata)
            for cohort, strata in ((ALL, everywhere), (f">{PRIMARY_LENGTH}", long))
            for rose in (clean_rise(cells, depth, strata, drawn),)
        ]
        plain = replace(cells, sessions=None)
        outdone = max((clean_rise(plain, depth, test.strata).above for test in stated if test.significant), default=-np.inf)
        looks: list[Contrast] = []
        for cohort in dict.fromkeys(cells.strata):
            strata = np.array([of == cohort for of in cells.strata])
            rose = clean_rise(cells, depth, strata, drawn)
            looks.append(Contrast(name, cohort, rose, False, _tested(cells, depth, strata) / n, strata))
        for part, one in enumerate(cells.slices):
            if name in one.of.cut.components:
                rose = clean_rise(one.cells, depth)
                if rose.p_value < alpha_secondary and rose.above > outdone:
                    near, replicates = closely(part)
                    rose = clean_rise(near, depth, drawn=replicates)
                looks.append(Contrast(name, one.of.name, rose, False, _tested(one.cells, depth) / n, part=part))
        found = zip(looks, adjusted([look.rose.p_value for look in looks]), strict=True)
        made += [*stated, *(replace(look, significant=bool(q < alpha_secondary), q_value=float(q)) for look, q in found)]
    p_value = _mix_moved(cells, drawn)
    return [*made, Contrast("mix", ALL, Rise(p_value), p_value < 2 * alpha, strata=everywhere)]


def rates(cells: Labelled, depth: int, strata: NDArray[np.bool_] | None = None) -> tuple[float, float]:
    """The fail rate of a factor's own in both releases, where everything before it went right."""
    chosen = slice(None) if strata is None else strata
    sides = [own(side, depth)[chosen, 0].sum(axis=0) for side in cells.weighted()]
    before, after = (float(side[1] / max(side.sum(), 1e-300)) for side in sides)
    return before, after


def _tested(cells: Labelled, depth: int, strata: NDArray[np.bool_] | None = None) -> float:
    """The weight of both releases in which everything before a factor went right."""
    chosen = slice(None) if strata is None else strata
    return max(float(own(cells.weighted().sum(axis=0), depth)[chosen, 0].sum()), 1e-300)


def own(table: Floats, depth: int) -> Floats:
    """Weights of one factor: (strata, cells of everything before it, 2)."""
    kept = table.sum(axis=tuple(range(1 + depth, table.ndim)))
    return np.asarray(kept.reshape(table.shape[0], -1, 2))


def _effective(cells: Labelled, depth: int) -> Floats:
    """Effective numbers of cases of each cell before a factor: (2, strata, cells). Plain numbers where every weight is one."""
    once, squared = ((cells.counts * cells.weights**power).sum(axis=-1) for power in (1, 2))
    pairs = [np.stack([own(side, depth).sum(axis=-1) for side in table]) for table in (once, squared)]
    return np.asarray(np.divide(pairs[0] ** 2, pairs[1], out=np.zeros_like(pairs[0]), where=pairs[1] > 0))


def clean_rise(cells: Labelled, depth: int, strata: NDArray[np.bool_] | None = None, drawn: Drawn | None = None) -> Rise:
    """Whether a factor's own rate rose where everything before it went right, in some strata or all.

    Without replicates as if every trace had every label.
    """
    chosen = np.ones(len(cells.strata), dtype=bool) if strata is None else strata
    before, after = (own(side, depth)[chosen, 0] for side in cells.weighted())
    n = _effective(cells, depth)[:, chosen, 0]
    if cells.observed is not None and drawn is not None:
        inflation = _inflation(before, after, n, [_clean(table, depth)[:, chosen] for table in drawn])
        freedom = np.inf if cells.sessions is None else max(sum(side.n for side in cells.sessions) - 2.0, 1.0)
        return rise(before, after, n[0], n[1], inflation=inflation, freedom=freedom)
    if cells.sessions is None or cells.observed is not None:
        return rise(before, after, n[0], n[1])
    # What each case adds to the statistic: in which stratum it lies, whether it went wrong, and how much it weighs.
    balance = np.divide(n[0] * n[1], n.sum(axis=0), out=np.zeros_like(n[0]), where=n.sum(axis=0) > 0)
    places, scores = np.flatnonzero(chosen)[balance > 0], np.zeros_like(cells.counts)
    for index, side in enumerate((before, after)):
        share = balance / np.maximum(side.sum(axis=1), 1e-300)
        wrong = side[:, 1] / np.maximum(side.sum(axis=1), 1e-300)
        each = np.stack([-wrong * share, (1.0 - wrong) * share], axis=-1)[balance > 0]
        clean: tuple[Any, ...] = (index, places, *[0] * (depth - 1))
        view = scores[clean]
        view = np.zeros_like(view) + each.reshape(places.size, 2, *[1] * (view.ndim - 2)) * cells.weights
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


def _mix_moved(cells: Labelled, drawn: Drawn) -> float:
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

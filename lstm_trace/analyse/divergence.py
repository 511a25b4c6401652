"""How far two samples lie apart, and how far apart two samples of that size lie when nothing changed.

Everything works on counts in ordered bins, so that a store of any size is compared without moving its rows. A difference counts by its
size, against the threshold that chance alone stays below at these numbers; a p-value would flag a shift of 0.003 among 100,000.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from lstm_trace.analyse.shapley import Floats

DRAWS: Final = 400
"""Null samples; a gamma distribution fitted to them gives the far quantile that so few cannot show."""


def wasserstein(before: Floats, after: Floats, width: float = 1.0) -> Floats:
    """Wasserstein-1 distance of counts (…, bins) on equally wide bins, in units of ``width``: how far mass moved, on average.

    >>> float(wasserstein(np.array([10.0, 0, 0]), np.array([0, 0, 10.0]), width=0.1))
    0.2
    """
    shares = [side / np.maximum(side.sum(axis=-1, keepdims=True), 1e-300) for side in (before, after)]
    return np.asarray(np.abs(np.cumsum(shares[1] - shares[0], axis=-1)).sum(axis=-1) * width)


def jensen_shannon(before: Floats, after: Floats) -> Floats:
    """Jensen–Shannon divergence of counts (…, bins), in bits: 0 the same, 1 nothing in common.

    >>> float(jensen_shannon(np.array([5.0, 0]), np.array([0, 7.0])))
    1.0
    """
    from scipy.special import rel_entr

    one, two = (side / np.maximum(side.sum(axis=-1, keepdims=True), 1e-300) for side in (before, after))
    middle = (one + two) / 2.0
    return np.asarray((rel_entr(one, middle).sum(axis=-1) + rel_entr(two, middle).sum(axis=-1)) / (2.0 * np.log(2.0)))


def shift(before: Floats, after: Floats) -> Floats:
    """Difference of a share, of counts (…, 2), without its sign: index 1 is the share's."""
    one, two = (side[..., 1] / np.maximum(side.sum(axis=-1), 1e-300) for side in (before, after))
    return np.asarray(np.abs(two - one))


def within(before: Floats, after: Floats, shape: tuple[int, int]) -> Floats:
    """Share of predictions that another mix of labels moves within cohorts, of counts (…, cohorts x labels); cohorts weigh as in a test.

    >>> float(within(np.array([4.0, 4, 9, 1]), np.array([2.0, 6, 9, 1]), (2, 2)).round(3))
    0.111
    """
    one, two = (side.reshape(*side.shape[:-1], *shape) for side in (before, after))
    sizes = [side.sum(axis=-1) for side in (one, two)]
    shares = [side / np.maximum(size, 1e-300)[..., None] for side, size in zip((one, two), sizes, strict=True)]
    weight = sizes[0] * sizes[1] / np.maximum(sizes[0] + sizes[1], 1e-300)
    moved = 0.5 * np.abs(shares[1] - shares[0]).sum(axis=-1)
    return np.asarray((weight * moved).sum(axis=-1) / np.maximum(weight.sum(axis=-1), 1e-300))


def null_threshold(
    before: Floats, after: Floats, distance: Callable[[Floats, Floats], Floats], false_alarms: float, random: np.random.Generator
) -> float:
    """The distance that two samples of these sizes out of one distribution, both together, exceed with probability ``false_alarms``.

    Counts need not be whole: where calls are alike, they are as many as say the same independently.
    """
    together = before + after
    shares = together / together.sum()
    drawn = [random.multinomial(max(round(side.sum()), 1), shares, size=DRAWS).astype(np.float64) for side in (before, after)]
    return _far_quantile(distance(drawn[0], drawn[1]), false_alarms)


def curve_shift(before: Floats, after: Floats) -> Floats:
    """Mean distance of two reliability curves, of counts (…, bins, 2): index 1 of the last axis was right. Bins weigh as both together."""
    n = [side.sum(axis=-1) for side in (before, after)]
    both = (n[0] > 0) & (n[1] > 0)
    right = [np.divide(side[..., 1], size, out=np.zeros_like(size), where=size > 0) for side, size in zip((before, after), n, strict=True)]
    weight = np.where(both, n[0] + n[1], 0.0)
    return np.asarray((weight * np.abs(right[1] - right[0])).sum(axis=-1) / np.maximum(weight.sum(axis=-1), 1e-300))


def null_curve_shift(before: Floats, after: Floats, false_alarms: float, random: np.random.Generator) -> float:
    """``null_threshold`` for ``curve_shift``: both sides are right as often, at the same confidence, as both together."""
    together = before + after
    right = np.divide(together[..., 1], together.sum(axis=-1), out=np.zeros(together.shape[:-1]), where=together.sum(axis=-1) > 0)
    drawn: list[Floats] = []
    for side in (before, after):
        n = side.sum(axis=-1).round().astype(np.int64)
        hits = random.binomial(n, right, size=(DRAWS, n.size)).astype(np.float64)
        drawn.append(np.stack([n - hits, hits], axis=-1))
    return _far_quantile(curve_shift(drawn[0], drawn[1]), false_alarms)


def _far_quantile(values: Floats, false_alarms: float) -> float:
    from scipy.special import gammaincinv  # scipy.stats, which has it by name, takes a second and more to import

    mean, variance = float(values.mean()), float(values.var())
    if variance <= 0.0 or mean <= 0.0:
        return mean
    return float(gammaincinv(mean**2 / variance, 1.0 - false_alarms) * (variance / mean))

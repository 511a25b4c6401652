"""Tests in pairs in which the windows of one session count together: they are alike, and say less than as many sessions would.

A session's difference is one number, and without a difference between the two contenders either sign of it is as likely: the sign-flip
test over sessions (Fisher, 1935), which is McNemar's exact test where every session holds one window.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse.shapley import Floats

EXACT: Final = 20_000
"""Pairs that differ above which sums of unequal sessions are taken as normal."""


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact p-value, two-sided, of independent pairs in which only one of two failed. Source: McNemar (1947).

    >>> round(mcnemar(19, 0), 7)
    3.8e-06
    """
    return flipped(np.array([1] * only_first + [-1] * only_second, dtype=np.int64))


def flipped(differences: NDArray[np.int64]) -> float:
    """The two-sided p-value of whole-numbered ``differences`` (sessions,) of which either sign is as likely; 1.0 without any.

    >>> flipped(np.array([3, 0, -3, 1]))                   # sums of at least 1 of ±3 ±3 ±1: all eight
    1.0
    >>> flipped(np.array([3, 3, 3, 3])), mcnemar(4, 0)     # twelve windows of four sessions say what four windows do
    (0.125, 0.125)
    """
    from scipy.stats import binom, norm

    sizes, times = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if not sizes.size:
        return 1.0
    reached, most = abs(int(differences.sum())), int(sizes @ times)
    if sizes.size == 1:
        tail = float(binom.sf((most + reached) / 2 / sizes[0] - 1, times[0], 0.5))
    elif most > EXACT:
        tail = float(norm.sf(reached / np.sqrt(float(times @ sizes**2))))
    else:
        positive: Floats = np.ones(1)  # probability of each sum of the differences that come out positive
        for size, count in zip(sizes, times, strict=True):
            spread = np.zeros(size * count + 1)
            spread[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
            positive = np.convolve(positive, spread)
        tail = float(positive[(most + reached + 1) // 2 :].sum())
    return min(1.0, 2.0 * tail)


def summed(values: Floats, session: NDArray[np.int64]) -> Floats:
    """The sum of ``values`` (windows,) in each session: (sessions,)."""
    return np.asarray(np.bincount(session, weights=values), dtype=np.float64)


def ranked(moved: Floats, session: NDArray[np.int64]) -> float:
    """Wilcoxon's signed rank test, two-sided, of the mean of ``moved`` (windows,) in each session; 1.0 where nothing moved.

    >>> ranked(np.array([0.1, 0.3, -0.2, 0.4]), np.array([0, 0, 1, 1])) == ranked(np.array([0.2, 0.1]), np.array([0, 1]))
    True
    """
    from scipy.stats import wilcoxon

    held = np.unique(session, return_inverse=True)[1]
    means = summed(moved, held) / np.bincount(held)
    if not np.any(means != 0):
        return 1.0
    found: Any = wilcoxon(means)
    return float(found.pvalue)


def inflation(failed: Floats, session: NDArray[np.int64]) -> float:
    """How many times the variance of a fail rate is that of as many independent windows: the design effect (Kish, 1965), at least 1.

    >>> inflation(np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1]))
    2.0
    """
    centred = failed - failed.mean() if failed.size else failed
    independent = float(centred @ centred)
    return max(1.0, float((summed(centred, session) ** 2).sum()) / independent) if independent > 0 else 1.0

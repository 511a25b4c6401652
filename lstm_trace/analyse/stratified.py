"""Did a rate rise, stratum by stratum? The Mantel–Haenszel score test, one-sided, for counts or weighted counts."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from lstm_trace.analyse.shapley import Floats

SYMMETRIC: Final = 0.01
"""Skewness below which a tail is a normal one."""


class Rise(NamedTuple):
    """How certain it is that a rate rose: the one-sided p-value, and by how many standard errors, which tells what is certain apart."""

    p_value: float = 1.0
    above: float = 0.0


def rise(
    baseline: Floats, candidate: Floats, baseline_n: Floats, candidate_n: Floats, *, inflation: float = 1.0, freedom: float = np.inf
) -> Rise:
    """Test that the candidate's rate is not above the baseline's in the same strata.

    ``baseline`` and ``candidate`` are weights (strata, 2), index 1 of the last axis is wrong; ``*_n`` (strata,) are effective numbers
    of cases, equal to the plain numbers where every weight is one. Strata that one side does not have say nothing.
    Few wrong cases on the smaller side make the statistic skewed, and a normal tail far too thin (a canary of 300 calls alarms five
    times too often): its tail is that of a gamma distribution with the same skewness, where that is the heavier one.
    Source: Mantel and Haenszel (1959), with the variance of two binomials instead of the hypergeometric one; Pearson's type III.

    >>> before, after = np.array([[96.0, 4.0]]), np.array([[83.0, 17.0]])
    >>> round(rise(before, after, np.array([100.0]), np.array([100.0])).p_value, 5)
    0.00136
    """
    from scipy.special import gammaincc, stdtr

    both = (baseline_n > 0) & (candidate_n > 0)
    if not both.any():
        return Rise()
    n_before, n_after = baseline_n[both], candidate_n[both]
    before = baseline[both, 1] / baseline[both].sum(axis=1)
    after = candidate[both, 1] / candidate[both].sum(axis=1)
    pooled = (before * n_before + after * n_after) / (n_before + n_after)
    weight = n_before * n_after / (n_before + n_after)
    variance = (weight * pooled * (1.0 - pooled)).sum()
    if variance <= 0.0:
        return Rise()
    above = float((weight * (after - before)).sum() / np.sqrt(inflation * variance))
    p_value = float(stdtr(freedom, -above))
    third = (weight**3 * pooled * (1.0 - pooled) * (1.0 - 2.0 * pooled) * (n_after**-2.0 - n_before**-2.0)).sum()
    skewness = float(np.sqrt(inflation) * third / variance**1.5)
    if skewness < SYMMETRIC or above <= 0.0:
        return Rise(p_value, above)
    shape = 4.0 / skewness**2
    return Rise(max(p_value, float(gammaincc(shape, max(shape + above * np.sqrt(shape), 0.0)))), above)

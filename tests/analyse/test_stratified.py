"""The direct test of a component keeps its level far out in the tail, where a verdict reads it, also for a small canary."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact

from lstm_trace.analyse.stratified import rise

LEVEL = 0.001
RATE = 0.02


@pytest.mark.parametrize(("baseline", "candidate"), [(3000, 300), (3000, 3000), (300, 3000), (600, 60)])
def test_a_rate_that_did_not_rise_is_flagged_no_more_often_than_the_level(baseline, candidate):
    random = np.random.default_rng(1)
    n = np.array([baseline / 3] * 3), np.array([candidate / 3] * 3)
    wrong = [random.binomial(side.astype(int), RATE, size=(12_000, 3)) for side in n]
    tables = [np.stack([side - bad, bad], axis=-1).astype(float) for side, bad in zip(n, wrong, strict=True)]
    alarms = sum(rise(one, two, *n).p_value < LEVEL for one, two in zip(*tables, strict=True))
    assert alarms / 12_000 <= 2.0 * LEVEL  # the counts are whole numbers: the level is met on average over rates, not at each


def test_in_one_stratum_it_is_near_the_exact_test():
    for bad in (8, 12, 16, 20):
        counts = np.array([[2940.0, 60.0]]), np.array([[300.0 - bad, float(bad)]])
        exact = fisher_exact([[bad, 300 - bad], [60, 2940]], alternative="greater").pvalue
        assert exact / 4 < rise(*counts, np.array([3000.0]), np.array([300.0])).p_value < exact * 1.5

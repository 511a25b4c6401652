"""Share a change of the fail rate among mechanisms: Shapley values over discrete cells.

A release is a table of counts: stratum × (mechanism 1 went wrong?) × … × (outcome failed?), mechanisms in causal order. Its fail rate
factorises into the mix of strata, each mechanism given everything before it, and the outcome given all of them. A factor's
contribution is what the fail rate changes when that one factor is taken from the candidate, averaged over every order in which the
factors can be exchanged (Shapley 1953; Budhathoki et al., "Why did the distribution change?", AISTATS 2021).

All tables have the shape (replicates, strata, 2, …, 2): the last axis is the outcome, index 1 means wrong or failed.
"""

from __future__ import annotations

from math import factorial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


def factors(counts: Floats, other: Floats, *, borrowed: float = 0.0) -> list[Floats]:
    """Factorise counts into the mix (replicates, strata) and, a mechanism, P(wrong | stratum and all mechanisms before it).

    ``other`` are the counts of the other release. Every cell borrows that many cases at the rate of both releases together, so that a
    cell with two traces does not decide; an empty one takes that rate whole, and counts as unchanged. Without a case on either side
    the rate is 0, and has no weight.

    >>> one = np.array([[[[8.0, 0.0], [0.0, 2.0]]]])                    # one stratum, one mechanism, the outcome follows it
    >>> [f.round(2).tolist() for f in factors(one, one)]
    [[[1.0]], [[0.2]], [[[0.0, 1.0]]]]
    """
    strata, *tables = _collapsed(counts)
    made: list[Floats] = [strata / np.maximum(strata.sum(axis=1, keepdims=True), 1e-300)]
    for here, there in zip(tables, _collapsed(other)[1:], strict=True):
        both = here + there
        cases, cases_both = last_summed(here) + borrowed, last_summed(both)
        together = np.divide(both[..., 1], cases_both, out=np.zeros_like(cases_both), where=cases_both > 0)
        made.append(np.divide(here[..., 1] + borrowed * together, cases, out=together.copy(), where=cases > 0))
    return made


def _collapsed(counts: Floats) -> list[Floats]:
    """Counts by strata alone, by strata and the first mechanism, and so on to all of them and the outcome."""
    made = [counts]
    while made[0].ndim > 2:
        made.insert(0, last_summed(made[0]))
    return made


def last_summed(table: Floats, times: int = 1) -> Floats:
    """Sum over the last axis of two, ``times`` times; ``sum()`` takes ten times as long where an axis is that short.

    >>> last_summed(np.arange(8.0).reshape(2, 2, 2), times=2).tolist()
    [6.0, 22.0]
    """
    for _ in range(times):
        table = table[..., 0] + table[..., 1]
    return table


def contributions(baseline: Floats, candidate: Floats, *, borrowed: float = 0.0) -> Floats:
    """Return each factor's contribution to the change of the fail rate, by stratum: (replicates, factors, strata), in rates.

    Summed over factors and strata it is the whole change, ``P(fail | candidate) - P(fail | baseline)``: the little that ``borrowed``
    cases take away from the others is the last factor's, which is the rest by definition.

    >>> before = np.array([[[[90.0, 0.0], [0.0, 10.0]]]])
    >>> after = np.array([[[[70.0, 0.0], [0.0, 30.0]]]])
    >>> contributions(before, after).sum(axis=-1).round(3).tolist()     # mix, the mechanism, the outcome given the mechanism
    [[0.0, 0.2, 0.0]]
    """
    sides = factors(baseline, candidate, borrowed=borrowed), factors(candidate, baseline, borrowed=borrowed)
    players = len(sides[0])
    rates = [_failing([sides[chosen >> player & 1][player] for player in range(players)]) for chosen in range(1 << players)]
    weight = [factorial(size) * factorial(players - size - 1) / factorial(players) for size in range(players)]
    shares = np.zeros((baseline.shape[0], players, baseline.shape[1]))
    for player in range(players):
        for chosen in range(1 << players):
            if not chosen >> player & 1:
                shares[:, player] += weight[chosen.bit_count()] * (rates[chosen | 1 << player] - rates[chosen])
    shares[:, -1] += _failed(candidate) - _failed(baseline) - shares.sum(axis=1)
    return shares


def _failed(counts: Floats) -> Floats:
    """Share of all cases that fail, by stratum: (replicates, strata)."""
    failed, cases = counts[..., 1], last_summed(counts, counts.ndim - 2)
    return np.asarray(last_summed(failed, failed.ndim - 2) / np.maximum(cases.sum(axis=1), 1e-300)[:, None])


def _failing(chosen: list[Floats]) -> Floats:
    """Multiply one choice of factors out to P(stratum and fail): (replicates, strata)."""
    mix, *rates = chosen
    failing = rates[-1]
    for wrong in reversed(rates[:-1]):
        failing = (1.0 - wrong) * failing[..., 0] + wrong * failing[..., 1]
    return mix * failing


def resample(groups: Floats, replicates: int, random: np.random.Generator) -> Floats:
    """Draw bootstrap counts (replicates, groups) of as many cases as ``groups`` holds: a multinomial over what was observed."""
    total = int(groups.sum())
    if total == 0:
        return np.zeros((replicates, groups.size))
    return random.multinomial(total, groups / groups.sum(), size=replicates).astype(np.float64)

"""Share a change of the fail rate among mechanisms: Shapley values over discrete cells.

A release is a table of counts: stratum × (mechanism 1 went wrong?) × … × (outcome failed?), mechanisms in causal order. Its fail rate
factorises into the mix of strata, each mechanism given everything before it, and the outcome given all of them. A factor's
contribution is what the fail rate changes when that one factor is taken from the candidate, averaged over every order in which the
factors can be exchanged (Shapley 1953; Budhathoki et al., "Why did the distribution change?", AISTATS 2021).

All tables have the shape (replicates, strata, 2, …, 2): the last axis is the outcome, index 1 means wrong or failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


def factors(counts: Floats, other: Floats, *, borrowed: float = 0.0, alike: Sequence[Floats] = ()) -> list[Floats]:
    """Factorise counts into the mix (replicates, strata) and, a mechanism, P(wrong | stratum and all mechanisms before it).

    ``other`` are the counts of the other release. Every cell borrows ``borrowed`` cases at the rate of both releases together, so that a
    cell with two traces does not decide, and as many as ``alike`` says at the rate of all strata of its release; an empty one takes those
    rates whole. Without a case on either side the rate is 0, and has no weight.

    >>> one = np.array([[[[8.0, 0.0], [0.0, 2.0]]]])                    # one stratum, one mechanism, the outcome follows it
    >>> [f.round(2).tolist() for f in factors(one, one)]
    [[[1.0]], [[0.2]], [[[0.0, 1.0]]]]
    """
    strata, *tables = _collapsed(counts)
    made: list[Floats] = [strata / np.maximum(strata.sum(axis=1, keepdims=True), 1e-300)]
    for depth, (here, there) in enumerate(zip(tables, _collapsed(other)[1:], strict=True)):
        both = here + there
        cases, cases_both = last_summed(here) + borrowed, last_summed(both)
        together = np.divide(both[..., 1], cases_both, out=np.zeros_like(cases_both), where=cases_both > 0)
        wrong = here[..., 1] + borrowed * together
        if alike:
            whole = here.sum(axis=1, keepdims=True)
            cases_whole = last_summed(whole)
            of_all = np.divide(whole[..., 1], cases_whole, out=np.zeros_like(cases_whole), where=cases_whole > 0)
            lent = np.where(cases_whole > 0, alike[depth], 0.0)
            wrong, cases = wrong + lent * of_all, cases + lent
        made.append(np.divide(wrong, cases, out=together.copy(), where=cases > 0))
    return made


def alike(baseline: Floats, candidate: Floats, *, most: float = 1e4) -> list[Floats]:
    """For each mechanism and the outcome, the cases (2, …, 2) that a stratum's rate borrows from all strata; fewer the more they differ.

    How much rates differ between strata beyond chance is estimated by moments (beta-binomial, within releases), cell by cell of what came
    before; where it is not more than chance the strata are taken together. Tables are (strata, 2, …, 2).
    Source: Kleinman (1973), "Proportions with extraneous variance".

    >>> same, apart = np.array([[90.0, 10.0], [92.0, 8.0]]), np.array([[95.0, 5.0], [60.0, 40.0]])
    >>> [float(alike(table, table)[0].round()) for table in (same, apart)]
    [10000.0, 2.0]
    """
    found: list[Floats] = []
    for sides in zip(*(_collapsed(table[None])[1:] for table in (baseline, candidate)), strict=True):
        spread = freedom = scale = np.zeros(())
        for (side,) in sides:
            n = last_summed(side)
            whole = n.sum(axis=0)
            rate = side[..., 1].sum(axis=0) / np.maximum(whole, 1e-300)
            chance = np.maximum(rate * (1.0 - rate), 1e-300)
            own = np.divide(side[..., 1], n, out=np.broadcast_to(rate, n.shape).copy(), where=n > 0)
            told = rate * (1.0 - rate) > 0
            spread = spread + np.where(told, (n * (own - rate) ** 2).sum(axis=0) / chance, 0.0)
            freedom = freedom + np.where(told, np.maximum((n > 0).sum(axis=0) - 1.0, 0.0), 0.0)
            scale = scale + np.where(told, whole - (n**2).sum(axis=0) / np.maximum(whole, 1e-300) - ((n > 0).sum(axis=0) - 1.0), 0.0)
        share = np.clip((spread - freedom) / np.maximum(scale, 1e-300), 0.0, 1.0)
        found.append(np.minimum(np.divide(1.0 - share, share, out=np.full_like(share, most), where=share > 0), most))
    return found


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


def contributions(baseline: Floats, candidate: Floats, *, borrowed: float = 0.0, alike: Sequence[Floats] = ()) -> Floats:
    """Return each factor's contribution to the change of the fail rate, by stratum: (replicates, factors, strata), in rates.

    Summed over factors and strata it is the whole change, ``P(fail | candidate) - P(fail | baseline)``: the little that ``borrowed``
    cases take away from the others is the last factor's, which is the rest by definition.

    >>> before = np.array([[[[90.0, 0.0], [0.0, 10.0]]]])
    >>> after = np.array([[[[70.0, 0.0], [0.0, 30.0]]]])
    >>> contributions(before, after).sum(axis=-1).round(3).tolist()     # mix, the mechanism, the outcome given the mechanism
    [[0.0, 0.2, 0.0]]
    """
    pairs = ((baseline, candidate), (candidate, baseline))
    sides = [factors(one, other, borrowed=borrowed, alike=alike) for one, other in pairs]
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

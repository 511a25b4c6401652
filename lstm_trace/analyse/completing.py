"""A trace that lacks a label counts as those like it: expectation–maximisation over cells, label by label.

Like it are the traces of its release and cohort whose other labels are the same. Where only one kind of label is missing this is what one
would do by hand: each fully labelled trace of a cell stands for as many as there are in that cell, labelled or not. It holds when whether a
label is there depends on nothing but the labels that are (Little and Rubin, 2002: missing at random).

Tables have the shape (replicates, cohorts, facets + 1, 3, …, 3): the last place of every axis after the cohorts means unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse.shapley import Floats

BORROWED: Final = 2.0
"""Cases that a cohort borrows from both releases' fully labelled traces, so that what none of its own shows is not impossible."""
ROUNDS: Final = 12
"""One is enough where one kind of label is missing; with a third of two labels missing independently, this many reach 0.1 %."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Traces as they are: ``counts`` (2, cohorts, facets + 1, 3, …, 3), and the places of strata in cohorts × facets, ``present``."""

    counts: Floats
    present: NDArray[np.int64]

    def completed(self, baseline: Floats, candidate: Floats) -> tuple[Floats, Floats]:
        """Complete replicates of both releases: two tables (replicates, strata, 2, …, 2)."""
        before, after = complete(baseline, candidate)
        return before[:, self.present], after[:, self.present]


def complete(baseline: Floats, candidate: Floats) -> tuple[Floats, Floats]:
    """Share out the traces that lack a label: two tables (replicates, cohorts × facets, 2, …, 2) with as many traces as before.

    Of ten labelled traces one was wrong, and it failed, as one of the right ones did; ten more failed, whose label nobody knows: five of
    them count as wrong.

    >>> cells = np.zeros((1, 1, 2, 3, 3))
    >>> cells[0, 0, 0, :2, :2], cells[0, 0, 0, 2, 1] = [[8.0, 1.0], [0.0, 1.0]], 10.0
    >>> complete(cells, cells)[0].round(2).tolist()
    [[[[8.0, 6.0], [0.0, 6.0]]]]
    """
    whole = [_whole(side) for side in (baseline, candidate)]
    inner = tuple(range(2, baseline.ndim))
    both = whole[0] + whole[1] + 1e-9
    prior = BORROWED * both / both.sum(axis=inner, keepdims=True)
    return _shared_out(baseline, whole[0], prior), _shared_out(candidate, whole[1], prior)


def _whole(table: Floats) -> Floats:
    """The traces that lack nothing."""
    known: tuple[Any, ...] = (slice(None), slice(None), *[slice(-1)] * (table.ndim - 2))
    return np.asarray(table[known])


def _shared_out(observed: Floats, whole: Floats, prior: Floats) -> Floats:
    inner = range(2, observed.ndim)
    patterns: list[tuple[tuple[int, ...], Floats]] = []
    for size in range(1, len(inner) + 1):
        for missing in combinations(inner, size):
            held = observed[
                tuple(slice(-1, None) if axis in missing else slice(-1 if axis >= 2 else None) for axis in range(observed.ndim))
            ]
            if held.any():
                patterns.append((missing, held))
    found = whole
    for _ in range(ROUNDS if len(patterns) > 1 else 1):
        likely = found + prior
        found = whole.copy()
        for missing, held in patterns:
            found += held * likely / likely.sum(axis=missing, keepdims=True)
    return found.reshape(found.shape[0], -1, *found.shape[3:])

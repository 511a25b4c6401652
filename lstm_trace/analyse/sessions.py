"""Answers of one session are alike: how much less a release's judged traces say than as many independent ones would.

A session is resampled whole in the bootstrap, and a test's variance is multiplied by its design effect: the variance of its sums over
sessions, divided by what the variance would be were every trace a session of its own (Kish, 1965; Rao and Scott, 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse.shapley import Floats, resample

FEWEST: Final = 10
"""Sessions of a release below which nothing can be said about how alike their answers are."""
AT_ONCE: Final = 4_000_000
"""Entries of a bootstrap that are held in memory at a time."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of one release: ``cells`` (patterns, cells) are the traces a cell of each distinct one, ``times`` how many are so."""

    cells: Floats
    times: Floats

    @property
    def n(self) -> int:
        """Sessions, a trace without one counted as its own."""
        return int(self.times.sum())

    @property
    def traces(self) -> int:
        """Traces in all of them."""
        return int(self.times @ self.cells.sum(axis=1))

    def touching(self, cells: NDArray[np.bool_]) -> int:
        """Sessions with a trace in one of ``cells`` (cells,)."""
        return int(self.times[self.cells[:, cells].any(axis=1)].sum())

    def variances(self, scores: Floats) -> tuple[float, float]:
        """Variance of the sum of ``scores`` (cells,), each counted as often as its cell: of whole sessions, and of independent traces.

        >>> alike = Sessions(np.array([[4.0, 0.0], [0.0, 4.0]]), np.array([50.0, 50.0]))       # four answers, all right or all wrong
        >>> [round(variance) for variance in alike.variances(np.array([-0.5, 0.5]))]
        [404, 100]
        """
        together = self.cells @ scores
        centred = together - (self.times @ together) / self.n
        whole = float(self.times @ centred**2) * self.n / max(self.n - 1, 1)
        return whole, float((self.times @ self.cells) @ scores**2)

    def resample(self, replicates: int, random: np.random.Generator) -> Floats:
        """Draw as many sessions as there are, with replacement, ``replicates`` times: traces a cell (replicates, cells)."""
        at_once = max(1, AT_ONCE // self.times.size)
        parts = [min(at_once, replicates - done) for done in range(0, replicates, at_once)]
        return np.concatenate([resample(self.times, part, random) @ self.cells for part in parts])


def sessions_of(session: NDArray[np.int64], cell: NDArray[np.int64], n: Floats, cells: int) -> Sessions:
    """The sessions of a release, from rows of (session, cell, traces).

    >>> pairs = sessions_of(np.arange(40) // 2, np.zeros(40, int), np.ones(40), 2)
    >>> pairs.n, pairs.cells.tolist(), pairs.times.tolist()
    (20, [[2.0, 0.0]], [20.0])
    """
    from scipy.sparse import csr_matrix

    found, place = np.unique(session, return_inverse=True)
    table = csr_matrix((n, (place, cell)), shape=(found.size, cells))
    # Equal sessions have equal sums of random numbers, and different ones never do: cheaper than comparing rows.
    key = np.asarray(table @ np.random.default_rng(0).random(cells)).round(9)
    _, first, times = np.unique(key, return_index=True, return_counts=True)
    return Sessions(np.asarray(table[first].todense(), dtype=np.float64), times.astype(np.float64))


def design_effect(sides: Sequence[Sessions], scores: Sequence[Floats]) -> float:
    """How many times the variance of a difference between two releases is that of independent traces; at least 1."""
    pairs = [side.variances(score) for side, score in zip(sides, scores, strict=True)]
    whole, independent = (sum(pair[index] for pair in pairs) for index in range(2))
    return max(1.0, whole / independent) if independent > 0 else 1.0

"""A test that may be looked at every hour: an e-process for two streams, valid at every moment at once.

For every pair of a baseline and a candidate observation, in order of time, a bet is placed on the candidate being larger (and another
on its being smaller). Without a change no bet gains on average, so the capital stays below ``1 / alpha`` for ever with probability
``1 - alpha`` (Ville, 1939; Shafer, 2021; Waudby-Smith and Ramdas, 2023). Looking often costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lstm_trace.analyse.shapley import Floats

STAKES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Shares of the capital put on each direction; the capital is split evenly among them, so none has to be chosen beforehand."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where an e-process stands: ``e_value`` now, its highest so far, and the pair (from 1) at which it first crossed, if it did."""

    pairs: int
    e_value: float
    highest: float
    crossed_at: int | None


def capital(differences: Floats) -> Floats:
    """The e-process after every pair: the capital of all bets, from 1. ``differences`` lie in [-1, 1], with mean 0 without a change.

    >>> capital(np.array([0.0, 0.0])).tolist()
    [1.0, 1.0]
    """
    stakes = np.array([*STAKES, *(-stake for stake in STAKES)])
    if not differences.size:
        return np.ones(0)
    # A bet at a time keeps the memory at one stream, however long it is.
    whole = np.full(differences.size, -np.inf)
    for stake in stakes:
        whole = np.logaddexp(whole, np.cumsum(np.log1p(stake * differences)))
    return np.asarray(np.exp(np.minimum(whole - np.log(stakes.size), 700.0)))


def ordered(baseline: Floats, candidate: Floats) -> Floats:
    """Differences of two streams of an ordinal quantity, pair by pair: 1 where the candidate's is larger, -1 smaller, 0 equal."""
    pairs = min(baseline.size, candidate.size)
    return np.asarray(np.sign(candidate[:pairs] - baseline[:pairs]))


def evidence(differences: Floats, alpha: float) -> Evidence:
    """Follow an e-process to its end; it crosses at ``1 / alpha``.

    >>> evidence(np.ones(100), alpha=0.05).crossed_at
    11
    """
    path = capital(differences)
    if not path.size:
        return Evidence(0, 1.0, 1.0, None)
    over = np.flatnonzero(path >= 1.0 / alpha)
    return Evidence(path.size, float(path[-1]), float(path.max()), int(over[0]) + 1 if over.size else None)

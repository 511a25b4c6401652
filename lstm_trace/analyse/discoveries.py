"""Of many findings, how large a share may be chance: the p-values of several looks, adjusted for how many there were."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lstm_trace.analyse.shapley import Floats


def adjusted(p_values: Sequence[float]) -> Floats:
    """Each p-value as the least false discovery rate at which it counts as found, in the order given.

    What ``scipy.stats.false_discovery_control`` returns; ``scipy.stats`` takes a second and more to import, longer than a small verdict.
    Source: Benjamini and Hochberg (1995).

    >>> adjusted([0.01, 0.04, 0.03, 0.5]).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given)
    scaled = given[order] * (given.size / np.arange(1, given.size + 1))
    found = np.empty_like(given)
    found[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return found

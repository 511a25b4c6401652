"""Intervals of a share: Wilson's, which holds its coverage at small counts (Brown, Cai and DasGupta, 2001)."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(failed: float, n: float, level: float = 0.95) -> tuple[float, float] | None:
    """Wilson's interval of ``failed`` out of ``n``; None without a case. Cases that are alike count as fewer, not always whole, ones.

    >>> [round(end, 4) for end in wilson(97, 812)]
    [0.0989, 0.1436]
    """
    if n <= 0:
        return None
    # By hand: to import statsmodels for it takes longer than to answer from a million spans.
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    share, spread = failed / n, z * z / n
    middle = (share + spread / 2.0) / (1.0 + spread)
    reach = z / (1.0 + spread) * math.sqrt(share * (1.0 - share) / n + spread / (4.0 * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)

"""Intervals of a share: Wilson's, which holds its coverage at small counts (Brown, Cai and DasGupta, 2001)."""

from __future__ import annotations


def wilson(failed: float, n: float, level: float = 0.95) -> tuple[float, float] | None:
    """Wilson's interval of ``failed`` out of ``n``; None without a case. Cases that are alike count as fewer, not always whole, ones.

    >>> [round(end, 4) for end in wilson(97, 812)]
    [0.0989, 0.1436]
    """
    if n <= 0:
        return None
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(failed, n, alpha=1.0 - level, method="wilson")
    return float(low), float(high)  # pyright: ignore[reportArgumentType]

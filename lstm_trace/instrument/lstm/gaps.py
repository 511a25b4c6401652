"""Read the largest gap between two steps, in seconds, from what ``time_gap=`` gave."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from lstm_trace.instrument.lstm.lengths import has_values, is_tensor


def largest_gap(value: Any) -> float | None:
    """Return the largest of one number, of a list, a nested list, a tensor or an array, in seconds; None where nothing was given.

    Time differences (``timedelta``, ``timedelta64``) are seconds too. NaN is a gap that is not known, as the first of
    ``Series.diff()``. Raises ValueError where the largest is below 0 or not finite, or what was given is no number.

    >>> largest_gap([1.5, 3, float("nan")]), largest_gap(timedelta(minutes=2)), largest_gap([])
    (3.0, 120.0, None)
    >>> largest_gap(-1)
    Traceback (most recent call last):
    ...
    ValueError: -1 is no number of seconds from 0
    """
    if value is None or (is_tensor(value) and not has_values(value)):
        return None
    known = [each for each in _seconds(value) if not math.isnan(each)]
    if not known:
        return None
    gap = max(known)
    if not 0.0 <= gap < math.inf:
        raise ValueError(f"{gap:g} is no number of seconds from 0")
    return gap


def _seconds(value: Any) -> Iterator[float]:
    if isinstance(value, timedelta):
        yield value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            yield float(value)
        except OverflowError:
            yield math.inf
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _seconds(each)
    elif is_tensor(value):
        yield from _seconds(_plain(value).tolist())
    elif value is not None:
        raise ValueError(f"{type(value).__name__} is no number of seconds from 0")


def _plain(value: Any) -> Any:
    """Return numbers of seconds where an array holds time differences, in whatever unit."""
    if getattr(value.dtype, "kind", "") != "m":
        return value
    numpy: Any = sys.modules["numpy"]
    return value / numpy.timedelta64(1, "s")

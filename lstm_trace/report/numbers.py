"""How numbers are written for people: one form for each quantity, on the terminal and on the page."""

from __future__ import annotations

from datetime import datetime, timezone


def share(value: float | None) -> str:
    """A share as a percentage.

    >>> share(0.1195), share(None)
    ('11.9 %', '–')
    """
    return "–" if value is None else f"{100 * value:.1f} %"


def between(low: float | None, high: float | None) -> str:
    """An interval of a share.

    >>> between(0.0989, 0.1436)
    '9.9–14.4'
    """
    return "–" if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f}"


def seconds(value: float | None) -> str:
    """A duration.

    >>> [seconds(value) for value in (0.0000051, 0.0123, 2.5, 75.0, None)]
    ['5 µs', '12.3 ms', '2.50 s', '1 min 15 s', '–']
    """
    if value is None:
        return "–"
    if value < 0.0005:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.1f} ms"
    if value < 60:
        return f"{value:.2f} s"
    return f"{int(value // 60)} min {value % 60:.0f} s"


def number(value: float | None, digits: int = 0) -> str:
    """A plain number.

    >>> number(812.4), number(0.8312, 2), number(None)
    ('812', '0.83', '–')
    """
    return "–" if value is None else f"{value:,.{digits}f}"


def points(value: float) -> str:
    """Percentage points with their sign.

    >>> points(1.52)
    '+1.5 pp'
    """
    return f"{value:+.1f} pp"


def moment(time_ns: int) -> str:
    """A moment of nanoseconds since 1970, in UTC.

    >>> moment(1_760_000_000_000_000_000)
    '2025-10-09 08:53 UTC'
    """
    return datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")

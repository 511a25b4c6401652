"""The two sides of a comparison: two releases, or two windows of time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cmp_to_key
from typing import Any

from lstm_trace.analyse import cases
from lstm_trace.analyse.values import fetched
from lstm_trace.errors import BadInput
from lstm_trace.store import Store


@dataclass(frozen=True, slots=True)
class Side:
    """One side: the traces of a release, or, with ``since_ns``, those that started from it on and before ``until_ns``."""

    name: str
    since_ns: int | None = None
    until_ns: int | None = None

    def holds(self, table: Any) -> Any:
        """Whether a row with ``release`` and ``start_ns`` belongs to this side, as an expression."""
        if self.since_ns is None or self.until_ns is None:
            return table.release == self.name
        return (table.start_ns >= self.since_ns) & (table.start_ns < self.until_ns)


def moment_ns(text: str) -> int:
    """Nanoseconds since 1970 of an ISO 8601 moment, in UTC where it does not say. Raises ValueError.

    >>> moment_ns("2026-11-20T08:00+01:00") == moment_ns("2026-11-20T07:00Z")
    True
    """
    stripped = text.strip()
    moment = datetime.fromisoformat(stripped.removesuffix("Z") + ("+00:00" if stripped.endswith("Z") else ""))
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + moment.microsecond * 1000


def side(text: str) -> Side:
    """Read a release, or a window such as ``2026-11-01/2026-11-08``. A name with a slash that is no window is a release.

    >>> side("v1").since_ns is None, side("2026-11-01/2026-11-08").since_ns is None
    (True, False)
    """
    start, slash, end = text.partition("/")
    try:
        window = (moment_ns(start), moment_ns(end)) if slash else None
    except ValueError:
        window = None
    if window is None:
        return Side(text)
    if window[0] >= window[1]:
        raise BadInput(f"window {text!r} ends before it starts: accepted is START/END, such as 2026-11-01/2026-11-08")
    return Side(text, *window)


def sided(table: Any, baseline: Side, candidate: Side) -> Any:
    """The rows of either side, their ``release`` replaced by the side's name."""
    import ibis

    before, after = baseline.holds(table), candidate.holds(table)
    return table.filter(before | after).mutate(release=ibis.ifelse(before, baseline.name, candidate.name))


def releases(store: Store) -> tuple[str, ...]:
    """The releases in a store, oldest first: by time where one ended before the other began, else by name, v9 before v10."""
    if store.known is not None:
        held = store.known.releases.items()
        found: list[dict[str, Any]] = [{"release": name, "first": first, "last": last} for name, (first, last) in held]
    else:
        spans = cases.working(store, "release", "start_ns")
        spans = spans.filter(spans.release.notnull(), spans.start_ns.notnull())
        found = fetched(spans.group_by("release").aggregate(first=spans.start_ns.min(), last=spans.start_ns.max()))
    return tuple(row["release"] for row in sorted(sorted(found, key=_natural), key=cmp_to_key(_older)))


def _natural(row: Mapping[str, Any]) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"[0-9]+|[^0-9]+", row["release"])]


def _older(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    if one["last"] < other["first"]:
        return -1
    return 1 if other["last"] < one["first"] else 0


def two_sides(store: Store, baseline: str, candidate: str, *, awaited: bool = False) -> tuple[Side, Side]:
    """Read both sides. Raises BadInput for the same twice, windows that overlap, or a release that the store does not hold.

    ``awaited``: the candidate need not be there yet.
    """
    before, after = side(baseline), side(candidate)
    if baseline == candidate:
        raise BadInput(f"baseline and candidate are both {baseline!r}: give two releases")
    if (before.since_ns is None) != (after.since_ns is None):
        raise BadInput(f"baseline {baseline!r} and candidate {candidate!r}: give two releases or two windows")
    if before.since_ns is not None and after.since_ns is not None and before.until_ns is not None and after.until_ns is not None:
        if before.since_ns < after.until_ns and after.since_ns < before.until_ns:
            raise BadInput(f"windows {baseline!r} and {candidate!r} overlap")
        return before, after
    known = releases(store)
    for name in (baseline,) if awaited else (baseline, candidate):
        if name not in known:
            held = ", ".join(map(repr, known)) or "none"
            raise BadInput(f"release {name!r} is not in {store.address}; it holds {held}{store.left_out}")
    return before, after

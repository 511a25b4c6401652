"""What divides the traces of a cohort further: facts of the input whose mix moved between the releases.

Inputs of another kind that come more often are a change of mix, not of the component that finds them harder. Which facts divide is decided
by the inputs alone, never by how they were answered, so it raises no alarms of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np

from lstm_trace.analyse.dimensions import UNKNOWN
from lstm_trace.analyse.divergence import null_threshold, within
from lstm_trace.analyse.values import fetched

CHANCE: Final = 0.05
"""Share of comparisons whose mix did not move in which a fact divides all the same: it costs a little power then, nothing else."""
MATERIAL: Final = 0.03
"""Share of a cohort's traces that has to have moved to another value."""
MOST: Final = 20_000
"""Combinations of release, cohort and facts above which nothing is divided: labels so many are no classes."""
MOST_PARTS: Final = 48
"""Parts of a cohort above which no further fact divides it."""
KEPT: Final = 8
"""Right labels that are told apart, the most frequent ones; the others are one more."""
REST: Final = "other labels"
FACTS: Final[Mapping[str, str]] = {"expected": "right labels", "gap": "time gaps", "steps": "lengths"}
"""Facts that may divide, the first first, and what they are called."""
GAPS_S: Final = (60.0, 600.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0)
LENGTHS: Final = (2, 4, 6, 8, 10, 12, 16, 20, 28, 40, 60, 100)
"""Upper edges by which a cohort is cut; the edges of the default cohorts are among those of lengths."""


@dataclass(frozen=True, slots=True)
class Facets:
    """Which of ``FACTS`` divide the cohorts, and the right ``labels`` that are told apart."""

    facts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, row: Mapping[str, Any]) -> str | None:
        """The facet of a row with the values of ``FACTS``; None where one that divides is not known.

        >>> Facets(("expected", "gap"), ("refund",)).of({"expected": "status", "gap": "3"})
        'other labels, 3'
        """
        parts = [row[fact] for fact in self.facts]
        if None in parts:
            return None
        return ", ".join(part if fact != "expected" or part in self.labels else REST for fact, part in zip(self.facts, parts, strict=True))


def divisible(wide: Any) -> Any:
    """The table ``wide`` (time_gap, length, expected) with the values of ``FACTS``."""
    return wide.mutate(gap=binned(wide.time_gap, GAPS_S), steps=binned(wide.length, LENGTHS))


def binned(column: Any, edges: Sequence[float]) -> Any:
    """The number of the bin between upper ``edges``, from 0, as text."""
    import ibis

    bins = ((column <= edge, str(index)) for index, edge in enumerate(edges))
    return ibis.cases(*bins, (column.notnull(), str(len(edges))), else_=UNKNOWN)


def facets_of(wide: Any, names: tuple[str, str]) -> Facets:
    """Decide what divides the judged traces of two releases, a table that ``divisible`` made."""
    rows = fetched(wide.group_by("release", "cohort", *FACTS).aggregate(n=wide.count()).limit(MOST + 1))
    return Facets() if len(rows) > MOST else dividing(rows, names)


def dividing(rows: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> Facets:
    """The same for rows of (release, cohort, each of ``FACTS``, n).

    >>> rows = [{"release": r, "cohort": "1-4", "gap": "unknown", "steps": "1", "expected": e, "n": n}
    ...         for r, counts in (("v1", (80, 20)), ("v2", (50, 50))) for e, n in zip("ab", counts)]
    >>> found = dividing(rows, ("v1", "v2"))
    >>> found.facts, found.labels
    (('expected',), ('a', 'b'))
    """
    facts: list[str] = []
    notes: list[str] = []
    parts: list[int] = []
    labels: tuple[str, ...] = ()
    for fact, called in FACTS.items():
        known = [row for row in rows if row[fact] is not None]
        sizes = dict.fromkeys((row[fact] for row in known), 0)
        for row in known:
            sizes[row[fact]] += row["n"]
        parts.append(min(len(sizes), KEPT + 1))
        moved = _moved(known, fact, names) if prod(parts) <= MOST_PARTS else 0.0
        if not moved:
            parts.pop()
            continue
        facts.append(fact)
        notes.append(f"{moved:.0%} of the traces within cohorts went to other {called}: what came of that is counted as mix")
        if fact == "expected":
            labels = tuple(sorted(sorted(sizes, key=lambda label: (-sizes[label], label))[:KEPT]))
    return Facets(tuple(facts), labels, tuple(notes))


def _moved(known: Sequence[Mapping[str, Any]], fact: str, names: tuple[str, str]) -> float:
    """Share of traces within cohorts that another mix of a fact moves; 0.0 where that is no more than chance or does not matter."""
    cohorts, values = (sorted({row[name] for row in known}) for name in ("cohort", fact))
    if len(values) < 2 or {row["release"] for row in known} != set(names):
        return 0.0
    counts = np.zeros((2, len(cohorts), len(values)))
    for row in known:
        counts[names.index(row["release"]), cohorts.index(row["cohort"]), values.index(row[fact])] += row["n"]
    before, after, shape = counts[0].ravel(), counts[1].ravel(), (len(cohorts), len(values))
    moved = float(within(before, after, shape))
    if moved <= MATERIAL:
        return 0.0
    chance = null_threshold(before, after, lambda one, two: within(one, two, shape), CHANCE, np.random.default_rng(0))
    return moved if moved > chance else 0.0

"""Some of the traces of a comparison by themselves: those of one label, after a long gap, late in a session or in a run.

A slice may be looked at for a component only where what cuts it came before that component, or else a change of another one moves traces
into the slice and out of it, and what stays there fails more often although nothing got worse. So

- the time gap and the place in the session are facts of the input: for every component;
- the label for the classifier is the right one (``expected``, which stands beside its score). By the *predicted* one a classifier would
  look worse for every label that its mistakes, or other customers, bring more of;
- the label for what comes after the classifier is the predicted one. Those components are tested where the classifier was right, and
  there the predicted label is the right one;
- the step that a run came to for the model alone, which is the last: an agent that was sent astray takes more steps.

How many traces a slice has is a change of the mix, and no test asks for it: rates are compared within.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lstm_trace.analyse.dimensions import POSITION_EDGES, UNKNOWN
from lstm_trace.analyse.facets import GAPS_S

EVERY: Final = ("classifier", "routing", "retrieval", "generation")
STEPS: Final = (1, 2, 3, 4, 5, 7, 11, 19)
"""Upper edges by which the last step of a run is cut."""
POSITIONS: Final = tuple(edge for edge, _ in POSITION_EDGES)
"""Likewise the place of a trace in its session."""
FEWEST: Final = 30
"""Traces of a release, with every label, below which a slice is not looked at."""
MOST: Final = 0.8
"""Share of both releases' traces above which a slice is as good as all of them."""
MOST_LABELS: Final = 12
"""Labels that are looked at, the most frequent ones."""
_BINS: Final = 32
"""More bins than any fact has."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A fact that traces are sliced by: a column of text, its dimension in ``cohorts``, and the components that it came before.

    ``bounds`` name the lower ends of slices of a fact that is a number of a bin, by the first bin of each; without them every value is one.
    """

    column: str
    dimension: str
    components: tuple[str, ...]
    bounds: Mapping[int, str] | None = None


CUTS: Final = (
    Cut("expected", "label", EVERY[:1]),
    Cut("label", "label", EVERY[1:]),
    Cut("gap", "time_gap", EVERY, {GAPS_S.index(edge) + 1: f">{name}" for edge, name in ((60, "1 min"), (3600, "1 h"), (86400, "1 d"))}),
    Cut("position", "position", EVERY, {bin: f">={edge + 1}" for bin, edge in enumerate(POSITIONS, 1)}),
    Cut("step", "step", EVERY[-1:], {bin: f">={edge + 1}" for bin, edge in enumerate(STEPS, 1)}),
)


@dataclass(frozen=True, slots=True)
class Slice:
    """The traces whose fact has one of ``values``: ``name`` is what ``where`` says, such as ``label=refund`` or ``step>=4``."""

    name: str
    cut: Cut
    values: frozenset[str]

    def holds(self, table: Any) -> Any:
        """Whether a row of a table with the column of the fact is one of them, as an expression."""
        return table[self.cut.column].isin(sorted(self.values))


def slices(cut: Cut, rows: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> list[Slice]:
    """What a fact cuts rows of (release, the fact, n) into: of each slice both releases have some, and not almost all.

    >>> rows = [{"release": name, "gap": gap, "n": n} for name in ("v1", "v2") for gap, n in (("0", 600), ("2", 80), ("3", 90))]
    >>> [found.name for found in slices(CUTS[2], rows, ("v1", "v2"))]
    ['time_gap>1 min', 'time_gap>1 h']
    """
    counted: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row[cut.column] not in (None, "", UNKNOWN):
            counted[row[cut.column], row["release"]] += row["n"]
    values = {value: sum(counted[value, name] for name in names) for value, _ in counted}
    often = sorted(values, key=lambda value: (-values[value], value))[:MOST_LABELS]
    made: dict[tuple[int, ...], Slice] = {}
    for one in [_from(cut, low) for low in cut.bounds] if cut.bounds else [_with(cut, value) for value in often]:
        n = tuple(sum(counted[value, name] for value in one.values) for name in names)
        if min(n) >= FEWEST and sum(n) <= MOST * sum(row["n"] for row in rows):
            # A higher bound that takes no trace away says the same less simply.
            made.setdefault(n if cut.bounds else (len(made),), one)
    return list(made.values())


def named(name: str, component: str) -> Slice | None:
    """The slice that ``where`` names for a component; None where it names a cohort of lengths.

    >>> named("label=refund", "classifier").cut.column, named("label=refund", "routing").cut.column, named("13-20", "routing")
    ('expected', 'label', None)
    """
    for cut in CUTS:
        if component in cut.components:
            if cut.bounds is None and name.startswith(f"{cut.dimension}="):
                return _with(cut, name.partition("=")[2])
            for low in cut.bounds or ():
                if _from(cut, low).name == name:
                    return _from(cut, low)
    return None


def _with(cut: Cut, value: str) -> Slice:
    return Slice(f"{cut.dimension}={value}", cut, frozenset({value}))


def _from(cut: Cut, low: int) -> Slice:
    assert cut.bounds is not None
    return Slice(cut.dimension + cut.bounds[low], cut, frozenset(map(str, range(low, _BINS))))

"""Which component made the outcome worse: contributions with intervals, and a verdict that a direct test has to back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from lstm_trace.analyse.attribution import Attribution, attribute
from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.classes import classes_moved
from lstm_trace.analyse.contrasts import ALL
from lstm_trace.analyse.labelled import Labelled, labelled
from lstm_trace.analyse.slices import Slice, named
from lstm_trace.analyse.values import plain
from lstm_trace.analyse.worst import worst_first
from lstm_trace.store import Store

MIN_EFFECT_PP: Final = 0.3
"""Contribution below which nothing is flagged, percentage points of the outcome."""
DETECTABLE_PP: Final = 4.0
"""Without a finding, `none` needs labels enough to have seen a change of this size (14 % to 18 %: some 1300 traces a release), and an
interval of the change that excludes it. At 6, `none` was said of 14 % of simulated incidents at 600 traces and of 10 % at 1000."""
DRAWABLE: Final = 10
"""Traces a release below which a bootstrap draws the same few again and again: of one trace its interval has no width."""
FEWEST: Final = 100
"""Traces of a release below which nothing found is never `none`."""
INTERVAL_SE: Final = 1.96
POWER_SE: Final = INTERVAL_SE + 0.8416
"""Standard errors between no change and one that a 95 % interval excludes with 80 % power."""
UNEXPLAINED_SE: Final = 2.576
"""Standard errors from which a worse outcome without a flagged component is not `none`."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one component added to the change, percentage points, with a bootstrap interval (95 %).

    ``p_value`` is the direct test that its own rate rose among like traces: the smallest of all cohorts together, the primary contrast, and
    any one cohort or slice, which is adjusted for how many there are (Benjamini–Hochberg).
    """

    name: str
    contribution_pp: float
    ci_low: float
    ci_high: float
    flagged: bool
    p_value: float


@dataclass(frozen=True, slots=True)
class Where:
    """Where a flagged component got worse: its own rate where all before it went right (of `mix`: the cohort's share of traces).

    ``cohort`` is a cohort of lengths, ``all``, or a slice by another dimension of ``cohorts``: ``label=refund``, ``time_gap>1 h``,
    ``position>=2``, ``step>=4``.
    """

    component: str
    cohort: str
    baseline: float
    candidate: float

    @property
    def slice(self) -> Slice | None:
        """The slice that ``cohort`` names, if it is one."""
        return named(self.cohort, self.component)

    @property
    def words(self) -> str:
        """In words: ``in cohort 21+``, ``in all cohorts``, ``where label=refund``."""
        return "in all cohorts" if self.cohort == ALL else f"where {self.cohort}" if self.slice else f"in cohort {self.cohort}"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of Kitagawa's decomposition, percentage points with a bootstrap interval (95 %)."""

    pp: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What made the candidate worse than the baseline, and what that rests on. Contributions sum to ``change_pp``."""

    baseline: str
    candidate: str
    outcome: str
    n: tuple[int, int]
    rates: tuple[float, float]
    change_pp: float
    verdict: tuple[str, ...]
    components: tuple[Contribution, ...]
    mix: Part
    rate: Part
    where: tuple[Where, ...]
    notes: tuple[str, ...]
    exemplars: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        moved = (
            f"{self.outcome} fails {abs(self.change_pp):.1f} pp {'more' if self.change_pp >= 0 else 'less'} often in {self.candidate} than"
        )
        if abs(self.change_pp) < 0.05:
            moved = f"{self.outcome} fails as often in {self.candidate} as"
        moved += f" in {self.baseline} ({self.rates[0]:.1%} to {self.rates[1]:.1%})"
        if self.verdict == ("none",):
            return f"{moved}; no component got worse."
        if self.verdict == ("insufficient_evidence",):
            asked = "which component did it" if self.change_pp >= 0.05 else "whether a component got worse"
            return f"{moved}; the evidence does not suffice to say {asked}."
        parts = {part.name: part for part in self.components}
        blamed = ", ".join(
            f"{name} ({parts[name].contribution_pp:+.1f} pp, {parts[name].ci_low:.1f} to {parts[name].ci_high:.1f})"
            for name in self.verdict
        )
        places = [place for place in self.where if place.component in self.verdict and place.component != "mix" and place.cohort != ALL]
        lengths = dict.fromkeys(place.cohort for place in places if not place.slice)
        parts_of = dict.fromkeys(place.cohort for place in places if place.slice)
        told = [f"in sequences of {', '.join(lengths)} steps"] if lengths else []
        told += [f"where {' or '.join(parts_of)}"] if parts_of else []
        return ", ".join((f"{moved}; made worse by {blamed}", *told)) + "."

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain values, ready for JSON."""
        return {
            "baseline": self.baseline,
            "candidate": self.candidate,
            "outcome": self.outcome,
            "n": {"baseline": self.n[0], "candidate": self.n[1]},
            "fail_rate": {"baseline": self.rates[0], "candidate": self.rates[1]},
            "change_pp": self.change_pp,
            "verdict": list(self.verdict),
            "components": [plain(part) for part in self.components],
            "kitagawa": {"mix": plain(self.mix), "rate": plain(self.rate)},
            "where": [plain(place) for place in self.where],
            "notes": list(self.notes),
            "exemplars": list(self.exemplars),
        }


def diagnose(
    store: Store,
    baseline: str,
    candidate: str,
    *,
    outcome: str | None = None,
    mechanisms: Mapping[str, str] | None = None,
    view: View = EVERYTHING,
    min_effect_pp: float = MIN_EFFECT_PP,
    seed: int = 0,
) -> Verdict:
    """Compare two releases and name the components that made ``outcome`` fail more often.

    ``mechanisms`` maps `classifier`, `routing` or `retrieval` to the evaluation that judges it; the rest of the outcome is
    `generation`, and the mix of cohorts is `mix`. A component is flagged when its own fail rate rose among like traces (a direct
    test) and the interval of its contribution there lies above zero. Raises BadInput where the store does not hold what is named.
    """
    cells = labelled(store, baseline, candidate, outcome=outcome, mechanisms=mechanisms, view=view)
    verdict = judge(cells, baseline, candidate, min_effect_pp=min_effect_pp, seed=seed)
    note = classes_moved(cells, baseline, candidate) if "classifier" in verdict.verdict else None
    return replace(verdict, notes=(*verdict.notes, note)) if note else verdict


def judge(cells: Labelled, baseline: str, candidate: str, *, min_effect_pp: float = MIN_EFFECT_PP, seed: int = 0) -> Verdict:
    """Decide from the cells alone: the same as ``diagnose``, for cells that are already read."""
    found = attribute(cells, seed=seed)
    components = tuple(
        Contribution(
            part.name,
            part.pp,
            part.ci_low,
            part.ci_high,
            part.name not in (cells.confounded | cells.untold) and 0.0 < part.proven_pp >= min_effect_pp,
            part.p_value,
        )
        for part in found.parts
    )
    flagged = tuple(part.name for part in components if part.flagged)
    where = tuple(Where(*place) for place in found.places if place[0] in flagged)
    verdict, notes = _verdict(cells, found, flagged)
    return Verdict(
        baseline,
        candidate,
        cells.outcome,
        cells.n,
        found.rates,
        found.change_pp,
        verdict,
        components,
        Part(*found.mix),
        Part(*found.rate),
        where,
        (*cells.notes, *notes),
        _exemplars(cells, candidate, flagged, where),
    )


def _verdict(cells: Labelled, found: Attribution, flagged: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """The verdict, and the notes that say what limits it."""
    notes: list[str] = []
    detectable = POWER_SE * found.change_se_pp
    if min(cells.n) == 0:
        return ("insufficient_evidence",), [*notes, f"few labels: {cells.n[0]} traces of the baseline, {cells.n[1]} of the candidate"]
    if min(cells.n) < DRAWABLE:
        notes.append(f"few labels: {cells.n[0]} and {cells.n[1]} traces; a bootstrap of so few gives intervals that are too narrow")
    elif detectable > DETECTABLE_PP:
        notes.append(
            f"few labels: with {cells.n[0]} and {cells.n[1]} traces a change of the fail rate below {detectable:.1f} pp would go unseen"
        )
    if flagged:
        if set(flagged) - {"mix"}:
            notes.append(_hidden(flagged))
        return flagged, notes
    withheld = sorted(cells.confounded)
    if withheld:
        return ("insufficient_evidence",), notes
    if found.change_pp > UNEXPLAINED_SE * found.change_se_pp:
        notes.append("the outcome got worse, but no single component's part of it stands out from chance")
        return ("insufficient_evidence",), notes
    worst = found.change_pp + INTERVAL_SE * found.change_se_pp
    if detectable <= DETECTABLE_PP < worst:
        notes.append(f"the outcome may have got worse by up to {worst:.1f} pp, and no single component's part of it stands out from chance")
    # An outcome that certainly did not get worse needs no power to have seen it do so.
    enough = worst <= DETECTABLE_PP and (detectable <= DETECTABLE_PP or worst <= 0.0) and min(cells.n) >= FEWEST
    return ("none" if enough else "insufficient_evidence",), notes


def _hidden(flagged: tuple[str, ...]) -> str:
    blamed = [name for name in flagged if name != "mix"]
    if len(blamed) > 1:
        return "hidden difficulty not excluded, and likelier here: several components got worse at once; --replay settles it"
    return "hidden difficulty not excluded: inputs that got harder within a cohort look like a worse component; --replay settles it"


def _exemplars(cells: Labelled, candidate: str, flagged: tuple[str, ...], where: tuple[Where, ...], at_most: int = 5) -> tuple[str, ...]:
    """Failed traces of the candidate in which the first flagged component went wrong, in its cohorts; worst first.

    Of `mix` alone: failed traces of the cohorts that grew.
    """
    blamed = next((name for name in flagged if name != "mix"), next(iter(flagged), None))
    if blamed is None:
        return ()
    places = [place for place in where if place.component == blamed]
    # Of several slices the first, which has the most traces: each is a table of its own.
    parts = [one.cells.wide for one in cells.slices if one.of in [place.slice for place in places]]
    rows = parts[0] if parts else cells.wide
    rows = rows.filter(rows.release == candidate, rows.failed == 1)
    cohorts = [place.cohort for place in places if not place.slice and place.cohort != ALL]
    rows = rows.filter(rows.cohort.isin(cohorts)) if cohorts else rows
    if blamed in cells.mechanisms:
        rows = rows.filter(rows[blamed] == 1)
    elif blamed != "mix":
        for mechanism in cells.mechanisms:
            rows = rows.filter(rows[mechanism] == 0)
    return worst_first(rows, at_most)

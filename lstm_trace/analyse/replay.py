"""Settle a verdict by experiment: run recorded inputs again with one component of the old release put back, and count in pairs.

Comparing releases cannot tell a worse component from inputs that got harder in a way nobody measured. Running the same input twice can.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any, Final

import numpy as np

from lstm_trace import conventions as c
from lstm_trace.analyse import cases, prepared
from lstm_trace.analyse.cases import EVERYTHING, PASS_SCORE, View
from lstm_trace.analyse.contrasts import ALL
from lstm_trace.analyse.diagnose import Verdict, Where
from lstm_trace.analyse.facets import divisible
from lstm_trace.analyse.paired import flipped
from lstm_trace.analyse.placing import placed
from lstm_trace.analyse.sides import sided, two_sides
from lstm_trace.analyse.values import fetched, plain
from lstm_trace.errors import BadInput
from lstm_trace.store import Store

LEVEL: Final = 0.05
NOTHING_RUN: Final = "replay: nothing was run, as no component is blamed that could be put back"
AT_MOST: Final = 300
"""Inputs run again for one component, twice each."""


@dataclass(frozen=True, slots=True)
class Case:
    """One recorded input. ``input`` is the root span's `input.value`, None where no content was recorded; ``attributes`` are the root's."""

    trace_id: str
    session_id: str | None
    input: str | None
    attributes: Mapping[str, str]


Pipeline = Callable[[Case, str | None], Any]
"""``pipeline(case, put_back)``: run the candidate's chain on a case with the component named ``put_back`` taken from the old release
(None: as it is), judge the answer, and return whether it passed: a bool, or a score that passes from 0.5 on. None or NaN: cannot be run."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One component put back. ``fixed`` inputs failed only without it, ``broken`` ones only with it; ``outcome`` says what that settles.

    `confirmed`: putting it back fixes answers. `cleared`: it fixes less than half of what the component was blamed for. `undecided`.
    """

    component: str
    n: int
    fixed: int
    broken: int
    errors: int
    p_value: float
    outcome: str


def replay(
    store: Store, verdict: Verdict, pipeline: Pipeline, *, view: View = EVERYTHING, at_most: int = AT_MOST
) -> tuple[Verdict, tuple[Replayed, ...]]:
    """Run the cohorts (or slices) of every blamed component again and return the verdict that follows, with what was counted.

    Raises BadInput where no input can be run. Of a verdict that blames only the mix, or nothing, nothing is run, and a note says so.
    """
    settled: list[Replayed] = []
    for name in verdict.verdict:
        part = next((part for part in verdict.components if part.name == name and name != "mix"), None)
        if part is None:
            continue
        places = [place for place in verdict.where if place.component == name]
        inputs, share = _inputs(store, verdict, places, view, at_most)
        settled.append(_settle(name, part.contribution_pp / 100.0 / share if share else 0.0, inputs, pipeline))
    if not settled:
        return replace(verdict, notes=(*verdict.notes, NOTHING_RUN)), ()
    return _amended(verdict, settled), tuple(settled)


def _inputs(store: Store, verdict: Verdict, places: Sequence[Where], view: View, at_most: int) -> tuple[list[Case], float]:
    """Judged traces of the candidate where a component is blamed, and their share of all its judged traces."""
    import ibis

    sides = two_sides(store, verdict.baseline, verdict.candidate)
    judged = sided(cases.judgements(store, view), *sides)
    judged = judged.filter(judged.release == verdict.candidate)
    judged = judged.left_join(prepared.noted(store), ["carrier_trace_id", "carrier_span_id"])
    outcome = (judged.evaluation_name == verdict.outcome) & judged.failed.notnull()
    facts = {fact: judged[fact].max() for fact in ("cohort", "label", "time_gap", "length", "expected")}
    rows = divisible(judged.group_by("trace_id").aggregate(**facts, counts=outcome.any()).filter(lambda each: each.counts))
    for part in (place.slice for place in places):
        rows = rows if part is None else placed(store, rows, part.cut.column)
    inside = rows.filter(ibis.or_(False, *(_holds(place, rows) for place in places)))
    n, whole = (int(table.count().to_pyarrow().as_py()) for table in (inside, rows))
    roots = store.spans.filter(store.spans.parent_span_id.isnull()).select("trace_id", "session_id", "attributes")
    found = fetched(inside.inner_join(roots, "trace_id").order_by("trace_id").limit(at_most))
    made = {row["trace_id"]: dict(row["attributes"] or {}) for row in found}
    sessions = {row["trace_id"]: row["session_id"] for row in found}
    return [Case(trace, sessions[trace], said.get(c.OI_INPUT), said) for trace, said in made.items()], n / whole if whole else 0.0


def _holds(place: Where, rows: Any) -> Any:
    """Whether a trace lies where a component is blamed, as an expression."""
    if place.cohort == ALL:
        return rows.cohort.notnull()
    return rows.cohort == place.cohort if place.slice is None else place.slice.holds(rows)


def _settle(name: str, expected: float, inputs: Sequence[Case], pipeline: Pipeline) -> Replayed:
    """``expected``: the share of these inputs that putting the component back should fix, if it is to blame."""
    fixed = broken = errors = n = 0
    first: Exception | None = None
    sessions: defaultdict[str, int] = defaultdict(int)
    for case in inputs:
        try:
            passed = [_passed(pipeline(case, put_back)) for put_back in (None, name)]
        except Exception as error:  # noqa: BLE001  # the user's pipeline: one input that cannot be run must not end the others
            first, errors = first or error, errors + 1
            continue
        if None in passed:
            errors += 1
            continue
        n += 1
        fixed += not passed[0] and bool(passed[1])
        broken += bool(passed[0]) and not passed[1]
        sessions[case.session_id or f"/{case.trace_id}"] += bool(passed[1]) - bool(passed[0])
    if n == 0:
        why = f", the first with {type(first).__name__}: {first}" if first else ""
        raise BadInput(f"--replay: none of {len(inputs)} inputs could be run with {name} put back{why}")
    net = np.array([*sessions.values()], dtype=np.int64)
    p_value = flipped(net)
    # Upper end of the net share fixed; one discordant pair is added, or none at all would look certain.
    upper = (fixed - broken + 1.96 * (int(net @ net) + 1) ** 0.5) / n
    confirmed = p_value < LEVEL and fixed > broken
    outcome = "confirmed" if confirmed else "cleared" if upper < expected / 2.0 else "undecided"
    return Replayed(name, n, fixed, broken, errors, p_value, outcome)


def _passed(answer: Any) -> bool | None:
    if answer is None or isinstance(answer, bool):
        return answer
    score = float(answer)
    return None if isnan(score) else score >= PASS_SCORE


def _amended(verdict: Verdict, settled: Sequence[Replayed]) -> Verdict:
    cleared = {row.component for row in settled if row.outcome == "cleared"}
    left = tuple(name for name in verdict.verdict if name not in cleared)
    components = tuple(replace(part, flagged=part.flagged and part.name not in cleared) for part in verdict.components)
    notes = [note for note in verdict.notes if not note.startswith("hidden difficulty")]
    notes += [note for note in verdict.notes if note.startswith("hidden difficulty") and any(row.outcome == "undecided" for row in settled)]
    notes += [replay_note(row) for row in settled]
    if cleared and not left:
        notes.append("the outcome got worse, but not by a component that was blamed: the inputs themselves got harder")
    where = tuple(place for place in verdict.where if place.component not in cleared)
    return replace(
        verdict,
        verdict=left or ("none",),
        components=components,
        where=where,
        notes=tuple(notes),
        exemplars=verdict.exemplars if left else (),
    )


def replay_note(row: Replayed) -> str:
    """One component's replay in words."""
    counted = f"of {row.n} inputs run again with the old {row.component} put back, {row.fixed} were fixed and {row.broken} broken"
    failed = f", {row.errors} could not be run" if row.errors else ""
    return f"replay {row.outcome} {row.component}: {counted}{failed} (McNemar p = {row.p_value:.2g})"


def as_dict(settled: Sequence[Replayed]) -> list[dict[str, Any]]:
    """What was counted, as plain values."""
    return [plain(row) for row in settled]

"""What the page says, as plain values read from a store: nothing here knows HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lstm_trace.analyse import cases
from lstm_trace.analyse.calibration import ReliabilityBin, reliability
from lstm_trace.analyse.cohorts import CohortTable, cohorts
from lstm_trace.analyse.diagnose import Verdict, diagnose
from lstm_trace.analyse.drift import Drift, drift
from lstm_trace.analyse.judging import MECHANISMS, NOT_AN_OUTCOME
from lstm_trace.analyse.onetrace import Trace, read_trace
from lstm_trace.analyse.sides import releases
from lstm_trace.analyse.worst import worst_first
from lstm_trace.errors import BadInput
from lstm_trace.store import Store

FINE: Final = 20
"""Bins of the confidence distribution."""
WORST: Final = 3
"""Traces drawn in full."""


@dataclass(frozen=True, slots=True)
class Content:
    """Everything on the page. ``verdict`` is None with the reason in ``no_verdict`` where two releases cannot be compared."""

    address: str
    releases: tuple[str, ...]
    verdict: Verdict | None
    no_verdict: str
    outcome: str | None
    table: CohortTable
    confidence: tuple[Mapping[str, Any], ...]
    reliability: tuple[ReliabilityBin, ...]
    gold: str | None
    worst: tuple[Trace, ...]
    drift: Drift | None = None


def gather(store: Store, *, baseline: str | None = None, candidate: str | None = None, outcome: str | None = None) -> Content:
    """Read what the page shows. Without releases named, the two newest. Raises BadInput for one that the store does not hold."""
    known = releases(store)
    for option, name in (("--baseline", baseline), ("--candidate", candidate)):
        if name is not None and name not in known:
            held = ", ".join(map(repr, known)) or "none"
            raise BadInput(f"{option} {name!r} is not in {store.address}; it holds {held}{store.left_out}")
    if candidate is None:
        candidate = next((name for name in reversed(known) if name != baseline), None)
    if baseline is None:
        baseline = next((name for name in reversed(known) if name != candidate), None)
    verdict, reason = _verdict(store, baseline, candidate, outcome)
    evaluation = verdict.outcome if verdict else _outcome(store, outcome)
    shown = tuple(name for name in (baseline, candidate) if name is not None)
    table = cohorts(store, ("cohort", "release"), evaluation=evaluation)
    gold = MECHANISMS["classifier"]
    curve = tuple(row for row in reliability(store, gold) if row.release in shown)
    worst = verdict.exemplars[:WORST] if verdict else ()
    if not worst:
        worst = _failed(store, evaluation, candidate)
    return Content(
        store.address,
        shown,
        verdict,
        reason,
        evaluation,
        table,
        tuple(_confidence(store, shown)),
        curve,
        gold if curve else None,
        tuple(read_trace(store, trace) for trace in worst),
        drift(store, baseline, candidate) if baseline is not None and candidate is not None else None,
    )


def _verdict(store: Store, baseline: str | None, candidate: str | None, outcome: str | None) -> tuple[Verdict | None, str]:
    if baseline is None or candidate is None:
        return None, "The store holds one release: there is nothing to compare it with."
    try:
        return diagnose(store, baseline, candidate, outcome=outcome), ""
    except BadInput as error:
        if outcome is not None:
            raise
        return None, f"No verdict: {error}"


def _outcome(store: Store, outcome: str | None) -> str | None:
    made = store.evaluations
    counted = made.group_by("evaluation_name").aggregate(n=made.count()).to_pyarrow().to_pylist()
    free = [row for row in counted if row["evaluation_name"] not in NOT_AN_OUTCOME]
    if outcome is not None or not free:
        return outcome
    return str(
        min(free, key=lambda row: (row["evaluation_name"] in MECHANISMS.values(), -row["n"], row["evaluation_name"]))["evaluation_name"]
    )


def _confidence(store: Store, shown: Sequence[str]) -> list[Mapping[str, Any]]:
    """Predictions by release and twentieth of confidence: ``release``, ``bin``, ``n``."""
    units = cases.units(store)
    units = units.filter(units.confidence.between(0.0, 1.0), units.release.isin(shown or ("",)))
    binned = units.mutate(bin=(units.confidence * FINE).floor().cast("int64").clip(upper=FINE - 1))
    rows: list[Mapping[str, Any]] = (
        binned.group_by("release", "bin").aggregate(n=binned.count()).order_by("release", "bin").to_pyarrow().to_pylist()
    )
    return rows


def _failed(store: Store, evaluation: str | None, candidate: str | None) -> tuple[str, ...]:
    """Failed traces, the worst first."""
    judged = cases.judgements(store)
    bad = judged.filter(judged.failed == 1, judged.evaluation_name == evaluation if evaluation else judged.failed.notnull())
    if candidate is not None:
        bad = bad.filter(bad.release == candidate)
    return worst_first(bad.semi_join(store.spans, "trace_id"), WORST)

"""The two sides of a comparison as streams in order of time, and what an always-valid test says of them at this look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lstm_trace.analyse import cases
from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.dimensions import longer_than
from lstm_trace.analyse.drift import ALL
from lstm_trace.analyse.sequential import evidence, ordered
from lstm_trace.analyse.shapley import Floats
from lstm_trace.analyse.sides import sided, two_sides
from lstm_trace.store import Store

ALPHA: Final = 0.05
"""Probability that a watch without any change ever alarms, over all of its signals and looks together."""
PRIMARY_LENGTH: Final = 12
LONG: Final = "13+"
"""The primary contrast: sequences longer than 12 steps."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One signal at this look. ``e_value`` alarms from ``threshold`` on; ``alarmed_at_ns`` is the time of the call that crossed it.

    ``direction`` is `up` or `down`: which way the candidate lies of the baseline so far, or `none`.
    """

    signal: str
    cohort: str
    pairs: int
    e_value: float
    threshold: float
    flagged: bool
    alarmed_at_ns: int | None
    direction: str


def watch(
    store: Store, baseline: str, candidate: str, *, outcome: str | None = None, view: View = EVERYTHING, alpha: float = ALPHA
) -> tuple[Watched, ...]:
    """Follow confidence, latency and length of the calls, foreign states and failed judgements, over all and over long sequences.

    Pairs are formed in order of time, so a look at a store that has grown goes on where the last one stopped. ``outcome`` watches one
    evaluation only. Raises BadInput where a side is not in the store.
    """
    sides = two_sides(store, baseline, candidate)
    calls = sided(cases.calls(store, view), *sides)
    streams = _streams(calls, ("confidence", "latency", "sequence_length", "state_foreign"), (baseline, candidate))
    judged = sided(cases.judgements(store, view), *sides)
    judged = judged.filter(judged.failed.notnull())
    if outcome is not None:
        judged = judged.filter(judged.evaluation_name == outcome)
    for name in sorted(judged.select("evaluation_name").distinct().to_pyarrow().column(0).to_pylist()):
        streams |= _judged(judged.filter(judged.evaluation_name == name), f"failed {name}", (baseline, candidate))
    whole = {key: pair for key, pair in streams.items() if min(side.shape[1] for side in pair)}
    return tuple(_watched(key, pair, alpha / max(len(whole), 1)) for key, pair in whole.items())


def _streams(calls: Any, names: tuple[str, ...], sides: tuple[str, str]) -> dict[tuple[str, str], list[Floats]]:
    said = {
        "confidence": calls.confidence,
        "latency": calls.duration_s,
        "sequence_length": calls.length.cast("float64"),
        "state_foreign": (calls.state_origin == "foreign").cast("float64"),
    }
    table = calls.select("release", "cohort", "start_ns", "span_id", **{name: said[name] for name in names})
    rows = table.order_by("start_ns", "span_id").to_pyarrow()
    return {key: pair for name in names for key, pair in _split(rows, name, sides).items()}


def _judged(judged: Any, name: str, sides: tuple[str, str]) -> dict[tuple[str, str], list[Floats]]:
    table = judged.select("release", "cohort", "time_ns", "carrier_span_id", failed=judged.failed.cast("float64"))
    rows = table.order_by("time_ns", "carrier_span_id").rename(start_ns="time_ns").to_pyarrow()
    return {(name, cohort): pair for (_, cohort), pair in _split(rows, "failed", sides).items()}


def _split(rows: Any, name: str, sides: tuple[str, str]) -> dict[tuple[str, str], list[Floats]]:
    """Each side's stream as (times and values, calls), over all and over long sequences."""
    values = np.asarray(rows.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)
    times = np.asarray(rows.column("start_ns").to_numpy(zero_copy_only=False), dtype=np.float64)
    release = np.asarray(rows.column("release").to_pylist(), dtype=object)
    cohorts = np.asarray(rows.column("cohort").to_pylist(), dtype=object)
    known = {cohort: longer_than(cohort, PRIMARY_LENGTH) for cohort in set(cohorts)}
    long = np.array([known[cohort] for cohort in cohorts], dtype=bool)
    given = np.isfinite(values)
    made: dict[tuple[str, str], list[Floats]] = {}
    for cohort, inside in ((ALL, given), (LONG, given & long)):
        chosen = [inside & (release == side) for side in sides]
        made[name, cohort] = [np.stack([times[rows_of], values[rows_of]]) for rows_of in chosen]
    return made


def _watched(key: tuple[str, str], pair: list[Floats], alpha: float) -> Watched:
    differences = ordered(pair[0][1], pair[1][1])
    found = evidence(differences, alpha)
    moved = float(differences.sum())
    direction = "up" if moved > 0 else "down" if moved < 0 else "none"
    at = None if found.crossed_at is None else int(pair[1][0][found.crossed_at - 1])
    return Watched(*key, found.pairs, found.e_value, 1.0 / alpha, at is not None, at, direction)

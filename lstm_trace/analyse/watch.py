"""The two sides of a comparison as streams in order of time, and what an always-valid test says of them at this look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse import cases
from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.dimensions import longer_than
from lstm_trace.analyse.sequential import evidence, ordered
from lstm_trace.analyse.session_effects import ALL
from lstm_trace.analyse.shapley import Floats
from lstm_trace.analyse.sides import sided, two_sides
from lstm_trace.store import Store

ALPHA: Final = 0.05
"""Probability that a watch without any change ever alarms, over all of its signals and looks together."""
CALL_SIGNALS: Final = ("confidence", "latency", "sequence_length", "state_foreign")
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
    evaluation only. Nothing is returned while the candidate has no trace, as before a deployment. Raises BadInput where the baseline is not
    in the store.
    """
    sides = two_sides(store, baseline, candidate, awaited=True)
    calls = sided(cases.calls(store, view), *sides)
    streams = _streams(calls, CALL_SIGNALS, (baseline, candidate))
    levels = dict.fromkeys(streams, alpha / 2.0 / (2 * len(CALL_SIGNALS)))
    judged = sided(cases.judgements(store, view), *sides)
    judged = judged.filter(judged.failed.notnull())
    if outcome is not None:
        judged = judged.filter(judged.evaluation_name == outcome)
    for place, name in enumerate(_by_age(judged), start=1):
        made = _judged(judged.filter(judged.evaluation_name == name), f"failed {name}", (baseline, candidate))
        levels |= dict.fromkeys(made, alpha / 2.0 / (2 * place * (place + 1)))
        streams |= made
    return tuple(_watched(key, pair, levels[key]) for key, pair in streams.items() if min(side.shape[1] for side in pair))


def _by_age(judged: Any) -> list[str]:
    """Evaluations in the order in which they first judged anything.

    The levels of all evaluations sum to half of the watch's, however many there will be: the first takes half of that, the next a sixth, a
    twelfth … A level that fell when another evaluation appeared would let the looks before it spend more than the watch has.
    """
    first = judged.group_by("evaluation_name").aggregate(first=judged.time_ns.min())
    names: list[str] = first.order_by("first", "evaluation_name").to_pyarrow().column("evaluation_name").to_pylist()
    return names


def _streams(calls: Any, names: tuple[str, ...], sides: tuple[str, str]) -> dict[tuple[str, str], list[Floats]]:
    said = {
        "confidence": calls.confidence,
        "latency": calls.duration_s,
        "sequence_length": calls.length.cast("float64"),
        "state_foreign": (calls.state_origin == "foreign").cast("float64"),
    }
    told = {name: said[name] for name in names}
    table = calls.select("release", "cohort", "start_ns", "span_id", session=_session(calls), **told)
    rows = table.order_by("start_ns", "span_id").to_pyarrow()
    return {key: pair for name in names for key, pair in _split(rows, name, sides).items()}


def _judged(judged: Any, name: str, sides: tuple[str, str]) -> dict[tuple[str, str], list[Floats]]:
    table = judged.select(
        "release", "cohort", "carrier_span_id", start_ns="time_ns", session=_session(judged), failed=judged.failed.cast("float64")
    )
    rows = table.order_by("start_ns", "carrier_span_id").to_pyarrow()
    return {(name, cohort): pair for (_, cohort), pair in _split(rows, "failed", sides).items()}


def _session(rows: Any) -> Any:
    import ibis

    return ibis.coalesce(rows.session_id.nullif(""), rows.trace_id)


def _split(rows: Any, name: str, sides: tuple[str, str]) -> dict[tuple[str, str], list[Floats]]:
    """Each side's stream as (times and values, sessions), over all and over long sequences.

    Calls of one session are alike, and one bet after the other on the same session would win too often: a session is one observation, the
    mean of its calls at the time of its last one.
    """
    values = np.asarray(rows.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)
    times = np.asarray(rows.column("start_ns").to_numpy(zero_copy_only=False), dtype=np.float64)
    release = np.asarray(rows.column("release").to_pylist(), dtype=object)
    cohorts = np.asarray(rows.column("cohort").to_pylist(), dtype=object)
    known = {cohort: longer_than(cohort, PRIMARY_LENGTH) for cohort in set(cohorts)}
    long = np.array([known[cohort] for cohort in cohorts], dtype=bool)
    session = np.unique(rows.column("session").to_numpy(zero_copy_only=False), return_inverse=True)[1]
    given = np.isfinite(values)
    made: dict[tuple[str, str], list[Floats]] = {}
    for cohort, inside in ((ALL, given), (LONG, given & long)):
        chosen = [inside & (release == side) for side in sides]
        made[name, cohort] = [_by_session(session[rows_of], times[rows_of], values[rows_of]) for rows_of in chosen]
    return made


def _by_session(session: NDArray[np.int64], times: Floats, values: Floats) -> Floats:
    """Time of each session's last call and the mean of its values, in order of time: (2, sessions). Calls come in order of time."""
    _, first_from_end, place, calls = np.unique(session[::-1], return_index=True, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=values[::-1], minlength=calls.size) / np.maximum(calls, 1)
    last = session.size - 1 - first_from_end
    order = np.argsort(last)
    return np.stack([times[last][order], means[order]])


def _watched(key: tuple[str, str], pair: list[Floats], alpha: float) -> Watched:
    differences = ordered(pair[0][1], pair[1][1])
    found = evidence(differences, alpha)
    moved = float(differences.sum())
    direction = "up" if moved > 0 else "down" if moved < 0 else "none"
    at = None if found.crossed_at is None else int(pair[1][0][found.crossed_at - 1])
    return Watched(*key, found.pairs, found.e_value, 1.0 / alpha, at is not None, at, direction)

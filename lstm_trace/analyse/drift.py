"""What moved between two releases or two windows, by cohort: effect sizes against what chance alone does at these numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lstm_trace.analyse import cases
from lstm_trace.analyse.calibration import BINS
from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.dimensions import cohort_rank
from lstm_trace.analyse.divergence import curve_shift, jensen_shannon, null_curve_shift, null_threshold, shift, wasserstein
from lstm_trace.analyse.judging import MECHANISMS
from lstm_trace.analyse.session_effects import ALL, Effects, session_effects
from lstm_trace.analyse.shapley import Floats
from lstm_trace.analyse.sides import sided, two_sides
from lstm_trace.analyse.values import fetched, plain
from lstm_trace.store import Store

FALSE_ALARMS: Final = 0.01
"""Share of comparisons without any change in which anything is flagged, shared out among the rows."""
MATERIAL: Final[Mapping[str, float]] = {
    "confidence": 0.01, "sequence_length": 0.005, "label_mix": 0.005, "latency": 0.05, "calibration": 0.02, "state_foreign": 0.001,
}  # fmt: skip
"""Effect below which a signal is never flagged, however many calls there are; units as in ``Signal``."""
CONFIDENCE_STEP: Final = 0.005
LATENCY_STEP: Final = 0.02
"""Bins of latency: natural logarithms of seconds this wide, so about 2 %."""
FEWEST: Final = 20
"""Calls of either side below which a cohort is not compared."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One comparison. ``effect`` is flagged above ``null_threshold``, the larger of what chance does and what matters.

    Units: `confidence` mean move of the confidence (Wasserstein); `latency` mean relative move (Wasserstein of logarithms, 0.1 is about
    10 %); `sequence_length` and `label_mix` bits (Jensen–Shannon); `calibration` mean move of the share that was right at equal
    confidence; `state_foreign` move of the share of calls with a foreign state. ``baseline`` and ``candidate`` are each side's own
    value: mean confidence, mean length, median seconds, expected calibration error, share; None for the label mix.
    """

    signal: str
    cohort: str
    n: tuple[int, int]
    effect: float
    null_threshold: float
    flagged: bool
    baseline: float | None
    candidate: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A performance estimate without labels, and what it assumes; ``withheld`` says why there is none."""

    metric: str
    baseline: float | None
    candidate: float | None
    assumption: str
    withheld: str | None


@dataclass(frozen=True, slots=True)
class Drift:
    """Every signal of a comparison."""

    baseline: str
    candidate: str
    signals: tuple[Signal, ...]
    estimate: Estimate

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain values, ready for JSON."""
        signals = [plain(row) | {"n": list(row.n)} for row in self.signals]
        return {"baseline": self.baseline, "candidate": self.candidate, "signals": signals, "estimate": plain(self.estimate)}


@dataclass(frozen=True, slots=True)
class _Binned:
    """One signal's counts: (2, cohorts, bins) and what each bin stands for."""

    name: str
    counts: Floats
    values: Floats | None
    distance: Callable[[Floats, Floats], Floats]


def drift(
    store: Store, baseline: str, candidate: str, *, gold: str = MECHANISMS["classifier"], view: View = EVERYTHING, seed: int = 0
) -> Drift:
    """Compare component calls of two releases or windows (``START/END``), over all and within each cohort.

    ``gold`` is the evaluation that says whether the component was right; calibration is compared where both sides have it. Raises
    BadInput where a side is not in the store.
    """
    sides = two_sides(store, baseline, candidate)
    calls = sided(cases.calls(store, view), *sides)
    judged = sided(cases.judgements(store, view), *sides)
    judged = judged.filter(judged.evaluation_name == gold, judged.failed.notnull(), judged.confidence.between(0.0, 1.0))
    names = (baseline, candidate)
    alike = {**_alike(calls), **session_effects(judged, {"calibration": judged.failed}, {})}
    tables = [_binned(name, calls, names) for name in ("confidence", "sequence_length", "label_mix", "latency", "state_foreign")]
    curves, said, cohorts = _curves(judged, names)
    compared = [(binned, cohort, before, after) for binned, rows in tables for cohort, before, after in _pairs(binned.counts, rows)]
    rated = list(_pairs(curves, cohorts))
    share = FALSE_ALARMS / max(len(compared) + len(rated), 1)
    random = np.random.default_rng(seed)
    signals = [_signal(binned, cohort, before, after, alike, share, random) for binned, cohort, before, after in compared]
    signals += [_calibration(cohort, before, after, said[cohort], alike, share, random) for cohort, before, after in rated]
    order = list(MATERIAL)
    signals.sort(key=lambda row: (order.index(row.signal), row.cohort != ALL, cohort_rank(row.cohort)))
    return Drift(baseline, candidate, tuple(signals), _estimate(tables[0][0], curves, signals))


def _binned(name: str, calls: Any, names: tuple[str, str]) -> tuple[_Binned, list[str]]:
    width = {"confidence": CONFIDENCE_STEP, "latency": LATENCY_STEP}.get(name, 1.0)
    bins = {
        "confidence": lambda: (calls.confidence.clip(0.0, 1.0) / CONFIDENCE_STEP).floor().cast("int64"),
        "sequence_length": lambda: calls.length,
        "label_mix": lambda: calls.label,
        "latency": lambda: (calls.duration_s.clip(1e-9).log() / LATENCY_STEP).floor().cast("int64"),
        "state_foreign": lambda: (calls.state_origin == "foreign").cast("int64"),
    }[name]()
    binned = calls.mutate(bin=bins)
    binned = binned.filter(binned.bin.notnull())
    rows = fetched(binned.group_by("release", "cohort", "bin").aggregate(n=binned.count()))
    counts, cohorts, known = _counts(rows, names, [0, 1] if name == "state_foreign" else [])
    values = None if name == "label_mix" else _values(name, known)
    distance = {"confidence": _moved(width), "latency": _moved(width), "state_foreign": shift}.get(name, jensen_shannon)
    return _Binned(name, counts, values, distance), cohorts


def _moved(width: float) -> Callable[[Floats, Floats], Floats]:
    return lambda before, after: wasserstein(before, after, width)


def _values(name: str, known: Sequence[Any]) -> Floats:
    bins = np.array(known, dtype=np.float64)
    if name == "confidence":
        return (bins + 0.5) * CONFIDENCE_STEP
    return np.exp((bins + 0.5) * LATENCY_STEP) if name == "latency" else bins


def _counts(rows: Sequence[Mapping[str, Any]], names: tuple[str, str], least: Sequence[Any]) -> tuple[Floats, list[str], list[Any]]:
    """Counts (2, cohorts, bins); bins of numbers are contiguous, so that their distance is their place."""
    cohorts = sorted({row["cohort"] for row in rows}, key=cohort_rank)
    found = sorted({row["bin"] for row in rows} | set(least))
    numbered = bool(found) and isinstance(found[0], int)
    known = list(range(found[0], found[-1] + 1)) if numbered and found[-1] - found[0] < 100_000 else found
    place = {value: index for index, value in enumerate(known)}
    counts = np.zeros((2, len(cohorts), max(len(known), 1)))
    for row in rows:
        counts[names.index(row["release"]), cohorts.index(row["cohort"]), place[row["bin"]]] += row["n"]
    return counts, cohorts, known


def _curves(judged: Any, names: tuple[str, str]) -> tuple[Floats, dict[str, Floats], list[str]]:
    """Reliability counts (2, cohorts, tenths of confidence, wrong or right), and a cohort's sums of confidence (2, tenths)."""
    judged = judged.mutate(tenth=(judged.confidence * BINS).floor().cast("int64").clip(upper=BINS - 1))
    table = judged.group_by("release", "cohort", "tenth", "failed").aggregate(n=judged.count(), confidence=judged.confidence.sum())
    rows = fetched(table)
    cohorts = sorted({row["cohort"] for row in rows}, key=cohort_rank)
    counts = np.zeros((2, len(cohorts), BINS, 2))
    said = {cohort: np.zeros((2, BINS)) for cohort in (ALL, *cohorts)}
    for row in rows:
        side = names.index(row["release"])
        counts[side, cohorts.index(row["cohort"]), row["tenth"], 1 - row["failed"]] += row["n"]
        for cohort in (ALL, row["cohort"]):
            said[cohort][side, row["tenth"]] += row["confidence"]
    return counts, said, cohorts


def _pairs(counts: Floats, cohorts: Sequence[str]) -> list[tuple[str, Floats, Floats]]:
    """Both sides over all cohorts and of each cohort, where both have calls enough."""
    whole = [(ALL, counts[0].sum(axis=0), counts[1].sum(axis=0))] + [
        (cohort, counts[0, index], counts[1, index]) for index, cohort in enumerate(cohorts)
    ]
    return [(cohort, before, after) for cohort, before, after in whole if min(before.sum(), after.sum()) >= FEWEST]


def _alike(calls: Any) -> Effects:
    """How alike the calls of a session are in each signal of a call."""
    numbers = {
        "confidence": calls.confidence,
        "sequence_length": calls.length,
        "latency": calls.duration_s.clip(1e-9).log(),
        "state_foreign": calls.state_origin == "foreign",
    }
    return session_effects(calls, numbers, {"label_mix": calls.label})


def _signal(
    binned: _Binned, cohort: str, before: Floats, after: Floats, alike: Effects, share: float, random: np.random.Generator
) -> Signal:
    effect = float(binned.distance(before, after))
    fewer = 1.0 / alike.get((binned.name, cohort), 1.0)
    threshold = max(MATERIAL[binned.name], null_threshold(before * fewer, after * fewer, binned.distance, share, random))
    own = [_own(binned, side) for side in (before, after)]
    return Signal(binned.name, cohort, (int(before.sum()), int(after.sum())), effect, threshold, effect > threshold, own[0], own[1])


def _own(binned: _Binned, counts: Floats) -> float | None:
    if binned.values is None:
        return None
    if binned.name == "latency":
        return float(binned.values[np.searchsorted(np.cumsum(counts), counts.sum() / 2.0)])
    return float((counts * binned.values).sum() / counts.sum())


def _calibration(
    cohort: str, before: Floats, after: Floats, said: Floats, alike: Effects, share: float, random: np.random.Generator
) -> Signal:
    effect = float(curve_shift(before, after))
    fewer = 1.0 / alike.get(("calibration", cohort), 1.0)
    threshold = max(MATERIAL["calibration"], null_curve_shift(before * fewer, after * fewer, share, random))
    n = (int(before.sum()), int(after.sum()))
    return Signal("calibration", cohort, n, effect, threshold, effect > threshold, _error(before, said[0]), _error(after, said[1]))


def _error(curve: Floats, said: Floats) -> float:
    """Expected calibration error of counts (bins, 2) whose confidences sum to ``said`` (bins,), as ``calibration.calibration_error``."""
    return float(np.abs(curve[:, 1] - said).sum() / curve.sum())


def _estimate(confidence: _Binned, curves: Floats, signals: Sequence[Signal]) -> Estimate:
    """The accuracy that confidence alone promises (CBPE): each tenth of confidence is right as often as in the labelled baseline."""
    metric = "accuracy of the component, estimated without labels"
    assumption = "inputs changed but the component is right as often as before at equal confidence; a changed concept makes it wrong"
    if any(row.signal == "calibration" and row.flagged for row in signals):
        return Estimate(metric, None, None, assumption, "calibration moved, so confidence no longer says how often it is right")
    labelled = curves[0].sum(axis=0)
    if labelled.sum() < FEWEST or confidence.values is None:
        return Estimate(metric, None, None, assumption, "the baseline has too few labels to say how often a confidence is right")
    n = labelled.sum(axis=-1)
    right = np.where(n > 0, labelled[:, 1] / np.maximum(n, 1.0), (np.arange(BINS) + 0.5) / BINS)
    promised = right[np.clip(confidence.values * BINS, 0, BINS - 1).astype(np.int64)]
    sides = [float((side * promised).sum() / side.sum()) if side.sum() else None for side in confidence.counts.sum(axis=1)]
    return Estimate(metric, sides[0], sides[1], assumption, None)

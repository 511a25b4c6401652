"""Two components that do the same job, on the same windows: quality, latency, tokens and cost, tested in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.dimensions import cohort_rank
from lstm_trace.analyse.intervals import wilson
from lstm_trace.analyse.labelled import MECHANISMS
from lstm_trace.analyse.shapley import Floats
from lstm_trace.analyse.values import plain
from lstm_trace.analyse.windows import Who, Windows, matched
from lstm_trace.errors import BadInput
from lstm_trace.store import Store

FEW: Final = 30
"""Windows below which a note says that there are few."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One component over the matched windows. Latency in seconds, tokens a window, cost in the unit of the prices per 1000 windows."""

    name: str
    judged: int
    failed: int
    fail_rate: float | None
    ci_low: float | None
    ci_high: float | None
    latency_p50_s: float | None
    latency_p99_s: float | None
    input_tokens_mean: float
    output_tokens_mean: float
    cost_per_1000: float | None


@dataclass(frozen=True, slots=True)
class CohortPair:
    """Both contenders in one cohort, on windows judged for both. ``q_value`` is McNemar's p-value after Benjamini–Hochberg."""

    cohort: str
    n: int
    primary_fail_rate: float
    candidate_fail_rate: float
    q_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison in pairs.

    Of the windows judged for both, ``only_primary_failed`` and ``only_candidate_failed`` decide: ``quality_p_value`` is McNemar's exact
    test of them. ``latency_ratio`` is the median of candidate over primary within a window, ``latency_p_value`` Wilcoxon's signed rank
    test. ``agreement`` is the share of windows with the same label.
    """

    windows: int
    unmatched: tuple[int, int]
    primary: Contender
    candidate: Contender
    both_judged: int
    only_primary_failed: int
    only_candidate_failed: int
    quality_p_value: float | None
    latency_ratio: float | None
    latency_p_value: float | None
    agreement: float | None
    cohorts: tuple[CohortPair, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain values, ready for JSON."""
        return plain(self) | {
            "unmatched": {"primary": self.unmatched[0], "candidate": self.unmatched[1]},
            "primary": plain(self.primary),
            "candidate": plain(self.candidate),
            "cohorts": [plain(row) for row in self.cohorts],
            "notes": list(self.notes),
        }


def compare(
    store: Store,
    primary: str,
    candidate: str,
    *,
    gold: str = MECHANISMS["classifier"],
    key: str | None = None,
    prices: Mapping[str, tuple[float, float]] | None = None,
    compute_price: float | None = None,
    view: View = EVERYTHING,
) -> Comparison:
    """Compare two components, ``NAME`` or ``NAME@RELEASE``, on the windows that both saw.

    ``gold`` judges the component's own span. ``prices`` maps a model to its price per million input and output tokens;
    ``compute_price`` is the price of one hour of a component that calls no model. Raises BadInput, a refusal, where windows do not match.
    """
    windows = matched(store, Who.parse(primary), Who.parse(candidate), gold=gold, key=key, view=view)
    notes: list[str] = []
    sides = [_contender(windows, index, prices or {}, compute_price, notes) for index in range(2)]
    judged = np.isfinite(windows.failed).all(axis=0)
    one, two = (windows.failed[index][judged] == 1 for index in range(2))
    only = int((one & ~two).sum()), int((~one & two).sum())
    if not judged.any():
        notes.append(f"quality is not compared: no window has {gold} on both components' own spans")
    if len(windows.cohort) < FEW:
        notes.append(f"few windows: {len(windows.cohort)}")
    if windows.unmatched[0] or windows.unmatched[1]:
        notes.append(f"left out as unmatched: {windows.unmatched[0]} calls of {primary}, {windows.unmatched[1]} of {candidate}")
    ratio, latency_p = _latency(windows.duration_s)
    labelled = [(a, b) for a, b in zip(*windows.labels, strict=True) if a is not None and b is not None]
    return Comparison(
        len(windows.cohort),
        windows.unmatched,
        sides[0],
        sides[1],
        int(judged.sum()),
        *only,
        mcnemar(*only) if judged.any() else None,
        ratio,
        latency_p,
        sum(a == b for a, b in labelled) / len(labelled) if labelled else None,
        _cohorts(windows, judged),
        tuple(notes),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact p-value, two-sided, of the pairs in which only one of two failed. Source: McNemar (1947).

    >>> round(mcnemar(19, 0), 7)
    3.8e-06
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    if only_first + only_second == 0:
        return 1.0
    table: Any = test([[0, only_first], [only_second, 0]], exact=True)
    return float(min(1.0, table.pvalue))


def _contender(
    windows: Windows, index: int, prices: Mapping[str, tuple[float, float]], compute_price: float | None, notes: list[str]
) -> Contender:
    name = str((windows.primary, windows.candidate)[index])
    failed = windows.failed[index][np.isfinite(windows.failed[index])]
    interval = wilson(int(failed.sum()), failed.size)
    timed = windows.duration_s[index][np.isfinite(windows.duration_s[index])]
    tokens = [float(np.nan_to_num(side[index]).mean()) for side in (windows.input_tokens, windows.output_tokens)]
    models = windows.models[index]
    cost: float | None = None
    if models and (prices or compute_price is not None):
        unpriced = sorted(models - prices.keys())
        if unpriced or len(models) > 1:
            what = f"give --price {unpriced[0]}=IN,OUT" if unpriced else "its calls went to several models"
            notes.append(f"no cost for {name}: {what}")
        else:
            given, made = prices[next(iter(models))]
            cost = 1000 * (tokens[0] * given + tokens[1] * made) / 1e6
    elif not models and compute_price is not None and timed.size:
        cost = 1000 * float(timed.mean()) / 3600 * compute_price
    return Contender(
        name,
        failed.size,
        int(failed.sum()),
        float(failed.mean()) if failed.size else None,
        interval[0] if interval else None,
        interval[1] if interval else None,
        float(np.quantile(timed, 0.5)) if timed.size else None,
        float(np.quantile(timed, 0.99)) if timed.size else None,
        tokens[0],
        tokens[1],
        cost,
    )


def _latency(durations: Floats) -> tuple[float | None, float | None]:
    from scipy.stats import wilcoxon

    both = durations[:, np.isfinite(durations).all(axis=0) & (durations > 0).all(axis=0)]
    if not both.size:
        return None, None
    moved = np.log(both[1]) - np.log(both[0])
    ranked: Any = wilcoxon(moved) if np.any(moved != 0) else None
    return float(np.exp(np.median(moved))), 1.0 if ranked is None else float(ranked.pvalue)


def _cohorts(windows: Windows, judged: Any) -> tuple[CohortPair, ...]:
    from scipy.stats import false_discovery_control

    cohorts = np.array(windows.cohort, dtype=object)
    found: list[tuple[str, int, float, float, float]] = []
    for cohort in sorted(set(windows.cohort), key=cohort_rank):
        one, two = (windows.failed[index][judged & (cohorts == cohort)] == 1 for index in range(2))
        if one.size:
            p_value = mcnemar(int((one & ~two).sum()), int((~one & two).sum()))
            found.append((cohort, one.size, float(one.mean()), float(two.mean()), p_value))
    if not found:
        return ()
    adjusted = false_discovery_control([row[4] for row in found])
    return tuple(CohortPair(*row[:4], float(q)) for row, q in zip(found, adjusted, strict=True))


def read_prices(given: list[str]) -> dict[str, tuple[float, float]]:
    """Read ``MODEL=IN,OUT``, prices per million tokens. Raises BadInput that names the text.

    >>> read_prices(["gpt-4o-mini=0.15,0.6"])
    {'gpt-4o-mini': (0.15, 0.6)}
    """
    made: dict[str, tuple[float, float]] = {}
    for text in given:
        model, equals, numbers = text.rpartition("=")
        try:
            low, high = (float(part) for part in numbers.split(","))
        except ValueError:
            low = high = -1.0
        if not equals or not model or low < 0 or high < 0 or not np.isfinite([low, high]).all():
            raise BadInput(f"--price {text!r}: accepted is MODEL=IN,OUT, prices per million tokens, such as gpt-4o-mini=0.15,0.6")
        made[model] = (low, high)
    return made

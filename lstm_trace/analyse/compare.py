"""Two components that do the same job, on the same windows: quality, latency, tokens and cost, tested in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.dimensions import cohort_rank
from lstm_trace.analyse.discoveries import adjusted
from lstm_trace.analyse.intervals import wilson
from lstm_trace.analyse.judging import MECHANISMS
from lstm_trace.analyse.paired import flipped, inflation, ranked, summed
from lstm_trace.analyse.shapley import Floats
from lstm_trace.analyse.values import plain
from lstm_trace.analyse.windows import Who, Windows, matched
from lstm_trace.errors import BadInput
from lstm_trace.store import Store

FEW: Final = 30
"""Windows below which a note says that there are few."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One component over the matched windows. Latency in seconds, tokens a window, cost in the unit of the prices per 1000 windows.

    Tokens are None where it called models that recorded none, the interval where all judged windows are of one session.
    """

    name: str
    judged: int
    failed: int
    fail_rate: float | None
    ci_low: float | None
    ci_high: float | None
    latency_p50_s: float | None
    latency_p99_s: float | None
    input_tokens_mean: float | None
    output_tokens_mean: float | None
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
    test. ``agreement`` is the share of windows with the same label. Windows of one of the ``sessions`` are alike: where sessions hold
    several, both tests count a session once (``paired``), and the intervals of the fail rates are as wide as that makes them.
    """

    windows: int
    sessions: int
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
    return compared(windows, gold=gold, prices=prices or {}, compute_price=compute_price)


def compared(
    windows: Windows, *, gold: str = "gold", prices: Mapping[str, tuple[float, float]] | None = None, compute_price: float | None = None
) -> Comparison:
    """The same as ``compare``, for windows that are already matched; ``gold`` is the name of what judged them."""
    notes: list[str] = []
    sides = [_contender(windows, index, prices or {}, compute_price, notes) for index in range(2)]
    judged: NDArray[np.bool_] = np.asarray(np.isfinite(windows.failed).all(axis=0))
    one, two = (windows.failed[index][judged] == 1 for index in range(2))
    only = int((one & ~two).sum()), int((~one & two).sum())
    sessions = np.unique(windows.session).size
    several = f"{sessions} session{'s' if sessions > 1 else ''}"
    if sessions < len(windows.cohort):
        alone = ", and one has no interval" if sessions == 1 else ""
        notes.append(f"{len(windows.cohort)} windows are of {several}: the tests count a session once{alone}")
    if not judged.any():
        notes.append(f"quality is not compared: no window has {gold} on both components' own spans")
    if sessions < FEW:
        notes.append(f"few windows: {len(windows.cohort)}" + (f", of {several}" if sessions < len(windows.cohort) else ""))
    if windows.unmatched[0] or windows.unmatched[1]:
        notes.append(
            f"left out as unmatched: {windows.unmatched[0]} calls of {windows.primary}, {windows.unmatched[1]} of {windows.candidate}"
        )
    for who, again in zip((windows.primary, windows.candidate), windows.repeated, strict=True):
        if again:
            notes.append(f"left out as repeated: {again} calls of {who}, which had the same window again later")
    ratio, latency_p = _latency(windows.duration_s, windows.session)
    labelled = [(a, b) for a, b in zip(*windows.labels, strict=True) if a is not None and b is not None]
    return Comparison(
        len(windows.cohort),
        sessions,
        windows.unmatched,
        sides[0],
        sides[1],
        int(judged.sum()),
        *only,
        _worse(windows, judged) if judged.any() else None,
        ratio,
        latency_p,
        sum(a == b for a, b in labelled) / len(labelled) if labelled else None,
        _cohorts(windows, judged),
        tuple(notes),
    )


def _worse(windows: Windows, chosen: NDArray[np.bool_]) -> float:
    """McNemar's exact p-value over sessions that both fail alike, on the ``chosen`` windows, judged for both."""
    failed = windows.failed[:, chosen]
    return flipped(summed(failed[1] - failed[0], windows.session[chosen]).astype(np.int64))


def _contender(
    windows: Windows, index: int, prices: Mapping[str, tuple[float, float]], compute_price: float | None, notes: list[str]
) -> Contender:
    name = str((windows.primary, windows.candidate)[index])
    judged = np.isfinite(windows.failed[index])
    failed = windows.failed[index][judged]
    alike = inflation(failed, windows.session[judged])
    of_one = failed.size > 1 and np.unique(windows.session[judged]).size == 1
    interval = None if of_one else wilson(failed.sum() / alike, failed.size / alike)
    timed = windows.duration_s[index][np.isfinite(windows.duration_s[index])]
    tokens = [_mean(side[index]) for side in (windows.input_tokens, windows.output_tokens)]
    unknown = int((np.isnan(windows.input_tokens[index]) & np.isnan(windows.output_tokens[index])).sum())
    if unknown:
        notes.append(
            f"{unknown} windows of {name} called a model that recorded no tokens" + (": the others count" if tokens != [None, None] else "")
        )
    models = windows.models[index]
    called = bool(models or unknown or any(tokens))
    cost: float | None = None
    if called and (prices or compute_price is not None):
        missing = _without_cost(models, tokens, prices)
        if missing is not None:
            notes.append(f"no cost for {name}: {missing}")
        else:
            given, made = prices[next(iter(models))]
            cost = 1000 * ((tokens[0] or 0.0) * given + (tokens[1] or 0.0) * made) / 1e6
    elif not called and compute_price is not None and timed.size:
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


def _without_cost(models: frozenset[str], tokens: list[float | None], prices: Mapping[str, tuple[float, float]]) -> str | None:
    """Why the calls of models cannot be priced; None where they can."""
    if not models:
        return "its model calls name no model"
    if unpriced := sorted(models - prices.keys()):
        return f"give --price {unpriced[0]}=IN,OUT"
    if len(models) > 1:
        return "its calls went to several models"
    return "its model calls recorded no tokens" if tokens == [None, None] else None


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _latency(durations: Floats, session: NDArray[np.int64]) -> tuple[float | None, float | None]:
    timed = np.isfinite(durations).all(axis=0) & (durations > 0).all(axis=0)
    if not timed.any():
        return None, None
    moved = np.log(durations[1, timed]) - np.log(durations[0, timed])
    return float(np.exp(np.median(moved))), ranked(moved, session[timed])


def _cohorts(windows: Windows, judged: NDArray[np.bool_]) -> tuple[CohortPair, ...]:
    cohorts = np.array(windows.cohort, dtype=object)
    found: list[tuple[str, int, float, float, float]] = []
    for cohort in sorted(set(windows.cohort), key=cohort_rank):
        inside = judged & (cohorts == cohort)
        if inside.any():
            one, two = (float(windows.failed[index][inside].mean()) for index in range(2))
            found.append((cohort, int(inside.sum()), one, two, _worse(windows, inside)))
    if not found:
        return ()
    return tuple(CohortPair(*row[:4], float(q)) for row, q in zip(found, adjusted([row[4] for row in found]), strict=True))


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

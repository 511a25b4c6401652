"""Does a confidence mean what it says: the reliability curve and the expected calibration error, where gold exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lstm_trace.analyse import cases
from lstm_trace.analyse.cases import EVERYTHING, View
from lstm_trace.analyse.values import fetched
from lstm_trace.store import Store

BINS: Final = 10


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions of one release whose confidence lies in one tenth: how sure they were, and how often they were right."""

    release: str
    bin: int
    n: int
    confidence: float
    accuracy: float


def reliability(store: Store, gold: str, view: View = EVERYTHING) -> tuple[ReliabilityBin, ...]:
    """The reliability curve of every release, by the judgements of ``gold``; empty where there are none."""
    judged = cases.judgements(store, view)
    judged = judged.filter(
        judged.evaluation_name == gold, judged.failed.notnull(), judged.confidence.between(0.0, 1.0), judged.release.notnull()
    )
    judged = judged.mutate(bin=(judged.confidence * BINS).floor().cast("int64").clip(upper=BINS - 1))
    table = judged.group_by("release", "bin").aggregate(n=judged.count(), confidence=judged.confidence.mean(), wrong=judged.failed.mean())
    found = [ReliabilityBin(row["release"], row["bin"], row["n"], row["confidence"], 1.0 - row["wrong"]) for row in fetched(table)]
    return tuple(sorted(found, key=lambda row: (row.release, row.bin)))


def calibration_error(bins: Sequence[ReliabilityBin]) -> float | None:
    """The expected calibration error of one release's bins: mean distance of confidence from accuracy. None without a prediction.

    Source: Naeini, Cooper and Hauskrecht (2015).

    >>> calibration_error([ReliabilityBin("v1", 9, 60, 0.95, 0.95), ReliabilityBin("v1", 5, 40, 0.5, 0.25)])
    0.1
    """
    whole = sum(row.n for row in bins)
    return sum(row.n * abs(row.accuracy - row.confidence) for row in bins) / whole if whole else None

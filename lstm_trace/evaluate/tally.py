"""Count what evaluators answered, and estimate the rate in everything that the judged traces stand for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from lstm_trace.evaluate.result import EvaluationResult

_Z95: Final = 1.959963984540054


@dataclass
class Tally:
    """The answers of one evaluator. ``reasons`` counts why evaluations were skipped or failed, in our words or by error type."""

    evaluation: str
    judged: int = 0
    passed: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0
    resumed: int = 0
    judge_input_tokens: int = 0
    judge_output_tokens: int = 0
    reasons: Counter[str] = field(default_factory=Counter[str])
    weights: _Weights = field(default_factory=lambda: _Weights())

    def add(self, result: EvaluationResult, weight: float | None = None) -> None:
        """Count one answer; ``weight`` is the number of traces that it stands for (None: itself)."""
        if result.judge is not None:
            self.judge_input_tokens += result.judge.input_tokens
            self.judge_output_tokens += result.judge.output_tokens
        if result.status == "skipped":
            self.skip(result.explanation or "skipped")
        elif result.status == "error":
            self.errors += 1
            self.reasons[result.error_type or "error"] += 1
        else:
            self.judged += 1
            self.passed += result.label == "pass"
            self.failed += result.label == "fail"
            self.weights.add(result, 1.0 if weight is None else weight)

    def skip(self, reason: str) -> None:
        """Count an evaluation that could not run."""
        self.skipped += 1
        self.reasons[reason] += 1

    def row(self) -> dict[str, Any]:
        """Return the tally as one flat row of a table; rates and scores are weighted, intervals are Wilson's at 95 %."""
        rate, low, high = self.weights.fail_rate()
        return {
            "evaluation": self.evaluation,
            "judged": self.judged,
            "passed": self.passed,
            "failed": self.failed,
            "errors": self.errors,
            "skipped": self.skipped,
            "resumed": self.resumed,
            "fail_rate": rate,
            "ci_low": low,
            "ci_high": high,
            "score_mean": self.weights.score_mean(),
            "weighted": self.weights.uneven,
            "judge_input_tokens": self.judge_input_tokens,
            "judge_output_tokens": self.judge_output_tokens,
        }


@dataclass
class _Weights:
    labelled: float = 0.0
    squares: float = 0.0
    failed: float = 0.0
    scored: float = 0.0
    score: float = 0.0
    smallest: float = math.inf
    largest: float = 0.0

    def add(self, result: EvaluationResult, weight: float) -> None:
        self.smallest, self.largest = min(self.smallest, weight), max(self.largest, weight)
        if result.label in ("pass", "fail"):
            self.labelled += weight
            self.squares += weight * weight
            self.failed += weight * (result.label == "fail")
        if result.score is not None:
            self.scored += weight
            self.score += weight * result.score

    @property
    def uneven(self) -> bool:
        return self.largest > self.smallest

    def score_mean(self) -> float | None:
        return self.score / self.scored if self.scored else None

    def fail_rate(self) -> tuple[float | None, float | None, float | None]:
        if not self.labelled:
            return None, None, None
        rate = self.failed / self.labelled
        return rate, *wilson(rate, self.labelled**2 / self.squares)


def wilson(rate: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate from ``n`` cases; with weights ``n`` is Kish's effective number, (Σw)² / Σw².

    Sources: Wilson 1927; Kish 1965, 11.7.

    >>> [round(value, 4) for value in wilson(97 / 812, 812)]
    [0.0989, 0.1436]
    >>> wilson(0.0, 25)[0]
    0.0
    """
    square = _Z95 * _Z95
    middle = (rate + square / (2 * n)) / (1 + square / n)
    half = _Z95 / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    # Rounded, so that no failure at all gives 0 and not 1.4e-17.
    return max(0.0, round(middle - half, 12)), min(1.0, round(middle + half, 12))

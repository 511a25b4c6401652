"""From another package's score to ours: a finite number, a bool or a word; anything else is an error and not a zero."""

from __future__ import annotations

import math
from typing import Any

from lstm_trace.evaluate.result import EvaluationResult


class NoVerdict(ValueError):
    """The other package answered, but without a score: most often its endpoint was down."""


def verdict(score: Any, passed: Any = None, reason: Any = None) -> EvaluationResult:
    """Build a result from a score and whether it passed; a score that is a word is the label. Raises NoVerdict where there is neither.

    >>> verdict(0.8, True, "near enough")
    EvaluationResult(score=0.8, label='pass', explanation='near enough', status='ok', error_type=None, judge=None)
    >>> verdict("GROUNDED").label
    'GROUNDED'
    """
    explanation = str(reason) if reason else None
    label = None if passed is None else "pass" if passed else "fail"
    if isinstance(score, bool):
        return EvaluationResult(float(score), label or ("pass" if score else "fail"), explanation)
    if isinstance(score, int | float) and math.isfinite(score):
        return EvaluationResult(float(score), label, explanation)
    if isinstance(score, str) and score.strip():
        return EvaluationResult(None, label or score.strip(), explanation)
    if label is not None and score is None:
        return EvaluationResult(None, label, explanation)
    raise NoVerdict(explanation or "no score was given")

"""What an evaluator is and what it answers: a score that it stands behind, or why there is none."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from lstm_trace.facts import Annotator, Status

Subject = Literal["prediction", "branch", "retrieval", "answer"]
"""What of a trace an evaluator judges: the component's label, the branch taken, the documents found, or the final text."""


@dataclass(frozen=True, slots=True)
class JudgeUsage:
    """The chat model that judged, and the tokens that its calls for one evaluation took."""

    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The answer of an evaluator. Only ``status == "ok"`` has a score or a label, and it has at least one of them.

    ``label`` is ``pass`` or ``fail``; None where no threshold is stated. ``explanation`` may quote what was judged. Raises ValueError
    when a result would claim a score that nobody gave.

    >>> EvaluationResult(score=1.0, label="pass").status
    'ok'
    >>> EvaluationResult.skipped("no judge").score is None
    True
    """

    score: float | None = None
    label: str | None = None
    explanation: str | None = None
    status: Status = "ok"
    error_type: str | None = None
    judge: JudgeUsage | None = None

    def __post_init__(self) -> None:
        judged = self.score is not None or self.label is not None
        if judged != (self.status == "ok"):
            raise ValueError(f"status={self.status!r} with score={self.score!r}, label={self.label!r}: only an ok result has one of them")
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"score={self.score!r}: accepted is a finite number")

    @classmethod
    def matched(cls, same: bool, explanation: str | None = None) -> EvaluationResult:
        """Return 1.0 ``pass`` or 0.0 ``fail``."""
        return cls(1.0, "pass", explanation) if same else cls(0.0, "fail", explanation)

    @classmethod
    def skipped(cls, missing: str) -> EvaluationResult:
        """Return what an evaluator answers that could not run: ``missing`` says what it lacked."""
        return cls(explanation=missing, status="skipped")

    @classmethod
    def error(cls, cause: BaseException, judge: JudgeUsage | None = None) -> EvaluationResult:
        """Return what an evaluator answers that broke: never a score."""
        return cls(explanation=str(cause) or None, status="error", error_type=type(cause).__qualname__, judge=judge)


@runtime_checkable
class Evaluator(Protocol):
    """Anything that judges. It may further state what ``stated`` reads: ``version``, ``model``, ``annotator``, ``subject``.

    ``evaluate`` takes keywords only: ``response`` (what was said), ``expected_response`` (gold), ``context`` (documents) and ``query``
    (what was asked), each None where it is not known.
    """

    @property
    def name(self) -> str:
        """Name of the evaluation: ``gen_ai.evaluation.name``."""
        ...

    def evaluate(self, *, response: Any = None, expected_response: Any = None, context: Any = None, query: Any = None) -> EvaluationResult:
        """Judge what is given."""
        ...


@dataclass(frozen=True, slots=True)
class Stated:
    """What an evaluator says about itself, with defaults for one that says only its name.

    ``version`` is the evaluator's own, and the name of the model that judges where it states one: the scores of two judges are two
    evaluations, and whether a score moved because the judge was changed can be told.
    """

    name: str
    version: str | None
    annotator: Annotator
    subject: Subject


def stated(evaluator: Evaluator) -> Stated:
    """Read what an evaluator says about itself."""
    said = (getattr(evaluator, "version", None), getattr(evaluator, "model", None))
    return Stated(
        evaluator.name,
        " ".join(str(each) for each in said if each is not None) or None,
        getattr(evaluator, "annotator", "CODE"),
        getattr(evaluator, "subject", "answer"),
    )


def answers_errors(evaluate: Callable[..., EvaluationResult]) -> Callable[..., EvaluationResult]:
    """Decorate ``evaluate``: what it raises becomes a result with ``status=error``. Interrupts and cancellation pass."""

    @functools.wraps(evaluate)
    def answering(*args: Any, **kwargs: Any) -> EvaluationResult:
        try:
            return evaluate(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - an evaluator's failure is its answer, whatever broke
            return EvaluationResult.error(error)

    return answering

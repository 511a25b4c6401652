"""`ground_truth_match`: whether a label, number or structure is the one that gold states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lstm_trace.evaluate import matching
from lstm_trace.evaluate.result import EvaluationResult, Subject, answers_errors
from lstm_trace.facts import Annotator

Match = Literal["auto", "exact", "normalised", "numeric", "json"]
_MATCHES = ("auto", "exact", "normalised", "numeric", "json")


@dataclass(frozen=True, kw_only=True)
class GroundTruthMatch:
    """1.0 ``pass`` where the response is what gold states, 0.0 ``fail`` where not; range 0 or 1, higher is better.

    ``match``: ``exact`` (value and kind), ``normalised`` (Unicode form, case, spaces and end punctuation aside), ``numeric`` (within
    ``tolerance``, or ``relative`` of the larger number), ``json`` (structure; numbers within the tolerance). ``auto`` takes ``json`` for
    an expected list or object, ``numeric`` for a number, else ``normalised``. Enum members, arrays, tensors, dataclasses, pydantic models
    and chat messages count as what they hold. Without gold or response it is ``skipped``. Raises
    ValueError that names a wrong argument. Nothing is called over the network.

    >>> evaluator = GroundTruthMatch()
    >>> result = evaluator.evaluate(response="refund", expected_response="Refund")
    >>> result.score, result.label
    (1.0, 'pass')
    >>> evaluator.evaluate(response="cancel", expected_response="refund").explanation
    "got 'cancel', expected 'refund'"
    >>> GroundTruthMatch(match="numeric", tolerance=0.5).evaluate(response="19.9", expected_response=20).label
    'pass'
    """

    match: Match = "auto"
    tolerance: float = 0.0
    relative: float = 0.0
    name: str = "ground_truth_match"
    version: str = "1"
    annotator: ClassVar[Annotator] = "CODE"
    subject: ClassVar[Subject] = "prediction"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.match not in _MATCHES:
            raise ValueError(f"match={self.match!r}: accepted are {', '.join(_MATCHES)}")
        for name in ("tolerance", "relative"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)!r}: accepted is a number from 0")

    @answers_errors
    def evaluate(self, *, response: Any = None, expected_response: Any = None, context: Any = None, query: Any = None) -> EvaluationResult:
        """Compare ``response`` with ``expected_response``; ``context`` and ``query`` are not looked at."""
        if expected_response is None:
            return EvaluationResult.skipped("no expected_response was given")
        if response is None:
            return EvaluationResult.skipped("no response was given")
        why = self._compare(matching.plain(response), matching.plain(expected_response))
        return EvaluationResult.matched(why is None, why)

    def _compare(self, response: Any, expected: Any) -> str | None:
        match = self._chosen(response, expected) if self.match == "auto" else self.match
        if match == "json":
            return matching.structure(response, expected, tolerance=self.tolerance, relative=self.relative)
        if match == "numeric":
            return matching.numeric(response, expected, tolerance=self.tolerance, relative=self.relative)
        return matching.exact(response, expected) if match == "exact" else matching.normalised(response, expected)

    @staticmethod
    def _chosen(response: Any, expected: Any) -> Match:
        if isinstance(expected, Mapping | list | tuple):
            return "json"
        if isinstance(expected, bool) and not isinstance(response, str):
            return "exact"
        if isinstance(expected, bool):
            return "normalised"  # a span keeps labels as text: "True", which is true
        return "numeric" if isinstance(expected, int | float) else "normalised"

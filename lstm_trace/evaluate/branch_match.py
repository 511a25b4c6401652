"""`branch_match`: whether the chain took the branch that gold states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lstm_trace.evaluate.matching import plain
from lstm_trace.evaluate.result import EvaluationResult, Subject, answers_errors
from lstm_trace.facts import Annotator


@dataclass(frozen=True, kw_only=True)
class BranchMatch:
    """1.0 ``pass`` where the chain went where gold says, 0.0 ``fail`` where not; range 0 or 1, higher is better.

    ``response`` is a branch, or all branches of a trajectory in their order. One expected branch must be among those taken; an expected
    list must be the whole path. Names are compared exactly: they are identifiers. Without either it is ``skipped``.

    >>> BranchMatch().evaluate(response=["classify", "retrieve_refunds", "answer"], expected_response="retrieve_refunds").label
    'pass'
    >>> BranchMatch().evaluate(response=["classify", "answer"], expected_response=["classify", "retrieve", "answer"]).label
    'fail'
    """

    name: str = "branch_match"
    version: str = "1"
    annotator: ClassVar[Annotator] = "CODE"
    subject: ClassVar[Subject] = "branch"
    higher_is_better: ClassVar[bool] = True

    @answers_errors
    def evaluate(self, *, response: Any = None, expected_response: Any = None, context: Any = None, query: Any = None) -> EvaluationResult:
        """Compare the branches in ``response`` with ``expected_response``; ``context`` and ``query`` are not looked at."""
        if not expected_response:
            return EvaluationResult.skipped("no expected_response was given")
        taken, expected = _branches(response), _branches(expected_response)
        if not taken:
            return EvaluationResult.skipped("no branch is known")
        same = taken == expected if len(expected) > 1 or not isinstance(plain(expected_response), str) else expected[0] in taken
        return EvaluationResult.matched(same, None if same else f"took {' → '.join(taken)}, expected {' → '.join(expected)}")


def _branches(given: Any) -> list[str]:
    value = plain(given)
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, Sequence):
        return [str(plain(each)) for each in value]
    raise TypeError(f"a branch is a string or a list of strings, not {type(value).__qualname__}")

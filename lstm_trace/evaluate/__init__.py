"""Evaluators that never lie: a score, or why there is none. Each loads at first use; the judged ones need the extra `judge`.

>>> from lstm_trace.evaluate import GroundTruthMatch
>>> GroundTruthMatch().evaluate(response="refund", expected_response="refund").score
1.0
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstm_trace.evaluate.answer_correctness import AnswerCorrectness
    from lstm_trace.evaluate.branch_match import BranchMatch
    from lstm_trace.evaluate.context_relevance import ContextRelevance
    from lstm_trace.evaluate.ground_truth_match import GroundTruthMatch
    from lstm_trace.evaluate.groundedness import Groundedness
    from lstm_trace.evaluate.hallucination_score import HallucinationScore
    from lstm_trace.evaluate.recording import evaluate_and_record
    from lstm_trace.evaluate.registry import available, evaluator_named
    from lstm_trace.evaluate.result import EvaluationResult, Evaluator, JudgeUsage

_WHERE = {
    "AnswerCorrectness": "answer_correctness",
    "BranchMatch": "branch_match",
    "ContextRelevance": "context_relevance",
    "EvaluationResult": "result",
    "Evaluator": "result",
    "GroundTruthMatch": "ground_truth_match",
    "Groundedness": "groundedness",
    "HallucinationScore": "hallucination_score",
    "JudgeUsage": "result",
    "available": "registry",
    "evaluate_and_record": "recording",
    "evaluator_named": "registry",
}

__all__ = [
    "AnswerCorrectness",
    "BranchMatch",
    "ContextRelevance",
    "EvaluationResult",
    "Evaluator",
    "GroundTruthMatch",
    "Groundedness",
    "HallucinationScore",
    "JudgeUsage",
    "available",
    "evaluate_and_record",
    "evaluator_named",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

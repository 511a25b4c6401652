"""`answer_correctness`: whether a free-text answer says what the reference answer says, judged by a chat model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from lstm_trace.evaluate.judge import as_text, judged, prompts_version
from lstm_trace.evaluate.models import judge_name
from lstm_trace.evaluate.result import EvaluationResult, Subject, answers_errors
from lstm_trace.facts import Annotator


@dataclass(frozen=True, kw_only=True)
class AnswerCorrectness:
    """From 0.0 (wrong) to 1.0 (correct and complete against ``expected_response``); higher is better, ``pass`` from ``threshold``.

    For labels and structured output take ``GroundTruthMatch``: it needs no model. ``judge``: a LangChain chat model, its name
    (``provider:model``), or None for ``LSTM_TRACE_JUDGE``. Without a judge, a response or gold it is ``skipped`` and says what is missing;
    where the judge fails it is ``error``. Prompt: openevals, ``CORRECTNESS_PROMPT``.

    >>> AnswerCorrectness().evaluate(response="Two years.").explanation
    'no expected_response was given'
    """

    judge: Any = None
    threshold: float = 0.5
    name: str = "answer_correctness"
    version: str = field(default_factory=prompts_version)
    annotator: ClassVar[Annotator] = "LLM"
    subject: ClassVar[Subject] = "answer"
    higher_is_better: ClassVar[bool] = True

    @property
    def model(self) -> str | None:
        """Name of the model that judges."""
        return judge_name(self.judge)

    @answers_errors
    def evaluate(self, *, response: Any = None, expected_response: Any = None, context: Any = None, query: Any = None) -> EvaluationResult:
        """Judge ``response`` against ``expected_response`` as an answer to ``query`` (may be None); ``context`` is not looked at."""
        if expected_response is None:
            return EvaluationResult.skipped("no expected_response was given")
        if response is None:
            return EvaluationResult.skipped("no response was given")
        return judged(
            self.judge,
            _prompt,
            self.threshold,
            inputs=as_text(query),
            outputs=as_text(response),
            reference_outputs=as_text(expected_response),
        )


def _prompt() -> str:
    from openevals.prompts import CORRECTNESS_PROMPT

    prompt: str = CORRECTNESS_PROMPT
    return prompt

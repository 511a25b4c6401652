"""`groundedness`: whether the answer says only what the retrieved context supports, judged by a chat model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from lstm_trace.evaluate.judge import as_text, judged, prompts_version
from lstm_trace.evaluate.models import judge_name
from lstm_trace.evaluate.result import EvaluationResult, Subject, answers_errors
from lstm_trace.facts import Annotator


@dataclass(frozen=True, kw_only=True)
class Groundedness:
    """From 0.0 (unsupported) to 1.0 (every claim is supported by ``context``); higher is better, ``pass`` from ``threshold``.

    ``judge``: a LangChain chat model, its name (``provider:model``), or None for ``LSTM_TRACE_JUDGE``. Without a judge, a response or a
    context it is ``skipped`` and says what is missing; where the judge fails it is ``error``. Prompt: openevals,
    ``RAG_GROUNDEDNESS_PROMPT``.

    >>> Groundedness().evaluate(response="Two years.").explanation
    'no context was given'
    """

    judge: Any = None
    threshold: float = 0.5
    name: str = "groundedness"
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
        """Judge ``response`` against ``context`` (texts or documents); ``expected_response`` and ``query`` are not looked at."""
        if response is None:
            return EvaluationResult.skipped("no response was given")
        if not context:
            return EvaluationResult.skipped("no context was given")
        return judged(self.judge, _prompt, self.threshold, context=as_text(context), outputs=as_text(response))


def _prompt() -> str:
    from openevals.prompts import RAG_GROUNDEDNESS_PROMPT

    prompt: str = RAG_GROUNDEDNESS_PROMPT
    return prompt

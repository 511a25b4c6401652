"""`hallucination_score`: whether the answer is free of invented facts, judged by a chat model; 1.0 is free of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from lstm_trace.evaluate.judge import as_text, judged, prompts_version
from lstm_trace.evaluate.models import judge_name
from lstm_trace.evaluate.result import EvaluationResult, Subject, answers_errors
from lstm_trace.facts import Annotator


@dataclass(frozen=True, kw_only=True)
class HallucinationScore:
    """From 0.0 (severe hallucination) to 1.0 (none); **higher is better**, as in fi.evals and openevals; ``pass`` from ``threshold``.

    Where ``Groundedness`` asks what the context supports, this also weighs the question and, where given, a reference answer. ``judge``: a
    LangChain chat model, its name (``provider:model``), or None for ``LSTM_TRACE_JUDGE``. Without a judge, a response or a context it is
    ``skipped`` and says what is missing; where the judge fails it is ``error``. Prompt: openevals, ``HALLUCINATION_PROMPT``.

    >>> HallucinationScore().evaluate(context=["Returns take 30 days."]).explanation
    'no response was given'
    """

    judge: Any = None
    threshold: float = 0.5
    name: str = "hallucination_score"
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
        """Judge ``response`` against ``context`` (texts or documents); ``query`` and ``expected_response`` help where they are given."""
        if response is None:
            return EvaluationResult.skipped("no response was given")
        if not context:
            return EvaluationResult.skipped("no context was given")
        return judged(
            self.judge,
            _prompt,
            self.threshold,
            context=as_text(context),
            inputs=as_text(query),
            outputs=as_text(response),
            reference_outputs=as_text(expected_response),
        )


def _prompt() -> str:
    from openevals.prompts import HALLUCINATION_PROMPT

    prompt: str = HALLUCINATION_PROMPT
    return prompt

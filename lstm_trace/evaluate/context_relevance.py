"""`context_relevance`: whether the retrieved documents help with what was asked, judged by a chat model or an embedding model offline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lstm_trace.evaluate.judge import as_text, judged, prompts_version, texts
from lstm_trace.evaluate.models import Unavailable, embedding_model, embeddings_name, judge_name, model_name
from lstm_trace.evaluate.result import EvaluationResult, JudgeUsage, Subject, answers_errors
from lstm_trace.facts import Annotator
from lstm_trace.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ContextRelevance:
    """From 0.0 (nothing of use) to 1.0 (what is needed is there); higher is better, ``pass`` from ``threshold``.

    With ``embeddings`` (a LangChain Embeddings or its name) and no ``judge``: the best document's cosine similarity with the query, below 0
    counted as 0. That *ranks* relevance; what similarity is enough differs from model to model, so there is a label only where
    ``threshold`` is given. With ``judge`` (a LangChain chat model or its name; threshold 0.5 by default) openevals asks,
    ``RAG_RETRIEVAL_RELEVANCE_PROMPT``. Where neither is given, ``LSTM_TRACE_JUDGE`` and then ``LSTM_TRACE_EMBEDDINGS`` are read. Without
    a model, a query or documents it is ``skipped`` and says what is missing; where the model fails it is ``error``.

    >>> ContextRelevance().evaluate(context=["Returns take 30 days."]).explanation
    'no query was given'
    """

    judge: Any = None
    embeddings: Any = None
    threshold: float | None = None
    name: str = "context_relevance"
    given_version: str | None = None
    subject: ClassVar[Subject] = "retrieval"
    higher_is_better: ClassVar[bool] = True

    @property
    def version(self) -> str:
        """The prompt's version, or ``embeddings-1``: a similarity and a judgement are two evaluators."""
        return self.given_version or ("embeddings-1" if self._embeds else prompts_version())

    @property
    def model(self) -> str | None:
        """Name of the judge or of the embedding model."""
        return embeddings_name(self.embeddings) if self._embeds else judge_name(self.judge)

    @property
    def annotator(self) -> Annotator:
        """``LLM`` for a judge, ``CODE`` for an embedding model."""
        return "CODE" if self._embeds else "LLM"

    @property
    def _embeds(self) -> bool:
        if self.judge is not None or self.embeddings is not None:
            return self.judge is None
        setting = Settings.from_env()
        return setting.judge is None and setting.embeddings is not None

    @answers_errors
    def evaluate(self, *, response: Any = None, expected_response: Any = None, context: Any = None, query: Any = None) -> EvaluationResult:
        """Judge ``context`` (texts or documents) against ``query``; ``response`` and ``expected_response`` are not looked at."""
        if not query:
            return EvaluationResult.skipped("no query was given")
        if context is None:
            return EvaluationResult.skipped("no context was given")
        documents = texts(context)
        if not documents:
            return EvaluationResult(0.0, "fail", "nothing was retrieved")
        if self._embeds:
            return self._similarity(as_text(query), documents)
        threshold = 0.5 if self.threshold is None else self.threshold
        return judged(self.judge, _prompt, threshold, inputs=as_text(query), context=as_text(context))

    def _similarity(self, query: str, documents: list[str]) -> EvaluationResult:
        try:
            model = embedding_model(self.embeddings)
        except Unavailable as missing:
            return EvaluationResult.skipped(str(missing))
        asked = model.embed_query(query)
        scores = [cosine(asked, found) for found in model.embed_documents(documents)]
        best = min(1.0, max(0.0, *scores))
        label = None if self.threshold is None else "pass" if best >= self.threshold else "fail"
        nearest = f"document {scores.index(max(scores)) + 1} of {len(scores)} is nearest"
        return EvaluationResult(best, label, nearest, judge=JudgeUsage(model_name(model)))


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    """Cosine of the angle between two vectors of one length, -1 to 1. Raises ValueError where one has no direction or they do not match.

    >>> cosine([1.0, 0.0], [1.0, 1.0]) > 0.7
    True
    """
    dot = sum(one * other for one, other in zip(left, right, strict=True))
    size = math.hypot(*left) * math.hypot(*right)
    if not size or not math.isfinite(size):
        raise ValueError("an embedding is zero or not finite: it has no direction to compare")
    return dot / size


def _prompt() -> str:
    from openevals.prompts import RAG_RETRIEVAL_RELEVANCE_PROMPT

    prompt: str = RAG_RETRIEVAL_RELEVANCE_PROMPT
    return prompt

"""A deepeval metric in our call shape."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from lstm_trace.evaluate.adapters.mapping import NoVerdict, verdict
from lstm_trace.evaluate.judge import as_text, texts
from lstm_trace.evaluate.result import EvaluationResult, Subject, answers_errors
from lstm_trace.facts import Annotator


class DeepEval:
    """Run a deepeval metric: ``DeepEval(FaithfulnessMetric(model=…))``. Polarity, range and threshold are the metric's own.

    response → actual_output, expected_response → expected_output, context → retrieval_context and context, query → input. A metric
    keeps its verdict on itself, so each evaluation runs on a copy of it. deepeval reports usage to its makers unless
    ``DEEPEVAL_TELEMETRY_OPT_OUT=1``. Tried with deepeval 4.3.1.
    """

    subject: Subject = "answer"

    def __init__(self, metric: Any, *, name: str | None = None, annotator: Annotator | None = None) -> None:
        if not callable(getattr(metric, "measure", None)):
            raise TypeError(f"DeepEval({metric!r}): accepted is a deepeval metric with measure()")
        self._metric = metric
        self.name = name or _snake(type(metric).__name__.removesuffix("Metric"))
        self.annotator: Annotator = annotator or ("LLM" if getattr(metric, "model", None) is not None else "CODE")
        self.version = _version()
        self.model: str | None = getattr(metric, "evaluation_model", None)

    @answers_errors
    def evaluate(self, *, response: Any = None, expected_response: Any = None, context: Any = None, query: Any = None) -> EvaluationResult:
        """Measure one test case."""
        from importlib import import_module

        documents = None if context is None else texts(context)
        test = import_module("deepeval.test_case").LLMTestCase(
            input=as_text(query),
            actual_output=None if response is None else as_text(response),
            expected_output=None if expected_response is None else as_text(expected_response),
            context=documents,
            retrieval_context=documents,
        )
        metric = copy.copy(self._metric)
        shown = {"_show_indicator": False} if "_show_indicator" in inspect.signature(metric.measure).parameters else {}
        metric.measure(test, **shown)
        if getattr(metric, "error", None):
            raise NoVerdict(f"deepeval: {metric.error}")
        if getattr(metric, "skipped", False):
            return EvaluationResult.skipped("the deepeval metric skipped this case")
        return verdict(metric.score, metric.is_successful(), getattr(metric, "reason", None))


def _snake(name: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")


def _version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"deepeval-{version('deepeval')}"
    except PackageNotFoundError:
        return None

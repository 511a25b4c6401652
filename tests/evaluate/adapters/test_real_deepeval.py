"""The real package deepeval, where it is installed: a metric that needs no model, and one with a model that the test scripted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lstm_trace.evaluate.adapters.deepeval import DeepEval

metrics = pytest.importorskip("deepeval.metrics", reason="deepeval is not installed")


@pytest.mark.parametrize(("response", "score", "label"), [("refund", 1.0, "pass"), ("cancel", 0.0, "fail")])
def test_a_metric_scores(response: str, score: float, label: str) -> None:
    adapter = DeepEval(metrics.ExactMatchMetric())
    result = adapter.evaluate(query="What?", response=response, expected_response="refund")
    assert (adapter.name, adapter.annotator) == ("exact_match", "CODE")
    assert (result.status, result.score, result.label) == ("ok", score, label)
    assert result.explanation


def test_what_a_metric_needs_and_does_not_get_is_an_error() -> None:
    result = DeepEval(metrics.ExactMatchMetric()).evaluate(response="refund")
    assert (result.status, result.score) == ("error", None)
    assert "expected_output" in (result.explanation or "")


def test_one_metric_judges_in_several_threads() -> None:
    adapter = DeepEval(metrics.ExactMatchMetric())

    def judge(number: int) -> bool:
        expected = "refund" if number % 2 else "cancel"
        return adapter.evaluate(query="What?", response="refund", expected_response=expected).label == ("pass" if number % 2 else "fail")

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(judge, range(200)))


def scripted(answers: list[Any]) -> Any:
    from deepeval.models import DeepEvalBaseLLM

    class ScriptedDeepEvalModel(DeepEvalBaseLLM):  # type: ignore[misc]
        """A deepeval model that says what the test wrote down."""

        def load_model(self) -> Any:
            return self

        def get_model_name(self) -> str:
            return "scripted"

        def generate(self, prompt: str, schema: Any = None, **_: Any) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return schema(**answer) if schema is not None else answer

        async def a_generate(self, prompt: str, schema: Any = None, **_: Any) -> Any:
            return self.generate(prompt, schema)

    return ScriptedDeepEvalModel()


def test_a_judged_metric_scores() -> None:
    model = scripted(
        [{"truths": ["two years"]}, {"claims": ["two years"]}, {"verdicts": [{"verdict": "yes"}]}, {"reason": "all supported"}]
    )
    adapter = DeepEval(metrics.FaithfulnessMetric(model=model, async_mode=False))
    result = adapter.evaluate(query="How long?", response="Two years.", context=["The warranty is two years."])
    assert (adapter.annotator, result.status, result.score, result.label) == ("LLM", "ok", 1.0, "pass")


def test_a_judge_that_is_down_is_an_error() -> None:
    adapter = DeepEval(metrics.FaithfulnessMetric(model=scripted([ConnectionError("down")] * 9), async_mode=False))
    result = adapter.evaluate(query="How long?", response="Two years.", context=["The warranty is two years."])
    assert (result.status, result.error_type, result.score) == ("error", "ConnectionError", None)

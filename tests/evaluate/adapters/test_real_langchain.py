"""LangChain's own string evaluators, where langchain-classic is installed."""

from __future__ import annotations

import pytest
from langchain_core.language_models import FakeListChatModel

from lstm_trace.evaluate.adapters.langchain import LangChainEvaluator
from tests.evaluate.scripted import ScriptedEmbeddings

classic = pytest.importorskip("langchain_classic.evaluation", reason="langchain-classic is not installed")


@pytest.mark.parametrize(("response", "score"), [("refund", 1.0), ("cancel", 0.0)])
def test_exact_match(response: str, score: float) -> None:
    adapter = LangChainEvaluator(classic.load_evaluator("exact_match"), passes=lambda found: found == 1)
    result = adapter.evaluate(response=response, expected_response="refund")
    assert (adapter.name, result.score, result.label) == ("exact_match", score, "pass" if score else "fail")


def test_embedding_distance() -> None:
    vectors = {"near": [1.0, 0.1], "gold": [1.0, 0.0]}
    evaluator = classic.load_evaluator("embedding_distance", embeddings=ScriptedEmbeddings(vectors))
    result = LangChainEvaluator(evaluator, passes=lambda found: found < 0.2).evaluate(response="near", expected_response="gold")
    assert result.label == "pass"
    assert 0 < (result.score or 0) < 0.2


def test_json_equality() -> None:
    adapter = LangChainEvaluator(classic.load_evaluator("json_equality"))
    assert adapter.evaluate(response='{"a": 1, "b": 2}', expected_response='{"b": 2, "a": 1}').label == "pass"


def test_what_it_needs_and_does_not_get_is_an_error() -> None:
    result = LangChainEvaluator(classic.load_evaluator("exact_match")).evaluate(response="refund")
    assert (result.status, result.score) == ("error", None)


@pytest.mark.parametrize(("said", "score", "label"), [("GRADE: CORRECT", 1.0, "pass"), ("GRADE: INCORRECT", 0.0, "fail")])
def test_a_judged_question(said: str, score: float, label: str) -> None:
    adapter = LangChainEvaluator(classic.load_evaluator("qa", llm=FakeListChatModel(responses=[said])))
    result = adapter.evaluate(query="How long?", response="Two years.", expected_response="Two years.")
    assert (result.score, result.label) == (score, label)


@pytest.mark.parametrize("kind", ["pairwise_string", "trajectory"])
def test_what_compares_answers_or_reads_steps_is_refused_when_it_is_given(kind: str) -> None:
    evaluator = classic.load_evaluator(kind, llm=FakeListChatModel(responses=["[[A]]"]))
    with pytest.raises(TypeError, match=r"accepted are an object with evaluate_strings\(\) and a callable"):
        LangChainEvaluator(evaluator)

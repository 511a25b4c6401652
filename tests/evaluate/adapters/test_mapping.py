"""What another package's answer becomes, whichever form it has. The packages themselves are tried in their own environments."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lstm_trace.evaluate.adapters.deepeval import DeepEval
from lstm_trace.evaluate.adapters.fi_evals import FiEvals, from_fi
from lstm_trace.evaluate.adapters.langchain import LangChainEvaluator
from lstm_trace.evaluate.adapters.mapping import NoVerdict, verdict


@pytest.mark.parametrize(
    ("given", "score", "label"),
    [
        ((0.8,), 0.8, None),
        ((0.8, True), 0.8, "pass"),
        ((0, False), 0.0, "fail"),
        ((True,), 1.0, "pass"),
        ((False,), 0.0, "fail"),
        (("GROUNDED",), None, "GROUNDED"),
        ((None, True), None, "pass"),
    ],
)
def test_a_score_a_bool_and_a_word_are_verdicts(given: tuple[Any, ...], score: float | None, label: str | None) -> None:
    result = verdict(*given)
    assert (result.status, result.score, result.label) == ("ok", score, label)


@pytest.mark.parametrize("score", [None, "", "  ", float("nan"), float("inf"), [0.5], {}])
def test_anything_else_is_none(score: Any) -> None:
    with pytest.raises(NoVerdict):
        verdict(score)


@pytest.mark.parametrize(
    "outage",
    [
        None,
        SimpleNamespace(eval_results=[]),
        SimpleNamespace(eval_results=[SimpleNamespace(output=None, reason="Connection refused")]),
        SimpleNamespace(score=None, passed=None, status="completed", reason="Connection refused"),
        SimpleNamespace(score=None, passed=None, status="failed", error="not found"),
        SimpleNamespace(score=0.3, passed=False, status="completed", reason="", metadata={"augment_error": "no key"}),
        SimpleNamespace(score=0.0, passed=False, status="completed", reason="Input validation failed: 1 validation error for RAGInput"),
        SimpleNamespace(score=0.0, passed=False, status="completed", reason="LLM provider failed: no key"),
    ],
)
def test_an_outage_of_fi_evals_is_no_zero(outage: Any) -> None:
    with pytest.raises(NoVerdict):
        from_fi(outage)
    result = FiEvals("groundedness", run=lambda *_, **__: outage).evaluate(response="a")
    assert (result.status, result.error_type, result.score) == ("error", "NoVerdict", None)


def test_fi_evals_is_asked_in_its_own_words() -> None:
    asked: list[Any] = []

    def run(name: str, **given: Any) -> Any:
        asked.append((name, given))
        return SimpleNamespace(score=1.0, passed=True, status="completed", reason="same")

    adapter = FiEvals("contains", inputs={"expected_response": "keyword"}, run=run, engine="local")
    result = adapter.evaluate(response="to refund", expected_response="refund", context=None)
    assert asked == [("contains", {"output": "to refund", "keyword": "refund", "engine": "local"})]
    assert (result.score, result.label, result.explanation) == (1.0, "pass", "same")


def test_a_wrong_argument_is_named() -> None:
    with pytest.raises(ValueError, match="accepted keys are response, expected_response, context, query"):
        FiEvals("contains", inputs={"answer": "output"}, run=print)
    with pytest.raises(TypeError, match="a deepeval metric"):
        DeepEval(3)
    with pytest.raises(TypeError, match="evaluate_strings"):
        LangChainEvaluator(3)


@pytest.mark.parametrize(
    ("said", "score", "label"),
    [
        ({"key": "k", "score": True, "comment": "yes"}, 1.0, "pass"),
        ({"key": "k", "score": 0.4}, 0.4, None),
        ([{"key": "k", "score": 0.4}], 0.4, None),
        ({"score": 1, "value": "Y", "reasoning": "same"}, 1.0, "pass"),
        ({"score": 0, "value": "N"}, 0.0, "fail"),
        ({"score": None, "value": "B"}, None, "B"),
        (SimpleNamespace(score=0.25, comment="low", value=None), 0.25, None),
        (0.5, 0.5, None),
        (False, 0.0, "fail"),
    ],
)
def test_every_form_of_a_langchain_result_is_read(said: Any, score: float | None, label: str | None) -> None:
    result = LangChainEvaluator(lambda **_: said, name="k").evaluate(response="a")
    assert (result.status, result.score, result.label) == ("ok", score, label)


@pytest.mark.parametrize("said", [None, {}, [], [{"score": 1}, {"score": 0}], {"score": None}])
def test_a_langchain_result_without_one_verdict_is_an_error(said: Any) -> None:
    result = LangChainEvaluator(lambda **_: said, name="k").evaluate(response="a")
    assert (result.status, result.score, result.label) == ("error", None, None)


def test_the_caller_may_say_what_passes() -> None:
    adapter = LangChainEvaluator(lambda **_: {"score": 0.2}, name="distance", passes=lambda score: score < 0.3)
    assert adapter.evaluate(response="a").label == "pass"


def test_openevals_runs_through_the_adapter() -> None:
    from openevals.exact import exact_match

    adapter = LangChainEvaluator(exact_match)
    assert adapter.name == "exact_match"
    assert adapter.evaluate(response="refund", expected_response="refund").score == 1.0
    assert adapter.evaluate(response="cancel", expected_response="refund").label == "fail"

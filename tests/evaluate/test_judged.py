"""Evaluators that ask a model: what is sent to it, what becomes of its answer, and what they say without one."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
from langchain_core.documents import Document

from lstm_trace.evaluate import AnswerCorrectness, ContextRelevance, EvaluationResult, Groundedness, HallucinationScore
from lstm_trace.evaluate.result import JudgeUsage, stated
from tests.evaluate.scripted import ScriptedChatModel, ScriptedEmbeddings, verdict

ASKED = {
    "response": "You have {two} years.",
    "expected_response": "The warranty is two years.",
    "context": [Document("The warranty is two years."), "Returns take 30 days."],
    "query": "How long is the warranty?",
}


@pytest.fixture(autouse=True)
def _no_model_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LSTM_TRACE_JUDGE", "LSTM_TRACE_EMBEDDINGS", "LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.delenv(name, raising=False)


def tail_of(prompt: str) -> str:
    """What follows the rubric: the material itself."""
    first = min(prompt.index(tag) for tag in ("<context>", "<input>", "<inputs>") if tag in prompt)
    return "\n".join(line for line in prompt[first:].splitlines() if line)


@pytest.mark.parametrize(
    ("evaluator", "opening", "material"),
    [
        (
            Groundedness,
            "You are an expert data labeler assessing how well LLM output aligns with and is supported by the retrieved context.",
            "<context>\nThe warranty is two years.\nReturns take 30 days.\n</context>\n<outputs>\nYou have {two} years.\n</outputs>",
        ),
        (
            HallucinationScore,
            "You are an expert data labeler evaluating model outputs for hallucinations.",
            "<context>\nThe warranty is two years.\nReturns take 30 days.\n</context>\n"
            "<input>\nHow long is the warranty?\n</input>\n<output>\nYou have {two} years.\n</output>\n"
            "If available, you may also use the reference outputs below to help you identify hallucinations in the response:\n"
            "<reference_outputs>\nThe warranty is two years.\n</reference_outputs>",
        ),
        (
            AnswerCorrectness,
            "You are an expert data labeler evaluating model outputs for correctness.",
            "<input>\nHow long is the warranty?\n</input>\n<output>\nYou have {two} years.\n</output>\n"
            "Use the reference outputs below to help you evaluate the correctness of the response:\n"
            "<reference_outputs>\nThe warranty is two years.\n</reference_outputs>",
        ),
        (
            ContextRelevance,
            "You are an expert data labeler evaluating retrieved context for relevance to the input.",
            "<inputs>\nHow long is the warranty?\n</inputs>\n"
            "<retrieved_context>\nThe warranty is two years.\nReturns take 30 days.\n</retrieved_context>",
        ),
    ],
)
def test_the_judge_reads_the_prompt_and_its_score_is_the_result(evaluator: Any, opening: str, material: str) -> None:
    judge = ScriptedChatModel(script=[verdict(0.75, "Supported. Thus, the score should be: 0.75")])
    result = evaluator(judge=judge).evaluate(**ASKED)
    (prompt,) = judge.prompts
    assert prompt.startswith(opening)
    assert tail_of(prompt) == material
    assert result == EvaluationResult(
        0.75, "pass", "Supported. Thus, the score should be: 0.75", judge=JudgeUsage("scripted-judge", 210, 17)
    )


JUDGED = [Groundedness, HallucinationScore, AnswerCorrectness, ContextRelevance]


@pytest.mark.parametrize("evaluator", JUDGED)
@pytest.mark.parametrize(("score", "label"), [(0.0, "fail"), (0.79, "fail"), (0.8, "pass"), (1, "pass"), (True, "pass"), (False, "fail")])
def test_the_threshold_makes_the_label(evaluator: Any, score: float, label: str) -> None:
    result = evaluator(judge=ScriptedChatModel(script=[verdict(score)]), threshold=0.8).evaluate(**ASKED)
    assert (result.score, result.label) == (float(score), label)
    assert evaluator.higher_is_better


@pytest.mark.parametrize("evaluator", JUDGED)
@pytest.mark.parametrize(
    ("line", "error_type"),
    [
        (TimeoutError("no answer"), "TimeoutError"),
        (ConnectionError("refused"), "ConnectionError"),
        (verdict(7), "UnusableVerdict"),
        (verdict(-0.1), "UnusableVerdict"),
        (verdict(None), "UnusableVerdict"),
        (verdict("high"), "UnusableVerdict"),
        (verdict(float("nan")), "UnusableVerdict"),
        ({"reasoning": "I would rather not."}, "KeyError"),
    ],
)
def test_a_judge_that_fails_gives_an_error_and_never_a_score(evaluator: Any, line: Any, error_type: str) -> None:
    result = evaluator(judge=ScriptedChatModel(script=[line])).evaluate(**ASKED)
    assert (result.status, result.error_type, result.score, result.label) == ("error", error_type, None, None)


def test_a_judge_that_answers_in_prose_is_an_error() -> None:
    from langchain_core.language_models import FakeListChatModel

    result = Groundedness(judge=FakeListChatModel(responses=["9 out of 10!"])).evaluate(**ASKED)
    assert (result.status, result.score) == ("error", None)


@pytest.mark.parametrize("evaluator", JUDGED)
def test_without_a_judge_it_is_skipped_and_says_what_is_missing(evaluator: Any) -> None:
    result = evaluator().evaluate(**ASKED)
    assert (result.status, result.score, result.label) == ("skipped", None, None)
    assert result.explanation == "no judge: give judge= a LangChain chat model, or name one in LSTM_TRACE_JUDGE (provider:model)"


@pytest.mark.parametrize("evaluator", JUDGED)
def test_without_the_extra_it_is_skipped_and_names_it(evaluator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "openevals"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openevals", None)
    result = evaluator(judge=ScriptedChatModel()).evaluate(**ASKED)
    assert result.status == "skipped"
    assert "pip install 'lstm-trace[judge]'" in (result.explanation or "")


@pytest.mark.parametrize(
    ("evaluator", "missing", "said"),
    [
        (Groundedness, "response", "no response was given"),
        (Groundedness, "context", "no context was given"),
        (HallucinationScore, "response", "no response was given"),
        (HallucinationScore, "context", "no context was given"),
        (AnswerCorrectness, "response", "no response was given"),
        (AnswerCorrectness, "expected_response", "no expected_response was given"),
        (ContextRelevance, "query", "no query was given"),
        (ContextRelevance, "context", "no context was given"),
    ],
)
def test_without_material_it_is_skipped_and_the_judge_is_not_asked(evaluator: Any, missing: str, said: str) -> None:
    judge = ScriptedChatModel(script=[verdict(1.0)])
    result = evaluator(judge=judge).evaluate(**{**ASKED, missing: None})
    assert (result.status, result.explanation, judge.prompts) == ("skipped", said, [])


def test_the_judge_may_be_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTM_TRACE_JUDGE", "python:tests.evaluate.test_judged:MADE")
    MADE.script.append(verdict(0.25))
    assert Groundedness().evaluate(**ASKED).score == 0.25


MADE = ScriptedChatModel()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpt-5", "judge 'gpt-5': accepted are provider:model, such as openai:gpt-5-mini, and python:pkg.mod:name"),
        ("python:nowhere:judge", "judge 'python:nowhere:judge': No module named 'nowhere'; accepted is python:pkg.mod:name of one"),
        ("nobody:gpt-5", "judge 'nobody:gpt-5': "),
    ],
)
def test_a_judge_name_that_leads_nowhere_says_so(name: str, said: str) -> None:
    result = Groundedness(judge=name).evaluate(**ASKED)
    assert (result.status, result.error_type) == ("error", "BadInput")
    assert (result.explanation or "").startswith(said)


def test_a_provider_that_is_not_installed_is_skipped_and_named() -> None:
    result = Groundedness(judge="anthropic:claude").evaluate(**ASKED)
    assert result.status == "skipped"
    assert "langchain-anthropic" in (result.explanation or "")


VECTORS = {"How long is the warranty?": [1.0, 0.0], "near": [3.0, 4.0], "far": [0.0, 2.0], "against": [-1.0, 0.0], "none": [0.0, 0.0]}


@pytest.mark.parametrize(("documents", "score"), [(["far", "near"], 0.6), (["far"], 0.0), (["against"], 0.0)])
def test_an_embedding_model_ranks_relevance_offline(documents: list[str], score: float) -> None:
    evaluator = ContextRelevance(embeddings=ScriptedEmbeddings(VECTORS))
    result = evaluator.evaluate(query=ASKED["query"], context=documents)
    assert (result.status, result.label) == ("ok", None)
    assert result.score == pytest.approx(score)
    assert (evaluator.annotator, evaluator.version) == ("CODE", "embeddings-1")
    assert result.judge == JudgeUsage("scripted-embeddings")


def test_a_similarity_has_a_label_only_where_a_threshold_is_given() -> None:
    evaluator = ContextRelevance(embeddings=ScriptedEmbeddings(VECTORS), threshold=0.5)
    assert evaluator.evaluate(query=ASKED["query"], context=["near"]).label == "pass"
    assert evaluator.evaluate(query=ASKED["query"], context=["far"]).label == "fail"


def test_an_embedding_without_direction_is_an_error() -> None:
    result = ContextRelevance(embeddings=ScriptedEmbeddings(VECTORS)).evaluate(query=ASKED["query"], context=["none"])
    assert (result.status, result.error_type, result.score) == ("error", "ValueError", None)


def test_nothing_retrieved_is_a_failed_retrieval() -> None:
    result = ContextRelevance(embeddings=ScriptedEmbeddings({})).evaluate(query=ASKED["query"], context=[])
    assert (result.score, result.label) == (0.0, "fail")


def test_the_judge_wins_over_the_embedding_model() -> None:
    judge = ScriptedChatModel(script=[verdict(0.9)])
    evaluator = ContextRelevance(judge=judge, embeddings=ScriptedEmbeddings(VECTORS))
    assert evaluator.evaluate(**ASKED).score == 0.9
    assert evaluator.annotator == "LLM"


def test_the_version_is_that_of_the_prompts() -> None:
    assert Groundedness().version == f"openevals-{version('openevals')}"


def test_two_judges_are_two_evaluations_and_one_judge_is_one_however_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = f"openevals-{version('openevals')}"
    mini = ScriptedChatModel(model_name="gpt-5-mini")
    assert stated(Groundedness()).version == prompts
    assert stated(Groundedness(judge=mini)).version == stated(Groundedness(judge="openai:gpt-5-mini")).version == f"{prompts} gpt-5-mini"
    assert stated(AnswerCorrectness(judge=ScriptedChatModel(), version="mine")).version == "mine scripted-judge"
    assert stated(ContextRelevance(embeddings=ScriptedEmbeddings({}))).version == "embeddings-1 scripted-embeddings"
    monkeypatch.setenv("LSTM_TRACE_JUDGE", "openai:gpt-5")
    assert stated(HallucinationScore()).version == f"{prompts} gpt-5"


def test_a_threshold_that_is_no_share_is_an_error_and_asks_nobody() -> None:
    judge = ScriptedChatModel(script=[verdict(1.0)])
    result = Groundedness(judge=judge, threshold=80).evaluate(response="Two years.", context=["Two years."])
    assert (result.status, result.score) == ("error", None)
    assert "threshold=80: accepted is a number from 0 to 1" in str(result.explanation)

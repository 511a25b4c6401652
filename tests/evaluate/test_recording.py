"""An evaluator run for a trace: its span stands open around it, the judge's calls hang below, failures are errors, text stays private."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from opentelemetry import trace

import lstm_trace
from lstm_trace import conventions as c
from lstm_trace.evaluate import EvaluationResult, Groundedness, GroundTruthMatch, evaluate_and_record
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings
from tests.evaluate.scripted import ScriptedChatModel, verdict
from tests.tracing import Traced

REF = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SAID = {"response": "Two years, Jane.", "context": ["The warranty is two years."]}


@pytest.fixture(autouse=True)
def recorder(traced: Traced) -> Recorder:
    recorder = Recorder(Settings(release="v1"), tracer_provider=traced.provider)
    set_default_recorder(recorder)
    return recorder


class ModelCall:
    """An evaluator whose model call is traced by someone else's instrumentation."""

    name = "quality"

    def __init__(self, traced: Traced, result: Any) -> None:
        self.tracer = traced.provider.get_tracer("someone.else")
        self.result = result

    def evaluate(self, **_: Any) -> EvaluationResult:
        with self.tracer.start_as_current_span("chat judge"):
            if isinstance(self.result, BaseException):
                raise self.result
            return self.result  # type: ignore[no-any-return]


def attributes(traced: Traced, name: str) -> dict[str, Any]:
    return dict(traced.named(name).attributes or {})


def test_the_judges_own_spans_hang_below_the_evaluation_that_links_to_the_answer(traced: Traced) -> None:
    evaluate_and_record(REF, ModelCall(traced, EvaluationResult(0.5)))
    assert traced.tree() == "evaluate quality\n  chat judge"
    assert attributes(traced, "chat judge") == {c.EVALUATION_JUDGE_NAME: "quality"}
    evaluation = traced.named("evaluate quality")
    assert [f"{link.context.trace_id:032x}" for link in evaluation.links] == [REF[3:35]]
    call = traced.named("chat judge")
    assert evaluation.start_time <= call.start_time <= call.end_time <= evaluation.end_time  # type: ignore[operator]


def test_the_judges_tokens_are_counted_apart_from_the_answers(traced: Traced) -> None:
    result = evaluate_and_record(REF, Groundedness(judge=ScriptedChatModel(script=[verdict(1.0)])), **SAID)
    facts = attributes(traced, "evaluate groundedness")
    assert result.score == facts[c.EVALUATION_SCORE] == 1.0
    assert facts[c.EVALUATION_ANNOTATOR] == "LLM"
    assert (facts[c.EVALUATION_JUDGE_MODEL], facts[c.EVALUATION_JUDGE_INPUT_TOKENS], facts[c.EVALUATION_JUDGE_OUTPUT_TOKENS]) == (
        "scripted-judge",
        210,
        17,
    )
    assert not {name for name in facts if name.startswith(("llm.", "gen_ai.usage"))}


def test_tokens_of_a_judge_that_answered_uselessly_are_counted_too(traced: Traced) -> None:
    evaluate_and_record(REF, Groundedness(judge=ScriptedChatModel(script=[verdict(9)])), **SAID)
    facts = attributes(traced, "evaluate groundedness")
    assert (facts[c.EVALUATION_STATUS], facts[c.ERROR_TYPE], facts[c.EVALUATION_JUDGE_INPUT_TOKENS]) == ("error", "UnusableVerdict", 210)


@pytest.mark.parametrize(
    ("answer", "error_type"), [(RuntimeError("Jane's secret"), "RuntimeError"), (0.7, "TypeError"), (None, "TypeError")]
)
def test_an_evaluator_that_breaks_is_an_error_without_a_score(traced: Traced, answer: Any, error_type: str) -> None:
    result = evaluate_and_record(REF, ModelCall(traced, answer))
    facts = attributes(traced, "evaluate quality")
    assert (result.status, facts[c.EVALUATION_STATUS], facts[c.ERROR_TYPE]) == ("error", "error", error_type)
    assert c.EVALUATION_SCORE not in facts
    assert "Jane" not in traced.named("evaluate quality").to_json()


def test_an_interrupt_passes_and_leaves_nothing_open(traced: Traced) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate_and_record(REF, ModelCall(traced, KeyboardInterrupt()))
    assert attributes(traced, "evaluate quality")[c.ERROR_TYPE] == "KeyboardInterrupt"


@pytest.mark.parametrize(("content", "recorded"), [(False, None), (True, "'Two years, Jane.' is supported.")])
def test_an_explanation_quotes_the_answer_so_it_needs_content_capture(traced: Traced, content: bool, recorded: str | None) -> None:
    set_default_recorder(Recorder(Settings(content=content), tracer_provider=traced.provider))
    judge = ScriptedChatModel(script=[verdict(1.0, "'Two years, Jane.' is supported.")])
    result = evaluate_and_record(REF, Groundedness(judge=judge), **SAID)
    assert result.explanation == "'Two years, Jane.' is supported."
    assert attributes(traced, "evaluate groundedness").get(c.EVALUATION_EXPLANATION) == recorded


def test_what_was_missing_is_said_also_without_content_capture(traced: Traced) -> None:
    evaluate_and_record(REF, GroundTruthMatch(), response="refund")
    facts = attributes(traced, "evaluate ground_truth_match")
    assert (facts[c.EVALUATION_STATUS], facts[c.EVALUATION_EXPLANATION]) == ("skipped", "no expected_response was given")


def test_inside_an_open_answer_the_evaluation_stands_in_its_trace(traced: Traced) -> None:
    with traced.provider.get_tracer("app").start_as_current_span("chain claims"):
        lstm_trace.record_prediction("intent", label="refund", sequence_length=3)
        evaluate_and_record(lstm_trace.trace_ref(), ModelCall(traced, EvaluationResult(1.0, "pass")))
    assert traced.tree() == "chain claims\n  lstm intent\n  evaluate quality\n    chat judge"
    assert attributes(traced, "chain claims")["lstm.evaluation.score.quality"] == 1.0


def test_below_a_target_that_was_sampled_out_nothing_is_recorded(traced: Traced) -> None:
    result = evaluate_and_record(REF[:-2] + "00", ModelCall(traced, EvaluationResult(1.0)))
    assert result.score == 1.0
    assert traced.spans == []


def test_the_callers_own_span_is_current_again_afterwards(traced: Traced) -> None:
    with traced.provider.get_tracer("app").start_as_current_span("caller") as caller:
        evaluate_and_record(REF, ModelCall(traced, EvaluationResult(1.0)))
        assert trace.get_current_span() is caller


@pytest.mark.parametrize("ref", ["yesterday", None, 7])
def test_a_bad_reference_is_refused(ref: Any) -> None:
    with pytest.raises(ValueError, match="traceparent"):
        evaluate_and_record(ref, GroundTruthMatch(), response="a", expected_response="a")


class Meddling:
    """An evaluator that writes on whatever span is current, as fi.evals does: an outage as score 0.0."""

    name = "meddling"

    def evaluate(self, **_: Any) -> EvaluationResult:
        trace.get_current_span().set_attribute(c.EVALUATION_SCORE, 0.0)
        raise ConnectionError


def test_an_evaluator_cannot_write_on_its_own_span(traced: Traced) -> None:
    evaluate_and_record(REF, Meddling())
    facts = attributes(traced, "evaluate meddling")
    assert (facts[c.EVALUATION_STATUS], facts.get(c.EVALUATION_SCORE)) == ("error", None)


@pytest.mark.parametrize(
    ("given", "status", "label", "error_type"),
    [
        ({"error": TimeoutError}, "error", None, "TimeoutError"),
        ({"error": "", "score": 0.0}, "error", None, "_OTHER"),
        ({"error": True, "score": 0.0}, "error", None, "_OTHER"),
        ({"error": False, "score": 0.5}, "ok", None, None),
        ({"label": np.bool_(True)}, "ok", "pass", None),
        ({"label": False}, "ok", "fail", None),
        ({"label": ""}, "skipped", None, None),
    ],
)
def test_what_a_caller_may_say_of_a_judgement(
    traced: Traced, caplog: pytest.LogCaptureFixture, given: dict[str, Any], status: str, label: str | None, error_type: str | None
) -> None:
    lstm_trace.record_evaluation(REF, "quality", **given)
    facts = attributes(traced, "evaluate quality")
    assert (facts[c.EVALUATION_STATUS], facts.get(c.EVALUATION_LABEL), facts.get(c.ERROR_TYPE)) == (status, label, error_type)
    assert (c.EVALUATION_SCORE in facts) == (status == "ok" and "score" in given)
    assert caplog.records == []


def test_an_answer_that_was_not_traced_is_judged_and_nothing_is_recorded(traced: Traced) -> None:
    # trace_ref() gives "" where nothing was traced.
    assert evaluate_and_record("", GroundTruthMatch(), response="a", expected_response="a").score == 1.0
    assert traced.spans == []

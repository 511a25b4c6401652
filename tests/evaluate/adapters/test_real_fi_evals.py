"""The real package ai-evaluation, where it is installed: its local metrics, and what becomes of its outages."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace

from lstm_trace import conventions as c
from lstm_trace.evaluate.adapters.fi_evals import FiEvals, from_fi
from lstm_trace.evaluate.recording import evaluate_and_record
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings
from tests.tracing import Traced

fi = pytest.importorskip("fi.evals", reason="ai-evaluation is not installed")

DEAD = {"model": "turing_flash", "fi_api_key": "x", "fi_secret_key": "y", "fi_base_url": "http://127.0.0.1:9"}
REF = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(("response", "score", "label"), [("{}", 1.0, "pass"), ("{", 0.0, "fail")])
def test_a_local_metric_scores(response: str, score: float, label: str) -> None:
    result = FiEvals("is_json").evaluate(response=response)
    assert (result.status, result.score, result.label) == ("ok", score, label)
    assert result.explanation


@pytest.mark.parametrize(("keyword", "label"), [("refund", "pass"), ("repair", "fail")])
def test_keywords_are_renamed(keyword: str, label: str) -> None:
    adapter = FiEvals("contains", inputs={"expected_response": "keyword"})
    assert adapter.evaluate(response="to refund", expected_response=keyword).label == label


def test_input_that_a_metric_cannot_read_is_an_error_although_fi_evals_gives_it_a_zero() -> None:
    assert fi.evaluate("groundedness", output="a", context="a").score == 0.0  # it needs a query
    result = FiEvals("groundedness").evaluate(response="a", context="a")
    assert (result.status, result.error_type, result.score) == ("error", "NoVerdict", None)
    assert "query" in (result.explanation or "")
    assert FiEvals("groundedness").evaluate(response="two years", context=["two years"], query="how long").status == "ok"


def test_a_metric_that_does_not_exist_is_an_error() -> None:
    result = FiEvals("exact_matching", engine="local").evaluate(response="a", expected_response="a")
    assert (result.status, result.score) == ("error", None)


def test_fi_evals_itself_calls_a_dead_endpoint_completed() -> None:
    """The reason for this adapter: when this fails, its package has changed and the adapter may do less."""
    said = fi.evaluate("groundedness", output="a", context="b", **DEAD)
    assert (said.status, said.score) == ("completed", None)


def test_a_dead_endpoint_is_an_error_and_leaves_no_zero_in_the_trace(traced: Traced) -> None:
    set_default_recorder(Recorder(Settings(), tracer_provider=traced.provider))
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = traced.provider
    try:
        result = evaluate_and_record(REF, FiEvals("groundedness", **DEAD), response="a", context="b")
    finally:
        trace._TRACER_PROVIDER = before
    assert (result.status, result.error_type, result.score) == ("error", "NoVerdict", None)
    scores: list[Any] = [value for span in traced.spans for name, value in (span.attributes or {}).items() if "score" in name]
    assert scores == []
    assert (traced.named("evaluate groundedness").attributes or {})[c.EVALUATION_STATUS] == "error"


def test_without_credentials_it_is_an_error() -> None:
    result = FiEvals("groundedness", model="turing_flash").evaluate(response="a", context="b")
    assert (result.status, result.score) == ("error", None)


def test_results_of_its_evaluator_class_are_mapped_too() -> None:
    from fi.evals.types import BatchRunResult, EvalResult

    assert from_fi(BatchRunResult(eval_results=[EvalResult(name="g", output="GROUNDED", reason="r")])).label == "GROUNDED"
    assert from_fi(BatchRunResult(eval_results=[EvalResult(name="g", output=0.7)])).score == 0.7

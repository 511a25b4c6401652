"""What an application says wrongly costs that one fact, and a reference never names an older request."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import lstm_trace
from lstm_trace import conventions as c
from lstm_trace.recorder import Recorder, set_default_recorder
from tests.tracing import Traced


@pytest.mark.parametrize(
    ("name", "value"),
    [("confidence", 2), ("confidence", "x"), ("sequence_length", "z"), ("duration", float("nan")), ("margin", -1), ("entropy", 10**400)],
)
def test_one_bad_fact_is_one_line_and_the_rest_is_recorded(traced: Traced, caplog: pytest.LogCaptureFixture, name: str, value: Any) -> None:
    set_default_recorder(Recorder(tracer_provider=traced.provider))
    given: dict[str, Any] = {"label": "refund", "confidence": 0.5, "sequence_length": 3, name: value}
    with caplog.at_level(logging.WARNING, logger="lstm_trace"):
        lstm_trace.record_prediction("intent", **given)
    attributes = traced.named("lstm intent").attributes or {}
    assert attributes[c.PREDICTION_LABEL] == "refund"
    assert [name in record.getMessage() and "accepted" in record.getMessage() for record in caplog.records] == [True]
    if name != "confidence":
        assert attributes[c.PREDICTION_CONFIDENCE] == 0.5


def test_a_reference_asked_after_an_unrecorded_chain_names_no_older_one(traced: Traced) -> None:
    @lstm_trace.trace_chain(name="claims")
    def answer() -> None: ...

    set_default_recorder(Recorder(tracer_provider=traced.provider))
    answer()
    assert lstm_trace.trace_ref() != ""
    set_default_recorder(Recorder(tracer_provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)))
    answer()
    assert lstm_trace.trace_ref() == ""


def test_bad_metadata_costs_no_score_and_a_score_needs_a_name(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    set_default_recorder(Recorder(tracer_provider=traced.provider))
    ref = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert lstm_trace.record_evaluation(ref, "quality", score=1.0, metadata=3) != ""  # type: ignore[arg-type]
    assert (traced.named("evaluate quality").attributes or {})[c.EVALUATION_SCORE] == 1.0
    assert lstm_trace.record_evaluation(ref, "", score=1.0) == ""
    assert len(caplog.records) == 2

"""What an application says wrongly costs that one fact, and a reference never names an older request."""

from __future__ import annotations

import enum
import logging
import math
from typing import Any

import numpy
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import lstm_trace
from lstm_trace import conventions as c
from lstm_trace.recorder import Recorder, components, set_default_recorder
from tests.tracing import Traced


class Level(enum.Enum):
    HIGH = 1


class Word(str, enum.Enum):
    LOW = "low"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("confidence", value) for value in (2, "x", True, -0.1, math.nan, math.inf, [0.5])],
        *[("sequence_length", value) for value in ("z", -1, True, 3.7, math.nan, [3], 1 << 63)],
        *[("duration", value) for value in (math.nan, -1, True, 1e30)],
        *[("index", value) for value in ("a", -1, 1.5, True)],
        *[("version", value) for value in ("", "  ")],
        ("margin", -1),
        ("entropy", 10**400),
    ],
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


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"label": "  "}, {}),
        ({"label": Level.HIGH}, {c.PREDICTION_LABEL: "HIGH"}),
        ({"label": Word.LOW}, {c.PREDICTION_LABEL: "low"}),
        ({"label": numpy.int64(3)}, {c.PREDICTION_LABEL: "3"}),
        ({"confidence": 1.0000001}, {c.PREDICTION_CONFIDENCE: 1.0}),
        ({"confidence": numpy.float32(0.5)}, {c.PREDICTION_CONFIDENCE: 0.5}),
        ({"confidence": math.nan, "label": "a"}, {c.PREDICTION_NONFINITE: True, c.PREDICTION_LABEL: "a"}),
        ({"margin": 0.25}, {c.PREDICTION_MARGIN: 0.25}),
        ({"sequence_length": 3.0}, {c.SEQUENCE_LENGTH: 3}),
        ({"version": 3, "preprocessing": ["a"]}, {c.COMPONENT_VERSION: "3", c.PREPROCESSING_VERSION: "['a']"}),
        ({"n": numpy.int64(3), "none": None, "big": 1 << 64, "nan": math.nan}, {"n": 3, "big": str(1 << 64), "nan": "nan"}),
    ],
)
def test_facts_are_recorded_in_their_own_types(traced: Traced, given: dict[str, Any], expected: dict[str, Any]) -> None:
    set_default_recorder(Recorder(tracer_provider=traced.provider))
    lstm_trace.record_prediction("it", **given)
    found = dict(traced.named("lstm it").attributes or {})
    always = {c.OI_KIND, c.COMPONENT_NAME, c.RELEASE, c.BATCH_SIZE, c.SEQUENCE_COHORT, c.SEQUENCE_LENGTH_SOURCE}
    found = {name: value for name, value in found.items() if name not in always}
    assert found == expected
    assert [type(value) for value in found.values()] == [type(expected[name]) for name in found]


@pytest.mark.parametrize("component", ["", " ", None])
def test_a_prediction_of_no_component_is_recorded_all_the_same(traced: Traced, caplog: pytest.LogCaptureFixture, component: Any) -> None:
    set_default_recorder(Recorder(tracer_provider=traced.provider))
    with caplog.at_level(logging.WARNING, logger="lstm_trace"):
        lstm_trace.record_prediction(component, label="refund")
    assert (traced.named("lstm component").attributes or {})[c.PREDICTION_LABEL] == "refund"
    assert [f"component={component!r} is recorded as 'component'" in record.getMessage() for record in caplog.records] == [True]


def test_components_of_many_versions_do_not_grow(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_COMPONENTS_LIMIT", 8)
    recorder = Recorder(tracer_provider=traced.provider)
    set_default_recorder(recorder)
    for version in range(40):
        lstm_trace.record_prediction("it", version=str(version))
    assert len(recorder.source().constants) == 8
    assert [(span.attributes or {})[c.COMPONENT_VERSION] for span in traced.spans] == [str(version) for version in range(40)]


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

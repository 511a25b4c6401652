"""Scores that join a trace: from the same process, another one, or days later with only the reference that the application kept."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

import lstm_trace
from lstm_trace import conventions as c
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings
from tests.tracing import Traced

REF = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def recorder(traced: Traced, reader: InMemoryMetricReader) -> Recorder:
    recorder = Recorder(Settings(release="v1"), tracer_provider=traced.provider, meter_provider=MeterProvider([reader]), clock=traced.clock)
    set_default_recorder(recorder)
    return recorder


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def answer(traced: Traced) -> str:
    """One traced answer, ended; its reference."""
    with traced.provider.get_tracer("app").start_as_current_span("chain claims"):
        lstm_trace.record_prediction("intent", label="refund", confidence=0.8, sequence_length=14)
        return lstm_trace.trace_ref()


def counted(reader: InMemoryMetricReader, name: str) -> list[tuple[dict[str, object], int]]:
    data = reader.get_metrics_data()
    return [
        (dict(point.attributes), point.value)
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


@pytest.mark.usefixtures("recorder")
def test_a_score_given_while_the_answer_is_open_stands_in_its_trace_and_on_its_span(traced: Traced) -> None:
    with traced.provider.get_tracer("app").start_as_current_span("chain claims"):
        lstm_trace.record_prediction("intent", label="refund", confidence=0.8, sequence_length=14)
        identifier = lstm_trace.record_evaluation(lstm_trace.trace_ref(), "quality", score=0.25, label="fail", evaluator_version="3")
    target, evaluation = traced.named("chain claims"), traced.named("evaluate quality")
    assert evaluation.parent == target.context
    assert [(link.context.span_id, dict(link.attributes or {})) for link in evaluation.links] == [
        (target.context.span_id, {c.LINK_KIND: "evaluation"})
    ]
    assert attributes(evaluation) == {
        "openinference.span.kind": "EVALUATOR",
        "gen_ai.evaluation.name": "quality",
        "gen_ai.evaluation.score.value": 0.25,
        "gen_ai.evaluation.score.label": "fail",
        "lstm.evaluation.status": "ok",
        "lstm.evaluation.annotator": "CODE",
        "lstm.evaluation.evaluator_version": "3",
        "lstm.evaluation.identifier": identifier,
        "lstm.evaluation.target.trace_id": f"{target.context.trace_id:032x}",
        "lstm.evaluation.target.span_id": f"{target.context.span_id:016x}",
        "evaluations.0.evaluation.name": "quality",
        "evaluations.0.evaluation.score": 0.25,
        "evaluations.0.evaluation.label": "fail",
        "evaluations.0.evaluation.annotator_kind": "CODE",
        "evaluations.0.evaluation.identifier": identifier,
        "lstm.component.name": "intent",
        "lstm.prediction.confidence": 0.8,
        "lstm.sequence.cohort": "13-20",
        "lstm.release": "v1",
    }
    assert attributes(target)["lstm.evaluation.score.quality"] == 0.25
    assert attributes(target)["lstm.evaluation.label.quality"] == "fail"
    assert [event.name for event in target.events] == ["gen_ai.evaluation.result"]


@pytest.mark.usefixtures("recorder")
def test_a_score_given_after_the_answer_is_a_trace_of_its_own_that_links_to_it(traced: Traced) -> None:
    ref = answer(traced)
    lstm_trace.record_evaluation(ref, "quality", score=1.0, label="pass")
    target, evaluation = traced.named("chain claims"), traced.named("evaluate quality")
    assert evaluation.parent is None
    assert evaluation.context.trace_id != target.context.trace_id
    assert [link.context.trace_id for link in evaluation.links] == [target.context.trace_id]
    assert attributes(evaluation)[c.SEQUENCE_COHORT] == "13-20"
    assert c.EVALUATION_SCORE_OF + "quality" not in attributes(target)


@pytest.mark.parametrize("placement", ["child", "link"])
def test_the_setting_decides_where_the_span_stands(traced: Traced, placement: str) -> None:
    set_default_recorder(Recorder(Settings(evaluation_span=placement), tracer_provider=traced.provider))
    with traced.provider.get_tracer("app").start_as_current_span("chain claims"):
        lstm_trace.record_evaluation(lstm_trace.trace_ref(), "quality", score=1.0)
    evaluation = traced.named("evaluate quality")
    assert (evaluation.parent is not None) == (placement == "child")
    assert len(evaluation.links) == 1


ANSWER = """
import lstm_trace
from lstm_trace.configure import configure
providers = configure(service_name="agent", release="v1", store={store!r})
from opentelemetry import trace
with trace.get_tracer("app").start_as_current_span("chain claims"):
    print(lstm_trace.trace_ref())
providers.shutdown()
"""
JUDGE = """
import sys, lstm_trace
from lstm_trace.configure import configure
providers = configure(service_name="nightly-judge", release="judge-9", store={store!r})
for times in range(2):
    print(lstm_trace.record_evaluation(sys.argv[1], "quality", score=0.5, label="pass", annotator="LLM", evaluator_version="1"))
print(lstm_trace.record_escalation(sys.argv[1], reason="asked for a person"))
providers.shutdown()
"""


def spans_in(store: Path) -> list[dict[str, object]]:
    return [
        span
        for file in sorted(store.glob("*.jsonl"))
        for line in file.read_text().splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def said(span: dict[str, object]) -> dict[str, object]:
    return {item["key"]: next(iter(item["value"].values())) for item in span["attributes"]}  # type: ignore[attr-defined]


def test_another_process_judges_by_the_reference_alone(tmp_path: Path) -> None:
    store = tmp_path / "store"

    def run(code: str, *args: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", code.format(store=str(store)), *args], capture_output=True, text=True, check=True)
        return done.stdout.split()

    (ref,) = run(ANSWER)
    first, again, escalation = run(JUDGE, ref)
    assert first == again != escalation
    spans = spans_in(store)
    target = next(span for span in spans if span["name"] == "chain claims")
    judged = [span for span in spans if span["name"] == "evaluate quality"]
    assert len(judged) == 2
    for span in judged:
        assert [(link["traceId"], link["spanId"]) for link in span["links"]] == [(target["traceId"], target["spanId"])]  # type: ignore[attr-defined]
        facts = said(span)
        assert (facts[c.EVALUATION_TARGET_TRACE_ID], facts[c.EVALUATION_TARGET_SPAN_ID]) == (target["traceId"], target["spanId"])
        assert facts[c.EVALUATION_IDENTIFIER] == first
        assert facts[c.EVALUATION_ANNOTATOR] == "LLM"
        assert c.RELEASE not in facts, "the judge's own release says nothing about the answer's"


@pytest.mark.usefixtures("recorder")
def test_one_span_takes_several_scores_of_several_annotators(traced: Traced) -> None:
    ref = answer(traced)
    given = {
        lstm_trace.record_evaluation(ref, "quality", score=0.9, annotator="CODE"),
        lstm_trace.record_evaluation(ref, "groundedness", score=0.7, annotator="LLM", evaluator_version="1"),
        lstm_trace.record_evaluation(ref, "groundedness", score=0.6, annotator="LLM", evaluator_version="2"),
        lstm_trace.record_feedback(ref, "down", comment="wrong shop"),
        lstm_trace.record_escalation(ref, reason="asked for a person"),
    }
    assert len(given) == 5
    evaluations = [attributes(span) for span in traced.spans if span.name.startswith("evaluate ")]
    assert [
        (facts[c.EVALUATION_NAME], facts[c.EVALUATION_ANNOTATOR], facts.get(c.EVALUATION_LABEL), facts.get(c.EVALUATION_EXPLANATION))
        for facts in evaluations
    ] == [
        ("quality", "CODE", None, None),
        ("groundedness", "LLM", None, None),
        ("groundedness", "LLM", None, None),
        ("feedback", "HUMAN", "down", "wrong shop"),
        ("escalation", "HUMAN", "escalated", "asked for a person"),
    ]


@pytest.mark.parametrize(
    ("given", "error_type"),
    [
        ({"error": TimeoutError("the judge is down")}, "TimeoutError"),
        ({"error": "rate_limited", "score": 0.0, "label": "fail"}, "rate_limited"),
        ({"score": float("nan")}, "nonfinite_score"),
        ({"score": float("inf"), "label": "pass"}, "nonfinite_score"),
        ({"score": "high"}, "unusable_score"),
    ],
)
@pytest.mark.usefixtures("recorder")
def test_an_evaluator_that_failed_has_no_score(traced: Traced, given: dict[str, object], error_type: str) -> None:
    lstm_trace.record_evaluation(REF, "quality", **given)  # type: ignore[arg-type]
    evaluation = traced.named("evaluate quality")
    facts = attributes(evaluation)
    assert (facts[c.EVALUATION_STATUS], facts[c.ERROR_TYPE]) == ("error", error_type)
    assert not {name for name in facts if "score" in name}
    assert evaluation.status.status_code is StatusCode.ERROR
    assert "the judge is down" not in evaluation.to_json()


@pytest.mark.usefixtures("recorder")
def test_neither_score_nor_label_is_skipped(traced: Traced) -> None:
    lstm_trace.record_evaluation(REF, "quality", explanation="no judge")
    assert attributes(traced.named("evaluate quality"))[c.EVALUATION_STATUS] == "skipped"


@pytest.mark.usefixtures("recorder")
def test_numpy_scalars_arrive_as_numbers(traced: Traced) -> None:
    lstm_trace.record_evaluation(REF, "quality", score=np.float32(0.5), metadata={"rank": np.int64(3), "gap": np.float64("nan")})  # type: ignore[arg-type, dict-item]
    facts = attributes(traced.named("evaluate quality"))
    assert facts[c.EVALUATION_SCORE] == 0.5
    assert facts[c.EVALUATION_METADATA + "rank"] == 3
    assert facts[c.EVALUATION_METADATA + "gap"] == "nan"


@pytest.mark.parametrize("ref", ["nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-0af7-b7ad-01", None, 7])
@pytest.mark.usefixtures("recorder")
def test_a_bad_reference_is_one_line_and_breaks_nothing(traced: Traced, caplog: pytest.LogCaptureFixture, ref: object) -> None:
    with caplog.at_level(logging.WARNING, "lstm_trace"):
        assert lstm_trace.record_evaluation(ref, "quality", score=1.0) == ""  # type: ignore[arg-type]
    assert len(caplog.records) == 1
    assert "traceparent" in caplog.text
    assert str(ref) in caplog.text
    assert traced.spans == []


@pytest.mark.usefixtures("recorder")
def test_the_reference_of_an_untraced_answer_records_nothing(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    assert lstm_trace.record_evaluation("", "quality", score=1.0) == ""
    assert (traced.spans, caplog.records) == ([], [])


@pytest.mark.usefixtures("recorder")
def test_a_rating_that_is_neither_up_nor_down_is_refused(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    assert lstm_trace.record_feedback(REF, "meh") == ""
    assert "'meh'" in caplog.text
    assert traced.spans == []


def test_the_same_judgement_delivered_twice_counts_once(traced: Traced, recorder: Recorder, reader: InMemoryMetricReader) -> None:
    ref = answer(traced)
    for _ in range(3):
        lstm_trace.record_escalation(ref)
        lstm_trace.record_feedback(ref, "up")
    lstm_trace.record_feedback(ref, "down")
    where = {"lstm.component.name": "intent", "lstm.sequence.cohort": "13-20", "lstm.release": "v1"}
    assert counted(reader, "lstm.escalations") == [(where, 1)]
    reader_feedback = counted(reader, "lstm.feedback")
    assert [(point[c.EVALUATION_LABEL], value) for point, value in reader_feedback] == [("up", 1), ("down", 1)]


def test_counting_is_bounded_and_takes_many_threads(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr("lstm_trace.recorder.evaluations._COUNTED", 16)
    recorder = Recorder(Settings(), tracer_provider=traced.provider)
    set_default_recorder(recorder)

    def judge(number: int) -> str:
        return lstm_trace.record_evaluation(f"00-{number + 1:032x}-b7ad6b7169203331-01", "quality", score=0.5)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(judge, range(2000)))) == 2000
    assert len(traced.spans) == 2000
    assert len(recorder.evaluations._counted) <= 16 + 8


@pytest.mark.usefixtures("recorder")
def test_nothing_is_written_for_an_answer_that_was_sampled_out() -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    set_default_recorder(Recorder(Settings(), tracer_provider=provider))
    with provider.get_tracer("app").start_as_current_span("chain claims"):
        ref = lstm_trace.trace_ref()
    assert ref.endswith("-00")
    assert lstm_trace.record_evaluation(ref, "quality", score=1.0)
    assert memory.get_finished_spans() == ()


def test_a_sampled_answer_is_judged_although_the_judge_samples_little() -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    set_default_recorder(Recorder(Settings(), tracer_provider=provider))
    lstm_trace.record_evaluation(REF, "quality", score=1.0)
    assert [span.name for span in memory.get_finished_spans()] == ["evaluate quality"]


@pytest.mark.usefixtures("recorder")
def test_free_text_passes_the_redaction_hook(traced: Traced) -> None:
    set_default_recorder(
        Recorder(Settings(redact=lambda text: text.replace("Jane", "[name]"), content_limit=12), tracer_provider=traced.provider)
    )
    lstm_trace.record_feedback(REF, "down", comment="Jane was told nonsense")
    assert attributes(traced.named("evaluate feedback"))[c.EVALUATION_EXPLANATION] == "[name] was t"

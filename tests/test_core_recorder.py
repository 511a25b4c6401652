"""The recorder: exact types, late spans, sampling foretold, errors without content, metrics and log events."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace import sampling as sdk
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

import lstm_trace
from lstm_trace import conventions as c
from lstm_trace.facts import Component, Prediction, SequenceFacts, StateFacts
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.recorder.late import LateSpan
from lstm_trace.recorder.sampling import forecast_of
from lstm_trace.settings import Settings
from tests.tracing import Traced

INTENT = Component("intent", version="3", cell="LSTM")


def recorder_of(traced: Traced, **settings: Any) -> Recorder:
    recorder = Recorder(Settings(**settings), tracer_provider=traced.provider, clock=traced.clock)
    set_default_recorder(recorder)
    return recorder


def call(recorder: Recorder, *predictions: Prediction, lengths: tuple[int, ...] = (14,), state: StateFacts | None = None) -> None:
    opened = recorder.open_component(INTENT)
    assert opened is not None
    recorder.finish_component(opened, INTENT, predictions, SequenceFacts(lengths, "lengths", max(lengths)), state)


def test_one_sequence(traced: Traced) -> None:
    call(recorder_of(traced, release="v1"), Prediction("refund", 2, 0.75, 0.5, 0.7), state=StateFacts("zero", 1))
    span = traced.named("lstm intent")
    assert dict(span.attributes or {}) == {
        "openinference.span.kind": "CHAIN",
        "lstm.component.name": "intent",
        "lstm.component.version": "3",
        "lstm.release": "v1",
        "lstm.cell": "LSTM",
        "lstm.batch.size": 1,
        "lstm.sequence.length": 14,
        "lstm.sequence.cohort": "13-20",
        "lstm.sequence.length_source": "lengths",
        "lstm.sequence.padding_ratio": 0.0,
        "lstm.prediction.label": "refund",
        "lstm.prediction.index": 2,
        "lstm.prediction.confidence": 0.75,
        "lstm.prediction.margin": 0.5,
        "lstm.prediction.entropy": 0.7,
        "lstm.state.origin": "zero",
        "lstm.state.steps": 1,
    }
    (event,) = span.events
    assert (event.name, dict(event.attributes or {})) == (
        "lstm.prediction",
        {
            "lstm.batch.index": 0,
            "lstm.sequence.length": 14,
            "lstm.sequence.cohort": "13-20",
            "lstm.prediction.label": "refund",
            "lstm.prediction.index": 2,
            "lstm.prediction.confidence": 0.75,
            "lstm.prediction.margin": 0.5,
            "lstm.prediction.entropy": 0.7,
            "lstm.state.origin": "zero",
        },
    )


def test_a_batch_is_summed_up_and_has_one_event_a_sequence_up_to_the_bound(traced: Traced) -> None:
    recorder = recorder_of(traced, max_events=2)
    call(recorder, *(Prediction("a", 0, confidence) for confidence in (0.5, 0.75, 1.0)), lengths=(2, 4, 6))
    span = traced.named("lstm intent")
    attributes = span.attributes or {}
    assert attributes[c.BATCH_SIZE] == 3
    assert (attributes[c.SEQUENCE_LENGTH_MIN], attributes[c.SEQUENCE_LENGTH_MAX], attributes[c.SEQUENCE_LENGTH_MEAN]) == (2, 6, 4.0)
    assert (attributes[c.PREDICTION_CONFIDENCE_MIN], attributes[c.PREDICTION_CONFIDENCE_MEAN]) == (0.5, 0.75)
    assert c.PREDICTION_CONFIDENCE not in attributes
    assert c.SEQUENCE_LENGTH not in attributes
    assert [(event.attributes or {})[c.BATCH_INDEX] for event in span.events] == [0, 1]


def test_scalars_of_other_libraries_become_python_and_nonfinite_is_never_emitted(traced: Traced) -> None:
    recorder = recorder_of(traced)
    call(recorder, Prediction("a", np.int64(3), np.float32(0.5), math.nan, math.inf))  # type: ignore[arg-type]
    attributes = traced.named("lstm intent").attributes or {}
    assert (type(attributes[c.PREDICTION_INDEX]), type(attributes[c.PREDICTION_CONFIDENCE])) == (int, float)
    assert c.PREDICTION_MARGIN not in attributes
    assert c.PREDICTION_ENTROPY not in attributes


def test_nonfinite_output_gives_no_confidence(traced: Traced) -> None:
    call(recorder_of(traced), Prediction("a", 0, 0.9, nonfinite=True))
    attributes = traced.named("lstm intent").attributes or {}
    assert attributes[c.PREDICTION_NONFINITE] is True
    assert c.PREDICTION_CONFIDENCE not in attributes


def test_an_untouched_late_span_starts_after_the_call_with_the_true_start_time(traced: Traced) -> None:
    recorder = recorder_of(traced)
    root = recorder.open("chain root")
    assert root is not None
    opened = recorder.open_component(INTENT, current=root.context)
    assert opened is not None
    assert isinstance(opened.span, LateSpan)
    assert opened.real is None
    recorder.finish_component(opened, INTENT, (Prediction("a"),))
    root.finish()
    span = traced.named("lstm intent")
    assert span.parent is not None
    assert span.parent.span_id == traced.named("chain root").context.span_id
    assert (span.start_time or 0) < (span.end_time or 0)
    assert span.start_time == opened.start_ns


def test_whatever_starts_inside_is_a_child_and_what_is_set_inside_lands_on_it(traced: Traced) -> None:
    recorder = recorder_of(traced)
    opened = recorder.open_component(INTENT)
    assert opened is not None
    token = context.attach(opened.context)
    with traced.provider.get_tracer("user").start_as_current_span("http"):
        pass
    trace.get_current_span().set_attribute("mine", 1)
    trace.get_current_span().add_event("mine")
    context.detach(token)
    recorder.finish_component(opened, INTENT, (Prediction("a"),))
    assert traced.tree() == "lstm intent\n  http"
    span = traced.named("lstm intent")
    assert (span.attributes or {})["mine"] == 1
    assert [event.name for event in span.events] == ["mine", "lstm.prediction"]


SAMPLERS = [
    sdk.ALWAYS_ON,
    sdk.ALWAYS_OFF,
    sdk.DEFAULT_ON,
    sdk.DEFAULT_OFF,
    sdk.TraceIdRatioBased(0.5),
    sdk.ParentBasedTraceIdRatio(0.5),
    sdk.ParentBased(sdk.ALWAYS_ON, local_parent_not_sampled=sdk.ALWAYS_ON),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.get_description()[:60])
@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("sampled", [True, False, None])
def test_the_forecast_never_contradicts_the_sampler(sampler: sdk.Sampler, remote: bool, sampled: bool | None) -> None:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    parent = SpanContext(5, 6, remote, TraceFlags(int(sampled))) if sampled is not None else trace.INVALID_SPAN_CONTEXT
    foretold = forecast_of(provider).records(parent)
    span = provider.get_tracer("x").start_span("s", trace.set_span_in_context(NonRecordingSpan(parent), Context()))
    assert foretold in (None, span.is_recording())


def test_a_sampler_of_ones_own_is_asked_not_foretold() -> None:
    class Mine(sdk.ParentBased):
        """Inherits a description that its behaviour does not keep."""

        def should_sample(self, *args: Any, **kwargs: Any) -> sdk.SamplingResult:
            return sdk.SamplingResult(sdk.Decision.DROP)

    assert forecast_of(TracerProvider(sampler=Mine(sdk.ALWAYS_ON), shutdown_on_exit=False)).records(trace.INVALID_SPAN_CONTEXT) is None


@pytest.mark.parametrize("sampler", [sdk.ALWAYS_OFF, sdk.TraceIdRatioBased(0.0)])
def test_nothing_opens_where_nothing_records(sampler: sdk.Sampler) -> None:
    recorder = Recorder(tracer_provider=TracerProvider(sampler=sampler, shutdown_on_exit=False))
    assert recorder.open_component(INTENT) is None
    assert Recorder(tracer_provider=trace.NoOpTracerProvider()).open_component(INTENT) is None
    assert Recorder().open_component(INTENT) is None


def test_both_ways_of_asking_for_silence(traced: Traced) -> None:
    recorder = recorder_of(traced)
    with lstm_trace.suppress():
        assert recorder.open("chain x") is None
    with suppress_instrumentation():
        assert recorder.open("chain x") is None


@pytest.mark.parametrize("content", [True, False])
def test_an_errors_text_is_content(traced: Traced, content: bool) -> None:
    opened = recorder_of(traced, content=content, redact=lambda text: text.replace("Ann", "█")).open("chain x")
    assert opened is not None
    opened.finish(error=ValueError("Ann's account"))
    span = traced.named("chain x")
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})[c.ERROR_TYPE] == "ValueError"
    shown = f"{span.status.description} {[dict(event.attributes or {}) for event in span.events]}"
    assert "Ann" not in shown
    assert ("account" in shown) is content


def test_metrics_carry_component_cohort_and_release_but_no_person(traced: Traced) -> None:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    recorder = Recorder(Settings(release="v1"), tracer_provider=traced.provider, meter_provider=meters)
    set_default_recorder(recorder)
    token = context.attach(lstm_trace.upstream.with_facts(context.get_current(), {c.SESSION_ID: "s", c.USER_ID: "u"}))
    call(recorder, Prediction("refund", 0, 0.5))
    context.detach(token)
    lstm_trace.record_escalation(lstm_trace.trace_ref(), reason="asked for a person")
    data = reader.get_metrics_data()
    assert data is not None
    found = {
        metric.name: dict(point.attributes or {})
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    where = {c.COMPONENT_NAME: "intent", c.SEQUENCE_COHORT: "13-20", c.RELEASE: "v1"}
    assert found[c.METRIC_DURATION] == found[c.METRIC_CONFIDENCE] == found[c.METRIC_LENGTH] == where
    assert found[c.METRIC_ESCALATIONS] == where
    assert found[c.METRIC_EVALUATIONS][c.EVALUATION_NAME] == "escalation"
    assert not [labels for labels in found.values() if c.SESSION_ID in labels or c.USER_ID in labels]
    meters.shutdown()


@pytest.mark.parametrize(("sink", "on_span", "on_log"), [("span", 1, 0), ("log", 0, 1), ("both", 1, 1), ("off", 0, 0)])
def test_event_sinks(traced: Traced, sink: str, on_span: int, on_log: int) -> None:
    memory = InMemoryLogRecordExporter()
    loggers = LoggerProvider(shutdown_on_exit=False)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(memory))
    recorder = Recorder(Settings(events=sink), tracer_provider=traced.provider, logger_provider=loggers)
    call(recorder, Prediction("refund", 0, 0.5))
    span = traced.named("lstm intent")
    logs = [each.log_record for each in memory.get_finished_logs()]
    assert (len(span.events), len(logs)) == (on_span, on_log)
    assert [(log.event_name, log.span_id) for log in logs] == [("lstm.prediction", span.context.span_id)] * on_log


def test_release_is_the_service_version_unless_set() -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.version": "2026.11"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    for settings, expected in ((Settings(), "2026.11"), (Settings(release="v2"), "v2")):
        opened = Recorder(settings, tracer_provider=provider).open("chain x")
        assert opened is not None
        opened.finish()
        assert (memory.get_finished_spans()[-1].attributes or {})[c.RELEASE] == expected


def test_a_score_is_written_although_its_own_trace_would_not_be_sampled() -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(sampler=sdk.ParentBased(sdk.TraceIdRatioBased(0.0)), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    set_default_recorder(Recorder(tracer_provider=provider))
    lstm_trace.record_evaluation("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "quality", score=1.0, label="pass")
    lstm_trace.record_evaluation("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "quality", score=1.0, label="pass")
    (span,) = memory.get_finished_spans()
    assert span.name == "evaluate quality"


def test_a_lost_span_of_a_batch_of_none(traced: Traced) -> None:
    recorder = recorder_of(traced)
    opened = recorder.open_component(INTENT)
    assert opened is not None
    recorder.finish_component(opened, INTENT, (), SequenceFacts((), "lengths", 0))
    assert (traced.named("lstm intent").attributes or {})[c.BATCH_SIZE] == 0

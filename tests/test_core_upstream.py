"""Which prediction stands upstream of a span: on our spans and on those of other instrumentations."""

from __future__ import annotations

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import lstm_trace
from lstm_trace import conventions as c
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings
from lstm_trace.upstream import LiveSpans, UpstreamProcessor, live
from tests.tracing import Traced


@pytest.fixture
def recorder(traced: Traced) -> Recorder:
    recorder = Recorder(Settings(release="v1"), tracer_provider=traced.provider, clock=traced.clock)
    set_default_recorder(recorder)
    return recorder


def predict(label: str, length: int = 14) -> None:
    lstm_trace.record_prediction("intent", label=label, confidence=0.9, sequence_length=length, duration=0.01)


def upstream_label(traced: Traced, name: str) -> object:
    return (traced.named(name).attributes or {}).get(c.UPSTREAM_LABEL)


@pytest.mark.usefixtures("recorder")
def test_a_foreign_span_that_starts_after_a_prediction_carries_it(traced: Traced) -> None:
    tracer = traced.provider.get_tracer("someone.else")
    with tracer.start_as_current_span("request"):
        with tracer.start_as_current_span("before"):
            pass
        with tracer.start_as_current_span("classify"):
            predict("refund")
        with tracer.start_as_current_span("answer"):
            pass
    component = traced.named("lstm intent")
    assert {key: value for key, value in (traced.named("answer").attributes or {}).items() if key.startswith("lstm.upstream.")} == {
        c.UPSTREAM_COMPONENT: "intent",
        c.UPSTREAM_LABEL: "refund",
        c.UPSTREAM_CONFIDENCE: 0.9,
        c.UPSTREAM_SEQUENCE_LENGTH: 14,
        c.UPSTREAM_COHORT: "13-20",
        c.UPSTREAM_SPAN_ID: f"{component.context.span_id:016x}",
    }
    assert upstream_label(traced, "before") is None
    assert upstream_label(traced, "classify") is None


@pytest.mark.usefixtures("recorder")
def test_the_deepest_common_ancestor_wins_over_the_later_prediction(traced: Traced) -> None:
    tracer = traced.provider.get_tracer("someone.else")
    with tracer.start_as_current_span("request"):
        with tracer.start_as_current_span("outer"):
            predict("deep")
            branch = tracer.start_span("elsewhere", context.get_current())
        with trace.use_span(branch, end_on_exit=False), tracer.start_as_current_span("own"):
            predict("branch's own")
        predict("late, at the top")
        with trace.use_span(branch, end_on_exit=True), tracer.start_as_current_span("below"):
            pass
        with tracer.start_as_current_span("beside"):
            pass
    assert upstream_label(traced, "below") == "branch's own"
    assert upstream_label(traced, "beside") == "late, at the top"


@pytest.mark.usefixtures("recorder")
def test_a_parallel_branch_never_sees_its_sibling(traced: Traced) -> None:
    tracer = traced.provider.get_tracer("someone.else")
    with tracer.start_as_current_span("request"):
        one, two = tracer.start_span("one"), tracer.start_span("two")
        with trace.use_span(one, end_on_exit=True):
            predict("one's")
        with trace.use_span(two, end_on_exit=True), tracer.start_as_current_span("in two"):
            pass
    assert upstream_label(traced, "in two") is None


def test_siblings_of_one_group_see_what_stood_before_the_first(traced: Traced, recorder: Recorder) -> None:
    root = recorder.open("chain root")
    assert root is not None
    opened = []
    for branch in ("one", "two"):
        step = recorder.open(f"chain {branch}", current=root.context, group=("superstep", 1))
        assert step is not None
        token = context.attach(step.context)
        assert lstm_trace.upstream_prediction() is None
        predict(branch)
        context.detach(token)
        step.finish()
        opened.append(step)
    after = recorder.open("chain after", current=root.context, group=("superstep", 2))
    assert after is not None
    after.finish()
    root.finish()
    assert upstream_label(traced, "chain two") is None
    assert upstream_label(traced, "chain after") == "two"


def test_another_sessions_prediction_is_not_upstream(traced: Traced, recorder: Recorder) -> None:
    from lstm_trace.upstream import with_facts

    tracer = traced.provider.get_tracer("batch.job")
    with tracer.start_as_current_span("job"):
        for session in ("s1", "s2"):
            token = context.attach(with_facts(context.get_current(), {c.SESSION_ID: session}))
            with tracer.start_as_current_span(f"first of {session}"):
                predict(session)
            with tracer.start_as_current_span(f"second of {session}"):
                pass
            context.detach(token)
    assert upstream_label(traced, "first of s2") is None
    assert upstream_label(traced, "second of s2") == "s2"
    assert (traced.named("second of s2").attributes or {})[c.SESSION_ID] == "s2"


def test_an_llm_span_links_to_the_prediction(traced: Traced, recorder: Recorder) -> None:
    root = recorder.open("chain root")
    assert root is not None
    token = context.attach(root.context)
    predict("refund")
    llm = recorder.open("chat model", attributes={c.OI_KIND: "LLM"})
    step = recorder.open("chain other", attributes={c.OI_KIND: "CHAIN"})
    context.detach(token)
    assert llm is not None
    assert step is not None
    for each in (llm, step, root):
        each.finish()
    (link,) = traced.named("chat model").links
    assert link.context.span_id == traced.named("lstm intent").context.span_id
    assert dict(link.attributes or {}) == {c.LINK_KIND: "upstream"}
    assert list(traced.named("chain other").links) == []


def test_baggage_from_another_process_counts_where_it_is_switched_on() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(UpstreamProcessor(read_baggage=True))
    remote = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1))
    current = trace.set_span_in_context(NonRecordingSpan(remote))
    for key, value in {c.UPSTREAM_COMPONENT: "intent", c.UPSTREAM_CONFIDENCE: "0.25", c.UPSTREAM_SEQUENCE_LENGTH: "not a number"}.items():
        current = baggage.set_baggage(key, value, current)
    with provider.get_tracer("server").start_as_current_span("handle", current) as span:
        assert dict(span.attributes) == {c.UPSTREAM_COMPONENT: "intent", c.UPSTREAM_CONFIDENCE: 0.25}  # type: ignore[attr-defined]


def test_spans_that_never_end_cannot_add_up() -> None:
    bounded = LiveSpans(limit=64)
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("leaky")
    for _ in range(1000):
        bounded.enter(tracer.start_span("never ended"), trace.INVALID_SPAN_CONTEXT)
    assert len(bounded) <= 64
    assert len(bounded._roots) <= 64


def test_predictions_kept_for_late_scores_are_bounded(recorder: Recorder) -> None:
    for _ in range(9000):
        predict("x")
    assert len(live._recent) <= 8192


def test_nothing_is_kept_of_an_unsampled_trace() -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(UpstreamProcessor())
    set_default_recorder(Recorder(tracer_provider=provider))
    with provider.get_tracer("x").start_as_current_span("request"):
        predict("unseen")
        assert lstm_trace.upstream_prediction() is None
    assert len(live) == 0

"""A span started and ended without the tracer's help is the span that the tracer would have made, whoever writes on it meanwhile."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanLimits, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from lstm_trace.recorder.lane import Lane
from lstm_trace.recorder.starting import Starting
from tests.tracing import CountedIds

PARENTS = {
    "none": INVALID_SPAN_CONTEXT,
    "local": SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(1)),
    "remote": SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "x")])),
    "random": SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(3)),
}
ATTRIBUTES: dict[str, Any] = {"lstm.component.name": "intent", "n": 3, "share": 0.5, "on": True, "list": ("a", "b")}
LINKS = [Link(SpanContext(1, 2, is_remote=True), {"link.kind": "upstream"})]


class Marks(SpanProcessor):
    """A user's processor that writes on spans as they start."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        span.set_attribute("user.mark", "seen")


def nothing(span: Any) -> None:
    """Leave the span alone."""


def writes(span: Any) -> None:
    span.set_attribute("user", 1)
    span.set_attributes({"n": 4, "more": [1, 2]})
    span.add_event("event", {"k": 1}, 15)
    span.add_link(SpanContext(3, 4, is_remote=True), {"k": 2})
    span.update_name("renamed")
    span.set_status(StatusCode.ERROR, "broken")


def raises(span: Any) -> None:
    with pytest.raises(KeyError), trace.use_span(span, end_on_exit=False):
        raise KeyError("x")


def ends(span: Any) -> None:
    span.end(18)


def reads(span: Any) -> None:
    assert (span.name, span.kind, span.start_time, span.is_recording()) == ("name", SpanKind.CLIENT, 10, True)
    assert (dict(span.attributes), span.events, span.resource.attributes["r"]) == (ATTRIBUTES, (), 1)
    assert span.get_span_context() is span.context
    assert not hasattr(span, "no_such_thing")


def provider(memory: InMemorySpanExporter, limits: SpanLimits | None = None) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource

    made = TracerProvider(
        id_generator=CountedIds(), shutdown_on_exit=False, span_limits=limits, sampler=sampling.DEFAULT_ON, resource=Resource({"r": 1})
    )
    made.add_span_processor(SimpleSpanProcessor(memory))
    return made


def finished(
    parent: SpanContext,
    *,
    short: bool,
    limits: SpanLimits | None = None,
    links: list[Link] = LINKS,
    meanwhile: Callable[[Any], None] = nothing,
    listener: SpanProcessor | None = None,
) -> list[dict[str, Any]]:
    """Start, use and end one span, by the short way or the tracer's own, and return all that an exporter sees of it."""
    memory = InMemorySpanExporter()
    source = provider(memory, limits)
    if listener is not None:
        source.add_span_processor(listener)
    tracer = source.get_tracer("scope", "1")
    current = trace.set_span_in_context(NonRecordingSpan(parent), Context()) if parent.is_valid else Context()
    events = [("step", {"agent.trajectory.step": 1, "path": "1"}, 11), ("step", {"agent.trajectory.step": 2, "path": "2"}, 12)]
    late = {"n": 5, "tokens": 7}
    if short:
        starting = Starting(tracer, Lane(tracer))
        span = starting.start("name", current, parent, SpanKind.CLIENT, dict(ATTRIBUTES), links, 10)
        meanwhile(span)
        starting.end(span, late, events, 20)
    else:
        span = tracer.start_span("name", current, SpanKind.CLIENT, ATTRIBUTES, links, 10)
        meanwhile(span)
        span.set_attributes(late)
        for name, attributes, when in events:
            span.add_event(name, attributes, when)
        span.end(20)
    assert not span.is_recording()
    return [described(seen) for seen in memory.get_finished_spans()]


def described(seen: Any) -> dict[str, Any]:
    said = json.loads(seen.to_json())
    for event in said["events"]:
        if event["name"] == "exception":  # its time is that of the call
            event["timestamp"], event["attributes"]["exception.stacktrace"] = None, None
    dropped = (seen.dropped_attributes, seen.dropped_events, seen.dropped_links)
    flags = int(seen.context.trace_flags), dict(seen.context.trace_state)
    return {**said, "parent": seen.parent, "dropped": dropped, "flags": flags, "scope": seen.instrumentation_scope}


@pytest.mark.parametrize("parent", PARENTS.values(), ids=PARENTS)
@pytest.mark.parametrize(
    "limits",
    [None, SpanLimits(max_span_attributes=2), SpanLimits(max_span_attribute_length=3), SpanLimits(max_events=1), SpanLimits(max_events=0)],
)
def test_the_same_span(parent: SpanContext, limits: SpanLimits | None) -> None:
    for links in (LINKS, []):
        short = finished(parent, short=True, limits=limits, links=links)
        assert short == finished(parent, short=False, limits=limits, links=links)
        assert len(short) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("meanwhile", [writes, raises, ends, reads])
@pytest.mark.parametrize("links", [LINKS, []], ids=["linked", "not linked"])
def test_the_same_span_whatever_the_user_does_with_it(
    meanwhile: Callable[[Any], None], links: list[Link], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    parent = PARENTS["local"]
    short = finished(parent, short=True, links=links, meanwhile=meanwhile)
    assert short == finished(parent, short=False, links=links, meanwhile=meanwhile)
    assert len(short) == 1


def test_a_processor_that_listens_to_starts_is_heard() -> None:
    parent = PARENTS["local"]
    (short,) = finished(parent, short=True, listener=Marks())
    assert [short] == finished(parent, short=False, listener=Marks())
    assert short["attributes"]["user.mark"] == "seen"


def test_what_is_written_after_the_end_changes_nothing_that_was_exported(caplog: pytest.LogCaptureFixture) -> None:
    memory = InMemorySpanExporter()
    tracer = provider(memory).get_tracer("scope")
    starting = Starting(tracer, Lane(tracer))
    span = starting.start("name", Context(), INVALID_SPAN_CONTEXT, SpanKind.INTERNAL, {"a": 1}, (), 10)
    starting.end(span, None, (), 20)
    (seen,) = memory.get_finished_spans()
    before = seen.to_json()
    span.set_attribute("a", 2)
    span.add_event("late")
    span.update_name("late")
    span.end(30)
    starting.end(span, {"a": 3}, [("late", {}, 1)], 40)
    assert [each.to_json() for each in memory.get_finished_spans()] == [before]
    assert "ended span" in caplog.text
    with pytest.raises(TypeError):
        seen.attributes["a"] = 4


def test_threads_that_write_at_once_lose_nothing() -> None:
    for _ in range(20):
        memory = InMemorySpanExporter()
        tracer = provider(memory).get_tracer("scope")
        starting = Starting(tracer, Lane(tracer))
        span = starting.start("name", Context(), INVALID_SPAN_CONTEXT, SpanKind.INTERNAL, {"a": 1}, (), 10)
        together = threading.Barrier(8)

        def write(number: int, span: Any = span, together: threading.Barrier = together) -> None:
            together.wait(10)
            span.set_attribute(f"from.{number}", number)
            span.add_event(f"from.{number}")

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(10)
        starting.end(span, {"b": 2}, (), 20)
        (seen,) = memory.get_finished_spans()
        assert dict(seen.attributes) == {"a": 1, "b": 2, **{f"from.{number}": number for number in range(8)}}
        assert len(seen.events) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_a_span_is_changed_leaves_the_child_able_to_end_spans() -> None:
    from lstm_trace.recorder import held

    tracer = provider(InMemorySpanExporter()).get_tracer("scope")
    starting = Starting(tracer, Lane(tracer))
    span = starting.start("name", Context(), INVALID_SPAN_CONTEXT, SpanKind.INTERNAL, {"a": 1}, (), 10)
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with held._changing:
            locked.set()
            done.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(10)
    child = os.fork()
    if child == 0:
        ending = threading.Thread(target=starting.end, args=(span, None, (), 20), daemon=True)
        ending.start()
        ending.join(5)
        os._exit(1 if ending.is_alive() else 0)
    _, status = os.waitpid(child, 0)
    done.set()
    holder.join(10)
    assert os.waitstatus_to_exitcode(status) == 0


class Counting(BatchSpanProcessor):
    """A user's batch processor that does more than the SDK's at a span's end."""

    ended = 0

    def on_end(self, span: Any) -> None:
        self.ended += 1
        super().on_end(span)


@pytest.mark.parametrize("kind", [BatchSpanProcessor, Counting])
def test_batch_processors_hear_of_every_end(kind: type[BatchSpanProcessor]) -> None:
    first, second = InMemorySpanExporter(), InMemorySpanExporter()
    source = TracerProvider(shutdown_on_exit=False)
    batch = kind(first)
    source.add_span_processor(batch)
    tracer = source.get_tracer("scope")
    starting = Starting(tracer, Lane(tracer))

    def write(name: str) -> None:
        starting.end(starting.start(name, Context(), INVALID_SPAN_CONTEXT, SpanKind.INTERNAL, {}, (), 1), None, (), 2)

    write("one")
    source.add_span_processor(BatchSpanProcessor(second))  # heard from then on
    write("two")
    assert source.force_flush()
    assert [span.name for span in first.get_finished_spans()] == ["one", "two"]
    assert [span.name for span in second.get_finished_spans()] == ["two"]
    assert getattr(batch, "ended", 2) == 2
    source.shutdown()
    write("three")  # into a processor that was shut down: dropped as the SDK drops it
    assert len(first.get_finished_spans()) == 2

"""Spans that stay open while the user's code runs: started below the context they were opened in, ended with what was learned."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import _logs, context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

from lstm_trace import conventions as c
from lstm_trace import upstream
from lstm_trace.attributes import error_type
from lstm_trace.recorder import ambient
from lstm_trace.recorder.late import Late, LateSpan
from lstm_trace.recorder.run_spans import LLM_KINDS
from lstm_trace.recorder.source import Sources
from lstm_trace.redact import safely
from lstm_trace.upstream import live

if TYPE_CHECKING:
    from lstm_trace.recorder.calls import ComponentCall

Attributes = dict[str, Any]


class Event(NamedTuple):
    """One event to put on a span, at ``time_ns`` since the epoch (None: now)."""

    name: str
    attributes: Attributes
    time_ns: int | None = None


class OpenSpan(Late):
    """A span held open while the user's code runs. ``context`` is what to make current around that code.

    ``attributes`` may be added to until ``finish``; they reach the span in one call.
    """

    __slots__ = ("_recorder", "attributes", "context", "group", "kind", "links", "name", "parent", "parent_context", "span", "start_ns")

    def __init__(self, recorder: Spans, name: str, parent_context: Context, parent: SpanContext, start_ns: int) -> None:
        self.real = None
        self._recorder = recorder
        self.name = name
        self.parent_context = parent_context
        self.parent = parent
        self.start_ns = start_ns
        self.attributes: Attributes = {}
        self.links: Sequence[Link] = ()
        self.kind = SpanKind.INTERNAL
        self.group: object = None
        self.span: trace.Span
        self.context: Context

    @property
    def span_context(self) -> SpanContext:
        """The span's own context; a late span starts when it is asked for it."""
        return self.span.get_span_context()

    def make(self) -> trace.Span:
        """Start the real span with all that is known by now."""
        return self._recorder.begin(self)

    def event(self, event: Event) -> None:
        """Add an event now."""
        self.span.add_event(event.name, event.attributes, event.time_ns)

    def finish(
        self,
        attributes: Attributes | None = None,
        events: Sequence[Event] = (),
        *,
        error: BaseException | None = None,
        end_ns: int | None = None,
    ) -> None:
        """End the span with what was learned since it started."""
        self._recorder.finish(self, attributes, events, error, end_ns)


class Spans(Sources):
    """Opens and ends spans; what stands on them is the caller's to say."""

    def open(
        self,
        name: str,
        *,
        current: Context | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        group: object = None,
        start_ns: int | None = None,
        late: bool = False,
    ) -> OpenSpan | None:
        """Open a span below ``current`` (default: the current context), or return None where it would not record.

        ``late`` defers the real span to the first touch or to ``finish``. ``group`` marks siblings that belong side by side.
        """
        parent_context = context.get_current() if current is None else current
        forecast = self.will_record(parent_context)
        if forecast is False:
            return None
        parent = trace.get_current_span(parent_context).get_span_context()
        opened = OpenSpan(self, name, parent_context, parent, self.clock() if start_ns is None else start_ns)
        if attributes:
            opened.attributes = attributes
        opened.links, opened.kind, opened.group = links, kind, group
        # Only where the decision is certain may the start wait: else facts would be computed for a span that the sampler drops.
        span = LateSpan(opened) if late and forecast else opened.start()
        if not isinstance(span, LateSpan) and not span.is_recording():
            return None
        opened.span = span
        opened.context = ambient.with_span(span, parent_context)
        return opened

    def begin(self, opened: OpenSpan | ComponentCall, *, certain: bool = False) -> trace.Span:
        """Start the real span of ``opened`` with its attributes, all that it inherits, and its links.

        ``certain``: it is recorded whatever the sampler would say.
        """
        source = self.source()
        seen = live.upstream(opened.parent, group=opened.group)
        if seen is None and self.settings.baggage and (opened.parent.is_remote or not opened.parent.is_valid):
            seen = upstream.from_baggage(opened.parent_context)
        attributes = upstream.inherited(opened.parent_context, seen)
        if source.release is not None:
            attributes[c.RELEASE] = source.release
        attributes.update(opened.attributes)
        opened.attributes = {}
        links = opened.links
        if seen is not None and attributes.get(c.OI_KIND, attributes.get(c.GEN_AI_OPERATION)) in LLM_KINDS and seen.span_context.is_valid:
            links = [*links, Link(seen.span_context, {c.LINK_KIND: "upstream"})]
        tracer = always_on(source.tracer) if certain else source.tracer
        span = tracer.start_span(
            opened.name, opened.parent_context, opened.kind, attributes, links, opened.start_ns, record_exception=False
        )
        if span.is_recording():
            live.enter(span, opened.parent, group=opened.group, upstream=seen)
        return span

    def finish(
        self,
        opened: OpenSpan | ComponentCall,
        attributes: Attributes | None,
        events: Sequence[Event],
        error: BaseException | None,
        end_ns: int | None,
    ) -> None:
        """End the span of ``opened``: attributes in one call, then events, then the error."""
        if attributes:
            opened.attributes.update(attributes)
        span = opened.start()
        if opened.attributes:
            span.set_attributes(opened.attributes)
        for event in events:
            span.add_event(event.name, event.attributes, event.time_ns)
        if error is not None:
            self.fail(span, error)
        span.end(self.clock() if end_ns is None else end_ns)
        span_context = span.get_span_context()
        live.leave(span_context)
        if not opened.parent.is_valid or opened.parent.is_remote:
            upstream.last_outermost.set(span_context)

    def fail(self, span: trace.Span, error: BaseException) -> None:
        """Write an error on an open span; its text only with content capture on."""
        name = error_type(error)
        details: Attributes = {"exception.type": name, "exception.escaped": "True"}
        text = None
        if self.settings.content:
            text = self.text(str(error))
            details["exception.message"] = text
            details["exception.stacktrace"] = self.text("".join(traceback.format_exception(error)))
        span.set_attribute(c.ERROR_TYPE, name)
        span.add_event(c.EVENT_EXCEPTION, details)
        span.set_status(StatusCode.ERROR, f"{name}: {text}" if text else name)

    def text(self, content: str) -> str:
        """Prepare a text that the user allowed us to record: redacted, then bounded."""
        return safely(self.settings.redact, content)[: self.settings.content_limit]

    def log(self, events: Sequence[Event], current: Context) -> None:
        """Write events as log events that belong to the span of ``current``."""
        logger = _logs.get_logger(c.SCOPE, logger_provider=self._logger_provider)
        for event in events:
            logger.emit(timestamp=event.time_ns, context=current, event_name=event.name, attributes=event.attributes)


def always_on(tracer: trace.Tracer) -> trace.Tracer:
    """Return a tracer like ``tracer`` that records whatever its sampler would say."""
    if not hasattr(tracer, "sampler"):
        return tracer
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    mine = copy.copy(tracer)
    mine.sampler = ALWAYS_ON  # pyright: ignore[reportAttributeAccessIssue]
    return mine

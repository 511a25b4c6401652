"""Spans that stay open while the user's code runs: started below the context they were opened in, ended with what was learned."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import _logs, context, trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext, SpanKind, StatusCode

from lstm_trace import conventions as c
from lstm_trace import upstream
from lstm_trace.attributes import error_type
from lstm_trace.recorder import ambient
from lstm_trace.recorder.ambient import SPAN_KEY
from lstm_trace.recorder.late import LateSpan
from lstm_trace.recorder.source import Sources
from lstm_trace.redact import safely
from lstm_trace.upstream import Node, live

if TYPE_CHECKING:
    from lstm_trace.recorder.calls import ComponentCall
    from lstm_trace.recorder.starting import Starting

Attributes = dict[str, Any]

_LLM_KINDS: Final = frozenset({"LLM", "chat", "text_completion"})


class Event(NamedTuple):
    """One event to put on a span, at ``time_ns`` since the epoch (None: now)."""

    name: str
    attributes: Attributes
    time_ns: int | None = None


class OpenSpan:
    """A span held open while the user's code runs. ``context`` is what to make current around that code.

    ``attributes`` may be added to until ``finish``; they reach the span in one call.
    """

    __slots__ = ("_recorder", "attributes", "context", "group", "kind", "links", "name", "parent", "parent_context", "span", "start_ns")

    def __init__(self, recorder: Spans, name: str, parent_context: Context, parent: SpanContext, start_ns: int) -> None:
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

    def begin(self) -> trace.Span:
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


class RunSpan(Node):
    """The span of one run of a chain, and its place among the open spans.

    The caller gives it the ``context`` to make current around that run's code, and takes it away when the run ends. A span that the
    sampler refused is not ``recording``; ``outermost`` is one without a parent in this process. ``starting`` started its span where it was
    certain that it is sampled, and ends it.
    """

    # Defaults on the class: every step of every chain makes one.
    context: Context | None = None
    recording = True
    outermost = False
    start_ns = 0
    starting: Starting | None = None

    def __init__(self) -> None:
        """Wait for ``Recorder.open_run``, which fills in the rest."""


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
        span = LateSpan(opened.begin) if late and forecast else opened.begin()
        if not isinstance(span, LateSpan) and not span.is_recording():
            return None
        opened.span = span
        opened.context = ambient.with_span(span, parent_context)
        return opened

    def open_run(
        self,
        run: RunSpan,
        name: str,
        current: Context,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        details: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        links: Sequence[Link] = (),
        group: object = None,
        above: RunSpan | None = None,
    ) -> bool:
        """Open the span of a chain's run below ``current``; False, and nothing done, where it is certain that it would not record.

        A sampler sees ``attributes``; ``details`` and ``facts`` join them, and ``facts`` are also what the caller is to hand down. A span
        that the sampler refused is opened as well, so that what runs below it is refused with it. Suppression is the caller's to ask for.
        ``above`` is the open run whose span is the one of ``current``, where the caller knows it.
        """
        source = self.source()
        below: Node | None
        if above is not None and above.starting is source.starting:
            # It is sampled: where a child follows its parent so is this one, and there is nothing to look up.
            parent, below, forecast = above.span_context, above, source.forecast.follows or source.forecast.child
        elif (span_above := current.get(SPAN_KEY)) is None:
            parent, below, forecast, run.outermost = INVALID_SPAN_CONTEXT, None, source.forecast.root, True
        else:
            parent = span_above.get_span_context()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            _, span_id, run.outermost, _, _, _ = parent  # its properties are calls
            below, forecast = live.node(span_id), source.forecast.records(parent)
        if forecast is False or not source.records:
            return False
        if upstream.settle is not None:
            upstream.settle(parent.trace_id)
        seen = None if below is None else upstream.visible(below, group)
        if seen is None and self.settings.baggage and (run.outermost or not parent.is_valid):
            seen = upstream.from_baggage(current)
        if seen is not None and attributes.get(c.OI_KIND, attributes.get(c.GEN_AI_OPERATION)) in _LLM_KINDS and seen.span_context.is_valid:
            links = [*links, Link(seen.span_context, {c.LINK_KIND: "upstream"})]
        said: Attributes = (
            {**facts, **attributes} if facts and seen is None else {**upstream.with_upstream(facts or {}, seen), **attributes}
        )
        if details:
            said.update(details)
        if source.release is not None:
            said[c.RELEASE] = source.release
        run.start_ns = self.clock()
        if forecast:
            span = source.starting.start(name, current, parent, kind, said, links, run.start_ns)
            run.starting = source.starting
        else:
            span = source.tracer.start_span(name, current, kind, attributes, links, run.start_ns, record_exception=False)
            run.recording = span.is_recording()
            if run.recording:
                source.lane.put(span, said)
        run.span, run.span_context, run.parent, run.inherited = span, span.get_span_context(), below, seen
        if run.recording:
            live.began(run)
        return True

    def close_run(
        self,
        run: RunSpan,
        attributes: Attributes | None,
        events: Sequence[tuple[str, Attributes, int]],
        error: BaseException | None,
        end_ns: int | None = None,
    ) -> None:
        """End the span of a chain's run: clean attributes, ``(name, attributes, time in ns)`` events, then the error."""
        span: Any = run.span
        if error is not None:
            self._fail(span, error)
        starting = run.starting or self.source().starting
        starting.end(span, attributes, events, self.clock() if end_ns is None else end_ns)
        live.leave(run.span_context)
        if run.outermost:
            upstream.last_outermost.set(run.span_context)

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
        if seen is not None and attributes.get(c.OI_KIND, attributes.get(c.GEN_AI_OPERATION)) in _LLM_KINDS and seen.span_context.is_valid:
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
        span = opened.span
        if isinstance(span, LateSpan):
            span = span.start()
        if opened.attributes:
            span.set_attributes(opened.attributes)
        for event in events:
            span.add_event(event.name, event.attributes, event.time_ns)
        if error is not None:
            self._fail(span, error)
        span.end(self.clock() if end_ns is None else end_ns)
        span_context = span.get_span_context()
        live.leave(span_context)
        if not opened.parent.is_valid or opened.parent.is_remote:
            upstream.last_outermost.set(span_context)

    def _fail(self, span: trace.Span, error: BaseException) -> None:
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

"""Open and end the spans of a chain's runs: what one TracerProvider allows is looked up once, and a run keeps it until its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext, SpanKind

from lstm_trace import conventions as c
from lstm_trace import upstream
from lstm_trace.recorder.ambient import SPAN_KEY
from lstm_trace.upstream import Node, live

if TYPE_CHECKING:
    from lstm_trace.recorder.spans import Spans
    from lstm_trace.recorder.starting import Starting

Attributes = dict[str, Any]

LLM_KINDS: Final = frozenset({"LLM", "chat", "text_completion"})


class RunSpan(Node):
    """The span of one run of a chain, and its place among the open spans.

    The caller gives it the ``context`` to make current around that run's code, and takes it away when the run ends. A span that the
    sampler refused is not ``recording``; it ``hushes`` where its sampler then refuses everything below it as well. ``outermost`` is one
    without a parent in this process. ``starting`` started its span where it was certain that it is sampled, and ends it.
    """

    # Defaults on the class: every step of every chain makes one.
    context: Context | None = None
    recording = True
    hushes = False
    outermost = False
    start_ns = 0
    starting: Starting | None = None

    def __init__(self) -> None:
        """Wait for ``RunSpans.open``, which fills in the rest."""


class RunSpans:
    """How runs are opened and ended through ``recorder``, as long as the TracerProvider that it found stays in force.

    That is ``key``: the one that was ``given`` to the recorder, or else the global one of the time.
    ``records`` is False where no span can record in any context: no provider, or a sampler that drops everything.
    """

    __slots__ = (
        "_baggage",
        "_certain_below",
        "_clock",
        "_follows",
        "_release",
        "_source",
        "_starting",
        "given",
        "key",
        "recorder",
        "records",
    )

    def __init__(self, recorder: Spans) -> None:
        self.recorder: Any = recorder
        source = self._source = recorder.source()
        self.records = not source.never
        self.key: Any = source.key
        self.given: Any = None if source.key is trace._TRACER_PROVIDER else source.key
        self._starting = source.starting
        self._follows = source.forecast.follows
        self._certain_below = source.forecast.follows or source.forecast.child
        self._release = source.release
        self._baggage = recorder.settings.baggage
        self._clock = recorder.clock

    def open(
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
        """Open a run's span below ``current``; False, and nothing done, where it is certain that it would not record.

        A sampler sees ``attributes``; ``details`` and ``facts`` join them, and ``facts`` are also what the caller is to hand down. A span
        that the sampler refused is opened as well, so that what runs below it is refused with it. Suppression is the caller's to ask for.
        ``above`` is the open run whose span is the one of ``current``, where the caller knows it.
        """
        starting = self._starting
        below: Node | None
        if above is not None and above.starting is starting:
            # It is sampled: where a child follows its parent so is this one, and there is nothing to look up.
            parent, below, forecast = above.span_context, above, self._certain_below
        elif (span_above := current.get(SPAN_KEY)) is None:
            parent, below, forecast, run.outermost = INVALID_SPAN_CONTEXT, None, self._source.forecast.root, True
        else:
            parent = span_above.get_span_context()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            _, span_id, run.outermost, _, _, _ = parent  # its properties are calls
            below, forecast = live.node(span_id), self._source.forecast.records(parent)
        if forecast is False:
            return False
        if upstream.settle is not None:
            upstream.settle(parent.trace_id)
        if below is None:
            seen = None
        elif group is None:
            seen = below.latest or below.inherited
        else:
            seen = upstream.visible(below, group)
        if seen is None and self._baggage and (run.outermost or not parent.is_valid):
            seen = upstream.from_baggage(current)
        said: Attributes
        if seen is None:
            said = {**facts, **attributes} if facts else {**attributes}
        else:
            said = {**upstream.with_upstream(facts or {}, seen), **attributes}
            if attributes.get(c.OI_KIND, attributes.get(c.GEN_AI_OPERATION)) in LLM_KINDS and seen.span_context.is_valid:
                links = [*links, Link(seen.span_context, {c.LINK_KIND: "upstream"})]
        if details:
            said.update(details)
        if self._release is not None:
            said[c.RELEASE] = self._release
        now = run.start_ns = self._clock()
        if forecast:
            span = starting.start(name, current, parent, kind, said, links, now)
            run.starting = starting
        else:
            source = self._source
            span = source.tracer.start_span(name, current, kind, attributes, links, now, record_exception=False)
            if span.is_recording():
                source.lane.put(span, said)
            else:
                run.recording, run.hushes = False, self._follows
        run.span, run.span_context, run.parent, run.inherited = span, span.get_span_context(), below, seen
        if run.recording:
            live.began(run)
        return True

    def close(
        self,
        run: RunSpan,
        attributes: Attributes | None,
        events: Sequence[tuple[str, Attributes, int]],
        error: BaseException | None,
        end_ns: int | None = None,
    ) -> None:
        """End a run's span: clean attributes, ``(name, attributes, time in ns)`` events, then the error."""
        span: Any = run.span
        if error is not None:
            self.recorder.fail(span, error)
        self._starting.end(span, attributes, events, self._clock() if end_ns is None else end_ns)
        span_context: SpanContext = run.span_context
        live.leave(span_context)
        if run.outermost:
            upstream.last_outermost.set(span_context)

"""Start and end a span of which it is certain that it is sampled, without what the SDK would do for one that somebody writes on.

The sampler is not asked again, clean attributes are not cleaned again, and what a span needs to be written on by several threads is made
when somebody does (``held.py``). It is done only with the SDK's own tracer and span class and with limits that our few attributes cannot
meet, and after a trial has shown that the span comes out as the SDK would have made it. Elsewhere the public methods are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import getrandbits
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import DEFAULT_TRACE_STATE, Link, Span, SpanContext, SpanKind, TraceFlags, Tracer

from lstm_trace.recorder.lane import Lane

_ROOM: Final = 64
"""Attributes that a span must have room for; its limit is 128 unless the user lowered it."""

_RANDOM: Final = 2
"""The flag of a trace whose id is random (W3C Trace Context, level 2)."""

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SAMPLED_RANDOM: Final = TraceFlags(TraceFlags.SAMPLED | _RANDOM)

_tuple: Final[Any] = tuple.__new__
_new: Final[Any] = object.__new__  # the class's own __new__ and __init__ are two frames and eighteen fields more


class Starting:
    """How the sampled spans of one tracer are started and ended."""

    __slots__ = ("_ends", "_kind", "_lane", "_plain", "_processor", "_processors", "_random", "_room", "_tracer")

    def __init__(self, tracer: Tracer, lane: Lane) -> None:
        self._tracer: Any = tracer
        self._lane = lane
        self._kind: Any = None
        self._plain = False
        self._random = False
        self._room = 0
        """Events that a span has room for."""
        self._processor: Any = None
        self._processors: Any = None
        self._ends: tuple[Any, ...] | None = None
        """What to call with a span that is over; None where somebody does more than listen to ends."""
        try:
            self._prepare()
        except (ImportError, AttributeError, TypeError, KeyError):
            self._kind = None  # no SDK, or another one than those we know: the public method serves it

    def _prepare(self) -> None:
        if not self._lane.is_short:
            return
        from opentelemetry.sdk.trace import _Span
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        from lstm_trace.recorder.held import HELD, HeldSpan

        tracer, limits = self._tracer, self._tracer._span_limits
        self._random = tracer.id_generator.is_trace_id_random()
        self._plain = type(tracer.id_generator) is RandomIdGenerator
        self._room = 128 if limits.max_events is None else limits.max_events
        self._kind = HeldSpan
        self._processor = tracer.span_processor
        parent = SpanContext(1, 2, is_remote=False, trace_flags=_SAMPLED)
        given: Any = _tuple(SpanContext, (1, 3, False, _SAMPLED, DEFAULT_TRACE_STATE, True))
        self._plain = self._plain and given == SpanContext(1, 3, False, _SAMPLED)
        usual = _Span("name", given, parent, kind=SpanKind.CLIENT, resource=tracer.resource)
        usual._instrumentation_scope = tracer._instrumentation_scope
        usual._start_time = 4
        usual.set_attributes({"key": 1})
        tried = self._made("name", SpanContext(1, 3, False, _SAMPLED), parent, SpanKind.CLIENT, {"key": 1}, (), 4)
        if not vars(usual).keys() >= HELD or tried.to_json() != usual.to_json() or tried._is_whole:
            self._kind = None
            return
        tried.add_event("event", {"key": 2}, 5)
        usual.add_event("event", {"key": 2}, 5)
        if tried.to_json() != usual.to_json() or vars(tried).keys() - vars(usual).keys() != {"_tracer", "_is_whole", "_is_bare"}:
            self._kind = None

    def _made(
        self,
        name: str,
        span_context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, Any],
        links: Sequence[Link],
        start_ns: int,
    ) -> Any:
        tracer = self._tracer
        span = _new(self._kind)
        span._name = name
        span._context = span_context
        span._parent = parent
        span._kind = kind
        span._attributes = attributes
        span._resource = tracer.resource
        span._instrumentation_scope = tracer._instrumentation_scope
        span._start_time = start_ns
        span._tracer = tracer
        if links:
            span._links = links
        return span

    def start(
        self,
        name: str,
        current: Context,
        parent: SpanContext,
        kind: SpanKind,
        attributes: dict[str, Any],
        links: Sequence[Link],
        start_ns: int,
    ) -> Span:
        """Start a span below ``parent``, the span of ``current``; an invalid one makes it a root.

        Values of ``attributes`` are clean, and the dict is the span's from now on.
        """
        tracer = self._tracer
        if self._kind is None or len(attributes) > _ROOM or not tracer._tracer_config.is_enabled:
            return tracer.start_span(name, current, kind, attributes, links, start_ns, False)  # type: ignore[no-any-return]
        trace_id, _, _, flags, state, is_valid = parent  # its properties are calls
        ids = tracer.id_generator
        if is_valid:
            above, flags = parent, _SAMPLED_RANDOM if flags & _RANDOM else _SAMPLED
        else:
            above, trace_id, state = None, ids.generate_trace_id(), DEFAULT_TRACE_STATE
            flags = _SAMPLED_RANDOM if self._random else _SAMPLED
        if self._plain:  # what SpanContext() returns for ids that are valid, as the SDK's generator makes them
            span_context = _tuple(SpanContext, (trace_id, getrandbits(64) or ids.generate_span_id(), False, flags, state, True))
        else:
            span_context = SpanContext(trace_id, ids.generate_span_id(), False, flags, state)
        span = self._made(name, span_context, above, kind, attributes, links, start_ns)
        if self._processor._span_processors is not self._processors:
            self._listen()
        if self._ends is None:
            tracer.span_processor.on_start(span, parent_context=current)
        return span  # type: ignore[no-any-return]

    def _listen(self) -> None:
        """Learn who is to hear of a span's end; again whenever a processor was added."""
        processors = self._processor._span_processors
        listeners = self._lane.listeners()
        self._ends = None if listeners is None else tuple(_heard(each) for each in listeners)
        self._processors = processors

    def end(self, span: Span, attributes: dict[str, Any] | None, events: Sequence[tuple[str, dict[str, Any], int]], end_ns: int) -> None:
        """End a span with clean ``attributes`` and ``(name, clean attributes, time in ns)`` events, whoever started it."""
        held: Any = span
        if type(held) is self._kind and len(events) <= self._room:
            if self._processor._span_processors is not self._processors:
                self._listen()
            ends = self._ends
            noted = tuple([self._lane.event_of(*each) for each in events]) if events else ()
            if ends is not None and held.close(attributes, noted, end_ns, _ROOM):
                for each in ends:
                    each(held)
                return
        if attributes:
            self._lane.put(span, attributes)
        for name, details, when in events:
            self._lane.note(span, name, details, when)
        span.end(end_ns)


def _heard(processor: Any) -> Any:
    """Return what tells a processor that a sampled span is over.

    The SDK's batch processor first asks the span whether it is sampled, which takes more than putting it into its queue.
    """
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    batch = getattr(processor, "_batch_processor", None)
    is_plain = type(processor) is BatchSpanProcessor and BatchSpanProcessor.on_end.__module__ == BatchSpanProcessor.__module__
    return getattr(batch, "emit", processor.on_end) if is_plain else processor.on_end

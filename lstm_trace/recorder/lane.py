"""Write on the SDK's own spans without having it do twice what is done: sample what is known to be sampled, clean what is clean.

A span that is over before anyone could hold it is made as the ``ReadableSpan`` that its processors are given at the end, where nothing
listens to starts: the open span in between, its locks and its copy are most of what a span costs. Sampling and cleaning are left out only
for the SDK's own tracer and span classes, with limits that our few attributes cannot meet, and where the sampler's answer is certain
(``sampling.py``). Everywhere else the public methods are called.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import DEFAULT_TRACE_STATE, Link, Span, SpanContext, SpanKind, TraceFlags, Tracer

from lstm_trace.upstream import UpstreamProcessor

_ROOM: Final = 64
"""Attributes that a span must have room for; its limit is 128 unless the user lowered it."""

_NEVER_CONTENDED: Final = threading.Lock()
"""Attributes of an event never change, so nothing ever waits for their lock."""

_new: Final[Any] = object.__new__

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SAMPLED_RANDOM: Final = TraceFlags(TraceFlags.SAMPLED | 2)
"""Sampled, in a trace whose id is random (W3C Trace Context, level 2)."""


class Lane:
    """How finished spans of one tracer are written, and how attributes and events reach open ones."""

    __slots__ = (
        "_bounded",
        "_event",
        "_held",
        "_kind",
        "_listeners",
        "_most_events",
        "_processor",
        "_processors",
        "_random",
        "_readable",
        "_tracer",
        "_unheard",
    )

    def __init__(self, tracer: Tracer) -> None:
        self._tracer: Any = tracer
        self._kind: Any = None
        self._held: Any = None
        self._event: Any = None
        self._bounded: Any = None
        self._readable: Any = None
        self._processor: Any = None
        self._processors: Any = None
        self._listeners: tuple[Any, ...] = ()
        self._unheard: frozenset[Any] = frozenset()
        """``on_start`` and ``_on_ending`` that do nothing, or nothing to a span of ours."""
        self._random = False
        self._most_events = 0
        limits = getattr(tracer, "_span_limits", None)
        if limits is None or not type(tracer).__module__.startswith("opentelemetry.sdk."):
            return
        try:
            self._prepare(limits)
        except (ImportError, AttributeError, TypeError):
            self._kind = self._held = self._processor = None  # another SDK than the ones we know: the public methods serve it

    def _prepare(self, limits: Any) -> None:
        lengths = (limits.max_attribute_length, limits.max_span_attribute_length)
        counts = (limits.max_span_attributes, limits.max_event_attributes)
        if any(each is not None for each in lengths) or any(each is not None and each < _ROOM for each in counts):
            return
        from opentelemetry.attributes import BoundedAttributes
        from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, SynchronousMultiSpanProcessor, Tracer, _Span
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.sdk.util import BoundedList

        self._event, self._bounded = Event, BoundedAttributes
        usual = BoundedAttributes(None, {"key": 1}, immutable=True)
        made = self.event_of("name", {"key": 1}, 2)
        if not (
            vars(made).keys() == vars(Event("name", usual, 2)).keys()
            and vars(made.attributes).keys() == vars(usual).keys()
            and (made.name, made.timestamp, dict(made.attributes)) == ("name", 2, {"key": 1})
            and callable(_Span._add_event)
            and isinstance(getattr(BoundedList(1), "_dq", None), deque)
        ):
            return
        self._kind = _Span

        tracer = self._tracer
        is_metered = type(tracer._tracer_metrics).__name__ != "NoOpTracerMetrics"
        if type(tracer) is not Tracer or type(tracer.span_processor) is not SynchronousMultiSpanProcessor or is_metered:
            return
        if not hasattr(tracer._tracer_config, "is_enabled"):
            return
        self._most_events = sys.maxsize if limits.max_events is None else limits.max_events
        from lstm_trace.recorder.held import HeldSpan

        self._held = HeldSpan
        self._readable = ReadableSpan
        self._random = tracer.id_generator.is_trace_id_random()
        kinds = (SpanProcessor, BatchSpanProcessor, SimpleSpanProcessor, UpstreamProcessor)
        self._unheard = frozenset(each for kind in kinds for each in (kind.on_start, kind._on_ending))
        self._processor = tracer.span_processor

    def write(
        self,
        name: str,
        current: Context,
        parent: SpanContext,
        links: Sequence[Link],
        attributes: dict[str, Any],
        event_name: str,
        events: Sequence[dict[str, Any]],
        start_ns: int,
        end_ns: int,
    ) -> SpanContext:
        """Write a span that is over, with ``events`` at its end, below ``parent``, the span of ``current``.

        It must be certain that it is sampled. All dicts are clean, and the span's from now on.
        """
        tracer, processor = self._tracer, self._processor
        listeners = None
        if processor is not None and not links and len(events) <= self._most_events and tracer._tracer_config.is_enabled:
            listeners = self._listeners if processor._span_processors is self._processors else self.listeners()
        if listeners is None:
            return self._write_openly(name, current, links, attributes, event_name, events, start_ns, end_ns)
        trace_id, _, _, flags, state, is_valid = parent  # its properties are calls
        ids = tracer.id_generator
        if is_valid:
            flags = _SAMPLED_RANDOM if flags & 2 else _SAMPLED
        else:
            trace_id, flags, state = ids.generate_trace_id(), _SAMPLED_RANDOM if self._random else _SAMPLED, DEFAULT_TRACE_STATE
        span_context = SpanContext(trace_id, ids.generate_span_id(), False, flags, state)
        span = self._readable(
            name,
            span_context,
            parent if is_valid else None,
            tracer.resource,
            attributes,
            tuple([self.event_of(event_name, each, end_ns) for each in events]),
            start_time=start_ns,
            end_time=end_ns,
            instrumentation_info=tracer.instrumentation_info,
            instrumentation_scope=tracer._instrumentation_scope,
        )
        for each in listeners:
            each.on_end(span)
        return span_context

    @property
    def is_short(self) -> bool:
        """Tell whether spans may be made without the tracer."""
        return self._processor is not None

    def listeners(self) -> tuple[Any, ...] | None:
        """Return who is to hear of a span's end, or None where somebody does more than that; remembered until another one is added."""
        processors = self._processor._span_processors
        if processors is self._processors:
            return self._listeners
        heard = {getattr(when, "__func__", None) for each in processors for when in (each.on_start, each._on_ending)}
        if not self._unheard.issuperset(heard):
            return None
        # ours forgets at its end a span that it has never noted, or that the recorder forgets
        ours = UpstreamProcessor.on_end
        self._listeners = tuple(each for each in processors if getattr(each.on_end, "__func__", None) is not ours)
        self._processors = processors
        return self._listeners

    def _write_openly(
        self,
        name: str,
        current: Context,
        links: Sequence[Link],
        attributes: dict[str, Any],
        event_name: str,
        events: Sequence[dict[str, Any]],
        start_ns: int,
        end_ns: int,
    ) -> SpanContext:
        span: Span = self._tracer.start_span(name, current, SpanKind.INTERNAL, attributes, links, start_ns, record_exception=False)
        for each in events:
            self.note(span, event_name, each, end_ns)
        span.end(end_ns)
        return span.get_span_context()

    def event_of(self, name: str, attributes: dict[str, Any], time_ns: int) -> Any:
        """Make an event as the SDK's constructors would, without their five calls."""
        kept = _new(self._bounded)
        kept._dict = attributes
        kept.maxlen = None
        kept.dropped = 0
        kept.max_value_len = None
        kept._lock = _NEVER_CONTENDED
        kept._immutable = True
        event = _new(self._event)
        event._name = name
        event._timestamp = time_ns
        event._attributes = kept
        return event

    def put(self, span: Span, attributes: dict[str, Any]) -> None:
        """Set clean attributes on a span that nobody else holds yet."""
        if type(span) is self._kind:
            held: dict[str, Any] = span._attributes._dict  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            if len(held) <= _ROOM:
                held.update(attributes)
                return
        elif type(span) is self._held and span.put(attributes, _ROOM):  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            return
        span.set_attributes(attributes)

    def note(self, span: Span, name: str, attributes: dict[str, Any], time_ns: int) -> None:
        """Add an event with clean attributes; the dict is the event's from now on."""
        if type(span) is self._kind or type(span) is self._held:
            sdk: Any = span
            event = self.event_of(name, attributes, time_ns)
            with sdk._lock:
                if sdk._end_time is None:
                    kept = sdk._events
                    queue = kept._dq
                    if len(queue) == queue.maxlen:
                        kept.append(event)  # and drop the oldest, and count it
                    else:
                        queue.append(event)  # without the list's own lock: whoever adds to it holds the span's
                    return
        span.add_event(name, attributes, time_ns)

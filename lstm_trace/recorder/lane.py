"""Write on the SDK's own spans without having it do twice what is done: sample what is known to be sampled, clean what is clean.

Sampling and cleaning are more than half of what a span costs. They are left out only for the SDK's own tracer and span classes, with limits
that our few attributes cannot meet, where the sampler's answer is certain (``sampling.py``), and after a trial at first use has shown that
both ways make the same span and event; everywhere else the public methods are called.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, TraceFlags, Tracer

_ROOM: Final = 64
"""Attributes that a span must have room for; its limit is 128 unless the user lowered it."""

_NEVER_CONTENDED: Final = threading.Lock()
"""Attributes of an event never change, so nothing ever waits for their lock."""

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class Lane:
    """How the spans of one tracer are started, and how attributes and events reach them."""

    __slots__ = ("_bounded", "_decision", "_event", "_kind", "_starts", "_tracer")

    def __init__(self, tracer: Tracer) -> None:
        self._tracer: Any = tracer
        self._kind: Any = None
        self._starts = False
        self._event: Any = None
        self._bounded: Any = None
        self._decision: Any = None
        limits = getattr(tracer, "_span_limits", None)
        if limits is None or not type(tracer).__module__.startswith("opentelemetry.sdk."):
            return
        try:
            self._prepare(limits)
        except (ImportError, AttributeError, TypeError):
            self._kind, self._starts = None, False  # another SDK than the ones we know: the public methods serve it

    def _prepare(self, limits: Any) -> None:
        lengths = (limits.max_attribute_length, limits.max_span_attribute_length)
        counts = (limits.max_span_attributes, limits.max_event_attributes)
        if any(each is not None for each in lengths) or any(each is not None and each < _ROOM for each in counts):
            return
        from opentelemetry.attributes import BoundedAttributes
        from opentelemetry.sdk.trace import Event, Tracer, _Span
        from opentelemetry.sdk.trace.sampling import Decision

        self._event, self._bounded, self._decision = Event, BoundedAttributes, Decision.RECORD_AND_SAMPLE
        usual = BoundedAttributes(None, {"key": 1}, immutable=True)
        made = self._event_of("name", {"key": 1}, 2)
        if not (
            vars(made).keys() == vars(Event("name", usual, 2)).keys()
            and vars(made.attributes).keys() == vars(usual).keys()
            and (made.name, made.timestamp, dict(made.attributes)) == ("name", 2, {"key": 1})
            and callable(_Span._add_event)
        ):
            return
        self._kind = _Span
        parent = SpanContext(1, 2, is_remote=False, trace_flags=_SAMPLED)
        span = self._span("name", parent, SpanContext(1, 3, False, _SAMPLED, parent.trace_state), ())
        self._starts = type(self._tracer) is Tracer and (span.name, span.parent, dict(span.attributes)) == ("name", parent, {})

    def _span(self, name: str, parent: SpanContext | None, span_context: SpanContext, links: Sequence[Link]) -> Any:
        tracer = self._tracer
        return self._kind(
            name=name,
            context=span_context,
            parent=parent,
            sampler=tracer.sampler,
            resource=tracer.resource,
            links=links,
            kind=SpanKind.INTERNAL,
            span_processor=tracer.span_processor,
            instrumentation_info=tracer.instrumentation_info,
            record_exception=False,
            limits=tracer._span_limits,
            instrumentation_scope=tracer._instrumentation_scope,
            record_end_metrics=tracer._tracer_metrics.start_span(parent, self._decision),
        )

    def start(self, name: str, current: Context, parent: SpanContext, links: Sequence[Link], start_ns: int) -> Span:
        """Start a span below ``parent``, the span of ``current``, that is certain to be sampled."""
        tracer = self._tracer
        trace_id, _, _, flags, state, is_valid = parent  # its properties are calls
        if not (self._starts and is_valid and tracer._tracer_config.is_enabled):
            return tracer.start_span(name, current, SpanKind.INTERNAL, None, links, start_ns, False)  # type: ignore[no-any-return]
        # what the SDK gives a sampled child: its trace's id, state, and the mark of a random id
        flags = _SAMPLED if flags == 1 else TraceFlags(TraceFlags.SAMPLED | (flags & 2))
        span = self._span(name, parent, SpanContext(trace_id, tracer.id_generator.generate_span_id(), False, flags, state), links)
        span.start(start_ns, current)
        return span  # type: ignore[no-any-return]

    def _event_of(self, name: str, attributes: dict[str, Any], time_ns: int) -> Any:
        """Make an event as the SDK's constructors would, without their five calls."""
        kept = self._bounded.__new__(self._bounded)
        kept._dict = attributes
        kept.maxlen = None
        kept.dropped = 0
        kept.max_value_len = None
        kept._lock = _NEVER_CONTENDED
        kept._immutable = True
        event = self._event.__new__(self._event)
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
        span.set_attributes(attributes)

    def note(self, span: Span, name: str, attributes: dict[str, Any], time_ns: int) -> None:
        """Add an event with clean attributes; the dict is the event's from now on."""
        if type(span) is self._kind:
            span._add_event(self._event_of(name, attributes, time_ns))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        else:
            span.add_event(name, attributes, time_ns)

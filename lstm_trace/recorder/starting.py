"""Start a span of which it is certain that it is sampled: the sampler is not asked again, and clean attributes are not cleaned again.

That is most of what starting a span costs. It is done only with the SDK's own tracer and span class and with limits that our few
attributes cannot meet, and after a trial has shown that the span comes out as the SDK would have made it. Elsewhere the tracer's public
method is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, TraceFlags, Tracer

_ROOM: Final = 64
"""Attributes that a span must have room for; its limit is 128 unless the user lowered it."""

_RANDOM: Final = 2
"""The flag of a trace whose id is random (W3C Trace Context, level 2)."""

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SAMPLED_RANDOM: Final = TraceFlags(TraceFlags.SAMPLED | _RANDOM)


class Starting:
    """How the sampled spans of one tracer are started."""

    __slots__ = ("_decision", "_kind", "_random", "_tracer")

    def __init__(self, tracer: Tracer) -> None:
        self._tracer: Any = tracer
        self._kind: Any = None
        self._decision: Any = None
        self._random = False
        try:
            self._prepare()
        except (ImportError, AttributeError, TypeError):
            self._kind = None  # no SDK, or another one than those we know: the public method serves it

    def _prepare(self) -> None:
        from opentelemetry.sdk.trace import Tracer, _Span
        from opentelemetry.sdk.trace.sampling import Decision

        tracer = self._tracer
        limits = tracer._span_limits
        room = limits.max_span_attributes
        if type(tracer) is not Tracer or limits.max_span_attribute_length is not None or (room is not None and room < _ROOM):
            return
        self._decision = Decision.RECORD_AND_SAMPLE
        self._random = tracer.id_generator.is_trace_id_random()
        self._kind = _Span
        parent = SpanContext(1, 2, is_remote=False, trace_flags=_SAMPLED)
        tracer._tracer_metrics.start_span  # noqa: B018 - older SDKs have no such thing
        tried = self._made("name", SpanContext(1, 3, False, _SAMPLED), parent, SpanKind.CLIENT, {"key": 1}, (), None)
        seen = (tried.name, tried.parent, tried.kind, dict(tried.attributes), tried.is_recording())
        if not tracer._tracer_config.is_enabled or seen != ("name", parent, SpanKind.CLIENT, {"key": 1}, True):
            self._kind = None

    def _made(
        self,
        name: str,
        span_context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, Any],
        links: Sequence[Link],
        on_end: Any,
    ) -> Any:
        tracer = self._tracer
        span = self._kind(
            name=name,
            context=span_context,
            parent=parent,
            sampler=tracer.sampler,
            resource=tracer.resource,
            links=links,
            kind=kind,
            span_processor=tracer.span_processor,
            instrumentation_info=tracer.instrumentation_info,
            record_exception=False,
            limits=tracer._span_limits,
            instrumentation_scope=tracer._instrumentation_scope,
            record_end_metrics=on_end,
        )
        span._attributes._dict.update(attributes)
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
        """Start a span below ``parent``, the span of ``current``; an invalid one makes it a root. Values of ``attributes`` are clean."""
        tracer = self._tracer
        if self._kind is None or not tracer._tracer_config.is_enabled:
            return tracer.start_span(name, current, kind, attributes, links, start_ns, False)  # type: ignore[no-any-return]
        trace_id, _, _, flags, state, is_valid = parent  # its properties are calls
        ids = tracer.id_generator
        if is_valid:
            above, is_random = parent, flags & _RANDOM
        else:
            above, is_random, trace_id = None, self._random, ids.generate_trace_id()
        flags = _SAMPLED_RANDOM if is_random else _SAMPLED
        span_context = SpanContext(trace_id, ids.generate_span_id(), False, flags, state if is_valid else None)
        on_end = tracer._tracer_metrics.start_span(above, self._decision)
        span = self._made(name, span_context, above, kind, attributes, links, on_end)
        span.start(start_ns, current)
        return span  # type: ignore[no-any-return]

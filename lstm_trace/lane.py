"""Put attributes and events that are known to be clean on an SDK span without having the SDK clean them once more.

Cleaning is a third of what a span costs, and everything that ``attributes.py`` writes is a ``str``, ``int``, ``float`` or ``bool`` already. It is
left out only for the SDK's own span class, with limits that our few attributes cannot meet, and after a trial at first use has
shown that both ways give the same span; everywhere else the public methods are called.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.trace import Span, Tracer

_ROOM: Final = 64
"""Attributes that a span must have room for; its limit is 128 unless the user lowered it."""


class Lane:
    """How attributes and events reach the spans of one tracer."""

    __slots__ = ("_bounded", "_event", "_kind")

    def __init__(self, tracer: Tracer) -> None:
        self._kind: Any = None
        self._event: Any = None
        self._bounded: Any = None
        limits = getattr(tracer, "_span_limits", None)
        if limits is None or not type(tracer).__module__.startswith("opentelemetry.sdk."):
            return
        try:
            self._prepare(limits)
        except (ImportError, AttributeError, TypeError):
            self._kind = None  # another SDK than the ones we know: the public methods serve it

    def _prepare(self, limits: Any) -> None:
        lengths = (limits.max_attribute_length, limits.max_span_attribute_length)
        counts = (limits.max_span_attributes, limits.max_event_attributes)
        if any(each is not None for each in lengths) or any(each is not None and each < _ROOM for each in counts):
            return
        from opentelemetry.attributes import BoundedAttributes
        from opentelemetry.sdk.trace import Event, _Span

        tried = BoundedAttributes(None, None, immutable=True)
        tried._dict = {"key": 1}
        event = Event("name", tried, 2)
        kept = (type(tried._dict), dict(tried), dict(event.attributes or {}), event.timestamp, callable(_Span._add_event))
        if kept == (dict, {"key": 1}, {"key": 1}, 2, True):
            self._kind, self._event, self._bounded = _Span, Event, BoundedAttributes

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
            kept = self._bounded(None, None, True)
            kept._dict = attributes
            span._add_event(self._event(name, kept, time_ns))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        else:
            span.add_event(name, attributes, time_ns)

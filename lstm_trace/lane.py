"""Put attributes and events that are known to be clean on an SDK span without having the SDK clean them once more.

Cleaning is a third of what a span costs, and everything that ``attributes.py`` writes is a ``str``, ``int``, ``float`` or ``bool``
already. It is left out only for the SDK's own span class, with limits that our few attributes cannot meet, and after a trial at first
use has shown that both ways give the same event; everywhere else the public methods are called.
"""

from __future__ import annotations

import threading
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

        self._event, self._bounded = Event, BoundedAttributes
        usual = BoundedAttributes(None, {"key": 1}, immutable=True)
        made = self._event_of("name", {"key": 1}, 2)
        same = (
            vars(made).keys() == vars(Event("name", usual, 2)).keys()
            and vars(made.attributes).keys() == vars(usual).keys()
            and (made.name, made.timestamp, dict(made.attributes)) == ("name", 2, {"key": 1})
            and callable(_Span._add_event)
        )
        if same:
            self._kind = _Span

    def _event_of(self, name: str, attributes: dict[str, Any], time_ns: int) -> Any:
        """Make an event as the SDK's constructors would, without their five calls."""
        kept = self._bounded.__new__(self._bounded)
        kept.__dict__ = {
            "_dict": attributes,
            "maxlen": None,
            "dropped": 0,
            "max_value_len": None,
            "_lock": _NEVER_CONTENDED,
            "_immutable": True,
        }
        event = self._event.__new__(self._event)
        event.__dict__ = {"_name": name, "_timestamp": time_ns, "_attributes": kept}
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


_NEVER_CONTENDED: Final = threading.Lock()
"""Attributes of an event never change, so nothing ever waits for their lock."""

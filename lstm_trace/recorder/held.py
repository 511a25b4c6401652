"""A span of the SDK that has its locks, lists and bounded attributes made when somebody asks for them.

They are most of what a span costs, and most spans are asked for nothing but their ids while they are open. ``starting.py`` makes such a
span field by field and ends it; this module needs the SDK and is loaded only where a provider of the SDK is in force.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import _Span
from opentelemetry.trace import SpanContext, Status, StatusCode

_changing = threading.RLock()  # reentrant: a finaliser may run anywhere and end a span of its own


class HeldSpan(_Span):  # pyright: ignore[reportUntypedBaseClass]
    """An SDK span that begins with seven fields: those that ``HELD`` names, and the tracer that it is of.

    Whatever reads or writes more, the SDK's own methods included, finds a field missing and so makes the span whole; from then on it is
    like any other. The defaults below are what an exporter reads of a span that was never made whole.
    """

    _attributes: Any
    _is_whole = False
    _is_bare = True
    """Neither whole nor over: one question instead of two, since a class with ``__getattr__`` is slow to read."""
    _end_time = None
    _status = Status(StatusCode.UNSET)
    _events: Any = ()
    _links: Any = ()

    def __getattr__(self, name: str) -> Any:
        if name not in WHOLE or self._is_whole:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._make_whole()
        return getattr(self, name)

    def _make_whole(self) -> None:
        with _changing:
            if self._is_whole:
                return
            tracer: Any = self._tracer
            attributes, events = self._attributes, self._events
            parts = vars(
                _Span(
                    name=self._name,
                    context=self._context,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
                    parent=self._parent,
                    sampler=tracer.sampler,
                    resource=self._resource,
                    links=self._links,
                    kind=self._kind,
                    span_processor=tracer.span_processor,
                    instrumentation_info=tracer.instrumentation_info,
                    record_exception=False,
                    limits=tracer._span_limits,
                    instrumentation_scope=self._instrumentation_scope,
                )
            )
            parts["_attributes"]._dict.update(attributes)  # clean as they are, and an exporter may be reading the old dict
            parts["_attributes"]._immutable = self._end_time is not None
            for event in events:
                parts["_events"].append(event)
            parts.update(_start_time=self._start_time, _end_time=self._end_time, _status=self._status, _is_whole=True, _is_bare=False)
            vars(self).update(parts)

    def get_span_context(self) -> SpanContext:
        """Return the span's own context."""
        return self._context  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def put(self, attributes: dict[str, Any], room: int) -> bool:
        """Set clean attributes unless the span was made whole, is over, or would hold more than ``room``; tell whether that was done."""
        with _changing:
            held = self._attributes if self._is_bare else None
            if held is None or len(held) + len(attributes) > room:
                return False
            held.update(attributes)
        return True

    def close(self, attributes: dict[str, Any] | None, events: tuple[Any, ...], end_ns: int, room: int) -> bool:
        """End the span with clean attributes and events, under the same conditions. Its processors are the caller's to tell."""
        with _changing:
            if not self._is_bare:
                return False
            if attributes:
                held = self._attributes
                if len(held) + len(attributes) > room:
                    return False
                held.update(attributes)
            if events:
                self._events = events
            self._end_time = end_ns
            self._is_bare = False
        return True


HELD: Final = frozenset({"_name", "_context", "_parent", "_kind", "_start_time", "_attributes", "_resource", "_instrumentation_scope"})
"""The fields of an SDK span that a held one begins with."""

_DEFAULTS: Final = frozenset({"_end_time", "_status", "_events", "_links"})

WHOLE: Final = frozenset(vars(_Span("name", None, resource=Resource({})))) - HELD - _DEFAULTS  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
"""The fields of an SDK span that only a whole one has."""


def _after_fork() -> None:
    global _changing
    _changing = threading.RLock()  # another thread may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

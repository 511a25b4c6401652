"""A light stand-in for a span while the user's code runs: it becomes the real span when something asks, else when that code returns.

A span started after the forward pass, with its attributes, is cheaper than one started before it. Whatever runs inside must still
find a current span to hang below: the stand-in is that span, and starts the real one (with the true start time) at the first touch.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanContext, Status, StatusCode
from opentelemetry.util import types


class Late(ABC):
    """What a span is made of that starts at the first touch, once, from whichever thread touches first. ``real`` is None until then."""

    __slots__ = ("real",)

    real: trace.Span | None

    @abstractmethod
    def make(self) -> trace.Span:
        """Make the real span; asked for once."""

    def start(self) -> trace.Span:
        """Return the real span, started now if it was not."""
        if self.real is None:
            with _starting:
                if self.real is None:
                    self.real = self.make()
        return self.real


class LateSpan(trace.Span):
    """Stands where the span is looked for. Whoever is read at each call is not this: a class with ``__getattr__`` is slow to read."""

    __slots__ = ("_late",)

    def __init__(self, late: Late) -> None:
        self._late = late

    def start(self) -> trace.Span:
        """Return the real span, started now if it was not."""
        return self._late.start()

    def get_span_context(self) -> SpanContext:
        """Return the real span's context."""
        return self.start().get_span_context()

    def is_recording(self) -> bool:
        """Tell whether the real span records."""
        return self.start().is_recording()

    def set_attributes(self, attributes: Mapping[str, types.AttributeValue]) -> None:
        """Pass on to the real span."""
        self.start().set_attributes(attributes)

    def set_attribute(self, key: str, value: types.AttributeValue) -> None:
        """Pass on to the real span."""
        self.start().set_attribute(key, value)

    def add_event(self, name: str, attributes: types.Attributes = None, timestamp: int | None = None) -> None:
        """Pass on to the real span."""
        self.start().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: types.Attributes = None) -> None:
        """Pass on to the real span."""
        self.start().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        """Pass on to the real span."""
        self.start().update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Pass on to the real span."""
        self.start().set_status(status, description)

    def record_exception(
        self, exception: BaseException, attributes: types.Attributes = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        """Pass on to the real span."""
        self.start().record_exception(exception, attributes, timestamp, escaped)

    def end(self, end_time: int | None = None) -> None:
        """Pass on to the real span: the user's code may end what is current, as with any span."""
        self.start().end(end_time)

    def __getattr__(self, name: str) -> Any:
        # SDK spans carry more than the API names (`attributes`, `parent`, `resource`): code that reads them finds them here too.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.start(), name)


_starting = threading.RLock()

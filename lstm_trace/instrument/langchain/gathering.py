"""The chunks of a stream that somebody is to see whole; the caller's stream stays as lazy as it was."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import SpanContext


class Gathered:
    """The chunks of one streamed answer. ``done`` once it ended by itself; one that was broken off is no answer."""

    __slots__ = ("chunks", "done", "where")

    def __init__(self, where: SpanContext | None) -> None:
        self.where = where  # the span to judge, if it is to be judged
        self.chunks: list[Any] = []
        self.done = False

    def whole(self) -> Any:
        """Put the chunks together: texts joined, messages added up, and of anything else (a graph's states) the last one.

        >>> gathered = Gathered(None)
        >>> gathered.chunks += ["Two ", "years."]
        >>> gathered.whole()
        'Two years.'
        """
        if not self.chunks:
            return None
        if all(isinstance(chunk, str) for chunk in self.chunks):
            return "".join(self.chunks)
        if all(hasattr(chunk, "content") and hasattr(chunk, "__add__") for chunk in self.chunks):
            message = self.chunks[0]
            for chunk in self.chunks[1:]:
                message = message + chunk
            return message
        return self.chunks[-1]

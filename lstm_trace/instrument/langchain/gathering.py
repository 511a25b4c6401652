"""Keep the chunks of a stream that is to be judged once it is whole; the caller's stream stays as lazy as it was."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from opentelemetry.trace import SpanContext


class Gathered:
    """The chunks of one streamed answer. ``done`` once it ended by itself; one that was broken off is no answer."""

    __slots__ = ("chunks", "done", "where")

    def __init__(self, where: SpanContext) -> None:
        self.where = where
        self.chunks: list[Any] = []
        self.done = False

    def keep(self, inner: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Pass a generator through; what is sent or thrown in reaches it."""
        step: Callable[..., Any] = inner.send
        given: Any = None
        try:
            while True:
                try:
                    chunk = step(given)
                except StopIteration as stop:
                    self.done = True
                    return stop.value
                self.chunks.append(chunk)
                try:
                    given, step = (yield chunk), inner.send
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the caller: the generator's own business
                    given, step = error, inner.throw
        finally:
            inner.close()

    async def akeep(self, inner: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
        """Pass an async generator through; what is sent or thrown in reaches it."""
        step: Callable[..., Any] = inner.asend
        given: Any = None
        try:
            while True:
                try:
                    chunk = await step(given)
                except StopAsyncIteration:
                    self.done = True
                    return
                self.chunks.append(chunk)
                try:
                    given, step = (yield chunk), inner.asend
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in by the caller: the generator's own business
                    given, step = error, inner.athrow
        finally:
            await inner.aclose()

    def whole(self) -> Any:
        """Put the chunks together: texts joined, messages added up, and of anything else (a graph's states) the last one.

        >>> from opentelemetry.trace import INVALID_SPAN_CONTEXT
        >>> gathered = Gathered(INVALID_SPAN_CONTEXT)
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

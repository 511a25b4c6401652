"""Tell the streams that are produced in a task of their own whose reader leaves: LangChain cancels that task, which is no error."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from typing import Any, Final

from lstm_trace.guard import shield
from lstm_trace.instrument.langchain.current import model_events_async, run_given, unregistered
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.runs import READER_KEY, Reader
from lstm_trace.recorder import ambient

_RUN: Final = "_lstm_trace_run"
"""The attribute under which a model's newer stream holds its run."""


def events(original: Any) -> Any:
    """Wrap ``_astream_events_implementation_v2``, which reads from a task that it cancels when it is left."""

    @functools.wraps(original)
    def implementation(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner = original(*args, **kwargs)
        return inner if handler.now() is None else _read(inner)

    return implementation


async def _read(inner: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    reader = Reader()
    step = unregistered(inner)
    try:
        # The task starts with the first step, in a copy of the context that is current meanwhile.
        token = ambient.enter(ambient.extended(ambient.get(), {READER_KEY: reader}))
        try:
            event = await step(None)
        finally:
            ambient.leave(token)
        while True:
            yield event
            event = await inner.asend(None)
    except StopAsyncIteration:
        return
    except GeneratorExit:
        reader.left = True
        raise
    finally:
        if not getattr(inner, "ag_running", False):  # the event loop is closing it already
            await inner.aclose()


def model_events(original: Any) -> Any:
    """Wrap ``_aiter_v2_events``: a model's own code runs inside its span, and the stream that its events go to learns whose it is."""
    original = model_events_async(original)

    @functools.wraps(original)
    def iterate(self: Any, *args: Any, **kwargs: Any) -> Any:
        with shield:
            stream, run = kwargs.get("stream"), run_given(args, kwargs)
            if stream is not None and run is not None:
                setattr(stream, _RUN, run)
        return original(self, *args, **kwargs)

    return iterate


def model_stream_closed(original: Any) -> Any:
    """Wrap ``AsyncChatModelStream.aclose``, which cancels the task that the model's events come from."""

    @functools.wraps(original)
    async def aclose(self: Any) -> None:
        run = self.__dict__.get(_RUN)
        if run is not None:
            run.left = True
        await original(self)

    return aclose

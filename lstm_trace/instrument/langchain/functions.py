"""Give a span to every call of a function, an async function, a generator or an async generator."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Generator
from typing import Any

from lstm_trace.instrument.langchain.current import astepwise, stepwise
from lstm_trace.instrument.langchain.named import NamedChain, close
from lstm_trace.instrument.langchain.runs import Scope
from lstm_trace.recorder import ambient


def trace_function(target: Any, chain: NamedChain) -> Any:
    """Return the function that does the same inside a span; of the same kind, and as lazy."""
    if inspect.isasyncgenfunction(target):

        @functools.wraps(target)
        async def astream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            run = chain.open(args, kwargs)
            gathered = chain.gather(run)
            inner = target(*args, **kwargs) if gathered is None else gathered.akeep(target(*args, **kwargs))
            stream = inner if run is None else astepwise(inner, lambda: Scope.around(run))
            try:
                async for chunk in stream:
                    yield chunk
            finally:
                await stream.aclose()
                close(run)
                chain.judge_stream(gathered, args, kwargs)

        return astream
    if inspect.isgeneratorfunction(target):

        @functools.wraps(target)
        def stream(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            run = chain.open(args, kwargs)
            gathered = chain.gather(run)
            inner = target(*args, **kwargs) if gathered is None else gathered.keep(target(*args, **kwargs))
            try:
                return (yield from (inner if run is None else stepwise(inner, lambda: Scope.around(run))))
            finally:
                close(run)
                chain.judge_stream(gathered, args, kwargs)

        return stream
    if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None)):  # noqa: B004

        @functools.wraps(target)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            run = chain.open(args, kwargs)
            if run is None or run.context is None:
                return await target(*args, **kwargs)
            where = chain.where(run)
            token = ambient.enter(run.context)
            try:
                result = await target(*args, **kwargs)
            except BaseException as error:
                close(run, error)
                raise
            finally:
                ambient.leave(token)
            close(run)
            chain.judge(where, args, kwargs, result)
            return result

        return acall

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Any:
        run = chain.open(args, kwargs)
        if run is None or run.context is None:
            return target(*args, **kwargs)
        where = chain.where(run)
        token = ambient.enter(run.context)
        try:
            result = target(*args, **kwargs)
        except BaseException as error:
            close(run, error)
            raise
        finally:
            ambient.leave(token)
        close(run)
        chain.judge(where, args, kwargs, result)
        return result

    return call

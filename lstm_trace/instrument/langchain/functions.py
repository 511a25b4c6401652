"""The four shapes of a call inside a named chain's span: a function, an async function, a generator, an async generator."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Generator
from typing import Any

from lstm_trace.instrument.langchain.current import Entered, astepwise, stepwise
from lstm_trace.instrument.langchain.named import NamedChain, close


def trace_function(target: Any, chain: NamedChain) -> Any:
    """Return the function that does the same inside a span; of the same kind, and as lazy."""
    if inspect.isasyncgenfunction(target):
        return astream(target, chain)
    if inspect.isgeneratorfunction(target):
        return stream(target, chain)
    if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None)):  # noqa: B004
        return acall(target, chain)
    return call(target, chain)


def call(target: Any, chain: NamedChain) -> Any:
    """Give every call of a function a span."""

    @functools.wraps(target)
    def called(*args: Any, **kwargs: Any) -> Any:
        scope = chain.enter(args, kwargs)
        if scope is None:
            return target(*args, **kwargs)
        run = scope.run  # a model's own run may take its place in the scope
        where = chain.where(run)
        try:
            with Entered(scope):
                result = target(*args, **kwargs)
        except BaseException as error:
            close(run, error)
            raise
        close(run, result=result)
        chain.judge(where, args, kwargs, result)
        return result

    return called


def acall(target: Any, chain: NamedChain) -> Any:
    """Give every call of an async function a span."""

    @functools.wraps(target)
    async def called(*args: Any, **kwargs: Any) -> Any:
        scope = chain.enter(args, kwargs)
        if scope is None:
            return await target(*args, **kwargs)
        run = scope.run  # a model's own run may take its place in the scope
        where = chain.where(run)
        try:
            with Entered(scope):
                result = await target(*args, **kwargs)
        except BaseException as error:
            close(run, error)
            raise
        close(run, result=result)
        chain.judge(where, args, kwargs, result)
        return result

    return called


def stream(target: Any, chain: NamedChain) -> Any:
    """Give every run of a generator a span."""

    @functools.wraps(target)
    def streamed(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        scope = chain.enter(args, kwargs)
        inner = target(*args, **kwargs)
        if scope is None:
            return (yield from inner)
        run = scope.run
        gathered = chain.gather(run)
        try:
            return (yield from stepwise(inner, lambda: scope, gathered))
        finally:
            chain.end_stream(run, gathered, args, kwargs)

    return streamed


def astream(target: Any, chain: NamedChain) -> Any:
    """Give every run of an async generator a span."""

    @functools.wraps(target)
    async def streamed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        scope = chain.enter(args, kwargs)
        inner = target(*args, **kwargs)
        run = scope.run if scope is not None else None
        gathered = chain.gather(run)
        chunks = inner if scope is None else astepwise(inner, lambda: scope, gathered)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()
            chain.end_stream(run, gathered, args, kwargs)

    return streamed

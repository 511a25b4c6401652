"""Make a run's span current while the user's code of that run executes, and only then.

LangChain enters most code through a copied ``contextvars.Context``: what is set in there needs no detach. Code that it calls directly
(models, retrievers, a graph's loop and its routing functions) is entered through a wrapper that restores the caller's context in the
same frame, for generators around every single step.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel

from lstm_trace.guard import shield
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.runs import RUN_KEY, Run, Scope, run_of, scopes

MakeScope = Callable[[Any], Scope]


def config_context(original: Any) -> Any:
    """Wrap ``_set_config_context``, which LangChain runs inside the copied context of a step."""

    @functools.wraps(original)
    def _set_config_context(config: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(config, *args, **kwargs)
        with shield:
            run = handler.live.get(getattr(config.get("callbacks"), "parent_run_id", None))
            context = run.context if run is not None else None
            if run is not None and context is not None:
                here: Run | None = otel.get_current().get(RUN_KEY)  # type: ignore[assignment]
                if here is None or not here.is_or_is_below(run.run_id):
                    otel.attach(context)  # a copied contextvars.Context: nothing to detach
        return result

    return _set_config_context


@contextmanager
def entered(scope: Scope) -> Generator[None]:
    """Enter one stretch of a framework function's code; leave the caller's context as it was."""
    context = scope.run.context if scope.run is not None else None
    token = otel.attach(otel.get_current() if context is None else context)
    mine = scopes.set(scope)
    try:
        yield
    except BaseException as error:
        # What the framework does not report: cancellation of a tool, a retriever or a model.
        if scope.run is not None and not isinstance(error, (StopIteration, StopAsyncIteration)):
            handler.end(scope.run, error=error)
        raise
    finally:
        scopes.reset(mine)
        otel.detach(token)


def scoped(make_scope: MakeScope) -> Callable[[Any], Any]:
    """Wrap a method inside which one run starts."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if handler.silent():
                return original(self, *args, **kwargs)
            with entered(make_scope(self)):
                return original(self, *args, **kwargs)

        return call

    return wrap


def scoped_async(make_scope: MakeScope) -> Callable[[Any], Any]:
    """Wrap a coroutine method inside which one run starts."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if handler.silent():
                return await original(self, *args, **kwargs)
            with entered(make_scope(self)):
                return await original(self, *args, **kwargs)

        return call

    return wrap


def scoped_generator(make_scope: MakeScope) -> Callable[[Any], Any]:
    """Wrap a generator method inside which one run starts. Between two chunks the caller's context is the caller's."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def stream(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            inner = original(self, *args, **kwargs)
            if handler.silent():
                return (yield from inner)
            return (yield from stepwise(inner, make_scope(self)))

        return stream

    return wrap


def scoped_async_generator(make_scope: MakeScope) -> Callable[[Any], Any]:
    """Wrap an async generator method inside which one run starts."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        async def astream(self: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            scope = make_scope(self)
            inner = astepwise(original(self, *args, **kwargs), scope)
            try:
                async for chunk in inner:
                    yield chunk
            finally:
                await inner.aclose()

        return astream

    return wrap


def stepwise(inner: Generator[Any, Any, Any], scope: Scope) -> Generator[Any, Any, Any]:
    """Drive a generator so that each of its steps runs inside ``scope``."""
    step: Callable[[], Any] = functools.partial(next, inner)
    try:
        while True:
            try:
                with entered(scope):
                    chunk = step()
            except StopIteration as stop:
                return stop.value
            try:
                sent = yield chunk
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001  thrown in by the caller: the generator's own business
                step = functools.partial(inner.throw, error)
            else:
                step = functools.partial(next, inner) if sent is None else functools.partial(inner.send, sent)
    finally:
        with entered(scope):
            inner.close()


async def astepwise(inner: AsyncGenerator[Any, Any], scope: Scope) -> AsyncGenerator[Any, Any]:
    """Drive an async generator so that each of its steps runs inside ``scope``."""
    step: Callable[[], Any] = inner.__anext__
    try:
        while True:
            try:
                with entered(scope):
                    chunk = await step()
            except StopAsyncIteration:
                return
            try:
                sent = yield chunk
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001  thrown in by the caller: the generator's own business
                step = functools.partial(inner.athrow, error)
            else:
                step = inner.__anext__ if sent is None else functools.partial(inner.asend, sent)
    finally:
        with entered(scope):
            await inner.aclose()


def model_call(original: Any) -> Any:
    """Wrap ``_generate_with_cache``: the model's own code runs inside its span."""

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        scope = _scope_of(args, kwargs)
        if scope is None:
            return original(self, *args, **kwargs)
        with _inside(scope):
            return original(self, *args, **kwargs)

    return call


def model_call_async(original: Any) -> Any:
    """Wrap ``_agenerate_with_cache``; a cancellation in there is reported by nobody else."""

    @functools.wraps(original)
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        scope = _scope_of(args, kwargs)
        if scope is None:
            return await original(self, *args, **kwargs)
        try:
            with _inside(scope):
                return await original(self, *args, **kwargs)
        except Exception:
            raise  # LangChain reports it, with what was generated so far
        except BaseException as error:
            handler.end(scope, error=error)
            raise

    return call


@contextmanager
def _inside(run: Run) -> Generator[None]:
    token = otel.attach(run.context or otel.get_current())
    try:
        yield
    finally:
        otel.detach(token)


def _scope_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run | None:
    """Return the open run of the run manager that a call was given: by keyword, or the first of a list of them."""
    given = kwargs.get("run_manager")
    if given is None:
        given = next(
            (each for arg in args if (each := arg[0] if isinstance(arg, list) and arg else arg) is not None and run_of(each)), None
        )
    run = run_of(given) if given is not None else None
    return run if run is not None and run.context is not None else None

"""Make a run's span current while the user's code of that run executes, and only then.

LangChain enters most code through a copied ``contextvars.Context``: what is set in there needs no detach. Code that it calls directly
(models, retrievers, a graph's loop and its routing functions) is entered through a wrapper that puts the caller's context back in the
same frame, for generators around every single step.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from opentelemetry.context import Context

from lstm_trace.guard import shield
from lstm_trace.instrument.langchain.gathering import Gathered
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.runs import RUN_KEY, Run, Scope, run_of, scopes
from lstm_trace.recorder import ambient

MakeScope = Callable[[Any], Scope]


def config_context(original: Any) -> Any:
    """Wrap ``_set_config_context``, which LangChain runs inside the copied context of a step."""

    @functools.wraps(original)
    def _set_config_context(config: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(config, *args, **kwargs)
        try:
            run = handler.live.get(getattr(config.get("callbacks"), "parent_run_id", None))
            context = None if run is None else run.context
            if run is not None and context is not None and (here := ambient.get()) is not context:
                inside: Any = here.get(RUN_KEY)
                if inside is None or inside is run.above or not inside.is_within(run):
                    ambient.enter(context)  # a copied contextvars.Context: nothing to detach
        except Exception as error:  # noqa: BLE001
            shield.caught(error)
        return result

    return _set_config_context


class Entered:
    """One stretch of a framework function's code, inside a scope; afterwards the caller's context is as it was.

    An exception that leaves it closes the scope's run: the framework itself reports no cancellation of a tool, a retriever or a model.
    """

    __slots__ = ("_mine", "_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        self._token = ambient.enter(_context_in(self._scope))
        # Once its run has started, a scope waits for nothing any more.
        self._mine = None if self._scope.taken else scopes.set(self._scope)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._mine is not None:
            scopes.reset(self._mine)
        ambient.leave(self._token)
        if error is not None:
            _left(self._scope, error)


def _context_in(scope: Scope) -> Context:
    run = scope.run
    context = run.context if run is not None else None
    return ambient.get() if context is None else context


def _left(scope: Scope, error: BaseException) -> None:
    runs = scope.several if scope.run is None else (scope.run,)
    if not runs or (scope.reported and isinstance(error, Exception)):
        return
    if not isinstance(error, (StopIteration, StopAsyncIteration)):
        for run in runs:
            with shield:
                handler.fail(run, error)


def _is_left(scope: Scope) -> None:
    """Note that nobody reads on: what is cancelled for it is no error."""
    if scope.run is not None:
        scope.run.left = True


def scoped(make_scope: MakeScope) -> Callable[[Any], Any]:
    """Wrap a method inside which one run starts."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            here: Any = ambient.get()
            above, known = here.get(RUN_KEY), handler.known
            if above is not None and above.hushes and above.context is here:
                return original(self, *args, **kwargs)
            # What somebody else found in force will do: where it is no more, a scope is opened in vain.
            if (known is None or not known.records) and handler.now() is None:
                return original(self, *args, **kwargs)
            # Entered, written out: a graph comes through here at every node.
            scope = make_scope(self)
            token, mine = ambient.enter(here), scopes.set(scope)
            try:
                return original(self, *args, **kwargs)
            except BaseException as error:
                _left(scope, error)
                raise
            finally:
                scopes.reset(mine)
                ambient.leave(token)

        return call

    return wrap


def scoped_async(make_scope: MakeScope) -> Callable[[Any], Any]:
    """Wrap a coroutine method inside which one run starts."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            here: Any = ambient.get()
            above = here.get(RUN_KEY)
            if (above is not None and above.hushes and above.context is here) or handler.now() is None:
                return await original(self, *args, **kwargs)
            with Entered(make_scope(self)):
                return await original(self, *args, **kwargs)

        return call

    return wrap


def stepwise(
    inner: Generator[Any, Any, Any], make_scope: Callable[[], Scope], gathered: Gathered | None = None
) -> Generator[Any, Any, Any]:
    """Drive a generator so that each of its steps runs inside the scope that is made at the first of them.

    Between two chunks the caller's context is the caller's. The chunks are ``gathered`` where somebody is to see them all.
    """
    scope = make_scope()
    step: Callable[..., Any] = inner.send
    given: Any = None
    try:
        while True:
            # Entered, written out: a graph comes through here at every step.
            run = scope.run
            context = run.context if run is not None else None
            token = ambient.enter(ambient.get() if context is None else context)
            mine = None if scope.taken else scopes.set(scope)
            try:
                chunk = step(given)
            except StopIteration as stop:
                if gathered is not None:
                    gathered.done = True
                return stop.value
            except BaseException as error:
                _left(scope, error)
                raise
            finally:
                if mine is not None:
                    scopes.reset(mine)
                ambient.leave(token)
            if gathered is not None:
                gathered.chunks.append(chunk)
            try:
                given, step = (yield chunk), inner.send
            except GeneratorExit:
                _is_left(scope)
                raise
            except BaseException as error:  # noqa: BLE001 - thrown in by the caller: the generator's own business
                given, step = error, inner.throw
    finally:
        with Entered(scope):
            inner.close()


async def astepwise(
    inner: AsyncGenerator[Any, Any], make_scope: Callable[[], Scope], gathered: Gathered | None = None
) -> AsyncGenerator[Any, Any]:
    """Drive an async generator in the same way."""
    scope = make_scope()
    step: Callable[..., Any] = unregistered(inner)
    given: Any = None
    try:
        while True:
            try:
                with Entered(scope):
                    chunk = await step(given)
            except StopAsyncIteration:
                if gathered is not None:
                    gathered.done = True
                return
            if gathered is not None:
                gathered.chunks.append(chunk)
            try:
                given, step = (yield chunk), inner.asend
            except GeneratorExit:
                _is_left(scope)
                raise
            except BaseException as error:  # noqa: BLE001 - thrown in by the caller: the generator's own business
                given, step = error, inner.athrow
    finally:
        if not getattr(inner, "ag_running", False):  # the event loop is closing it already
            with Entered(scope):
                await inner.aclose()


def unregistered(inner: AsyncGenerator[Any, Any]) -> Callable[[Any], Any]:
    """Return the first step of a generator that the event loop is not to know.

    A loop that ends closes every generator it knows at the same time, and complains where one is being closed already. It knows ours.
    """

    def first(given: Any) -> Any:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            return inner.asend(given)  # the hooks are read here, before anything runs
        finally:
            sys.set_asyncgen_hooks(*hooks)

    return first


def scoped_generator(make_scope: MakeScope, drive: Any = stepwise) -> Callable[[Any], Any]:
    """Wrap a generator method inside which one run starts."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def stream(self: Any, *args: Any, **kwargs: Any) -> Any:
            inner = original(self, *args, **kwargs)
            return inner if handler.now() is None else drive(inner, lambda: make_scope(self))

        return stream

    return wrap


scoped_async_generator = functools.partial(scoped_generator, drive=astepwise)
"""The same for an async generator method."""


def retrying(original: Any) -> Any:
    """Wrap a middleware's ``wrap_model_call`` or ``wrap_tool_call``: what starts below the node's run meanwhile is an attempt each."""

    @functools.wraps(original)
    def wrap_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = _begin_attempts()
        try:
            return original(self, *args, **kwargs)
        finally:
            if run is not None:
                run.tries = None

    return wrap_call


def retrying_async(original: Any) -> Any:
    """Wrap ``awrap_model_call`` or ``awrap_tool_call``."""

    @functools.wraps(original)
    async def awrap_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = _begin_attempts()
        try:
            return await original(self, *args, **kwargs)
        finally:
            if run is not None:
                run.tries = None

    return awrap_call


def _begin_attempts() -> Run | None:
    """Let the current run count attempts, unless it does so already: of middlewares inside each other the outermost counts."""
    here: Any = ambient.get().get(RUN_KEY)
    run: Run | None = here
    if run is None or run.tries is not None:
        return None
    run.tries, run.attempts = Scope(tries=True), 0
    return run


def model_call(original: Any) -> Any:
    """Wrap ``_generate_with_cache`` or ``_generate_helper``: the model's own code runs inside its span."""

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = run_given(args, kwargs)
        if run is None or run.context is None:
            return original(self, *args, **kwargs)
        token = ambient.enter(run.context)
        try:
            return original(self, *args, **kwargs)
        finally:
            ambient.leave(token)

    return call


def model_call_async(original: Any) -> Any:
    """Wrap the async ones; a cancellation in there is reported by nobody else."""

    @functools.wraps(original)
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = run_given(args, kwargs)
        if run is None or run.context is None:
            return await original(self, *args, **kwargs)
        token = ambient.enter(run.context)
        try:
            return await original(self, *args, **kwargs)
        except Exception:  # LangChain reports it, with what was generated so far
            raise
        except BaseException as error:
            with shield:
                handler.fail(run, error)
            raise
        finally:
            ambient.leave(token)

    return call


def model_events(original: Any, drive: Any = stepwise) -> Any:
    """Wrap ``_iter_v2_events``: a model's own code behind the newer streaming protocol."""

    @functools.wraps(original)
    def events(self: Any, *args: Any, **kwargs: Any) -> Any:
        inner, run = original(self, *args, **kwargs), run_given(args, kwargs)
        return inner if run is None else drive(inner, lambda: Scope.around(run, reported=True))

    return events


model_events_async = functools.partial(model_events, drive=astepwise)
"""The same for ``_aiter_v2_events``."""


def run_given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run | None:
    """Return the run of the run manager that a model was given: by keyword, or the first of the list that is its third argument."""
    given = kwargs.get("run_manager")
    if given is None and len(args) > 2:
        given = args[2]
    if isinstance(given, list):
        given = given[0] if len(given) == 1 else None
    return run_of(given) if given is not None else None


def breakpoint_reached(original: Any) -> Any:
    """Wrap ``PregelLoop._suppress_interrupt``, the one place that sees a graph pause at a breakpoint as well as at an ``interrupt()``."""

    @functools.wraps(original)
    def _suppress_interrupt(self: Any, kind: Any, error: Any, trace: Any) -> Any:
        try:
            run = run_of(self.manager)
            if run is not None and kind is not None and any(each.__name__ == "GraphInterrupt" for each in kind.__mro__):
                run.interrupted = True
        except Exception as mistake:  # noqa: BLE001
            shield.caught(mistake)
        return original(self, kind, error, trace)

    return _suppress_interrupt

"""What our replacements of LangChain's callback managers do: a run manager is made, its span opens; it reports an end, the span closes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from opentelemetry import context as otel

from lstm_trace.guard import shield
from lstm_trace.instrument.langchain import starts
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.runs import Run, Scope, run_of, take_scope

Opener = Callable[[Any, Any, "tuple[Any, ...]", "dict[str, Any]", "Scope | None"], "Run | None"]
"""(callback manager, run manager, args, kwargs, scope) -> the run, if it records."""


def on_start(opener: Opener) -> Callable[[Any], Any]:
    """Wrap ``CallbackManager.on_*_start``."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def start(self: Any, *args: Any, **kwargs: Any) -> Any:
            scope = take_scope()
            made = original(self, *args, **kwargs)
            if not handler.silent():
                with shield:
                    _begin(opener, self, made, args, kwargs, scope)
            return made

        return start

    return wrap


def on_start_async(opener: Opener) -> Callable[[Any], Any]:
    """Wrap ``AsyncCallbackManager.on_*_start``."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        async def start(self: Any, *args: Any, **kwargs: Any) -> Any:
            scope = take_scope()
            made = await original(self, *args, **kwargs)
            if not handler.silent():
                with shield:
                    _begin(opener, self, made, args, kwargs, scope)
            return made

        return start

    return wrap


def _begin(opener: Opener, callbacks: Any, made: Any, args: tuple[Any, ...], kwargs: dict[str, Any], scope: Scope | None) -> None:
    if starts.HIDDEN in callbacks.tags:
        return
    several = made if isinstance(made, list) else [made]
    for run_manager in several:
        if handler.live.get(run_manager.run_id) is not None:
            return  # LangGraph starts one run twice where it shows its tracers less than its other handlers
        run = opener(callbacks, run_manager, args, kwargs, scope)
        if run is None:
            continue
        handler.live.add(run, run_manager)
        if scope is not None and len(several) == 1:
            scope.run = run
            if run.context is not None:
                otel.attach(run.context)  # the scope's wrapper restores the caller's context in its own frame


Closer = Callable[[Run, "tuple[Any, ...]", "dict[str, Any]"], None]


def on_end(closer: Closer) -> Callable[[Any], Any]:
    """Wrap ``CallbackManagerFor*Run.on_*_end`` and ``_error``."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def end(self: Any, *args: Any, **kwargs: Any) -> Any:
            run = run_of(self)
            if run is not None:
                with shield:
                    closer(run, args, kwargs)
            return original(self, *args, **kwargs)

        return end

    return wrap


def on_end_async(closer: Closer) -> Callable[[Any], Any]:
    """Wrap the async ones. The span closes before the first await, so that a cancellation cannot skip it."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        async def end(self: Any, *args: Any, **kwargs: Any) -> Any:
            run = run_of(self)
            if run is not None:
                with shield:
                    closer(run, args, kwargs)
            return await original(self, *args, **kwargs)

        return end

    return wrap

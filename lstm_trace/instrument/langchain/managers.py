"""What our replacements of LangChain's callback managers do: a run manager is made, its span opens; it reports an end, the span closes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from lstm_trace.guard import shield
from lstm_trace.instrument.langchain import starts
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.others import without_others
from lstm_trace.instrument.langchain.runs import LEASE, Run, Scope, run_of, take_scope
from lstm_trace.recorder import ambient

Opener = Callable[[Any, Any, "tuple[Any, ...]", "dict[str, Any]", "Scope | None"], "Run | None"]
"""(callback manager, run manager, args, kwargs, scope) -> the run, if it is to be followed."""

Closer = Callable[[Run, "tuple[Any, ...]", "dict[str, Any]"], None]
"""(run, args, kwargs): closes it with what was reported."""

# These functions run for every step of every chain: a bare ``try`` costs nothing, entering the shield does.


def on_start(opener: Opener) -> Callable[[Any], Any]:
    """Wrap ``CallbackManager.on_*_start``."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def start(self: Any, *args: Any, **kwargs: Any) -> Any:
            if handler.silent():
                return original(self, *args, **kwargs)
            scope = take_scope()
            if self.handlers and not _ours(self):
                return original(self, *args, **kwargs)
            made = original(self, *args, **kwargs)
            try:
                _begin(opener, self, made, args, kwargs, scope)
            except Exception as error:  # noqa: BLE001
                shield.caught(error)
            return made

        return start

    return wrap


def on_start_async(opener: Opener) -> Callable[[Any], Any]:
    """Wrap ``AsyncCallbackManager.on_*_start``."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        async def start(self: Any, *args: Any, **kwargs: Any) -> Any:
            if handler.silent():
                return await original(self, *args, **kwargs)
            scope = take_scope()
            if self.handlers and not _ours(self):
                return await original(self, *args, **kwargs)
            made = await original(self, *args, **kwargs)
            try:
                _begin(opener, self, made, args, kwargs, scope)
            except Exception as error:  # noqa: BLE001
                shield.caught(error)
            return made

        return start

    return wrap


def _ours(callbacks: Any) -> bool:
    """Tell whether we write this run's span; where another instrumentation listens too, keep its handlers out of this run."""
    rest = without_others(callbacks.handlers)
    if rest is None:
        return True
    if handler.recorder.settings.langchain_spans == "theirs":
        return False
    callbacks.handlers = rest
    return True


def _begin(opener: Opener, callbacks: Any, made: Any, args: tuple[Any, ...], kwargs: dict[str, Any], scope: Scope | None) -> None:
    if starts.HIDDEN in callbacks.tags:
        return
    several = made if isinstance(made, list) else (made,)
    for manager in several:
        if kwargs.get("run_id") is not None and handler.live.get(manager.run_id) is not None:
            return  # LangGraph starts one run twice where its tracers are to see less than its other handlers
        run = opener(callbacks, manager, args, kwargs, scope)
        if run is None:
            continue
        handler.live.add(run, manager)
        if scope is None:
            continue
        if scope.tries:
            if run.above is None or not run.above.is_tried_in(scope):
                run.tries = scope
        elif len(several) == 1 and run.context is not None:
            scope.run = run
            ambient.enter(run.context)  # the scope's wrapper puts the caller's context back, in its own frame
    if len(several) > 1 and type(several[0]).__name__ == "CallbackManagerForLLMRun" and opener is starts.chat:
        starts.one_after_another([run for manager in several if (run := run_of(manager)) is not None])


def on_end(closer: Closer) -> Callable[[Any], Any]:
    """Wrap ``on_*_end``, ``_error`` and ``_new_token`` of a run manager, sync or async.

    The span of an async one closes as its coroutine is made, so that no cancellation can skip it. What cannot be read of an answer costs
    that, and never the span's end.
    """

    def wrap(original: Any) -> Any:
        is_last = original.__name__.endswith(("_end", "_error"))

        @functools.wraps(original)
        def end(self: Any, *args: Any, **kwargs: Any) -> Any:
            lease = self.__dict__.get(LEASE)
            if lease is not None:
                try:
                    closer(lease.run, args, kwargs)
                except Exception as error:  # noqa: BLE001
                    if is_last:
                        handler.end(lease.run)
                    shield.caught(error)
            return original(self, *args, **kwargs)

        return end

    return wrap


def on_custom_event(original: Any) -> Any:
    """Wrap ``on_custom_event`` of either callback manager."""

    @functools.wraps(original)
    def event(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            starts.custom_event(self, args, kwargs)
        except Exception as error:  # noqa: BLE001
            shield.caught(error)
        return original(self, *args, **kwargs)

    return event

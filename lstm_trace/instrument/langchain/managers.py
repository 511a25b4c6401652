"""What our replacements of LangChain's callback managers do: a run manager is made, its span opens; it reports an end, the span closes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from lstm_trace.guard import shield
from lstm_trace.instrument.langchain import starts
from lstm_trace.instrument.langchain.handler import handler, hushed
from lstm_trace.instrument.langchain.in_force import InForce
from lstm_trace.instrument.langchain.others import without_others
from lstm_trace.instrument.langchain.runs import LEASE, Run, Scope, run_of, take_scope
from lstm_trace.recorder import ambient

Given = dict[str, Any]

Opener = Callable[[InForce, Any, Any, Any, Any, Any, Given, "Scope | None"], "Run | None"]
"""(what is in force, callback manager, run manager, serialized, what the run is given, name, keywords, scope) -> the run, if followed."""

Closer = Callable[[Run, Any, Given], None]
"""(run, what it gave, keywords): closes it."""

_LEFT_OUT: Any = object()

# These functions run for every step of every chain. They name their parameters, since to gather and to spread them costs more than most of
# what is done with them; a bare ``try`` costs nothing, entering the shield does.


def on_start(opener: Opener) -> Callable[[Any], Any]:
    """Wrap ``CallbackManager.on_*_start``."""

    def wrap(original: Any) -> Any:
        second = _second_parameter(original)

        @functools.wraps(original)
        def start(
            self: Any, serialized: Any, given: Any = _LEFT_OUT, run_id: Any = None, *rest: Any, name: Any = _LEFT_OUT, **more: Any
        ) -> Any:
            now = None if hushed(self) else handler.now()
            scope = None if now is None else take_scope()
            if now is not None and self.handlers and not _ours(self, now):
                now = None
            if given is _LEFT_OUT or name is _LEFT_OUT or rest:
                args, kwargs = _as_given(given, run_id, rest, name, more)
                made = original(self, serialized, *args, **kwargs)
            elif more:
                made = original(self, serialized, given, run_id, name=name, **more)
            else:
                made = original(self, serialized, given, run_id, name=name)
            if now is not None:
                try:
                    if given is _LEFT_OUT:
                        given = more.get(second)
                    _begin(now, opener, self, made, serialized, given, run_id, None if name is _LEFT_OUT else name, more, scope)
                except Exception as error:  # noqa: BLE001
                    shield.caught(error)
            return made

        return start

    return wrap


def on_start_async(opener: Opener) -> Callable[[Any], Any]:
    """Wrap ``AsyncCallbackManager.on_*_start``."""

    def wrap(original: Any) -> Any:
        second = _second_parameter(original)

        @functools.wraps(original)
        async def start(
            self: Any, serialized: Any, given: Any = _LEFT_OUT, run_id: Any = None, *rest: Any, name: Any = _LEFT_OUT, **more: Any
        ) -> Any:
            now = None if hushed(self) else handler.now()
            scope = None if now is None else take_scope()
            if now is not None and self.handlers and not _ours(self, now):
                now = None
            if given is _LEFT_OUT or name is _LEFT_OUT or rest:
                args, kwargs = _as_given(given, run_id, rest, name, more)
                made = await original(self, serialized, *args, **kwargs)
            else:
                made = await original(self, serialized, given, run_id, name=name, **more)
            if now is not None:
                try:
                    if given is _LEFT_OUT:
                        given = more.get(second)
                    _begin(now, opener, self, made, serialized, given, run_id, None if name is _LEFT_OUT else name, more, scope)
                except Exception as error:  # noqa: BLE001
                    shield.caught(error)
            return made

        return start

    return wrap


def _second_parameter(original: Any) -> str:
    """Name what a start or an end is about: ``inputs``, ``messages``, ``prompts``, ``input_str``, ``outputs``, ``error``, say."""
    parameters = list(inspect.signature(original).parameters)
    return next((each for each in parameters if each not in ("self", "serialized")), "")


def _as_given(given: Any, run_id: Any, rest: tuple[Any, ...], name: Any, more: Given) -> tuple[tuple[Any, ...], Given]:
    """Put a start's parameters as its caller did: what was left out stays left out."""
    kwargs = more if name is _LEFT_OUT else {**more, "name": name}
    if given is not _LEFT_OUT:
        return (given, run_id, *rest), kwargs
    return (), kwargs if run_id is None else {**kwargs, "run_id": run_id}


def _ours(callbacks: Any, now: InForce) -> bool:
    """Tell whether we write this run's span; where another instrumentation listens too, keep its handlers out of this run."""
    rest = without_others(callbacks.handlers)
    if rest is None:
        return True
    if now.settings.langchain_spans == "theirs":
        return False
    callbacks.handlers = rest
    return True


def _begin(
    now: InForce,
    opener: Opener,
    callbacks: Any,
    made: Any,
    serialized: Any,
    given: Any,
    run_id: Any,
    name: Any,
    more: Given,
    scope: Scope | None,
) -> None:
    if starts.HIDDEN in callbacks.tags:
        return
    several = made if isinstance(made, list) else (made,)
    for manager in several:
        if run_id is not None and handler.live.get(manager.run_id) is not None:
            return  # LangGraph starts one run twice where its tracers are to see less than its other handlers
        run = opener(now, callbacks, manager, serialized, given, name, more, scope)
        if run is None:
            continue
        handler.live.add(run, manager)
        if scope is None:
            continue
        if scope.tries:
            if run.above is None or not run.above.is_tried_in(scope):
                run.tries = scope
        elif len(several) > 1:
            scope.several.append(run)
        elif run.context is not None:
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
        second = _second_parameter(original)

        @functools.wraps(original)
        def end(self: Any, given: Any = _LEFT_OUT, *rest: Any, **more: Any) -> Any:
            lease = self.__dict__.get(LEASE)
            if lease is not None:
                try:
                    closer(lease.run, more.get(second) if given is _LEFT_OUT else given, more)
                except Exception as error:  # noqa: BLE001
                    if is_last:
                        handler.end(lease.run)
                    shield.caught(error)
            if more or rest or given is _LEFT_OUT:
                return original(self, *rest, **more) if given is _LEFT_OUT else original(self, given, *rest, **more)
            return original(self, given)

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

"""Wrap what is no module: a function, a coroutine function, a method, or an object that is called."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import wrapt

from lstm_trace.instrument.lstm import dynamo, switch, watch
from lstm_trace.instrument.lstm.arguments import check_names
from lstm_trace.instrument.lstm.component import Traced
from lstm_trace.instrument.lstm.decorated import MARK, is_module
from lstm_trace.instrument.lstm.frames import keep_first
from lstm_trace.instrument.lstm.options import Options


def decorate(function: Any, options: Options) -> Any:
    """Return a function that calls this one and is traced."""
    check_names(options, function)
    named: Any = function if hasattr(function, "__qualname__") else getattr(function, "func", None)  # functools.partial has no name
    name = options.name or getattr(named, "__qualname__", "component").rpartition("<locals>.")[2]
    traced = Traced(name, options, function)
    watch.install()
    module = getattr(function, "__self__", None)
    return _coroutine(function, traced, module) if inspect.iscoroutinefunction(function) else _plain(function, traced, module)


def _plain(function: Any, traced: Traced, owner: Any) -> Any:
    begin = traced.begin
    is_compiling = dynamo.asker()

    @functools.wraps(function)
    def component(*args: Any, **kwargs: Any) -> Any:
        if not switch.on:
            return function(*args, **kwargs)
        if is_compiling():
            if dynamo.must_break(traced.name):
                dynamo.graph_break()
            return function(*args, **kwargs)
        is_apart = dynamo.callback() is not None
        module = _module(owner, args)
        call = dynamo.apart(begin, module, args, kwargs, function) if is_apart else begin(module, args, kwargs, function)
        try:
            output = function(*args, **kwargs)
        except BaseException as error:
            if call is not None:
                call.failed(error)
            keep_first(error)
            raise
        if call is None:
            return output
        if is_apart:
            dynamo.apart(call.compiled, output)
        else:
            call.done(output)
        return output

    setattr(component, MARK, traced)
    dynamo.skip(component)
    return component


def _coroutine(function: Any, traced: Traced, owner: Any) -> Any:
    @functools.wraps(function)
    async def component(*args: Any, **kwargs: Any) -> Any:
        call = traced.begin(_module(owner, args), args, kwargs, function) if switch.on else None
        try:
            output = await function(*args, **kwargs)
        except BaseException as error:
            if call is not None:
                call.failed(error)
            keep_first(error)
            raise
        if call is not None:
            call.done(output)
        return output

    setattr(component, MARK, traced)
    return component


def _module(owner: Any, args: tuple[Any, ...]) -> Any:
    """Return the module that a method belongs to: the bound one, or ``self`` in front of a method decorated in its class."""
    candidate = owner if owner is not None else args[0] if args else None
    return candidate if candidate is not None and is_module(candidate) else None


def stand_in(target: Any, options: Options) -> Any:
    """Return a proxy of a callable object."""
    check_names(options, target.__call__)
    return _Proxy(target, Traced(options.name or type(target).__name__, options, target))


class _Proxy(wrapt.ObjectProxy):  # type: ignore[misc]
    """Stands for a callable object whose class is not ours to change."""

    def __init__(self, wrapped: Any, traced: Traced) -> None:
        super().__init__(wrapped)
        is_async = inspect.iscoroutinefunction(type(wrapped).__call__)
        self._self_call = _coroutine(wrapped, traced, None) if is_async else _plain(wrapped, traced, None)
        self._self_traced = traced

    @property
    def __lstm_trace__(self) -> Traced:
        return self._self_traced

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._self_call(*args, **kwargs)
        except BaseException as error:
            keep_first(error)
            raise

"""Put a decoration on whatever was given: a class, an instance, a function, a coroutine function, a method, any callable object."""

from __future__ import annotations

import functools
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from lstm_trace.instrument.lstm import classes, functions
from lstm_trace.instrument.lstm.decorated import is_module
from lstm_trace.instrument.lstm.options import Options


def decorate(target: Any, options: Options) -> Any:
    """Return ``target`` traced: the same class or instance where that is possible, else a function or a proxy in its place."""
    if isinstance(target, (staticmethod, classmethod)):
        raise TypeError(f"trace_lstm goes below @{type(target).__name__}, on the function itself")
    if isinstance(target, type):
        return classes.decorate_class(target, options)
    if is_module(target):
        return classes.decorate_instance(target, options)
    if isinstance(target, (FunctionType, MethodType, BuiltinFunctionType, functools.partial)):
        return functions.decorate(target, options)
    if callable(target):
        return functions.stand_in(target, options)
    raise TypeError(f"trace_lstm({target!r}): accepted are a class, an nn.Module, a function or a method, or any callable object")

"""Put a decoration on whatever was given: a class, an instance, a function, a coroutine function, a method, any callable object."""

from __future__ import annotations

import copyreg
import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from copy import _reconstruct as rebuild  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
from dataclasses import replace
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final

import wrapt

from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import dynamo, switch, watch
from lstm_trace.instrument.lstm.component import Traced
from lstm_trace.instrument.lstm.frames import keep_first
from lstm_trace.instrument.lstm.options import Options
from lstm_trace.instrument.lstm.session import note_reset
from lstm_trace.instrument.lstm.tree import read_tree

_MARK: Final = "__lstm_trace__"
_RESETS: Final = frozenset({"reset_hidden", "reset_hidden_state", "reset_hidden_states", "reset_state", "reset_states"})


def decorate(target: Any, options: Options) -> Any:
    """Return ``target`` traced: the same class or instance where that is possible, else a function or a proxy in its place."""
    if isinstance(target, (staticmethod, classmethod)):
        raise TypeError(f"trace_lstm goes below @{type(target).__name__}, on the function itself")
    if isinstance(target, type):
        return _class(target, options)
    if is_module(target):
        return _instance(target, options)
    if isinstance(target, (FunctionType, MethodType, BuiltinFunctionType, functools.partial)):
        return _function(target, options)
    if callable(target):
        _check_names(options, target.__call__)
        return _Proxy(target, Traced(options.name or type(target).__name__, options, target))
    raise TypeError(f"trace_lstm({target!r}): accepted are a class, an nn.Module, a function or a method, or any callable object")


def traced_of(target: Any) -> Traced | None:
    """Return the decoration of a class, an instance, a function or a proxy; None where it has none."""
    found = getattr(target, _MARK, None)
    return found if isinstance(found, Traced) else None


def is_module(target: Any) -> bool:
    """Tell whether this is an ``nn.Module``; torch is not imported for it."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(target, torch.nn.Module)


def _check_names(options: Options, call: Callable[..., Any]) -> None:
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        raise TypeError(
            f"trace_lstm({getattr(call, '__qualname__', call)}): a generator returns before it has run. Accepted is the component that it "
            "calls; traced_session puts many calls into one span"
        )
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return
    if any(each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) for each in parameters.values()):
        return
    for field in ("lengths", "mask", "session", "time_gap"):
        name = getattr(options, field)
        if isinstance(name, str) and name not in parameters:
            raise ValueError(
                f"{field}={name!r} is not an argument of {getattr(call, '__qualname__', call)}: it has {', '.join(parameters)}"
            )


# --- Classes and instances ------------------------------------------------------------------------------------------------


def _class(cls: type, options: Options) -> type:
    if not callable(getattr(cls, "forward", None)) and _owner(cls) is None:
        raise TypeError(f"trace_lstm({cls.__qualname__}): accepted is a class with forward() or __call__(), such as an nn.Module")
    owner = _owner(cls)
    _check_names(options, getattr(cls, "forward", None) or cls.__call__)
    if owner is None:  # nothing calls forward() but the user
        cls.forward = _function(cls.forward, replace(options, name=options.name or cls.__name__))  # type: ignore[attr-defined]
        return cls
    traced = Traced(options.name or cls.__name__, options)
    setattr(cls, _MARK, traced)
    switch.place(cls, _call_of(cls, traced))
    _follow_replicas(cls)
    _follow_resets(cls, cls, traced, dir(cls))
    return cls


def _instance(module: Any, options: Options) -> Any:
    _check_names(options, module.forward)
    _check_labels(module, options)
    cls = type(module)
    if cls.__dict__.get("__lstm_trace_swapped__"):
        cls = cls.__mro__[1]  # decorated once more: the new decoration replaces the old
    default = type(getattr(module, "_orig_mod", module)).__name__
    traced = Traced(options.name or getattr(module, "original_name", None) or default, options)
    made = _swapped(cls, traced)
    _follow_resets(made, cls, traced, [name for name in _RESETS if hasattr(module, name)])
    for name in _RESETS.intersection(made.__dict__):
        module.__dict__.pop(name, None)
    _give(module, made)
    return module


def _give(module: Any, cls: type) -> None:
    # Past the module's own __setattr__: what torch.jit.trace makes hands every attribute on to the ScriptModule inside it.
    object.__setattr__(module, "__class__", cls)


def _check_labels(module: Any, options: Options) -> None:
    classes = read_tree(module).classes
    if options.names is None or classes is None or options.output not in ("logits", "log_probs", "probs", "multilabel"):
        return
    if max(2, classes) != len(options.names):
        raise ValueError(f"labels={options.labels!r} name {len(options.names)} classes, {type(module).__name__} has {classes}")


def _swapped(cls: type, traced: Traced) -> type:
    """Make the class that one traced instance gets: it differs from its own in ``__call__`` alone, and is not pickled."""

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        # What is saved is the user's own class: it loads where lstm-trace is not installed.
        own: Any = cls
        how, what, *rest = own.__reduce_ex__(self, protocol)
        if how is copyreg.__newobj__ and what == (made,):  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            how, what = copyreg._reconstructor, (cls, object, None)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        return (cls if how is made else how, tuple(cls if each is made else each for each in what), *rest)

    def __copy__(self: Any) -> Any:
        own = getattr(cls, "__copy__", None)
        return _plain_copy(self, cls, None) if own is None else followed(own(self))

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:
        own = getattr(cls, "__deepcopy__", None)
        return _plain_copy(self, cls, memo) if own is None else followed(own(self, memo))

    def followed(copied: Any) -> Any:
        # A ScriptModule makes its copy from its own class, a GraphModule from one that it makes for it.
        with shield:
            if traced_of(copied) is None:
                _give(copied, made if type(copied) is cls else _swapped(type(copied), traced))
        return copied

    space: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__lstm_trace_swapped__": True,
        "__reduce_ex__": __reduce_ex__,
        "__copy__": __copy__,
        "__deepcopy__": __deepcopy__,
        _MARK: traced,
    }
    made = type.__new__(type(cls), cls.__name__, (cls,), space)
    switch.place(made, _call_of(made, traced))
    _follow_replicas(made)
    return made


def _follow_resets(cls: type, own: Any, traced: Traced, names: Iterable[str]) -> None:
    """Notice when a component resets its own state, as streaming models do between two utterances."""
    for name in _RESETS.intersection(names):
        method = getattr(own, name, None)
        if method is None:
            method = _scripted_method(own, name)  # a ScriptModule's methods stand on the instance
        if hasattr(method, "_torchscript_modifier") or hasattr(method, "__lstm_trace_call__"):
            continue
        setattr(cls, name, _noting(method, traced))


def _scripted_method(own: Any, name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = own.__getattr__(self, name)
        self.__dict__.pop(name, None)  # where it keeps the method for the next time, past the class
        return found(*args, **kwargs)

    return method


def _noting(method: Any, traced: Traced) -> Any:
    @functools.wraps(method)
    def reset(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        with shield:
            note_reset(traced, self)
        return result

    reset.__lstm_trace_call__ = True  # type: ignore[attr-defined]
    return reset


def _follow_replicas(cls: Any) -> None:
    """Let ``DataParallel``'s replicas, which run in threads of their own, stand in the trace of the call that made them."""
    own = getattr(cls, "_replicate_for_data_parallel", None)
    if own is None or hasattr(own, "__lstm_trace_call__"):
        return

    def _replicate_for_data_parallel(self: Any) -> Any:
        replica = own(self)
        with shield:
            traced = traced_of(self)
            if traced is not None:
                traced.follow(self, replica)
        return replica

    _replicate_for_data_parallel.__lstm_trace_call__ = True  # type: ignore[attr-defined]
    cls._replicate_for_data_parallel = _replicate_for_data_parallel


def _plain_copy(module: Any, cls: Any, memo: dict[int, Any] | None) -> Any:
    return rebuild(module, memo, *cls.__reduce_ex__(module, 4))


def _owner(cls: type) -> Any:
    """Return what holds the user's (or torch's) own ``__call__`` of a class: ours, on this class or a parent, are passed over."""
    for base in cls.__mro__:
        own = base.__dict__.get("__call__")
        if own is not None and not hasattr(own, watch.MARK) and switch.holds(base):
            own = switch.own(base)  # ours: what the class had before
        if own is None or hasattr(own, "__lstm_trace_call__"):
            continue
        torch: Any = sys.modules.get("torch")
        if torch is not None and base is torch.nn.Module:
            return base  # looked up at each call, because torch.fx replaces nn.Module.__call__ while it traces
        return type("Own", (), {"__call__": own})
    return None


def _call_of(cls: type, traced: Traced) -> Callable[..., Any]:
    watch.install()
    owner = _owner(cls)
    forward = getattr(cls, "forward", None)
    if inspect.iscoroutinefunction(forward) or inspect.iscoroutinefunction(owner.__call__):
        return _awaited_call(owner, traced)
    begin = traced.begin
    is_compiling = _is_compiling()

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            if dynamo.must_break(traced.name):
                dynamo.graph_break()
            return owner.__call__(self, *args, **kwargs)
        is_apart = dynamo.callback() is not None
        call = dynamo.apart(begin, self, args, kwargs) if is_apart else begin(self, args, kwargs)
        try:
            output = owner.__call__(self, *args, **kwargs)
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

    __call__.__lstm_trace_call__ = True  # type: ignore[attr-defined]
    dynamo.skip(__call__)
    return __call__


def _awaited_call(owner: Any, traced: Traced) -> Callable[..., Any]:
    async def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = traced.begin(self, args, kwargs)
        try:
            output = await owner.__call__(self, *args, **kwargs)
        except BaseException as error:
            if call is not None:
                call.failed(error)
            keep_first(error)
            raise
        if call is not None:
            call.done(output)
        return output

    __call__.__lstm_trace_call__ = True  # type: ignore[attr-defined]
    return __call__


def _is_compiling() -> Callable[[], bool]:
    torch: Any = sys.modules.get("torch")
    return torch.compiler.is_dynamo_compiling if torch is not None else dynamo.is_compiling


# --- Functions ------------------------------------------------------------------------------------------------------------


def _function(function: Any, options: Options) -> Any:
    _check_names(options, function)
    named: Any = function if hasattr(function, "__qualname__") else getattr(function, "func", None)  # functools.partial has no name
    name = options.name or getattr(named, "__qualname__", "component").rpartition("<locals>.")[2]
    traced = Traced(name, options, function)
    watch.install()
    module = getattr(function, "__self__", None)
    return _coroutine(function, traced, module) if inspect.iscoroutinefunction(function) else _plain(function, traced, module)


def _plain(function: Any, traced: Traced, owner: Any) -> Any:
    begin = traced.begin
    is_compiling = _is_compiling()

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

    setattr(component, _MARK, traced)
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

    setattr(component, _MARK, traced)
    return component


def _module(owner: Any, args: tuple[Any, ...]) -> Any:
    """Return the module that a method belongs to: the bound one, or ``self`` in front of a method decorated in its class."""
    candidate = owner if owner is not None else args[0] if args else None
    return candidate if candidate is not None and is_module(candidate) else None


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

"""Put our ``__call__`` on a class, or on one instance of it, and follow the copies and replicas that are made of them."""

from __future__ import annotations

import copyreg
import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from copy import _reconstruct as rebuild  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
from copy import deepcopy
from dataclasses import replace
from typing import Any, Final

from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import dynamo, functions, switch, watch
from lstm_trace.instrument.lstm.arguments import check_names, taking
from lstm_trace.instrument.lstm.component import Traced
from lstm_trace.instrument.lstm.decorated import MARK, traced_of
from lstm_trace.instrument.lstm.frames import keep_first
from lstm_trace.instrument.lstm.options import Options
from lstm_trace.instrument.lstm.session import note_reset
from lstm_trace.instrument.lstm.tree import read_tree

_RESETS: Final = frozenset({"reset_hidden", "reset_hidden_state", "reset_hidden_states", "reset_state", "reset_states"})


def decorate_class(cls: type, options: Options) -> type:
    """Trace every instance of a class that there is or will be."""
    if not callable(getattr(cls, "forward", None)) and _owner(cls) is None:
        raise TypeError(f"trace_lstm({cls.__qualname__}): accepted is a class with forward() or __call__(), such as an nn.Module")
    owner = _owner(cls)
    check_names(options, taking(cls))
    if owner is None:  # nothing calls forward() but the user
        cls.forward = functions.decorate(cls.forward, replace(options, name=options.name or cls.__name__))  # type: ignore[attr-defined]
        return cls
    traced = Traced(options.name or cls.__name__, options)
    setattr(cls, MARK, traced)
    switch.place(cls, _call_of(cls, traced))
    _follow_replicas(cls)
    _follow_resets(cls, cls, traced, dir(cls))
    return cls


def decorate_instance(module: Any, options: Options) -> Any:
    """Trace one module: it stays the object that it is, of a class of its own."""
    check_names(options, taking(module))
    _check_labels(module, options)
    parametrized = type(module) if _is_parametrized(module) else None
    cls = type(module) if parametrized is None else parametrized.__bases__[0]
    if cls.__dict__.get("__lstm_trace_swapped__"):
        cls = cls.__mro__[1]  # decorated once more: the new decoration replaces the old
    default = type(getattr(module, "_orig_mod", module)).__name__
    traced = Traced(options.name or getattr(module, "original_name", None) or default, options)
    made = _swapped(cls, traced)
    _follow_resets(made, cls, traced, [name for name in _RESETS if hasattr(module, name)])
    for name in _RESETS.intersection(made.__dict__):
        module.__dict__.pop(name, None)
    _give(module, made if parametrized is None else _on_top(parametrized, made))
    return module


def _is_parametrized(module: Any) -> bool:
    """Tell whether ``torch.nn.utils.parametrize`` gave this module a class of its own: it takes its properties from there again."""
    return "parametrizations" in module.__dict__.get("_modules", ()) and type(module).__name__.startswith("Parametrized")


def _on_top(parametrized: Any, made: type) -> type:
    own = {name: value for name, value in parametrized.__dict__.items() if name not in ("__dict__", "__weakref__")}
    placed: type = type.__new__(type(parametrized), parametrized.__name__, (made,), own)
    return placed


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
        MARK: traced,
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
    if memo is not None and _is_parametrized(module):  # its __reduce_ex__ refuses: torch would have given it a __deepcopy__ such as this
        replica = memo[id(module)] = module.__new__(type(module))
        replica.__dict__ = deepcopy(module.__dict__, memo)
        return replica
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
    is_compiling = dynamo.asker()

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

    dynamo.skip(__call__)
    return _as_own(__call__, owner)


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

    return _as_own(__call__, owner)


def _as_own(call: Any, owner: Any) -> Callable[..., Any]:
    """Let a ``__call__`` of ours be read as the user's own: frameworks ask a callable object for its signature."""
    if owner.__module__ != "torch.nn.modules.module":
        functools.update_wrapper(call, owner.__call__, updated=())
    call.__lstm_trace_call__ = True
    return call  # type: ignore[no-any-return]

"""Give a Runnable or a compiled graph a name and a span of its own, without making it another object."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final

from lstm_trace.instrument.langchain.current import Entered, astepwise, stepwise
from lstm_trace.instrument.langchain.named import NamedChain, close
from lstm_trace.instrument.langchain.runs import Scope, scopes


def trace_runnable(target: Any, chain: NamedChain) -> Any:
    """Give the instance a subclass of its class whose entry points open the span; LangChain's own first run then becomes that span."""
    plain: Any = type(target)
    while hasattr(plain, _PLAIN):
        plain = getattr(plain, _PLAIN)
    traced = type(plain)(
        plain.__name__, (plain,), {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    )
    for method, wrap in (("invoke", _entry), ("ainvoke", _aentry), ("stream", _stream), ("astream", _astream)):
        setattr(traced, method, wrap(getattr(plain, method), chain))
    traced.get_name = _named(plain.get_name, chain.name)
    traced.__reduce_ex__ = _reduce
    setattr(traced, _PLAIN, plain)
    setattr(traced, _CHAIN, chain)
    object.__setattr__(target, "__class__", traced)
    return target


_PLAIN: Final = "__lstm_trace_plain__"
_CHAIN: Final = "__lstm_trace_chain__"


def _reduce(self: Any, protocol: Any) -> Any:
    # A copy or a pickle is made by the plain class: our subclass cannot be imported by name.
    plain = getattr(type(self), _PLAIN)
    chain = getattr(type(self), _CHAIN)
    made = plain.__reduce_ex__(self, protocol)
    return (_rebuilt, (chain, plain, made[0], tuple(plain if each is type(self) else each for each in made[1])), *made[2:])


def _rebuilt(chain: NamedChain, plain: type, make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return trace_runnable(make(*args), chain)


def _named(original: Any, name: str) -> Any:
    @functools.wraps(original)
    def get_name(self: Any, suffix: str | None = None, **kwargs: Any) -> str:
        return name + suffix if suffix else name

    return get_name


def _pending(scope: Scope | None) -> bool:
    return scope is not None and scope.adopt is not None and not scope.taken


def _open(chain: NamedChain, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scope | None:
    """Open the chain's span and return the scope in which LangChain's own run becomes it; None inside such a scope."""
    if _pending(scopes.get()):
        return None
    run = chain.open(args, kwargs)
    if run is None:
        return None
    scope = Scope(adopt=run)
    scope.run = run
    return scope


def _entry(original: Any, chain: NamedChain) -> Any:
    @functools.wraps(original)
    def invoke(self: Any, *args: Any, **kwargs: Any) -> Any:
        scope = _open(chain, args, kwargs)
        if scope is None:
            return original(self, *args, **kwargs)
        where = chain.where(scope.adopt)
        with Entered(scope):
            result = original(self, *args, **kwargs)
        close(scope.adopt)
        chain.judge(where, args, kwargs, result)
        return result

    return invoke


def _aentry(original: Any, chain: NamedChain) -> Any:
    @functools.wraps(original)
    async def ainvoke(self: Any, *args: Any, **kwargs: Any) -> Any:
        scope = _open(chain, args, kwargs)
        if scope is None:
            return await original(self, *args, **kwargs)
        where = chain.where(scope.adopt)
        with Entered(scope):
            result = await original(self, *args, **kwargs)
        close(scope.adopt)
        chain.judge(where, args, kwargs, result)
        return result

    return ainvoke


def _stream(original: Any, chain: NamedChain) -> Any:
    @functools.wraps(original)
    def stream(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        scope = _open(chain, args, kwargs)
        gathered = chain.gather(scope.adopt) if scope is not None else None
        inner = original(self, *args, **kwargs) if gathered is None else gathered.keep(original(self, *args, **kwargs))
        try:
            return (yield from (inner if scope is None else stepwise(inner, lambda: scope)))
        finally:
            close(scope.adopt if scope is not None else None)
            chain.judge_stream(gathered, args, kwargs)

    return stream


def _astream(original: Any, chain: NamedChain) -> Any:
    @functools.wraps(original)
    async def astream(self: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        scope = _open(chain, args, kwargs)
        gathered = chain.gather(scope.adopt) if scope is not None else None
        inner = original(self, *args, **kwargs) if gathered is None else gathered.akeep(original(self, *args, **kwargs))
        stream = inner if scope is None else astepwise(inner, lambda: scope)
        try:
            async for chunk in stream:
                yield chunk
        finally:
            await stream.aclose()
            close(scope.adopt if scope is not None else None)
            chain.judge_stream(gathered, args, kwargs)

    return astream

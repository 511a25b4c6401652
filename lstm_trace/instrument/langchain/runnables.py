"""Give a Runnable or a compiled graph a name and a span of its own, without making it another object."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.trace import SpanContext

from lstm_trace.instrument.langchain.functions import acall, astream, call, stream
from lstm_trace.instrument.langchain.named import NamedChain
from lstm_trace.instrument.langchain.runs import Scope, scopes


class NamedRunnable(NamedChain):
    """A named chain that is a Runnable: the first of its methods' arguments is itself, and LangChain's own run becomes its span."""

    __slots__ = ()

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scope | None:
        """Open the span, unless an entry point of the same object did so and LangChain's run is still to come."""
        waiting = scopes.get()
        if waiting is not None and waiting.adopt is not None and not waiting.taken:
            return None
        run = self.open(args[1:], kwargs)
        if run is None:
            return None
        scope = Scope(adopt=run)
        scope.run = run
        return scope

    def judge(self, where: SpanContext | None, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Hand a finished answer to the online evaluators."""
        NamedChain.judge(self, where, args[1:], kwargs, result)


def trace_runnable(target: Any, chain: NamedRunnable) -> Any:
    """Give the instance a subclass of its class whose entry points open the span; LangChain's own first run then becomes that span."""
    plain: Any = type(target)
    while hasattr(plain, _PLAIN):
        plain = getattr(plain, _PLAIN)
    traced = type(plain)(
        plain.__name__, (plain,), {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    )
    for method, wrap in (("invoke", call), ("ainvoke", acall), ("stream", stream), ("astream", astream)):
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


def _rebuilt(chain: NamedRunnable, plain: type, make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return trace_runnable(make(*args), chain)


def _named(original: Any, name: str) -> Any:
    @functools.wraps(original)
    def get_name(self: Any, suffix: str | None = None, **kwargs: Any) -> str:
        return name + suffix if suffix else name

    return get_name

"""``trace_chain``: one span around what the user names, be it a function, a generator, a Runnable or a compiled graph."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar, overload

from opentelemetry.trace import SpanContext

from lstm_trace import ambient
from lstm_trace.guard import shield
from lstm_trace.instrument.langchain.current import Entered, astepwise, stepwise
from lstm_trace.instrument.langchain.gathering import Gathered
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.runs import Kind, Run, Scope, scopes

Session = str | Callable[[tuple[Any, ...], dict[str, Any]], Any] | None
ReadSession = Callable[[tuple[Any, ...], dict[str, Any]], Any] | None
After = Callable[[SpanContext, tuple[Any, ...], dict[str, Any], Any], object] | None
_T = TypeVar("_T")


@overload
def trace_chain(
    target: _T,
    *,
    name: str | None = None,
    agent: bool = False,
    session: Session = None,
    evaluators: Sequence[Any] = (),
    evaluate_sample: float = 1.0,
    evaluate_with: Callable[..., Any] | None = None,
) -> _T: ...
@overload
def trace_chain(
    target: None = None,
    *,
    name: str | None = None,
    agent: bool = False,
    session: Session = None,
    evaluators: Sequence[Any] = (),
    evaluate_sample: float = 1.0,
    evaluate_with: Callable[..., Any] | None = None,
) -> Callable[[_T], _T]: ...
def trace_chain(
    target: Any = None,
    *,
    name: str | None = None,
    agent: bool = False,
    session: Session = None,
    evaluators: Sequence[Any] = (),
    evaluate_sample: float = 1.0,
    evaluate_with: Callable[..., Any] | None = None,
) -> Any:
    """Give every call of ``target`` a span ``chain {name}``, or ``invoke_agent {name}`` with ``agent``; what it calls stands below it.

    ``target`` is a function, an async function, a generator function (also async), or a LangChain Runnable or compiled graph, which is
    returned as the same object. ``name`` is by default the target's own. ``session`` names the argument (for a Runnable: the key of
    its input) that holds the session's id, or is a callable ``(args, kwargs) -> id``; the id stands as ``session.id`` on everything below.
    LangChain need not be installed. Raises TypeError for a target that cannot be called and ValueError for an unknown argument.

    ``evaluators`` (see ``lstm_trace.evaluate``, objects or names) judge the share ``evaluate_sample`` of the answers in the background,
    after the answer was given; ``evaluate_with`` is a callable ``(args, kwargs, result) -> {"response": …, "context": …, "query": …}``. A
    streamed answer is judged once it came to its end: texts joined, messages added up, of a graph's states the last.

    >>> @trace_chain(name="claims", session="ticket")
    ... def answer(ticket, question):
    ...     return question.upper()
    >>> answer("t-1", "where is it?")
    'WHERE IS IT?'
    """
    after = _online(evaluators, evaluate_sample, evaluate_with)
    return _traced(target, name, agent, session, after)


def _online(evaluators: Sequence[Any], sample: float, read: Callable[..., Any] | None) -> After:
    if not evaluators:
        return None
    # By name: the room of evaluators stands above this one, and only who asks for it pays for it.
    online: After = import_module("lstm_trace.evaluate.online").OnlineEvaluators(evaluators, sample=sample, read=read)
    return online


def _traced(target: Any, name: str | None, agent: bool, session: Session, after: After) -> Any:
    if target is None:
        return lambda found: _traced(found, name, agent, session, after)
    if isinstance(target, (staticmethod, classmethod)):
        return type(target)(_traced(target.__func__, name, agent, session, after))
    runnable = _runnable_class()
    if runnable is not None and isinstance(target, runnable):
        return _trace_runnable(target, _Chain(name or target.get_name(), agent, _session_of_input(session), after))
    if not callable(target) or isinstance(target, type):
        raise TypeError(f"trace_chain({target!r}): accepted are a function, a Runnable and a compiled graph")
    own = name or getattr(target, "__name__", None) or type(target).__name__
    return _trace_function(target, _Chain(own, agent, _session_of_arguments(target, session), after))


@dataclass(frozen=True, slots=True)
class _Chain:
    """What is known about a decorated chain."""

    name: str
    agent: bool
    session: ReadSession
    after: After = None

    def where(self, run: Run | None) -> SpanContext | None:
        """Return the span to judge, where there is anything to judge it with; asked before the run ends and lets go of its span."""
        return None if self.after is None or run is None or run.opened is None else run.opened.span_context

    def judge(self, where: SpanContext | None, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Hand a finished answer to the online evaluators."""
        if where is not None and self.after is not None:
            with shield:
                self.after(where, args, kwargs, result)

    def gather(self, run: Run | None) -> Gathered | None:
        """Return what keeps a streamed answer's chunks, where this answer is one of those to judge."""
        where = self.where(run)
        return Gathered(where) if where is not None and getattr(self.after, "chosen", _always)(where) else None

    def judge_stream(self, gathered: Gathered | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Hand a streamed answer to the online evaluators, where it came to its end."""
        if gathered is not None and gathered.done:
            with shield:
                self.judge(gathered.where, args, kwargs, gathered.whole())

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run | None:
        """Open the span of one call, or return None where nothing records."""
        with shield:
            if handler.silenced or handler.silent():
                return None
            kind: Kind = "agent" if self.agent else "chain"
            found = self.session(args, kwargs) if self.session is not None else None
            run = handler.start(
                kind,
                self.name,
                details=handler.vocabulary.agent(self.name) if self.agent else None,
                run_id=object(),
                session=None if found is None else str(found),
            )
            if run is not None:
                handler.live.hold(run)
            return run
        return None


def _always(where: SpanContext) -> bool:
    return True


def _trace_function(target: Any, chain: _Chain) -> Any:
    if inspect.isasyncgenfunction(target):

        @functools.wraps(target)
        async def astream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            run = chain.open(args, kwargs)
            gathered = chain.gather(run)
            inner = target(*args, **kwargs) if gathered is None else gathered.akeep(target(*args, **kwargs))
            stream = inner if run is None else astepwise(inner, lambda: Scope.around(run))
            try:
                async for chunk in stream:
                    yield chunk
            finally:
                await stream.aclose()
                _close(run)
                chain.judge_stream(gathered, args, kwargs)

        return astream
    if inspect.isgeneratorfunction(target):

        @functools.wraps(target)
        def stream(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            run = chain.open(args, kwargs)
            gathered = chain.gather(run)
            inner = target(*args, **kwargs) if gathered is None else gathered.keep(target(*args, **kwargs))
            try:
                return (yield from (inner if run is None else stepwise(inner, lambda: Scope.around(run))))
            finally:
                _close(run)
                chain.judge_stream(gathered, args, kwargs)

        return stream
    if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None)):  # noqa: B004

        @functools.wraps(target)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            run = chain.open(args, kwargs)
            if run is None or run.context is None:
                return await target(*args, **kwargs)
            where = chain.where(run)
            token = ambient.enter(run.context)
            try:
                result = await target(*args, **kwargs)
            except BaseException as error:
                _close(run, error)
                raise
            finally:
                ambient.leave(token)
            _close(run)
            chain.judge(where, args, kwargs, result)
            return result

        return acall

    @functools.wraps(target)
    def call(*args: Any, **kwargs: Any) -> Any:
        run = chain.open(args, kwargs)
        if run is None or run.context is None:
            return target(*args, **kwargs)
        where = chain.where(run)
        token = ambient.enter(run.context)
        try:
            result = target(*args, **kwargs)
        except BaseException as error:
            _close(run, error)
            raise
        finally:
            ambient.leave(token)
        _close(run)
        chain.judge(where, args, kwargs, result)
        return result

    return call


def _close(run: Run | None, error: BaseException | None = None) -> None:
    if run is not None:
        with shield:
            handler.end(run, error=error)


# --- Runnables -----------------------------------------------------------------------------------------------------------------


def _trace_runnable(target: Any, chain: _Chain) -> Any:
    """Give the instance a subclass of its class whose entry points open the span; LangChain's own first run then becomes that span."""
    plain = type(target)
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


_PLAIN = "__lstm_trace_plain__"
_CHAIN = "__lstm_trace_chain__"


def _reduce(self: Any, protocol: Any) -> Any:
    # A copy or a pickle is made by the plain class: our subclass cannot be imported by name.
    plain = getattr(type(self), _PLAIN)
    chain = getattr(type(self), _CHAIN)
    made = plain.__reduce_ex__(self, protocol)
    return (_rebuilt, (chain, plain, made[0], tuple(plain if each is type(self) else each for each in made[1])), *made[2:])


def _rebuilt(chain: _Chain, plain: type, make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return _trace_runnable(make(*args), chain)


def _named(original: Any, name: str) -> Any:
    @functools.wraps(original)
    def get_name(self: Any, suffix: str | None = None, **kwargs: Any) -> str:
        return name + suffix if suffix else name

    return get_name


def _pending(scope: Scope | None) -> bool:
    return scope is not None and scope.adopt is not None and not scope.taken


def _open(chain: _Chain, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scope | None:
    """Open the chain's span and return the scope in which LangChain's own run becomes it; None inside such a scope."""
    if _pending(scopes.get()):
        return None
    run = chain.open(args, kwargs)
    if run is None:
        return None
    scope = Scope(adopt=run)
    scope.run = run
    return scope


def _entry(original: Any, chain: _Chain) -> Any:
    @functools.wraps(original)
    def invoke(self: Any, *args: Any, **kwargs: Any) -> Any:
        scope = _open(chain, args, kwargs)
        if scope is None:
            return original(self, *args, **kwargs)
        where = chain.where(scope.adopt)
        with Entered(scope):
            result = original(self, *args, **kwargs)
        _close(scope.adopt)
        chain.judge(where, args, kwargs, result)
        return result

    return invoke


def _aentry(original: Any, chain: _Chain) -> Any:
    @functools.wraps(original)
    async def ainvoke(self: Any, *args: Any, **kwargs: Any) -> Any:
        scope = _open(chain, args, kwargs)
        if scope is None:
            return await original(self, *args, **kwargs)
        where = chain.where(scope.adopt)
        with Entered(scope):
            result = await original(self, *args, **kwargs)
        _close(scope.adopt)
        chain.judge(where, args, kwargs, result)
        return result

    return ainvoke


def _stream(original: Any, chain: _Chain) -> Any:
    @functools.wraps(original)
    def stream(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        scope = _open(chain, args, kwargs)
        gathered = chain.gather(scope.adopt) if scope is not None else None
        inner = original(self, *args, **kwargs) if gathered is None else gathered.keep(original(self, *args, **kwargs))
        try:
            return (yield from (inner if scope is None else stepwise(inner, lambda: scope)))
        finally:
            _close(scope.adopt if scope is not None else None)
            chain.judge_stream(gathered, args, kwargs)

    return stream


def _astream(original: Any, chain: _Chain) -> Any:
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
            _close(scope.adopt if scope is not None else None)
            chain.judge_stream(gathered, args, kwargs)

    return astream


# --- Arguments -----------------------------------------------------------------------------------------------------------------


def _runnable_class() -> Any:
    module = sys.modules.get("langchain_core.runnables.base")
    return None if module is None else module.Runnable


def _session_of_arguments(target: Any, session: Session) -> ReadSession:
    if session is None or callable(session):
        return session
    parameters = list(inspect.signature(target).parameters.values())
    names = [each.name for each in parameters]
    if session not in names:
        raise ValueError(
            f"trace_chain(session={session!r}): accepted are {', '.join(names) or 'no argument name'}, or a callable (args, kwargs)"
        )
    position = names.index(session)
    default = None if parameters[position].default is inspect.Parameter.empty else parameters[position].default

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[position] if position < len(args) else kwargs.get(session, default)

    return read


def _session_of_input(session: Session) -> ReadSession:
    if session is None or callable(session):
        return session

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given: Any = args[0] if args else kwargs.get("input")
        return given.get(session) if isinstance(given, dict) else getattr(given, session, None)

    return read

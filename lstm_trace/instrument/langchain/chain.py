"""``trace_chain``: one span around what the user names, be it a function, a generator, a Runnable or a compiled graph."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, TypeVar, overload

from lstm_trace.instrument.langchain.functions import trace_function
from lstm_trace.instrument.langchain.named import After, NamedChain, ReadSession
from lstm_trace.instrument.langchain.runnables import NamedRunnable, trace_runnable

Session = str | Callable[[tuple[Any, ...], dict[str, Any]], Any] | None
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
        return trace_runnable(target, NamedRunnable(name or target.get_name(), agent, _session_of_input(session), after))
    if not callable(target) or isinstance(target, type):
        raise TypeError(f"trace_chain({target!r}): accepted are a function, a Runnable and a compiled graph")
    own = name or getattr(target, "__name__", None) or type(target).__name__
    return trace_function(target, _named_function(own, agent, target, session, after))


def _named_function(name: str, agent: bool, target: Any, session: Session, after: After) -> NamedChain:
    try:
        parameters = [each for each in inspect.signature(target).parameters.values() if each.kind in _POSITIONAL]
    except (TypeError, ValueError):  # a built-in without a signature
        parameters = []
    names = tuple(each.name for each in parameters)
    # A method is still a plain function while its class's body runs: its place and the name of its first parameter tell it.
    is_method = "." in getattr(target, "__qualname__", "").rpartition("<locals>.")[2] and names[:1] in (("self",), ("cls",))
    return NamedChain(name, agent, _session_of_arguments(target, session), after, names, is_method)


_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


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

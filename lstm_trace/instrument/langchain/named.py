"""A chain that the user named with ``trace_chain``: what is known about it, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext

from lstm_trace import upstream
from lstm_trace.guard import shield
from lstm_trace.instrument.langchain.gathering import Gathered
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.runs import Kind, Run, Scope

ReadSession = Callable[[tuple[Any, ...], dict[str, Any]], Any] | None
After = Callable[[SpanContext, tuple[Any, ...], dict[str, Any], Any], object] | None


@dataclass(frozen=True, slots=True)
class NamedChain:
    """A chain that the user named: opens its span, and hands its answers to whoever is to judge them."""

    name: str
    agent: bool
    session: ReadSession
    after: After = None
    parameters: tuple[str, ...] = ("input",)
    """The names of the positional parameters."""
    bound: bool = False
    """The first of them is the object that the method belongs to."""

    def where(self, run: Run | None) -> SpanContext | None:
        """Return the span to judge, where there is anything to judge it with; asked before the run ends and lets go of its span."""
        return None if self.after is None or run is None or run.context is None else run.span_context

    def judge(self, where: SpanContext | None, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Hand a finished answer to the online evaluators."""
        if where is not None and self.after is not None:
            with shield:
                self.after(where, args, kwargs, result)

    def gather(self, run: Run | None) -> Gathered | None:
        """Return what keeps a streamed answer's chunks, where somebody is to see it whole: an evaluator, or the span."""
        where = self.where(run)
        if where is not None and not getattr(self.after, "chosen", _always)(where):
            where = None
        return Gathered(where) if where is not None or (run is not None and run.now.content is not None) else None

    def end_stream(self, run: Run | None, gathered: Gathered | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Close the span of a stream, and hand the answer to the online evaluators where it came to its end."""
        answer: Any = None
        with shield:
            answer = gathered.whole() if gathered is not None and gathered.done else None
        close(run, result=answer)
        if gathered is not None and gathered.done:
            self.judge(gathered.where, args, kwargs, answer)

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what the caller gave: the one value, or all of them by the names of the parameters."""
        values = {**dict(zip(self.parameters, args, strict=False)), **kwargs}
        if len(args) > len(self.parameters):
            values["args"] = args[len(self.parameters) :]
        if self.bound and args:
            del values[self.parameters[0]]
        return next(iter(values.values())) if len(values) == 1 else values

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scope | None:
        """Open the span of one call and return the scope around the call's own code, or None where nothing records."""
        run = self.open(args, kwargs)
        return None if run is None else Scope.around(run)

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run | None:
        """Open the span of one call, or return None where nothing records."""
        with shield:
            upstream.last_outermost.set(INVALID_SPAN_CONTEXT)  # trace_ref() after an unrecorded chain names no older one
            now = handler.now()
            if now is None:
                return None
            kind: Kind = "agent" if self.agent else "chain"
            found = None
            with shield:  # a session that cannot be read costs the session, not the span
                found = self.session(args, kwargs) if self.session is not None else None
            details = now.vocabulary.agent(self.name) if self.agent else {}
            if now.content is not None:
                with shield:  # nor may a value that cannot be read cost more than its text
                    details.update(now.content.input(self.given(args, kwargs)))
            run = handler.start(now, kind, self.name, object(), details=details, session=None if found is None else str(found))
            if run is not None:
                handler.live.hold(run)
            return run
        return None


def _always(where: SpanContext) -> bool:
    return True


def close(run: Run | None, error: BaseException | None = None, *, result: Any = None) -> None:
    """Close the span of one call, with its ``result`` where content is captured."""
    if run is None:
        return
    attributes = None
    content = run.now.content
    if result is not None and content is not None:
        with shield:
            attributes = content.output(result)
    with shield:
        handler.end(run, attributes, error=error)

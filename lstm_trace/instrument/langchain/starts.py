"""Read what LangChain says as a run starts or ends, for each kind of run, and hand it to the handler."""

from __future__ import annotations

from typing import Any, Final

from lstm_trace import conventions as c
from lstm_trace.instrument.langchain import messages
from lstm_trace.instrument.langchain.attributes import DOCUMENTS
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.in_force import InForce
from lstm_trace.instrument.langchain.runs import Kind, Run, Scope

HIDDEN: Final = "langsmith:hidden"
"""LangChain's tag of runs that are plumbing."""

Given = dict[str, Any]


def chain(
    now: InForce, callbacks: Any, manager: Any, serialized: Any, inputs: Any, name: Any, more: Given, scope: Scope | None
) -> Run | None:
    """Open the span of a chain, a graph or a graph's node."""
    kind: Kind = "chain"
    resumes = False
    if scope is not None:
        if scope.graph:
            thread = callbacks.metadata.get("thread_id")
            scope.thread = None if thread is None else str(thread)
            resumes = inputs is None or type(inputs).__name__ == "Command"
            kind = "agent" if scope.agent else "chain"
        if scope.adopt is not None:
            return handler.adopt(scope.adopt, manager.run_id, scope.thread, resumes)
    name = name or _serialized_name(serialized) or "chain"
    details = now.vocabulary.agent(name) if kind == "agent" else None
    tags = callbacks.tags
    if tags and tags[-1].startswith("graph:step:"):
        details = now.vocabulary.node(details, callbacks.metadata)
    if now.content is not None:
        details = {**(details or {}), **now.content.input(inputs)}
    return handler.start(now, kind, name, manager.run_id, callbacks, scope, details, resumes=resumes)


def chat(now: InForce, callbacks: Any, manager: Any, serialized: Any, said: Any, name: Any, more: Given, scope: Scope | None) -> Run | None:
    """Open the span of a chat model call."""
    return _model(now, "chat", callbacks, manager, serialized, said, more, scope)


def completion(
    now: InForce, callbacks: Any, manager: Any, serialized: Any, prompts: Any, name: Any, more: Given, scope: Scope | None
) -> Run | None:
    """Open the span of a text completion."""
    return _model(now, "text_completion", callbacks, manager, serialized, prompts, more, scope)


def _model(
    now: InForce, operation: str, callbacks: Any, manager: Any, serialized: Any, said: Any, more: Given, scope: Scope | None
) -> Run | None:
    asked = messages.asked(operation, serialized, more, callbacks.metadata)
    details = now.vocabulary.asked(asked)
    if now.content is not None:
        details.update(now.content.asked(said))
    run = handler.start(now, "llm", asked.model, manager.run_id, callbacks, scope, details, f"{operation} {asked.model}")
    if run is not None:
        run.asked = asked
    return run


def tool(now: InForce, callbacks: Any, manager: Any, serialized: Any, said: Any, name: Any, more: Given, scope: Scope | None) -> Run | None:
    """Open the span of a tool call."""
    name = _serialized_name(serialized) or name or "tool"
    call_id = more.get("tool_call_id")
    details = now.vocabulary.tool(name, call_id)
    if now.content is not None:
        details.update(now.content.tool_arguments(more.get("inputs") or said))
    run = handler.start(now, "tool", name, manager.run_id, callbacks, scope, details)
    if run is not None and call_id is None:
        run.lacks_call_id = True
    return run


def retriever(
    now: InForce, callbacks: Any, manager: Any, serialized: Any, query: Any, name: Any, more: Given, scope: Scope | None
) -> Run | None:
    """Open the span of a retrieval."""
    details = None if now.content is None else now.content.input(query)
    name = name or _serialized_name(serialized) or "retriever"
    return handler.start(now, "retriever", name, manager.run_id, callbacks, scope, details)


# --- Ends --------------------------------------------------------------------------------------------------------------------


def ended(run: Run, outputs: Any, more: Given) -> None:
    """Close a chain."""
    content = run.now.content
    handler.end(run, None if content is None or not run.recording else content.output(outputs))


def failed(run: Run, error: Any, more: Given) -> None:
    """Close a run that raised."""
    handler.end(run, error=error)


def answered(run: Run, response: Any, more: Given) -> None:
    """Close a model call that answered."""
    if run.context is not None:
        handler.end_model(run, messages.answer(response), response)


def model_failed(run: Run, error: Any, more: Given) -> None:
    """Close a model call that raised; what it said until then is kept."""
    if run.context is not None:
        response = more.get("response")
        handler.end_model(run, messages.answer(response), response, error=error)
    for each in run.beside:
        handler.end(each, {c.RUN_ABANDONED: True})


def one_after_another(runs: list[Run]) -> None:
    """Note the chats of one synchronous ``generate``: where one fails, LangChain asks and ends none of the others."""
    for run in runs:
        run.beside = [each for each in runs if each is not run]


def chunk(run: Run, token: Any, more: Given) -> None:
    """Note the first streamed chunk."""
    if run.first_chunk_ns is None:
        run.first_chunk_ns = run.now.recorder.clock()


def event(run: Run, event: Any, more: Given) -> None:
    """Note the first event of the newer streaming protocol that brings something of the answer."""
    if run.first_chunk_ns is None and event.get("event") == "content-block-delta":
        run.first_chunk_ns = run.now.recorder.clock()


def tool_ended(run: Run, output: Any, more: Given) -> None:
    """Close a tool call; an error that was turned into a message for the model is still an error of the tool."""
    attributes: dict[str, Any] = {}
    if getattr(output, "status", None) == "error":
        attributes[c.ERROR_TYPE] = "tool_error"
    if run.lacks_call_id and run.now.vocabulary.gen_ai and (call_id := getattr(output, "tool_call_id", None)) is not None:
        attributes[c.GEN_AI_TOOL_CALL_ID] = str(call_id)
    if run.recording and run.now.content is not None:
        attributes.update(run.now.content.tool_result(output))
    handler.end(run, attributes)


def retrieved(run: Run, documents: Any, more: Given) -> None:
    """Close a retrieval with the ids and scores of what it found."""
    if not run.recording:
        handler.end(run)
        return
    documents = (documents or ())[:DOCUMENTS]
    attributes = run.now.vocabulary.documents(documents)
    if run.now.content is not None:
        attributes.update(run.now.content.documents(documents))
    handler.end(run, attributes)


def custom_event(callbacks: Any, args: tuple[Any, ...], given: Given) -> None:
    """Put a dispatched custom event on the span of the run that dispatched it."""
    run = handler.live.get(callbacks.parent_run_id or given.get("run_id"))
    if run is not None and run.context is not None and run.span is not None:
        content = run.now.content
        data = None if content is None else content.event(_given(args, given, 1, "data"))
        run.span.add_event(str(_given(args, given, 0, "name")), data)


def _given(args: tuple[Any, ...], given: Given, place: int, name: str) -> Any:
    return args[place] if len(args) > place else given.get(name)


def _serialized_name(serialized: Any) -> str | None:
    if not isinstance(serialized, dict):
        return None
    name = serialized.get("name") or (serialized.get("id") or [None])[-1]
    return str(name) if name else None

"""Read what LangChain says as a run starts or ends, for each kind of run, and hand it to the handler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lstm_trace import conventions as c
from lstm_trace.instrument.langchain import messages
from lstm_trace.instrument.langchain.attributes import DOCUMENTS
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.runs import Kind, Run, Scope

HIDDEN: Final = "langsmith:hidden"
"""LangChain's tag of runs that are plumbing."""

Args = tuple[Any, ...]
Given = dict[str, Any]


def chain(callbacks: Any, manager: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    """Open the span of a chain, a graph or a graph's node."""
    metadata: Mapping[str, Any] = callbacks.metadata
    tags = callbacks.tags
    kind: Kind = "chain"
    resumes = False
    if scope is not None:
        if scope.graph:
            thread = metadata.get("thread_id")
            scope.thread = None if thread is None else str(thread)
            resumes = _resumes(args, given)
            kind = "agent" if scope.agent else "chain"
        if scope.adopt is not None:
            return handler.adopt(scope.adopt, manager.run_id, scope.thread, resumes)
    name = given.get("name") or _serialized_name(args, given) or "chain"
    details = None
    if kind == "agent":
        details = handler.vocabulary.agent(name)
    if tags and tags[-1].startswith("graph:step:"):
        details = handler.vocabulary.node(details, metadata)
    if (content := handler.content) is not None:
        details = {**(details or {}), **content.input(_given(args, given, 1, "inputs"))}
    return handler.start(
        kind,
        name,
        details=details,
        run_id=manager.run_id,
        parent_run_id=callbacks.parent_run_id,
        tags=tags,
        metadata=metadata,
        scope=scope,
        resumes=resumes,
    )


def _resumes(args: Args, given: Given) -> bool:
    inputs = _given(args, given, 1, "inputs")
    return inputs is None or type(inputs).__name__ == "Command"


def chat(callbacks: Any, manager: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    """Open the span of a chat model call."""
    return _model("chat", callbacks, manager, args, given, scope)


def completion(callbacks: Any, manager: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    """Open the span of a text completion."""
    return _model("text_completion", callbacks, manager, args, given, scope)


def _model(operation: str, callbacks: Any, manager: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    asked = messages.asked(operation, _given(args, given, 0, "serialized"), given, callbacks.metadata)
    details = handler.vocabulary.asked(asked)
    if (content := handler.content) is not None:
        details.update(content.asked(args[1] if len(args) > 1 else given.get("messages") or given.get("prompts")))
    run = handler.start(
        "llm",
        asked.model,
        details=details,
        run_id=manager.run_id,
        parent_run_id=callbacks.parent_run_id,
        tags=callbacks.tags,
        metadata=callbacks.metadata,
        scope=scope,
        span_name=f"{operation} {asked.model}",
    )
    if run is not None:
        run.asked = asked
    return run


def tool(callbacks: Any, manager: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    """Open the span of a tool call."""
    name = _serialized_name(args, given) or given.get("name") or "tool"
    call_id = given.get("tool_call_id")
    details = handler.vocabulary.tool(name, call_id)
    if (content := handler.content) is not None:
        details.update(content.tool_arguments(given.get("inputs") or _given(args, given, 1, "input_str")))
    run = handler.start(
        "tool",
        name,
        details=details,
        run_id=manager.run_id,
        parent_run_id=callbacks.parent_run_id,
        tags=callbacks.tags,
        metadata=callbacks.metadata,
        scope=scope,
    )
    if run is not None and call_id is None:
        run.lacks_call_id = True
    return run


def retriever(callbacks: Any, manager: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    """Open the span of a retrieval."""
    content = handler.content
    return handler.start(
        "retriever",
        given.get("name") or _serialized_name(args, given) or "retriever",
        details=None if content is None else content.input(_given(args, given, 1, "query")),
        run_id=manager.run_id,
        parent_run_id=callbacks.parent_run_id,
        tags=callbacks.tags,
        metadata=callbacks.metadata,
        scope=scope,
    )


# --- Ends --------------------------------------------------------------------------------------------------------------------


def ended(run: Run, args: Args, given: Given) -> None:
    """Close a chain."""
    content = handler.content
    handler.end(run, None if content is None or not run.recording else content.output(_given(args, given, 0, "outputs")))


def failed(run: Run, args: Args, given: Given) -> None:
    """Close a run that raised."""
    handler.end(run, error=_given(args, given, 0, "error"))


def answered(run: Run, args: Args, given: Given) -> None:
    """Close a model call that answered."""
    if run.context is not None:
        response = _given(args, given, 0, "response")
        handler.end_model(run, messages.answer(response), response)


def model_failed(run: Run, args: Args, given: Given) -> None:
    """Close a model call that raised; what it said until then is kept."""
    if run.context is not None:
        response = given.get("response")
        handler.end_model(run, messages.answer(response), response, error=_given(args, given, 0, "error"))
    for each in run.beside:
        handler.end(each, {c.RUN_ABANDONED: True})


def one_after_another(runs: list[Run]) -> None:
    """Note the chats of one synchronous ``generate``: where one fails, LangChain asks and ends none of the others."""
    for run in runs:
        run.beside = [each for each in runs if each is not run]


def chunk(run: Run, args: Args, given: Given) -> None:
    """Note the first streamed chunk."""
    if run.first_chunk_ns is None:
        run.first_chunk_ns = handler.recorder.clock()


def event(run: Run, args: Args, given: Given) -> None:
    """Note the first event of the newer streaming protocol that brings something of the answer."""
    if run.first_chunk_ns is None and _given(args, given, 0, "event").get("event") == "content-block-delta":
        run.first_chunk_ns = handler.recorder.clock()


def tool_ended(run: Run, args: Args, given: Given) -> None:
    """Close a tool call; an error that was turned into a message for the model is still an error of the tool."""
    output = _given(args, given, 0, "output")
    attributes: dict[str, Any] = {}
    if getattr(output, "status", None) == "error":
        attributes[c.ERROR_TYPE] = "tool_error"
    if run.lacks_call_id and handler.vocabulary.gen_ai and (call_id := getattr(output, "tool_call_id", None)) is not None:
        attributes[c.GEN_AI_TOOL_CALL_ID] = str(call_id)
    if run.recording and (content := handler.content) is not None:
        attributes.update(content.tool_result(output))
    handler.end(run, attributes)


def retrieved(run: Run, args: Args, given: Given) -> None:
    """Close a retrieval with the ids and scores of what it found."""
    if not run.recording:
        handler.end(run)
        return
    documents = (_given(args, given, 0, "documents") or ())[:DOCUMENTS]
    attributes = handler.vocabulary.documents(documents)
    if (content := handler.content) is not None:
        attributes.update(content.documents(documents))
    handler.end(run, attributes)


def custom_event(callbacks: Any, args: Args, given: Given) -> None:
    """Put a dispatched custom event on the span of the run that dispatched it."""
    run = handler.live.get(callbacks.parent_run_id or given.get("run_id"))
    if run is not None and run.context is not None and run.span is not None:
        content = handler.content
        data = None if content is None else content.event(_given(args, given, 1, "data"))
        run.span.add_event(str(_given(args, given, 0, "name")), data)


def _given(args: Args, given: Given, place: int, name: str) -> Any:
    return args[place] if len(args) > place else given.get(name)


def _serialized_name(args: Args, given: Given) -> str | None:
    serialized = _given(args, given, 0, "serialized")
    if not isinstance(serialized, dict):
        return None
    name = serialized.get("name") or (serialized.get("id") or [None])[-1]
    return str(name) if name else None

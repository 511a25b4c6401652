"""Read what LangChain says as a run starts or ends, for each kind of run, and hand it to the handler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lstm_trace.instrument.langchain import messages
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.runs import Run, Scope

HIDDEN: Final = "langsmith:hidden"
"""LangChain's tag of runs that are plumbing."""

Args = tuple[Any, ...]
Given = dict[str, Any]


def chain(callbacks: Any, made: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    """Open the span of a chain, a graph or a graph's node."""
    metadata = callbacks.metadata
    if scope is not None and scope.adopt is not None:
        return handler.adopt(scope.adopt, made.run_id, _thread(metadata) if scope.graph else None, _resumes(args, given))
    name = (scope.name if scope is not None else None) or given.get("name") or _serialized_name(args) or "chain"
    kind = "agent" if scope is not None and scope.agent else "chain"
    vocabulary = handler.vocabulary
    attributes = vocabulary.chain(kind, name)
    if any(tag.startswith("graph:step:") for tag in callbacks.tags):
        vocabulary.node(attributes, metadata)
    resumes = False
    if scope is not None and scope.graph:
        scope.links_thread = _thread(metadata)
        resumes = _resumes(args, given)
    return handler.start(
        kind,
        name,
        parent_run_id=callbacks.parent_run_id,
        run_id=made.run_id,
        tags=callbacks.tags,
        metadata=metadata,
        attributes=attributes,
        scope=scope,
        resumes=resumes,
    )


def _thread(metadata: Mapping[str, Any]) -> str | None:
    thread = metadata.get("thread_id")
    return None if thread is None else str(thread)


def _resumes(args: Args, given: Given) -> bool:
    inputs = args[1] if len(args) > 1 else given.get("inputs")
    return inputs is None or type(inputs).__name__ == "Command"


def chat(callbacks: Any, made: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    """Open the span of a chat model call."""
    return _model("chat", callbacks, made, args, given, scope)


def completion(callbacks: Any, made: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    """Open the span of a text completion."""
    return _model("text_completion", callbacks, made, args, given, scope)


def _model(operation: str, callbacks: Any, made: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    asked = messages.asked(args[0] if args else given.get("serialized"), given, callbacks.metadata)
    attributes = handler.vocabulary.asked(asked, operation)
    run = handler.start(
        "llm",
        asked.model,
        parent_run_id=callbacks.parent_run_id,
        run_id=made.run_id,
        tags=callbacks.tags,
        metadata=callbacks.metadata,
        attributes=attributes,
        scope=scope,
    )
    if run is not None:
        run.labels = handler.vocabulary.metric_labels(asked, operation)
    return run


def tool(callbacks: Any, made: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    """Open the span of a tool call."""
    name = _serialized_name(args) or given.get("name") or "tool"
    return handler.start(
        "tool",
        name,
        parent_run_id=callbacks.parent_run_id,
        run_id=made.run_id,
        tags=callbacks.tags,
        metadata=callbacks.metadata,
        attributes=handler.vocabulary.tool(name, given.get("tool_call_id")),
        scope=scope,
    )


def retriever(callbacks: Any, made: Any, args: Args, given: Given, scope: Scope | None) -> Run | None:
    """Open the span of a retrieval."""
    name = given.get("name") or _serialized_name(args) or "retriever"
    return handler.start(
        "retriever",
        name,
        parent_run_id=callbacks.parent_run_id,
        run_id=made.run_id,
        tags=callbacks.tags,
        metadata=callbacks.metadata,
        attributes=handler.vocabulary.start("retriever"),
        scope=scope,
    )


# --- Ends --------------------------------------------------------------------------------------------------------------------


def ended(run: Run, args: Args, given: Given) -> None:
    """Close a chain or a tool."""
    handler.end(run)


def failed(run: Run, args: Args, given: Given) -> None:
    """Close a run that raised."""
    handler.end(run, error=args[0] if args else given.get("error"))


def answered(run: Run, args: Args, given: Given) -> None:
    """Close a model call that answered."""
    handler.end_model(run, messages.answer(args[0] if args else given.get("response")))


def model_failed(run: Run, args: Args, given: Given) -> None:
    """Close a model call that raised; what it said until then is kept."""
    partial = messages.answer(given.get("response"))
    handler.end_model(run, partial, error=args[0] if args else given.get("error"))


def chunk(run: Run, args: Args, given: Given) -> None:
    """Note the first streamed chunk."""
    if run.first_chunk_ns is None:
        run.first_chunk_ns = handler.recorder.clock()


def tool_ended(run: Run, args: Args, given: Given) -> None:
    """Close a tool call; an error that was turned into a message for the model is still an error of the tool."""
    output = args[0] if args else given.get("output")
    handler.end(run, handler.vocabulary.tool_result(output))


def retrieved(run: Run, args: Args, given: Given) -> None:
    """Close a retrieval with the ids and scores of what it found."""
    documents = args[0] if args else given.get("documents")
    handler.end(run, handler.vocabulary.documents(documents or ()) if run.recording else None)


def _serialized_name(args: Args) -> str | None:
    serialized = args[0] if args else None
    if not isinstance(serialized, dict):
        return None
    name = serialized.get("name") or (serialized.get("id") or [None])[-1]
    return str(name) if name else None

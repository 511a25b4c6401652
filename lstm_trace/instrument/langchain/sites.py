"""The functions of LangChain and LangGraph that we replace, and with what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from lstm_trace.instrument.langchain import current, leaving, managers, starts
from lstm_trace.instrument.langchain.patches import Site, Wrap
from lstm_trace.instrument.langchain.runs import Scope, waiting_run

_CHAT: Final = "langchain_core.language_models.chat_models"
_CHAT_STREAM: Final = "langchain_core.language_models.chat_model_stream"
_MANAGER: Final = "langchain_core.callbacks.manager"
_RUNNABLE: Final = "langgraph._internal._runnable"
_PREGEL: Final = "langgraph.pregel.main"
_UNNAMED: Final = "LangGraph"

_STARTS: Final = {
    "on_chain_start": starts.chain,
    "on_chat_model_start": starts.chat,
    "on_llm_start": starts.completion,
    "on_tool_start": starts.tool,
    "on_retriever_start": starts.retriever,
}
_ENDS: Final = {
    "ChainRun": {"on_chain_end": starts.ended, "on_chain_error": starts.failed},
    "LLMRun": {
        "on_llm_end": starts.answered,
        "on_llm_error": starts.model_failed,
        "on_llm_new_token": starts.chunk,
        "on_stream_event": starts.event,
    },
    "ToolRun": {"on_tool_end": starts.tool_ended, "on_tool_error": starts.failed},
    "RetrieverRun": {"on_retriever_end": starts.retrieved, "on_retriever_error": starts.failed},
}
_CALLS: Final[Mapping[str, Callable[[Callable[[Any], Scope]], Wrap]]] = {
    "invoke": current.scoped,
    "ainvoke": current.scoped_async,
    "batch": current.scoped,
    "abatch": current.scoped_async,
    "stream": current.scoped_generator,
    "astream": current.scoped_async_generator,
}
_RETRYING: Final = (
    ("model_retry", "ModelRetryMiddleware", "model"),
    ("model_fallback", "ModelFallbackMiddleware", "model"),
    ("tool_retry", "ToolRetryMiddleware", "tool"),
)


def plain(_: Any) -> Scope:
    """Return the scope of a call about which nothing is known but that one run starts inside."""
    return Scope(adopt=waiting_run())


def tries(_: Any) -> Scope:
    """Return the scope of a call that tries one thing after another: each is an attempt."""
    return Scope(tries=True)


def graph(pregel: Any) -> Scope:
    """Return the scope of a compiled graph: an agent where it has a name of its own or was made by ``create_agent``."""
    name = getattr(pregel, "name", None)
    metadata = (getattr(pregel, "config", None) or {}).get("metadata") or {}
    agent = metadata.get("ls_integration") == "langchain_create_agent" or (isinstance(name, str) and name != _UNNAMED)
    return Scope(graph=True, agent=agent, adopt=waiting_run())


def sites() -> Iterator[Site]:
    """Yield every site, LangGraph's too: they are passed over where it is not installed."""
    for name, opener in _STARTS.items():
        yield Site(_MANAGER, "CallbackManager", name, managers.on_start(opener))
        yield Site(_MANAGER, "AsyncCallbackManager", name, managers.on_start_async(opener))
    yield Site(_MANAGER, "CallbackManager", "on_custom_event", managers.on_custom_event)
    yield Site(_MANAGER, "AsyncCallbackManager", "on_custom_event", managers.on_custom_event)
    for kind, ends in _ENDS.items():
        for name, closer in ends.items():
            yield Site(_MANAGER, f"CallbackManagerFor{kind}", name, managers.on_end(closer))
            yield Site(_MANAGER, f"AsyncCallbackManagerFor{kind}", name, managers.on_end(closer))
    yield Site("langchain_core.runnables.config", None, "_set_config_context", current.config_context)
    yield Site(_RUNNABLE, None, "_set_config_context", current.config_context)
    yield Site(_RUNNABLE, "RunnableSeq", "invoke", current.scoped(plain))
    yield Site(_RUNNABLE, "RunnableSeq", "ainvoke", current.scoped_async(plain))
    yield Site(_PREGEL, "Pregel", "stream", current.scoped_generator(graph))
    yield Site(_PREGEL, "Pregel", "astream", current.scoped_async_generator(graph))
    yield Site("langgraph.pregel._loop", "PregelLoop", "_suppress_interrupt", current.breakpoint_reached)
    for name, wrap in _CALLS.items():
        yield Site("langchain_core.runnables.fallbacks", "RunnableWithFallbacks", name, wrap(tries))
    for name in ("invoke", "ainvoke", "stream", "astream"):
        # The chosen branch starts below the branch's own run, also where LangChain names the run above it (a branch with a config).
        yield Site("langchain_core.runnables.branch", "RunnableBranch", name, _CALLS[name](plain))
    for module, owner, name in _RETRYING:
        yield Site(f"langchain.agents.middleware.{module}", owner, f"wrap_{name}_call", current.retrying)
        yield Site(f"langchain.agents.middleware.{module}", owner, f"awrap_{name}_call", current.retrying_async)
    yield Site("langchain_core.retrievers", "BaseRetriever", "invoke", current.scoped(plain))
    yield Site("langchain_core.retrievers", "BaseRetriever", "ainvoke", current.scoped_async(plain))
    yield Site("langchain_core.tools.base", "BaseTool", "run", current.scoped(plain))
    yield Site("langchain_core.tools.base", "BaseTool", "arun", current.scoped_async(plain))
    yield Site(_CHAT, "BaseChatModel", "_iter_v2_events", current.model_events)
    yield Site(_CHAT, "BaseChatModel", "_aiter_v2_events", leaving.model_events)
    yield Site(_CHAT_STREAM, "AsyncChatModelStream", "aclose", leaving.model_stream_closed)
    yield Site("langchain_core.runnables.base", None, "_astream_events_implementation_v2", leaving.events)
    for module, owner, call in (
        (_CHAT, "BaseChatModel", "generate_with_cache"),
        ("langchain_core.language_models.llms", "BaseLLM", "generate_helper"),
    ):
        yield Site(module, owner, f"_{call}", current.model_call)
        yield Site(module, owner, f"_a{call}", current.model_call_async)
        # A cancellation may come before the task in which the model's own code is to run has begun.
        yield Site(module, owner, "agenerate", current.scoped_async(plain))
        yield Site(module, owner, "stream", current.scoped_generator(plain))
        yield Site(module, owner, "astream", current.scoped_async_generator(plain))

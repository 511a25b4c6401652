"""Facts about runs to attributes, in the vocabularies that are switched on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.trace import SpanKind

from lstm_trace import conventions as c
from lstm_trace.instrument.langchain.messages import NOTHING, Answer, Asked, document_facts
from lstm_trace.instrument.langchain.runs import Kind
from lstm_trace.settings import Settings

Attributes = dict[str, Any]

_VERBS: Final[Mapping[Kind, str]] = {
    "chain": "chain",
    "agent": "invoke_agent",
    "llm": "chat",
    "tool": "execute_tool",
    "retriever": "retrieval",
    "embedding": "embeddings",
}
_OI_KINDS: Final[Mapping[Kind, str]] = {
    "chain": "CHAIN",
    "agent": "AGENT",
    "llm": "LLM",
    "tool": "TOOL",
    "retriever": "RETRIEVER",
    "embedding": "EMBEDDING",
}


_ANSWER: Final[Mapping[str, tuple[str, str, str]]] = {
    "model": (c.OI_MODEL, c.GEN_AI_RESPONSE_MODEL, ""),
    "response_id": ("", c.GEN_AI_RESPONSE_ID, ""),
    "finish_reasons": ("", c.GEN_AI_FINISH_REASONS, ""),
    "input_tokens": (c.OI_TOKENS_PROMPT, c.GEN_AI_INPUT_TOKENS, ""),
    "output_tokens": (c.OI_TOKENS_COMPLETION, c.GEN_AI_OUTPUT_TOKENS, ""),
    "total_tokens": (c.OI_TOKENS_TOTAL, "", ""),
    "cache_read": (c.OI_TOKENS_CACHE_READ, c.GEN_AI_CACHE_READ_TOKENS, ""),
    "cache_write": (c.OI_TOKENS_CACHE_WRITE, c.GEN_AI_CACHE_WRITE_TOKENS, ""),
    "reasoning": (c.OI_TOKENS_REASONING, c.GEN_AI_REASONING_TOKENS, ""),
    "logprob_mean": ("", "", c.LLM_LOGPROB_MEAN),
    "logprob_min": ("", "", c.LLM_LOGPROB_MIN),
}
"""Field of an Answer: its name in OpenInference, in GenAI, and of our own, in the order of the fields."""

DOCUMENTS: Final = 20
"""More would push other attributes out of a span that holds 128."""


_LEAVES_THE_PROCESS: Final = frozenset({"llm", "embedding"})


class Vocabulary:
    """Writes each fact under the names of OpenInference, of OpenTelemetry GenAI, or of both.

    ``kinds`` gives for each kind of run the verb that its span's name begins with (``chain {name}``, ``invoke_agent {name}`` …), its span
    kind, and what stands on every such span from its start.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.openinference = "openinference" in settings.conventions
        self.gen_ai = "gen_ai" in settings.conventions
        self.kinds = {
            kind: (verb, SpanKind.CLIENT if kind in _LEAVES_THE_PROCESS else SpanKind.INTERNAL, self._constant(kind))
            for kind, verb in _VERBS.items()
        }
        wanted = (self.openinference, self.gen_ai, True)
        self._answer = tuple(tuple(name for name, on in zip(names, wanted, strict=True) if name and on) for names in _ANSWER.values())

    def _constant(self, kind: Kind) -> Attributes:
        attributes: Attributes = {}
        if self.openinference:
            attributes[c.OI_KIND] = _OI_KINDS[kind]
        if self.gen_ai and kind != "chain":
            attributes[c.GEN_AI_OPERATION] = _VERBS[kind]
        return attributes

    def agent(self, name: str) -> Attributes:
        """Return the attributes of an agent."""
        attributes: Attributes = {}
        if self.gen_ai:
            attributes[c.GEN_AI_AGENT_NAME] = name
        if self.openinference:
            attributes[c.OI_AGENT_NAME] = name
        return attributes

    def node(self, attributes: Attributes | None, metadata: Mapping[str, Any]) -> Attributes:
        """Return the attributes with a graph node's name and superstep."""
        attributes = attributes or {}
        node, superstep = metadata.get("langgraph_node"), metadata.get("langgraph_step")
        if node is not None:
            attributes[c.GRAPH_NODE] = str(node)
        if superstep is not None:
            attributes[c.GRAPH_SUPERSTEP] = int(superstep)
        return attributes

    def asked(self, asked: Asked) -> Attributes:
        """Return the attributes of a model call that starts."""
        attributes: Attributes = {}
        if self.openinference:
            attributes[c.OI_MODEL] = asked.model
        if self.gen_ai:
            attributes[c.GEN_AI_OPERATION] = asked.operation
            attributes[c.GEN_AI_REQUEST_MODEL] = asked.model
            if asked.provider is not None:
                attributes[c.GEN_AI_PROVIDER] = asked.provider
        return attributes

    def answer(self, answer: Answer, seconds_to_first_chunk: float | None) -> Attributes:
        """Return the attributes of a model's answer."""
        attributes: Attributes = {}
        if answer is not NOTHING:
            for value, names in zip(answer, self._answer, strict=True):
                if value is not None:
                    for name in names:
                        attributes[name] = value
        if seconds_to_first_chunk is not None:
            attributes[c.GEN_AI_TIME_TO_FIRST_CHUNK] = seconds_to_first_chunk
        return attributes

    def embedding(self, model: str) -> Attributes:
        """Return the attributes of an embedding call."""
        attributes: Attributes = {}
        if self.openinference:
            attributes[c.OI_EMBEDDING_MODEL] = model
        if self.gen_ai:
            attributes[c.GEN_AI_REQUEST_MODEL] = model
        return attributes

    def metric_labels(self, asked: Asked) -> Attributes:
        """Return the labels of a model call's metrics."""
        labels: Attributes = {c.GEN_AI_OPERATION: asked.operation, c.GEN_AI_REQUEST_MODEL: asked.model}
        if asked.provider is not None:
            labels[c.GEN_AI_PROVIDER] = asked.provider
        return labels

    def tool(self, name: str, call_id: str | None) -> Attributes:
        """Return the attributes of a tool call that starts."""
        attributes: Attributes = {}
        if self.openinference:
            attributes[c.OI_TOOL_NAME] = name
        if self.gen_ai:
            attributes[c.GEN_AI_TOOL_NAME] = name
            if call_id is not None:
                attributes[c.GEN_AI_TOOL_CALL_ID] = str(call_id)
        return attributes

    def documents(self, documents: Sequence[Any]) -> Attributes:
        """Return ids and scores of retrieved documents."""
        attributes: Attributes = {}
        listed: list[dict[str, Any]] = []
        for index, document in enumerate(documents):
            found, score = document_facts(document)
            entry: dict[str, Any] = {}
            if found is not None:
                entry["id"] = found
            if score is not None:
                entry["score"] = score
            listed.append(entry)
            if self.openinference:
                for name, value in entry.items():
                    attributes[f"{c.OI_DOCUMENTS}{index}.document.{name}"] = value
        if self.gen_ai and listed:
            attributes[c.GEN_AI_RETRIEVAL_DOCUMENTS] = json.dumps(listed, separators=(",", ":"))
        return attributes

"""Attribute names of other instrumentations that the reader understands and lstm-trace itself never writes."""

from typing import Final

from lstm_trace import conventions as c

# OpenTelemetry GenAI before 1.28 (OpenLLMetry and older contrib instrumentations still write these).
GEN_AI_SYSTEM: Final = "gen_ai.system"
GEN_AI_PROMPT_TOKENS: Final = "gen_ai.usage.prompt_tokens"
GEN_AI_COMPLETION_TOKENS: Final = "gen_ai.usage.completion_tokens"

# OpenInference beyond what we write.
OI_PROVIDER: Final = "llm.provider"
OI_SYSTEM: Final = "llm.system"
OI_EMBEDDING_MODEL: Final = "embedding.model_name"

# traceAI (Future AGI): OpenInference's names under its own kind, or gen_ai with a kind of its own; values in either case.
TRACEAI_KIND: Final = "fi.span.kind"
TRACEAI_GEN_AI_KIND: Final = "gen_ai.span.kind"
TRACEAI_MODEL: Final = "llm.model"

# OpenLLMetry (Traceloop): its older releases name no operation.
OPENLLMETRY_REQUEST: Final = "llm.request.type"
OPENLLMETRY_KIND: Final = "traceloop.span.kind"

ENDUSER_ID: Final = "enduser.id"
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"

KIND_OF_OPERATION: Final = {
    "chat": "LLM",
    "text_completion": "LLM",
    "generate_content": "LLM",
    "embeddings": "EMBEDDING",
    "execute_tool": "TOOL",
    "invoke_agent": "AGENT",
    "create_agent": "AGENT",
    "invoke_workflow": "CHAIN",
    "retrieval": "RETRIEVER",
    "completion": "LLM",
    "embedding": "EMBEDDING",
    "rerank": "RERANKER",
    "workflow": "CHAIN",
    "task": "CHAIN",
    "agent": "AGENT",
    "tool": "TOOL",
}
"""What is named in ``OPERATIONS`` to the OpenInference kind that says the same."""
OPERATIONS: Final = (c.GEN_AI_OPERATION, OPENLLMETRY_REQUEST, OPENLLMETRY_KIND)
"""Attributes that say what a span did; the first that a span has counts."""

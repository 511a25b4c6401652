"""Models that stand in where a model must answer, named so: they say what the test wrote down and keep what they were asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from pydantic import Field

Script = list["dict[str, Any] | Exception"]


class ScriptedChatModel(BaseChatModel):
    """A LangChain chat model that answers with the next line of its script through a tool call, as providers do for structured output.

    A line is the arguments of that call, or an exception to raise. ``prompts`` keeps the text of every message list it was sent.
    """

    script: Script = Field(default_factory=list)
    prompts: list[str] = Field(default_factory=list)
    model_name: str = "scripted-judge"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(tools=tools)

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> ChatResult:
        self.prompts.append("\n".join(message.text for message in messages))
        line = self.script.pop(0)
        if isinstance(line, Exception):
            raise line
        tool = kwargs["tools"][0]
        name = tool.get("title") or tool.get("name") or tool["function"]["name"]
        usage = UsageMetadata(input_tokens=210, output_tokens=17, total_tokens=227)
        message = AIMessage(
            "",
            tool_calls=[{"name": name, "args": line, "id": "call-1", "type": "tool_call"}],
            usage_metadata=usage,
            response_metadata={"model_name": self.model_name},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


class ScriptedEmbeddings(Embeddings):
    """A LangChain embedding model with the vectors that the test wrote down."""

    model = "scripted-embeddings"

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors

    def embed_query(self, text: str) -> list[float]:
        return self.vectors[text]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.vectors[text] for text in texts]


def verdict(score: Any, reasoning: str = "Because. Thus, the score should be: this.") -> dict[str, Any]:
    return {"score": score, "reasoning": reasoning}

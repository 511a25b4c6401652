"""Chat models, retrievers and graphs that the tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.retrievers import BaseRetriever
from opentelemetry import trace

import lstm_trace


class Scripted(BaseChatModel):
    """Answers with ``reply``; notes the span that was current in its own code, sleeps and fails as told."""

    reply: AIMessage = AIMessage("yes")
    seen: list[str] = []  # noqa: RUF012  pydantic copies it
    seconds: float = 0.0
    failures: int = 0
    model: str = "scripted-1"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _note(self) -> None:
        span = trace.get_current_span()
        self.seen.append(getattr(span, "name", "nothing"))
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the secret host is away")

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: CallbackManagerForLLMRun | None = None, **_: Any
    ) -> ChatResult:
        self._note()
        return ChatResult(generations=[ChatGeneration(message=self.reply.model_copy())], llm_output={"model_name": "scripted-1-2026"})

    async def _agenerate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        await asyncio.sleep(self.seconds)
        return self._generate(messages)


class Streaming(Scripted):
    """Streams its reply by the letter; the last chunk carries usage."""

    def _stream(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> Iterator[ChatGenerationChunk]:
        for letter in str(self.reply.content):
            self._note()
            yield ChatGenerationChunk(message=AIMessageChunk(content=letter))
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="", usage_metadata={"input_tokens": 4, "output_tokens": 3, "total_tokens": 7})
        )

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            await asyncio.sleep(self.seconds)
            yield chunk


class ToolCaller(GenericFakeChatModel):
    """Plays its messages back and accepts tools."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


class Shelf(BaseRetriever):
    """Two documents with ids and scores."""

    seen: list[str] = []  # noqa: RUF012  pydantic copies it

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        self.seen.append(getattr(trace.get_current_span(), "name", "nothing"))
        return [
            Document("the secret of the shelf", id="doc-1", metadata={"relevance_score": 0.75, "owner": "secret"}),
            Document("more secrets", metadata={"id": "doc-2", "score": 0.5}),
        ]


def predict(label: str) -> None:
    """Let an intent classifier say ``label``, here and now."""
    lstm_trace.record_prediction("intent", label=label, confidence=0.5, sequence_length=7)

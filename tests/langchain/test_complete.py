"""Complete: what each kind of run says about itself, whole and streamed, in the vocabularies that are switched on."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import CallbackManager
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tools import ToolException, tool
from opentelemetry.trace import StatusCode

from lstm_trace import Settings
from lstm_trace.guard import shield
from lstm_trace.instrument.langchain.messages import Answer, answer, asked, document_facts
from tests.langchain.conftest import attributes
from tests.langchain.models import Scripted, Shelf, Streaming
from tests.tracing import Traced

USAGE: Any = {
    "input_tokens": 12,
    "output_tokens": 5,
    "total_tokens": 17,
    "input_token_details": {"cache_read": 3, "cache_creation": 2},
    "output_token_details": {"reasoning": 4},
}
REPLY = AIMessage(
    "yes", usage_metadata=USAGE, response_metadata={"model_name": "scripted-1-2026", "finish_reason": "stop", "id": "answer-1"}
)
OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "scripted-1-2026",
    "llm.token_count.prompt": 12,
    "llm.token_count.completion": 5,
    "llm.token_count.total": 17,
    "llm.token_count.prompt_details.cache_read": 3,
    "llm.token_count.prompt_details.cache_write": 2,
    "llm.token_count.completion_details.reasoning": 4,
}
GEN_AI = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "scripted",
    "gen_ai.request.model": "scripted-1",
    "gen_ai.response.model": "scripted-1-2026",
    "gen_ai.response.id": "answer-1",
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.usage.input_tokens": 12,
    "gen_ai.usage.output_tokens": 5,
    "gen_ai.usage.cache_read.input_tokens": 3,
    "gen_ai.usage.cache_creation.input_tokens": 2,
    "gen_ai.usage.reasoning.output_tokens": 4,
}


@pytest.mark.parametrize(
    ("conventions", "expected"),
    [(("openinference",), OPENINFERENCE), (("gen_ai",), GEN_AI), (("openinference", "gen_ai"), OPENINFERENCE | GEN_AI)],
)
class TestVocabularies:
    @pytest.fixture
    def settings(self, conventions: tuple[str, ...]) -> Settings:
        return Settings(strict=True, conventions=conventions)

    def test_a_chat_model(self, langchain: Traced, conventions: Any, expected: dict[str, Any]) -> None:
        Scripted(reply=REPLY).invoke("x")
        assert attributes(langchain.named("chat scripted-1")) == expected


async def test_tokens_and_time_to_first_chunk_of_a_stream(langchain: Traced) -> None:
    list(Streaming().stream("x"))
    [_ async for _ in Streaming().astream("x")]
    for span in langchain.spans:
        found = attributes(span)
        assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"], found["llm.token_count.total"]) == (4, 3, 7)
        assert span.start_time is not None
        assert span.end_time is not None
        assert 0 < found["gen_ai.response.time_to_first_chunk"] <= (span.end_time - span.start_time) / 1e9


def test_a_text_completion(langchain: Traced) -> None:
    FakeListLLM(responses=["yes"]).invoke("x")
    found = attributes(langchain.named("text_completion FakeListLLM"))
    assert found["gen_ai.operation.name"] == "text_completion"
    assert found["openinference.span.kind"] == "LLM"


@pytest.mark.parametrize(
    ("message", "generation_info", "llm_output", "expected"),
    [
        ({}, None, {"token_usage": {"prompt_tokens": 3, "completion_tokens": 2}, "model_name": "m"}, Answer("m", None, None, 3, 2, 5)),
        (
            {"token_usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 9, "prompt_tokens_details": {"cached_tokens": 1}}},
            None,
            None,
            Answer(None, None, None, 3, 2, 9, 1),
        ),
        (
            {"usage": {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 1}},
            None,
            None,
            Answer(None, None, None, 3, 2, 5, 1),
        ),
        ({"stop_reason": "end_turn", "model": "m"}, None, None, Answer("m", None, ("end_turn",))),
        (
            {"logprobs": {"content": [{"logprob": -1.0}, {"logprob": -3.0}]}},
            None,
            None,
            Answer(logprob_mean=-2.0, logprob_min=-3.0),
        ),
        (
            {},
            {"logprobs": {"token_logprobs": [-1.0, None, -3.0]}, "finish_reason": "length"},
            None,
            Answer(None, None, ("length",), logprob_mean=-2.0, logprob_min=-3.0),
        ),
        ({"stopReason": "end_turn"}, None, None, Answer(None, None, ("end_turn",))),
        ({"logprobs": [{"token": "a", "logprob": -1.0}, {"logprob": -3.0}]}, None, None, Answer(logprob_mean=-2.0, logprob_min=-3.0)),
        ({}, {"logprobs_result": [{"token": "a", "logprob": -1.0}]}, None, Answer(logprob_mean=-1.0, logprob_min=-1.0)),
        (
            {"logprobs": {"content": [{"logprob": -1.0}, {"logprob": float("-inf")}, {"logprob": float("nan")}]}},
            None,
            None,
            Answer(logprob_mean=-1.0, logprob_min=-1.0),
        ),
        ({"token_usage": {"prompt_tokens": float("nan"), "completion_tokens": 2.0}}, None, None, Answer(output_tokens=2)),
        ({"token_usage": None, "logprobs": None}, None, {}, Answer()),
    ],
)
def test_what_providers_call_it(message: Any, generation_info: Any, llm_output: Any, expected: Answer) -> None:
    generation = ChatGeneration(message=AIMessage("yes", response_metadata=message), generation_info=generation_info)
    assert answer(LLMResult(generations=[[generation]], llm_output=llm_output)) == expected


@pytest.mark.parametrize(
    ("theirs", "ours"), [("azure", "azure.ai.openai"), ("amazon_bedrock", "aws.bedrock"), ("mistral", "mistral_ai"), ("openai", "openai")]
)
def test_providers_have_the_names_that_opentelemetry_gave_them(theirs: str, ours: str) -> None:
    assert asked("chat", None, {}, {"ls_provider": theirs}).provider == ours


def test_an_answer_that_cannot_be_read_costs_that_and_not_the_spans_end(langchain: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    class Listing(Shelf):
        """Returns what is no list of documents."""

        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> Any:
            return {"documents": 1}

    monkeypatch.setattr(shield, "strict", False)
    before = shield.mistakes
    assert Listing().invoke("x") == {"documents": 1}
    assert langchain.named("retrieval Listing").status.status_code is StatusCode.UNSET
    assert shield.mistakes == before + 1


def test_the_models_confidence_stands_beside_the_classifiers(langchain: Traced) -> None:
    reply = AIMessage("yes", response_metadata={"logprobs": {"content": [{"logprob": -0.5}, {"logprob": -1.5}]}})
    Scripted(reply=reply).invoke("x")
    found = attributes(langchain.named("chat scripted-1"))
    assert (found["lstm.llm.logprob_mean"], found["lstm.llm.logprob_min"]) == (-1.0, -1.5)


def test_a_tool(langchain: Traced) -> None:
    @tool
    def look(q: str) -> str:
        """Look."""
        return q

    look.invoke({"name": "look", "args": {"q": "x"}, "id": "call-1", "type": "tool_call"})
    assert attributes(langchain.named("execute_tool look")) == {
        "openinference.span.kind": "TOOL",
        "gen_ai.operation.name": "execute_tool",
        "tool.name": "look",
        "gen_ai.tool.name": "look",
        "gen_ai.tool.call.id": "call-1",
    }


def test_the_id_of_a_call_that_is_named_only_in_the_tools_answer(langchain: Traced) -> None:
    CallbackManager([]).on_tool_start({"name": "look"}, "x").on_tool_end(ToolMessage("y", tool_call_id="call-1"))
    assert attributes(langchain.named("execute_tool look"))["gen_ai.tool.call.id"] == "call-1"


def test_a_tools_error_that_became_a_message_is_still_its_error(langchain: Traced) -> None:
    @tool
    def look(q: str) -> str:
        """Look."""
        raise ToolException("secret")

    look.handle_tool_error = True
    look.invoke({"name": "look", "args": {"q": "x"}, "id": "call-1", "type": "tool_call"})
    assert attributes(langchain.named("execute_tool look"))["error.type"] == "tool_error"


def test_a_retriever(langchain: Traced) -> None:
    Shelf().invoke("x")
    assert attributes(langchain.named("retrieval Shelf")) == {
        "openinference.span.kind": "RETRIEVER",
        "gen_ai.operation.name": "retrieval",
        "retrieval.documents.0.document.id": "doc-1",
        "retrieval.documents.0.document.score": 0.75,
        "retrieval.documents.1.document.id": "doc-2",
        "retrieval.documents.1.document.score": 0.5,
        "gen_ai.retrieval.documents": '[{"id":"doc-1","score":0.75},{"id":"doc-2","score":0.5}]',
    }


def test_a_document_without_id_or_with_a_score_that_is_none() -> None:
    class Document:
        metadata = {"score": "high"}  # noqa: RUF012

    assert document_facts(Document()) == (None, None)
    assert document_facts("text") == (None, None)


async def test_embeddings(langchain: Traced) -> None:
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=4))
    store.add_texts(["secret one", "secret two"])
    retriever = store.as_retriever(search_kwargs={"k": 1})
    retriever.invoke("secret")
    await retriever.ainvoke("secret")
    found = [span for span in langchain.spans if span.name == "embeddings DeterministicFakeEmbedding"]
    assert [attributes(span) for span in found] == [
        {
            "openinference.span.kind": "EMBEDDING",
            "gen_ai.operation.name": "embeddings",
            "gen_ai.request.model": "DeterministicFakeEmbedding",
            "embedding.model_name": "DeterministicFakeEmbedding",
        }
    ] * 3
    retrievals = [span.context.span_id for span in langchain.spans if span.name.startswith("retrieval")]
    assert [span.parent and span.parent.span_id for span in found] == [None, *retrievals]

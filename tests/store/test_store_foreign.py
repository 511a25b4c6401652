"""Spans that other instrumentations write, in the attributes that they really use, join in the same columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lstm_trace.store import open_store
from tests.store.otlp import TRACE, one, request, rows, span, write

OPENTELEMETRY_GEN_AI = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.usage.input_tokens": 812,
    "gen_ai.usage.output_tokens": 96,
    "gen_ai.conversation.id": "thread-1",
    "gen_ai.response.finish_reasons": ["stop"],
}
OPENLLMETRY = {
    "gen_ai.operation.name": "text_completion",
    "gen_ai.system": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.prompt_tokens": 812,
    "gen_ai.usage.completion_tokens": 96,
    "session.id": "thread-1",
}
OLDER_OPENLLMETRY = {
    "llm.request.type": "chat",
    "gen_ai.system": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.prompt_tokens": 812,
    "gen_ai.usage.completion_tokens": 96,
    "session.id": "thread-1",
}
OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "gpt-4o",
    "llm.provider": "openai",
    "llm.token_count.prompt": 812,
    "llm.token_count.completion": 96,
    "llm.token_count.total": 908,
    "session.id": "thread-1",
}
TRACEAI = {
    "fi.span.kind": "llm",
    "llm.model": "gpt-4o",
    "llm.provider": "openai",
    "llm.token_count.prompt": 812,
    "llm.token_count.completion": 96,
    "session.id": "thread-1",
}
TRACEAI_GEN_AI = {
    "gen_ai.span.kind": "LLM",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.input_tokens": 812,
    "gen_ai.usage.output_tokens": 96,
    "session.id": "thread-1",
}


@pytest.mark.parametrize(
    ("held", "model"),
    [
        (OPENTELEMETRY_GEN_AI, "gpt-4o-2024-08-06"),
        (OPENLLMETRY, "gpt-4o"),
        (OLDER_OPENLLMETRY, "gpt-4o"),
        (OPENINFERENCE, "gpt-4o"),
        (TRACEAI, "gpt-4o"),
        (TRACEAI_GEN_AI, "gpt-4o"),
    ],
    ids=["gen_ai", "OpenLLMetry", "OpenLLMetry before operations", "OpenInference", "traceAI", "traceAI with gen_ai"],
)
def test_a_chat_span_reads_alike_in_every_vocabulary(tmp_path: Path, held: dict[str, Any], model: str) -> None:
    columns = ("span_kind", "model", "provider", "input_tokens", "output_tokens", "session_id")
    assert one(tmp_path, span(1, held), *columns) == ("LLM", model, "openai", 812, 96, "thread-1")


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("chat", "LLM"),
        ("generate_content", "LLM"),
        ("embeddings", "EMBEDDING"),
        ("execute_tool", "TOOL"),
        ("invoke_agent", "AGENT"),
        ("retrieval", "RETRIEVER"),
        ("something_new", None),
    ],
)
def test_the_kind_is_derived_from_the_operation(tmp_path: Path, operation: str, kind: str | None) -> None:
    assert one(tmp_path, span(1, {"gen_ai.operation.name": operation}), "span_kind") == kind


def test_a_span_without_any_of_these_is_kept_as_it_is(tmp_path: Path) -> None:
    made = span(1, {"http.request.method": "POST", "url.path": "/answer"}, kind=2)
    assert one(tmp_path, made, "kind", "span_kind", "model", "attributes") == (
        "server",
        None,
        None,
        [("http.request.method", "POST"), ("url.path", "/answer")],
    )


def test_foreign_spans_join_our_trace(tmp_path: Path) -> None:
    ours = span(1, {"lstm.component.name": "intent", "lstm.sequence.length": 14})
    theirs = span(2, OPENINFERENCE | {"lstm.upstream.component": "intent", "lstm.upstream.cohort": "13-20"}, parentSpanId=f"{1:016x}")
    path = write(tmp_path / "spans.jsonl", request(ours, scope="lstm_trace"), request(theirs, scope="openinference.instrumentation.openai"))
    with open_store(path) as store:
        assert store.trace(TRACE).count().to_pyarrow().as_py() == 2
        assert rows(store, "component", "upstream_component", "upstream_cohort", "input_tokens") == [
            ("intent", None, None, None),
            (None, "intent", "13-20", 812),
        ]

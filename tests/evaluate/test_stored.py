"""What a stored trace holds for evaluators, as the real instrumentation writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.retrievers import BaseRetriever
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import lstm_trace
from lstm_trace.evaluate import ContextRelevance, Groundedness
from lstm_trace.evaluate.gold import parse_gold
from lstm_trace.evaluate.running import Run
from lstm_trace.evaluate.stored import COLUMNS, stored_traces
from lstm_trace.evaluate.writing import destination
from lstm_trace.export.otlp_json import StoreExporter
from lstm_trace.settings import Settings
from lstm_trace.store import open_store
from tests.evaluate.scripted import ScriptedChatModel, verdict


class Shelf(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [Document("The warranty is two years.", id="w"), Document("Returns take 30 days.", id="r")]


def answer_into(store: Path, content: bool) -> str:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(StoreExporter(store)))
    instrumentor = lstm_trace.LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider, settings=Settings(content=content))

    @lstm_trace.trace_chain(name="claims")
    def answer(question: str) -> str:
        documents = Shelf().invoke(question)
        prompt = [SystemMessage("\n".join(each.page_content for each in documents)), HumanMessage(question)]
        return FakeListChatModel(responses=["Two years."]).invoke(prompt).text

    answer("How long?")
    ref = lstm_trace.trace_ref()
    instrumentor.uninstrument()
    provider.shutdown()
    return ref


def test_texts_are_read_from_what_langchain_left(tmp_path: Path) -> None:
    ref = answer_into(tmp_path, content=True)
    with open_store(tmp_path) as opened:
        rows = opened.spans.select(*COLUMNS).order_by("trace_id", "start_ns", "span_id").to_pyarrow().to_pylist()
    (trace,) = stored_traces(rows)
    assert (trace.trace_id, trace.root) == (ref[3:35], ref[36:52])
    assert trace.documents == ("The warranty is two years.", "Returns take 30 days.")
    assert (trace.searched, trace.query) == ("How long?", "How long?")
    assert trace.answer == "Two years."


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("Two years.", "Two years."),
        ("42", "42"),
        ('["a", "b"]', '["a", "b"]'),
        ('{"role": "assistant", "parts": [{"type": "text", "content": "Two years."}]}', "Two years."),
        ('{"answer": "Two years.", "documents": ["The warranty is two years."]}', "Two years."),
        ('{"messages": [{"role": "assistant", "parts": [{"type": "text", "content": "Two years."}]}]}', "Two years."),
        ('{"parts": [{"type": "text"}]}', '{"parts": [{"type": "text"}]}'),
        ('{"amount": 12}', '{"amount": 12}'),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_of_what_a_chain_gave_back_the_answer_is_judged(output: str, answer: str) -> None:
    row = dict.fromkeys(COLUMNS) | {"trace_id": f"{1:032x}", "span_id": f"{1:016x}", "start_ns": 0, "span_kind": "CHAIN"}
    asked = '{"question": "How long?", "documents": []}'
    (trace,) = stored_traces([row | {"attributes": [("input.value", asked), ("output.value", output)]}])
    assert (trace.query, trace.answer) == ("How long?", answer)


def test_judges_read_them(tmp_path: Path) -> None:
    ref = answer_into(tmp_path, content=True)
    judge = ScriptedChatModel(script=[verdict(1.0), verdict(0.9)])
    gold = parse_gold([json.dumps({"trace_id": ref[3:35]})])
    with open_store(tmp_path) as opened:
        chosen: list[Any] = [Groundedness(judge=judge), ContextRelevance(judge=judge)]
        report = Run(chosen, destination(str(tmp_path), to=None, endpoint=None), settings=Settings(), workers=1).over(opened, gold)
    assert [tally.judged for tally in report.tallies] == [1, 1]
    assert "<context>\nThe warranty is two years.\n\nReturns take 30 days.\n</context>" in judge.prompts[0]
    assert "<inputs>\nHow long?\n</inputs>" in judge.prompts[1]


def test_without_content_capture_there_are_none(tmp_path: Path) -> None:
    answer_into(tmp_path, content=False)
    with open_store(tmp_path) as opened:
        rows = opened.spans.select(*COLUMNS).order_by("trace_id", "start_ns", "span_id").to_pyarrow().to_pylist()
    (trace,) = stored_traces(rows)
    assert (trace.documents, trace.searched, trace.query, trace.answer) == (None, None, None, None)


def row(**given: Any) -> dict[str, Any]:
    empty = dict.fromkeys(COLUMNS) | {"trace_id": "a" * 32, "span_id": "1", "attributes": []}
    return empty | given


@pytest.mark.parametrize(
    ("attributes", "answer"),
    [
        ({"output.value": "plain text"}, "plain text"),
        ({"output.value": "[1, 2]"}, "[1, 2]"),
        ({"gen_ai.output.messages": '[{"role": "assistant", "parts": [{"type": "text", "content": "Two."}]}]'}, "Two."),
        ({"gen_ai.output.messages": '[{"role": "assistant", "parts": ['}, '[{"role": "assistant", "parts": ['),
        ({"gen_ai.output.messages": '[{"role": "assistant", "parts": [{"type": "tool_call", "name": "t"}]}]'}, None),
        ({}, None),
    ],
)
def test_every_form_of_an_answer(attributes: dict[str, str], answer: str | None) -> None:
    spans = [
        row(span_id="1", span_kind="CHAIN"),
        row(span_id="2", parent_span_id="1", span_kind="LLM", attributes=list(attributes.items())),
    ]
    (trace,) = stored_traces(spans)
    assert trace.answer == answer


def test_branches_side_by_side_and_one_after_the_other() -> None:
    spans = [row(span_id="0")] + [
        row(span_id=str(place + 1), parent_span_id="0", step=step, branch=branch)
        for place, (step, branch) in enumerate([(1, "a"), (1, "a"), (2, "b"), (2, "c"), (2, "b"), (3, "a")])
    ]
    (trace,) = stored_traces(spans)
    assert trace.branches == ("a", "b", "c", "a")


def test_evaluations_and_their_judges_are_no_part_of_the_trace() -> None:
    spans = [
        row(span_id="1", component="intent", label="refund"),
        row(span_id="2", parent_span_id="1", evaluation_name="quality", component="intent"),
        row(
            span_id="3", parent_span_id="2", span_kind="LLM", attributes=[("lstm.evaluation.judge.name", "quality"), ("output.value", "no")]
        ),
    ]
    (trace,) = stored_traces(spans)
    assert ([call.span_id for call in trace.calls], trace.answer) == (["1"], None)
    assert list(stored_traces(spans[1:])) == []

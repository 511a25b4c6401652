"""A whole run, span by span: exact names, types, parents and links, with counted ids."""

from __future__ import annotations

from typing import Any

import pytest
from inline_snapshot import snapshot
from opentelemetry.sdk.trace import ReadableSpan

import lstm_trace
from tests.tracing import Traced
from tests.whole_run import EVENTS, build


@pytest.fixture
def run(traced: Traced) -> Traced:
    """One session answered, and one score given after its trace had ended."""
    lstm_trace.instrument(tracer_provider=traced.provider, settings=lstm_trace.Settings(release="v1", strict=True))
    try:
        ticket, ref = build()("s-1", [1 + n % 7 for n in range(EVENTS)] + [0, 0])
        assert ticket["answer"] == "Ask within 30 days."
        lstm_trace.record_feedback(ref, "down", comment="too late")
    finally:
        lstm_trace.uninstrument()
    return traced


def shown(span: ReadableSpan) -> dict[str, Any]:
    return {
        "name": span.name,
        "trace": span.context.trace_id,
        "id": span.context.span_id,
        "parent": span.parent.span_id if span.parent is not None else None,
        "attributes": {key: plain(value) for key, value in sorted((span.attributes or {}).items())},
        "events": [(event.name, {key: plain(value) for key, value in sorted((event.attributes or {}).items())}) for event in span.events],
        "links": [(link.context.trace_id, link.context.span_id, dict(link.attributes or {})) for link in span.links],
    }


def plain(value: Any) -> Any:
    """A double to six digits, as ``~0.5``: the last bits of a forward pass are the machine's."""
    return f"~{value:.6g}" if isinstance(value, float) else value


def test_the_tree(run: Traced) -> None:
    assert run.tree() == snapshot("""\
chain claims
  invoke_agent claims-agent
    chain classify
      lstm intent
    chain retrieve
      retrieval Shelf
    chain answer
      chat GenericFakeChatModel
  evaluate answer_quality
evaluate feedback\
""")


def test_every_span(run: Traced) -> None:
    assert [shown(span) for span in sorted(run.spans, key=lambda span: span.context.span_id)] == snapshot(
        [
            {
                "name": "chain claims",
                "trace": 1,
                "id": 1,
                "parent": None,
                "attributes": {
                    "lstm.evaluation.label.answer_quality": "pass",
                    "lstm.evaluation.score.answer_quality": "~1",
                    "lstm.release": "v1",
                    "openinference.span.kind": "CHAIN",
                    "session.id": "s-1",
                },
                "events": [
                    (
                        "gen_ai.evaluation.result",
                        {
                            "gen_ai.evaluation.name": "answer_quality",
                            "gen_ai.evaluation.score.label": "pass",
                            "gen_ai.evaluation.score.value": "~1",
                            "lstm.evaluation.annotator": "CODE",
                            "lstm.evaluation.evaluator_version": "1",
                            "lstm.evaluation.identifier": "364f93f115364b08",
                            "lstm.evaluation.status": "ok",
                        },
                    ),
                    ("agent.trajectory.step", {"agent.trajectory.attempt": 1, "agent.trajectory.path": "1", "agent.trajectory.step": 1}),
                ],
                "links": [],
            },
            {
                "name": "invoke_agent claims-agent",
                "trace": 1,
                "id": 2,
                "parent": 1,
                "attributes": {
                    "agent.name": "claims-agent",
                    "agent.trajectory.attempt": 1,
                    "agent.trajectory.path": "1",
                    "agent.trajectory.step": 1,
                    "gen_ai.agent.name": "claims-agent",
                    "gen_ai.operation.name": "invoke_agent",
                    "lstm.release": "v1",
                    "openinference.span.kind": "AGENT",
                    "session.id": "s-1",
                },
                "events": [
                    (
                        "agent.trajectory.step",
                        {
                            "agent.trajectory.attempt": 1,
                            "agent.trajectory.branch": "classify",
                            "agent.trajectory.path": "1.1",
                            "agent.trajectory.step": 1,
                        },
                    ),
                    (
                        "agent.trajectory.step",
                        {
                            "agent.trajectory.attempt": 1,
                            "agent.trajectory.branch": "retrieve",
                            "agent.trajectory.path": "1.2",
                            "agent.trajectory.step": 2,
                        },
                    ),
                    (
                        "agent.trajectory.step",
                        {
                            "agent.trajectory.attempt": 1,
                            "agent.trajectory.branch": "answer",
                            "agent.trajectory.path": "1.3",
                            "agent.trajectory.step": 3,
                        },
                    ),
                ],
                "links": [],
            },
            {
                "name": "chain classify",
                "trace": 1,
                "id": 3,
                "parent": 2,
                "attributes": {
                    "agent.trajectory.attempt": 1,
                    "agent.trajectory.branch": "classify",
                    "agent.trajectory.path": "1.1",
                    "agent.trajectory.step": 1,
                    "langgraph.node": "classify",
                    "langgraph.superstep": 1,
                    "lstm.release": "v1",
                    "openinference.span.kind": "CHAIN",
                    "session.id": "s-1",
                },
                "events": [],
                "links": [],
            },
            {
                "name": "lstm intent",
                "trace": 1,
                "id": 4,
                "parent": 3,
                "attributes": {
                    "agent.trajectory.attempt": 1,
                    "agent.trajectory.branch": "classify",
                    "agent.trajectory.path": "1.1",
                    "agent.trajectory.step": 1,
                    "lstm.batch.size": 1,
                    "lstm.bidirectional": False,
                    "lstm.cell": "LSTM",
                    "lstm.component.name": "intent",
                    "lstm.component.version": "3",
                    "lstm.hidden_size": 6,
                    "lstm.layers": 1,
                    "lstm.prediction.confidence": "~0.821183",
                    "lstm.prediction.entropy": "~0.469594",
                    "lstm.prediction.index": 1,
                    "lstm.prediction.label": "repair",
                    "lstm.prediction.margin": "~0.642367",
                    "lstm.preprocessing.version": "2",
                    "lstm.release": "v1",
                    "lstm.sequence.cohort": "13-20",
                    "lstm.sequence.length": 14,
                    "lstm.sequence.length_source": "padding",
                    "lstm.sequence.padding_ratio": "~0.125",
                    "lstm.state.origin": "none",
                    "openinference.span.kind": "CHAIN",
                    "session.id": "s-1",
                },
                "events": [
                    (
                        "lstm.prediction",
                        {
                            "agent.trajectory.step": 1,
                            "lstm.batch.index": 0,
                            "lstm.prediction.confidence": "~0.821183",
                            "lstm.prediction.entropy": "~0.469594",
                            "lstm.prediction.index": 1,
                            "lstm.prediction.label": "repair",
                            "lstm.prediction.margin": "~0.642367",
                            "lstm.sequence.cohort": "13-20",
                            "lstm.sequence.length": 14,
                            "lstm.state.origin": "none",
                        },
                    )
                ],
                "links": [],
            },
            {
                "name": "chain retrieve",
                "trace": 1,
                "id": 5,
                "parent": 2,
                "attributes": {
                    "agent.trajectory.attempt": 1,
                    "agent.trajectory.branch": "retrieve",
                    "agent.trajectory.path": "1.2",
                    "agent.trajectory.step": 2,
                    "langgraph.node": "retrieve",
                    "langgraph.superstep": 2,
                    "lstm.release": "v1",
                    "lstm.upstream.cohort": "13-20",
                    "lstm.upstream.component": "intent",
                    "lstm.upstream.confidence": "~0.821183",
                    "lstm.upstream.label": "repair",
                    "lstm.upstream.sequence_length": 14,
                    "lstm.upstream.span_id": "0000000000000004",
                    "openinference.span.kind": "CHAIN",
                    "session.id": "s-1",
                },
                "events": [],
                "links": [],
            },
            {
                "name": "retrieval Shelf",
                "trace": 1,
                "id": 6,
                "parent": 5,
                "attributes": {
                    "agent.trajectory.attempt": 1,
                    "agent.trajectory.branch": "retrieve",
                    "agent.trajectory.path": "1.2",
                    "agent.trajectory.step": 2,
                    "gen_ai.operation.name": "retrieval",
                    "gen_ai.retrieval.documents": '[{"id":"repair-1","score":0.75},{"id":"repair-2","score":0.5}]',
                    "lstm.release": "v1",
                    "lstm.upstream.cohort": "13-20",
                    "lstm.upstream.component": "intent",
                    "lstm.upstream.confidence": "~0.821183",
                    "lstm.upstream.label": "repair",
                    "lstm.upstream.sequence_length": 14,
                    "lstm.upstream.span_id": "0000000000000004",
                    "openinference.span.kind": "RETRIEVER",
                    "retrieval.documents.0.document.id": "repair-1",
                    "retrieval.documents.0.document.score": "~0.75",
                    "retrieval.documents.1.document.id": "repair-2",
                    "retrieval.documents.1.document.score": "~0.5",
                    "session.id": "s-1",
                },
                "events": [],
                "links": [],
            },
            {
                "name": "chain answer",
                "trace": 1,
                "id": 7,
                "parent": 2,
                "attributes": {
                    "agent.trajectory.attempt": 1,
                    "agent.trajectory.branch": "answer",
                    "agent.trajectory.path": "1.3",
                    "agent.trajectory.step": 3,
                    "langgraph.node": "answer",
                    "langgraph.superstep": 3,
                    "lstm.release": "v1",
                    "lstm.upstream.cohort": "13-20",
                    "lstm.upstream.component": "intent",
                    "lstm.upstream.confidence": "~0.821183",
                    "lstm.upstream.label": "repair",
                    "lstm.upstream.sequence_length": 14,
                    "lstm.upstream.span_id": "0000000000000004",
                    "openinference.span.kind": "CHAIN",
                    "session.id": "s-1",
                },
                "events": [],
                "links": [],
            },
            {
                "name": "chat GenericFakeChatModel",
                "trace": 1,
                "id": 8,
                "parent": 7,
                "attributes": {
                    "agent.trajectory.attempt": 1,
                    "agent.trajectory.branch": "answer",
                    "agent.trajectory.path": "1.3",
                    "agent.trajectory.step": 3,
                    "gen_ai.operation.name": "chat",
                    "gen_ai.provider.name": "genericfakechatmodel",
                    "gen_ai.request.model": "GenericFakeChatModel",
                    "gen_ai.response.finish_reasons": ("stop",),
                    "gen_ai.response.model": "scripted-1",
                    "gen_ai.usage.input_tokens": 12,
                    "gen_ai.usage.output_tokens": 5,
                    "llm.model_name": "scripted-1",
                    "llm.token_count.completion": 5,
                    "llm.token_count.prompt": 12,
                    "llm.token_count.total": 17,
                    "lstm.release": "v1",
                    "lstm.upstream.cohort": "13-20",
                    "lstm.upstream.component": "intent",
                    "lstm.upstream.confidence": "~0.821183",
                    "lstm.upstream.label": "repair",
                    "lstm.upstream.sequence_length": 14,
                    "lstm.upstream.span_id": "0000000000000004",
                    "openinference.span.kind": "LLM",
                    "session.id": "s-1",
                },
                "events": [],
                "links": [(1, 4, {"lstm.link.kind": "upstream"})],
            },
            {
                "name": "evaluate answer_quality",
                "trace": 1,
                "id": 9,
                "parent": 1,
                "attributes": {
                    "evaluations.0.evaluation.annotator_kind": "CODE",
                    "evaluations.0.evaluation.identifier": "364f93f115364b08",
                    "evaluations.0.evaluation.label": "pass",
                    "evaluations.0.evaluation.name": "answer_quality",
                    "evaluations.0.evaluation.score": "~1",
                    "gen_ai.evaluation.name": "answer_quality",
                    "gen_ai.evaluation.score.label": "pass",
                    "gen_ai.evaluation.score.value": "~1",
                    "lstm.component.name": "intent",
                    "lstm.evaluation.annotator": "CODE",
                    "lstm.evaluation.evaluator_version": "1",
                    "lstm.evaluation.identifier": "364f93f115364b08",
                    "lstm.evaluation.status": "ok",
                    "lstm.evaluation.target.span_id": "0000000000000001",
                    "lstm.evaluation.target.trace_id": "00000000000000000000000000000001",
                    "lstm.prediction.confidence": "~0.821183",
                    "lstm.release": "v1",
                    "lstm.sequence.cohort": "13-20",
                    "openinference.span.kind": "EVALUATOR",
                },
                "events": [],
                "links": [(1, 1, {"lstm.link.kind": "evaluation"})],
            },
            {
                "name": "evaluate feedback",
                "trace": 2,
                "id": 10,
                "parent": None,
                "attributes": {
                    "evaluations.0.evaluation.annotator_kind": "HUMAN",
                    "evaluations.0.evaluation.explanation": "too late",
                    "evaluations.0.evaluation.identifier": "deb883f8efc72cb0",
                    "evaluations.0.evaluation.label": "down",
                    "evaluations.0.evaluation.name": "feedback",
                    "gen_ai.evaluation.explanation": "too late",
                    "gen_ai.evaluation.name": "feedback",
                    "gen_ai.evaluation.score.label": "down",
                    "lstm.component.name": "intent",
                    "lstm.evaluation.annotator": "HUMAN",
                    "lstm.evaluation.identifier": "deb883f8efc72cb0",
                    "lstm.evaluation.status": "ok",
                    "lstm.evaluation.target.span_id": "0000000000000001",
                    "lstm.evaluation.target.trace_id": "00000000000000000000000000000001",
                    "lstm.prediction.confidence": "~0.821183",
                    "lstm.release": "v1",
                    "lstm.sequence.cohort": "13-20",
                    "openinference.span.kind": "EVALUATOR",
                },
                "events": [],
                "links": [(1, 1, {"lstm.link.kind": "evaluation"})],
            },
        ]
    )


def test_every_value_has_the_type_that_the_conventions_give_it(run: Traced) -> None:
    from lstm_trace import conventions

    reference = documented(conventions.__file__)
    kinds = {"str": str, "int": int, "double": float, "bool": bool, "str[]": tuple}
    wrong = {
        (span.name, name, type(value).__name__)
        for span in run.spans
        for name, value in (span.attributes or {}).items()
        if name in reference and type(value) is not kinds[reference[name]]
    }
    assert wrong == set()


def documented(path: str | None) -> dict[str, str]:
    import ast
    import itertools
    from pathlib import Path

    assert path is not None
    body = ast.parse(Path(path).read_text()).body
    found = {}
    for statement, text in itertools.pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.value, ast.Constant) and isinstance(text, ast.Expr):
            kind = str(getattr(text.value, "value", "")).partition(":")[0]
            if kind in {"str", "int", "double", "bool", "str[]"}:
                found[str(statement.value.value)] = kind
    return found

from __future__ import annotations

from pathlib import Path

from lstm_trace.store import open_store
from lstm_trace.store.schema import evaluations_schema
from tests.store.otlp import START, TRACE, attributes, evaluations, request, span, write

JUDGED = f"{1:016x}"


def evaluation(number: int, **held: object) -> dict[str, object]:
    """An `evaluate …` span of ours in a trace of its own."""
    own = {
        "openinference.span.kind": "EVALUATOR",
        "gen_ai.evaluation.name": "groundedness",
        "lstm.evaluation.target.trace_id": TRACE,
        "lstm.evaluation.target.span_id": JUDGED,
        "lstm.evaluation.status": "ok",
    }
    return span(number, own | held, traceId=f"{number:032x}")


def event(time: int, **held: object) -> dict[str, object]:
    return {"timeUnixNano": str(START + time), "name": "gen_ai.evaluation.result", "attributes": attributes(held)}


def test_our_spans(tmp_path: Path) -> None:
    ours = evaluation(
        5,
        **{
            "gen_ai.evaluation.score.value": 0.4,
            "gen_ai.evaluation.score.label": "fail",
            "gen_ai.evaluation.explanation": "no source",
            "lstm.evaluation.identifier": "abc",
            "lstm.evaluation.evaluator_version": "2",
            "lstm.evaluation.annotator": "LLM",
            "lstm.release": "v2",
            "lstm.sequence.cohort": "21+",
            "lstm.prediction.confidence": 0.5,
            "session.id": "s",
        },
    )
    with open_store(write(tmp_path / "s.jsonl", request(span(1), ours))) as store:
        assert store.evaluations.schema() == evaluations_schema()
        assert store.evaluations.to_pyarrow().to_pylist() == [
            {
                "evaluation_name": "groundedness",
                "score": 0.4,
                "label": "fail",
                "status": "ok",
                "identifier": "abc",
                "version": "2",
                "annotator": "LLM",
                "explanation": "no source",
                "error_type": None,
                "target_trace_id": TRACE,
                "target_span_id": JUDGED,
                "time_ns": START + 5 + 1_500_000_000,
                "release": "v2",
                "cohort": "21+",
                "confidence": 0.5,
                "session_id": "s",
                "trace_id": f"{5:032x}",
                "span_id": f"{5:016x}",
            }
        ]


def test_of_equal_identifiers_the_latest_counts_in_whichever_form_it_stands(tmp_path: Path) -> None:
    name = {"gen_ai.evaluation.name": "g"}
    target = span(1, events=[event(5, **name, **{"gen_ai.evaluation.score.value": 0.1, "lstm.evaluation.identifier": "x"})])
    made = [
        evaluation(2, **{"lstm.evaluation.identifier": "x", "gen_ai.evaluation.score.value": 0.2}),
        evaluation(3, **{"lstm.evaluation.identifier": "x", "gen_ai.evaluation.score.value": 0.3}),
        evaluation(4, **{"lstm.evaluation.identifier": "y", "gen_ai.evaluation.score.value": 0.4}),
    ]
    with open_store(write(tmp_path / "s.jsonl", request(*made[::-1], target))) as store:
        assert evaluations(store, "identifier", "score") == [("x", 0.3), ("y", 0.4)]


def test_without_identifier_target_name_version_and_annotator_tell_evaluations_apart(tmp_path: Path) -> None:
    version = "lstm.evaluation.evaluator_version"
    made = [
        evaluation(2, **{version: "1", "gen_ai.evaluation.score.value": 0.2}),
        evaluation(3, **{version: "1", "gen_ai.evaluation.score.value": 0.3}),
        evaluation(4, **{version: "2", "gen_ai.evaluation.score.value": 0.4}),
        evaluation(5, **{version: "2", "gen_ai.evaluation.score.value": 0.5, "lstm.evaluation.target.span_id": f"{9:016x}"}),
    ]
    with open_store(write(tmp_path / "s.jsonl", request(*made))) as store:
        assert [score for (score,) in evaluations(store, "score")] == [0.3, 0.4, 0.5]


def test_an_event_judges_the_span_that_carries_it(tmp_path: Path) -> None:
    events = [
        event(5, **{"gen_ai.evaluation.name": "relevance", "gen_ai.evaluation.score.value": 1, "gen_ai.evaluation.score.label": "pass"}),
        event(6, **{"gen_ai.evaluation.name": "broken", "error.type": "Timeout"}),
        event(7, **{"gen_ai.evaluation.score.value": 1.0}),
        {"timeUnixNano": "1", "name": "exception", "attributes": attributes({"gen_ai.evaluation.name": "not one"})},
    ]
    judged = span(1, {"lstm.release": "v1"}, events=events)
    with open_store(write(tmp_path / "s.jsonl", request(judged))) as store:
        columns = ("evaluation_name", "score", "label", "status", "error_type", "target_trace_id", "target_span_id", "time_ns", "release")
        assert evaluations(store, *columns) == [
            ("broken", None, None, "error", "Timeout", TRACE, JUDGED, START + 6, "v1"),
            ("relevance", 1.0, "pass", "ok", None, TRACE, JUDGED, START + 5, "v1"),
        ]


def test_openinference_judges_what_it_links_to_or_its_parent_or_itself(tmp_path: Path) -> None:
    def held(name: str, **more: object) -> dict[str, object]:
        prefix = "evaluations.0.evaluation."
        own = {"name": name, "score": 0.5, "label": "good", "explanation": "why", "annotator_kind": "LLM", "identifier": name}
        return {prefix + key: item for key, item in own.items()} | more

    other = {"traceId": "e" * 32, "spanId": "d" * 16}
    made = [
        span(2, held("linked"), parentSpanId=JUDGED, links=[other]),
        span(3, held("child", **{"openinference.span.kind": "EVALUATOR"}), parentSpanId=JUDGED),
        span(4, held("itself", **{"openinference.span.kind": "LLM"}), parentSpanId=JUDGED),
    ]
    with open_store(write(tmp_path / "s.jsonl", request(span(1), *made))) as store:
        columns = (
            "evaluation_name",
            "target_trace_id",
            "target_span_id",
            "score",
            "label",
            "status",
            "annotator",
            "explanation",
            "identifier",
        )
        assert evaluations(store, *columns) == [
            ("child", TRACE, JUDGED, 0.5, "good", "ok", "LLM", "why", "child"),
            ("itself", TRACE, f"{4:016x}", 0.5, "good", "ok", "LLM", "why", "itself"),
            ("linked", "e" * 32, "d" * 16, 0.5, "good", "ok", "LLM", "why", "linked"),
        ]


def test_an_evaluator_that_failed_or_gave_no_number_has_no_score(tmp_path: Path) -> None:
    made = [
        evaluation(2, **{"lstm.evaluation.status": "error", "error.type": "Timeout", "gen_ai.evaluation.name": "a"}),
        evaluation(3, **{"lstm.evaluation.status": "skipped", "gen_ai.evaluation.name": "b"}),
        evaluation(4, **{"gen_ai.evaluation.score.value": {"doubleValue": "NaN"}, "gen_ai.evaluation.name": "c"}),
        span(5, {"gen_ai.evaluation.name": "d"}),
    ]
    with open_store(write(tmp_path / "s.jsonl", request(*made))) as store:
        assert evaluations(store, "evaluation_name", "score", "status", "error_type") == [
            ("a", None, "error", "Timeout"),
            ("b", None, "skipped", None),
            ("c", None, "ok", None),
            ("d", None, "error", None),
        ]


def test_a_store_without_evaluations_has_an_empty_table(tmp_path: Path) -> None:
    with open_store(write(tmp_path / "s.jsonl", request(span(1)))) as store:
        assert store.evaluations.count().to_pyarrow().as_py() == 0

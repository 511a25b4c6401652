"""A real MLflow server, where it is installed: feedback arrives on the judged trace, updates what is there, and errors are errors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import lstm_trace
from lstm_trace.evaluate.sinks.mlflow import MLflowSink
from tests.evaluate.sinks.servers import free_port, judged_answer, serving

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    with serving([*command, *store], f"http://127.0.0.1:{port}/health", folder, MLFLOW_DISABLE_TELEMETRY="true"):
        yield f"http://127.0.0.1:{port}"


def assessments(ref: str) -> list[Any]:
    trace = mlflow.get_trace(f"tr-{ref[3:35]}")
    assert trace is not None
    return sorted((each for each in trace.info.assessments if each.valid is not False), key=lambda each: each.name)


def test_scores_stand_on_the_judged_trace(server: str) -> None:
    sink = MLflowSink(server)
    with judged_answer(f"{server}/v1/traces", sink, {"x-mlflow-experiment-id": "0"}) as ref:
        wait_for_trace(ref)
        lstm_trace.record_evaluation(ref, "groundedness", score=0.4, label="fail", explanation="no", annotator="LLM", evaluator_version="2")
        lstm_trace.record_evaluation(
            ref, "groundedness", score=0.9, label="pass", explanation="yes", annotator="LLM", evaluator_version="2"
        )
        lstm_trace.record_feedback(ref, "down")
        lstm_trace.record_evaluation(ref, "relevance", error=TimeoutError())
    assert (sink.sent, sink.refused) == (4, 0)
    found = assessments(ref)
    assert [(each.name, each.source.source_type, each.value) for each in found] == [
        ("feedback", "HUMAN", "down"),
        ("groundedness", "LLM_JUDGE", 0.9),
        ("relevance", "CODE", None),
    ]
    assert (found[1].rationale, found[1].metadata["label"], found[1].span_id) == ("yes", "pass", ref[36:52])
    assert found[2].error.error_code == "TimeoutError"


def test_a_trace_that_it_does_not_hold_is_refused_and_counted(server: str) -> None:
    sink = MLflowSink(server)
    with judged_answer(f"{server}/v1/traces", sink, {"x-mlflow-experiment-id": "0"}):
        lstm_trace.record_evaluation("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "one", score=1.0)
    assert (sink.sent, sink.refused) == (0, 1)


def wait_for_trace(ref: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if mlflow.get_trace(f"tr-{ref[3:35]}") is not None:
                return
        except Exception:  # noqa: BLE001 - whatever it raises before the trace is there
            time.sleep(0.2)
        time.sleep(0.3)
    raise AssertionError("the trace never arrived")

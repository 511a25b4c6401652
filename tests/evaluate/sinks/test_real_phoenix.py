"""A real Phoenix server, where it is installed: annotations arrive on the judged span, replace each other, and never claim a score."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lstm_trace
from lstm_trace.evaluate.sinks.phoenix import PhoenixSink
from tests.evaluate.sinks.servers import free_port, judged_answer, serving

pytest.importorskip("phoenix.server", reason="arize-phoenix is not installed")
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("phoenix"), free_port()
    environ = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with serving(["-m", "phoenix.server.main", "serve"], f"http://127.0.0.1:{port}", folder, **environ) as url:
        yield url


def annotations(server: str, ref: str) -> list[dict[str, Any]]:
    from phoenix.client import Client

    found = Client(base_url=server).spans.get_span_annotations(span_ids=[ref[36:52]], project_identifier="default")
    return sorted(found, key=lambda each: each["name"])


def test_scores_stand_beside_the_judged_span(server: str, tmp_path: Path) -> None:
    sink = PhoenixSink(server)
    with judged_answer(f"{server}/v1/traces", sink) as ref:
        wait_for_span(server, ref)
        identifier = lstm_trace.record_evaluation(ref, "groundedness", score=0.4, label="fail", explanation="no", annotator="LLM")
        lstm_trace.record_evaluation(ref, "groundedness", score=0.9, label="pass", explanation="yes", annotator="LLM")
        lstm_trace.record_feedback(ref, "down")
        lstm_trace.record_evaluation(ref, "relevance", error=TimeoutError())
    assert (sink.sent, sink.refused) == (4, 0)
    found = annotations(server, ref)
    assert [(each["name"], each["annotator_kind"], each["result"].get("score"), each["result"].get("label")) for each in found] == [
        ("feedback", "HUMAN", None, "down"),
        ("groundedness", "LLM", 0.9, "pass"),
        ("relevance", "CODE", None, None),
    ]
    assert found[1]["identifier"] == identifier
    assert found[1]["result"]["explanation"] == "yes"
    assert found[2]["result"]["explanation"] == "error: TimeoutError"
    assert found[2]["metadata"]["error.type"] == "TimeoutError"


def test_a_span_that_it_does_not_hold_is_refused_and_counted(server: str, caplog: pytest.LogCaptureFixture) -> None:
    sink = PhoenixSink(server)
    with judged_answer(f"{server}/v1/traces", sink):
        for name in ("one", "two"):
            lstm_trace.record_evaluation("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", name, score=1.0)
    assert (sink.sent, sink.refused) == (0, 2)
    assert len([record for record in caplog.records if "Phoenix did not take" in record.message]) == 1


def test_a_server_that_is_down_is_counted_and_breaks_nothing() -> None:
    sink = PhoenixSink(f"http://127.0.0.1:{free_port()}")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    from lstm_trace.recorder import Recorder, set_default_recorder
    from lstm_trace.settings import Settings

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(sink))
    set_default_recorder(Recorder(Settings(), tracer_provider=provider))
    lstm_trace.record_evaluation("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "one", score=1.0)
    assert (sink.sent, sink.refused) == (0, 1)


def wait_for_span(server: str, ref: str) -> None:
    """Phoenix takes spans into its database a moment after it took them over OTLP."""
    import time

    from phoenix.client import Client

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            spans = Client(base_url=server).spans.get_spans(project_identifier="default")
        except Exception:  # noqa: BLE001 - the project does not exist before its first span
            spans = []
        if any(span["context"]["span_id"] == ref[36:52] for span in spans):
            return
        time.sleep(0.3)
    raise AssertionError("the span never arrived")

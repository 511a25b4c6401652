"""What each backend is sent, as its own client puts it on the wire; the servers themselves are tried where they can be installed."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import lstm_trace
from lstm_trace.evaluate.sinks.base import Sink, evaluation_of
from lstm_trace.evaluate.sinks.langfuse import LangfuseSink, NotAScore, score
from lstm_trace.evaluate.sinks.langsmith import LangSmithSink
from lstm_trace.evaluate.sinks.phoenix import annotation
from lstm_trace.facts import Evaluation, TraceRef
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings

REF = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TARGET = TraceRef.parse(REF)


class Receiver(ThreadingHTTPServer):
    """An HTTP server on 127.0.0.1 that keeps what it is sent: it stands in for a backend that cannot run here."""

    def __init__(self) -> None:
        received: list[tuple[str, str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                received.append(("POST", self.path, json.loads(body)))
                self._answer({"successes": [], "errors": []})

            def _answer(self, said: Any) -> None:
                text = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.received = received

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def recording_into(sink: Sink) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(sink))
    set_default_recorder(Recorder(Settings(), tracer_provider=provider))
    return provider


def test_langsmith_gets_feedback_on_the_root_run(receiver: Receiver) -> None:
    langsmith = pytest.importorskip("langsmith")
    client = langsmith.Client(api_url=receiver.url, api_key="x", auto_batch_tracing=False, info={})
    sink = LangSmithSink(client, session_id=uuid.UUID(int=7))
    provider = recording_into(sink)
    lstm_trace.record_evaluation(REF, "groundedness", score=0.4, label="fail", explanation="no", annotator="LLM")
    lstm_trace.record_evaluation(REF, "relevance", error=TimeoutError())
    provider.shutdown()
    assert (sink.sent, sink.refused) == (2, 0)
    sent = {body["key"]: body for _, path, body in receiver.received if "feedback" in path}
    assert sent["groundedness"]["run_id"] == "0af76519-16cd-43dd-8448-eb211c80319c"
    assert (sent["groundedness"]["score"], sent["groundedness"]["value"], sent["groundedness"]["comment"]) == (0.4, "fail", "no")
    assert sent["groundedness"]["feedback_source"]["type"] == "model"
    assert (sent["relevance"].get("score"), sent["relevance"]["feedback_source"]["metadata"]["error.type"]) == (None, "TimeoutError")
    assert uuid.UUID(sent["groundedness"]["id"]) != uuid.UUID(sent["relevance"]["id"])


def test_langfuse_gets_scores_and_never_a_zero_for_an_error(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langfuse", reason="langfuse is not installed")
    for name, value in (("PUBLIC_KEY", "pk"), ("SECRET_KEY", "sk"), ("BASE_URL", receiver.url)):
        monkeypatch.setenv(f"LANGFUSE_{name}", value)
    sink = LangfuseSink()
    provider = recording_into(sink)
    identifier = lstm_trace.record_evaluation(REF, "groundedness", score=0.4, label="fail", explanation="no", annotator="LLM")
    lstm_trace.record_feedback(REF, "down")
    lstm_trace.record_evaluation(REF, "relevance", error=TimeoutError())
    provider.shutdown()
    assert (sink.sent, sink.refused) == (2, 1)
    sent = {score["name"]: score for _, path, body in receiver.received if path == "/api/public/scores" for score in body}
    assert sorted(sent) == ["feedback", "groundedness"]
    grounded = sent["groundedness"]
    assert (grounded["id"], grounded["traceId"], grounded["observationId"]) == (identifier, REF[3:35], REF[36:52])
    assert (grounded["value"], grounded["dataType"], grounded["comment"]) == (0.4, "NUMERIC", "no")
    assert (sent["feedback"]["value"], sent["feedback"]["dataType"]) == ("down", "CATEGORICAL")


def test_phoenix_gets_an_annotation() -> None:
    evaluation = Evaluation(TARGET, "groundedness", 0.4, "fail", "no", annotator="LLM", evaluator_version="2", weight=4.0)
    assert annotation(evaluation) == {
        "span_id": "b7ad6b7169203331",
        "name": "groundedness",
        "annotator_kind": "LLM",
        "identifier": evaluation.identifier,
        "result": {"score": 0.4, "label": "fail", "explanation": "no"},
        "metadata": {"status": "ok", "evaluator_version": "2", "weight": 4.0},
    }
    failed = annotation(Evaluation(TARGET, "groundedness", status="error", error_type="TimeoutError"))
    assert failed["result"] == {"explanation": "error: TimeoutError"}


@pytest.mark.parametrize("status", ["error", "skipped"])
def test_langfuse_has_no_place_for_what_did_not_judge(status: Any) -> None:
    with pytest.raises(NotAScore):
        score(Evaluation(TARGET, "groundedness", status=status))


def test_an_evaluation_is_read_back_from_its_span_as_it_was() -> None:
    from lstm_trace.attributes import evaluation_attributes

    given = Evaluation(TARGET, "q", 0.4, "fail", "no", "ok", None, "HUMAN", "3", {"reviewer": "r7"}, 2.0)
    assert evaluation_of(evaluation_attributes(given)) == given
    failed = Evaluation(TARGET, "q", status="error", error_type="TimeoutError", annotator="LLM")
    assert evaluation_of(evaluation_attributes(failed)) == failed


@pytest.mark.parametrize("said", [{}, {"openinference.span.kind": "LLM"}, {"gen_ai.evaluation.name": "someone else's"}])
def test_other_spans_are_passed_over(said: dict[str, Any]) -> None:
    assert evaluation_of(said) is None

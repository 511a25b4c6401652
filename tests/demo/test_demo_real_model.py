"""`--model openai:…` through LangChain's real client, against a server that speaks the API: its tokens and model id are on the trace."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.test_readme import clean_environment, read_spans

pytest.importorskip("torch")
pytest.importorskip("langgraph")
pytest.importorskip("langchain_openai")

REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "It takes 3 working days."}}],
    "usage": {"prompt_tokens": 71, "completion_tokens": 6, "total_tokens": 77},
}


@pytest.fixture(params=[200])
def api(request: pytest.FixtureRequest) -> Iterator[str]:
    """Base address of a server that answers every chat completion with ``REPLY``, or refuses with the status of the parameter."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(REPLY if request.param == 200 else {"error": {"message": "wrong key"}}).encode()
            self.send_response(request.param)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def deploy(weights: Path, store: Path, api: str) -> subprocess.CompletedProcess[str]:
    told = ["--release", "v1", "--keep", "20", "--weights", str(weights), "--store", str(store), "--sessions", "4"]
    return subprocess.run(
        [sys.executable, "-m", "lstm_trace.demo.deployment", *told, "--model", "openai:gpt-4o-mini"],
        env={**clean_environment(), "OPENAI_API_KEY": "sk-none", "OPENAI_BASE_URL": api},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_real_models_id_and_tokens_are_on_the_trace(weights, tmp_path, api):
    ran = deploy(weights, tmp_path / "store", api)
    assert ran.returncode == 0, ran.stderr
    calls = [span["attributes"] for span in read_spans(tmp_path / "store") if span["name"].startswith("chat ")]
    assert len(calls) == 4
    assert {call["gen_ai.response.model"] for call in calls} == {"gpt-4o-mini-2024-07-18"}
    assert {(call["llm.token_count.prompt"], call["llm.token_count.completion"]) for call in calls} == {("71", "6")}


@pytest.mark.parametrize("api", [401], indirect=True)
def test_a_model_that_never_answers_ends_the_release_with_one_reason_and_its_spans_stay(weights, tmp_path, api):
    ran = deploy(weights, tmp_path / "store", api)
    assert ran.returncode == 2
    reason = json.loads(ran.stdout)["failed"]
    assert reason.startswith("--model openai:gpt-4o-mini: ")
    assert reason.endswith("AuthenticationError on each of the first 3 sessions")
    failed = [span for span in read_spans(tmp_path / "store") if span["name"] == "chain claims"]
    assert [span["status"]["code"] for span in failed] == [2, 2, 2]
    judged = [span["attributes"] for span in read_spans(tmp_path / "store") if span["name"] == "evaluate answer_quality"]
    assert [facts["lstm.evaluation.status"] for facts in judged] == ["error"] * 3
    assert not any("gen_ai.evaluation.score.value" in facts for facts in judged)
    assert {facts["lstm.evaluation.target.trace_id"] for facts in judged} == {span["traceId"] for span in failed}

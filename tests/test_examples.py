"""Every example runs as a user would start it, and its spans are what its text says."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.test_readme import ROOT, clean_environment, read_spans

EXAMPLES = ROOT / "examples"


def run(name: str, folder: Path, **environ: str) -> str:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=folder,
        env={**clean_environment(), **environ},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@needs("torch", "langgraph")
def test_claims_agent_puts_classifier_graph_and_score_into_one_trace(tmp_path):
    out = run("claims_agent.py", tmp_path)
    written = read_spans(tmp_path / "lstm-traces")
    assert "lstm-traces" in out
    for length in ("3", "20"):
        (component,) = [span for span in written if span["attributes"].get("lstm.sequence.length") == length]
        names = {span["name"] for span in written if span["traceId"] == component["traceId"]}
        assert {"chain claims", "lstm intent", "invoke_agent claims-agent", "evaluate answered"} <= names
        (model,) = [s for s in written if s["traceId"] == component["traceId"] and s["attributes"].get("openinference.span.kind") == "LLM"]
        assert model["attributes"]["lstm.upstream.sequence_length"] == length
    (feedback,) = [span for span in written if span["name"] == "evaluate feedback"]
    (judged,) = [
        span
        for span in written
        if span["name"] == "chain claims" and span["traceId"] == feedback["attributes"]["lstm.evaluation.target.trace_id"]
    ]
    assert judged["attributes"]["session.id"] == "s-1"


@needs("torch", "langgraph", "fastapi", "httpx")
def test_claims_agent_answers_over_http(tmp_path):
    script = """
from fastapi.testclient import TestClient
from examples.claims_agent import app, providers
client = TestClient(app)
said = client.post("/answer", json={"id": "s-9", "events": [1, 2], "message": "How long?"}).json()
assert said["answer"] and said["ref"].startswith("00-"), said
assert client.post("/feedback", json={"ref": said["ref"], "rating": "up"}).json()["id"]
providers.shutdown()
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert {"chain claims", "evaluate feedback"} <= {span["name"] for span in read_spans(tmp_path / "lstm-traces")}


@needs("torch", "silero_vad")
@pytest.mark.parametrize("speaker", ["as installed", "no espeak-ng"])
def test_voice_turns_is_one_span_an_utterance_with_its_start_and_end(tmp_path, speaker):
    path = {} if speaker == "as installed" else {"PATH": str(tmp_path)}
    run("voice_turns.py", tmp_path, **path)
    turns = [span for span in read_spans(tmp_path / "lstm-traces") if span["name"] == "lstm vad"]
    assert [span["attributes"]["session.id"] for span in turns] == ["call-17/turn-1", "call-17/turn-2"]
    for span in turns:
        facts = span["attributes"]
        assert int(facts["lstm.stream.calls"]) > 50
        assert facts["lstm.cell"] == "LSTMCell"
        assert 0 < facts["lstm.stream.real_time_factor"] < 1
        said = [
            next(iter(item["value"].values()))
            for event in span["events"]
            for item in event["attributes"]
            if item["key"] == "lstm.prediction.label"
        ]
        assert said == ["speech", "silence"]


@needs("torch", "openinference.instrumentation.langchain")
def test_existing_app_keeps_its_own_and_gains_the_classifier_and_what_stands_upstream(tmp_path):
    lines = run("existing_app.py", tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == ["lstm_trace", "openinference.instrumentation.langchain", "their.app"]
    assert "'lstm.sequence.length': 15" in lines[0]
    assert "'lstm.upstream.cohort': '13-20'" in lines[1]
    assert list(tmp_path.iterdir()) == []  # a guest writes no store of its own


def test_every_example_has_a_test():
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert [file.name for file in sorted(EXAMPLES.glob("*.py")) if file.stem not in tests] == []

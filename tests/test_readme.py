"""What the README says is true: its Python runs, its commands and targets exist, its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Document
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return [region.lexemes["source"] for region in FencedCodeBlockLexer(language)(Document(TEXT, str(README)))]


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LSTM_TRACE_", "PYTEST_", "COV_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def spans(store: Path) -> list[dict]:
    return [
        {**span, "attributes": {item["key"]: next(iter(item["value"].values())) for item in span.get("attributes", [])}}
        for file in sorted(store.glob("**/*.jsonl"))
        for line in file.read_text().splitlines()
        for resource in json.loads(line).get("resourceSpans", [])
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The spans that the README's Python blocks write, run one after the other in a fresh process."""
    pytest.importorskip("torch")
    pytest.importorskip("langchain_core")
    folder = tmp_path_factory.mktemp("readme")
    source = "\n".join(blocks("python"))
    ran = subprocess.run([sys.executable, "-c", source], cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return spans(folder / "lstm-traces")


def test_the_readme_has_python_and_commands():
    assert len(blocks("python")) >= 2
    assert len(blocks("bash")) >= 3


def test_classifier_and_chain_stand_in_one_trace(written):
    (component,) = [span for span in written if span["name"] == "lstm intent"]
    (chain,) = [span for span in written if span["name"] == "chain claims"]
    assert component["traceId"] == chain["traceId"]
    assert component["parentSpanId"] == chain["spanId"]
    assert component["attributes"]["lstm.sequence.length"] == "8"
    assert component["attributes"]["lstm.release"] == "2026.11.2"
    assert 0 < component["attributes"]["lstm.prediction.confidence"] <= 1


def test_the_scores_name_that_trace(written):
    (chain,) = [span for span in written if span["name"] == "chain claims"]
    scores = {
        span["name"]: span["attributes"]["lstm.evaluation.target.trace_id"] for span in written if span["name"].startswith("evaluate ")
    }
    assert scores == dict.fromkeys(["evaluate answer_quality", "evaluate feedback", "evaluate escalation"], chain["traceId"])


def test_every_command_exists():
    typer_app = pytest.importorskip("lstm_trace.cli").app
    known = {command.name or command.callback.__name__.replace("_", "-") for command in typer_app.registered_commands}
    named = {match for block in blocks("bash") for match in re.findall(r"^lstm-trace ([a-z-]+)", block, re.M)}
    assert named
    assert named <= known


def test_every_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`?make ([a-z][a-z-]*)", TEXT))
    assert {"demo", "test"} <= named
    patterns = [re.escape(target).replace("%", ".+") for target in re.findall(r"^([a-z%-]+):", makefile, re.M)]
    assert [name for name in sorted(named) if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []


def test_every_link_leads_somewhere():
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in target]
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_setting_is_one():
    from lstm_trace.settings import Settings, table

    known = {row[0] for row in table(Settings())}
    assert set(re.findall(r"LSTM_TRACE_[A-Z_]+", TEXT)) <= known

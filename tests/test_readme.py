"""What the README and the tutorial say is true: their Python runs, their commands and targets exist, their links lead somewhere."""

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
README, TUTORIAL, INDEX = ROOT / "README.md", ROOT / "docs" / "tutorial.md", ROOT / "docs" / "index.md"
PAGES = pytest.mark.parametrize("page", [README, TUTORIAL, INDEX], ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    document = Document(page.read_text(encoding="utf-8"), str(page))
    return [region.lexemes["source"] for region in FencedCodeBlockLexer(language)(document)]


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LSTM_TRACE_", "PYTEST_", "COV_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def read_spans(store: Path) -> list[dict]:
    return [
        {**span, "attributes": {item["key"]: next(iter(item["value"].values())) for item in span.get("attributes", [])}}
        for file in sorted(store.glob("**/*.jsonl"))
        for line in file.read_text().splitlines()
        for resource in json.loads(line).get("resourceSpans", [])
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def written(page: Path, folder: Path) -> list[dict]:
    """The spans that a page's Python blocks write, run one after the other in a fresh process."""
    pytest.importorskip("torch")
    pytest.importorskip("langchain_core")
    source = "\n".join(blocks(page, "python"))
    ran = subprocess.run([sys.executable, "-c", source], cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return read_spans(folder / "lstm-traces")


def test_the_readme_has_python_and_commands():
    assert len(blocks(README, "python")) >= 2
    assert len(blocks(README, "bash")) >= 3


def test_the_readmes_classifier_chain_and_scores_stand_together(tmp_path):
    spans = written(README, tmp_path)
    (component,) = [span for span in spans if span["name"] == "lstm intent"]
    (chain,) = [span for span in spans if span["name"] == "chain claims"]
    assert component["traceId"] == chain["traceId"]
    assert component["parentSpanId"] == chain["spanId"]
    assert component["attributes"]["lstm.sequence.length"] == "8"
    assert component["attributes"]["lstm.release"] == "2026.11.2"
    assert 0 < component["attributes"]["lstm.prediction.confidence"] <= 1
    scores = {span["name"]: span["attributes"]["lstm.evaluation.target.trace_id"] for span in spans if span["name"].startswith("evaluate ")}
    assert scores == dict.fromkeys(["evaluate answer_quality", "evaluate feedback", "evaluate escalation"], chain["traceId"])


def test_the_block_without_code_traces_the_named_class(tmp_path):
    pytest.importorskip("opentelemetry.distro")
    (block,) = [block for block in blocks(README, "bash") if "opentelemetry-instrument" in block]
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "models.py").write_text("class IntentClassifier:\n    def __call__(self, events):\n        return [0.1, 2.0]\n")
    (tmp_path / "app.py").write_text("from shop.models import IntentClassifier\nprint(IntentClassifier()([3, 1, 4]))\n")
    commands = "\n".join(line for line in block.splitlines() if not line.startswith("pip "))
    environ = clean_environment()
    environ |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}", "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(["bash", "-euc", commands], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "[0.1, 2.0]\n"), ran.stderr
    (span,) = read_spans(tmp_path / "lstm-traces")
    assert span["name"] == "lstm IntentClassifier"


def test_the_tutorials_declared_length_session_and_mechanisms_are_on_the_trace(tmp_path):
    spans = written(TUTORIAL, tmp_path)
    (component,) = [span for span in spans if span["name"] == "lstm intent"]
    facts = component["attributes"]
    assert facts["lstm.sequence.length"] == "5"
    assert facts["lstm.sequence.length_source"] == "lengths"
    assert facts["lstm.preprocessing.version"] == "3"
    assert facts["session.id"] == "s-1"
    names = sorted(span["name"] for span in spans if span["name"].startswith("evaluate "))
    assert names == [
        f"evaluate {name}" for name in ("answer_quality", "branch_match", "context_relevance", "feedback", "ground_truth_match")
    ]


@PAGES
def test_every_command_exists(page):
    typer_app = pytest.importorskip("lstm_trace.cli").app
    known = {command.name or command.callback.__name__.replace("_", "-") for command in typer_app.registered_commands}
    named = {match for block in blocks(page, "bash") for match in re.findall(r"^lstm-trace ([a-z-]+)", block, re.M)}
    assert named or page == INDEX
    assert named <= known


@PAGES
def test_every_target_exists(page):
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), re.M))
    assert page != README or {"demo", "test"} <= named
    patterns = [re.escape(target).replace("%", ".+") for target in re.findall(r"^([a-z%-]+):", makefile, re.M)]
    assert [name for name in sorted(named) if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []


@PAGES
def test_every_link_and_every_named_file_leads_somewhere(page):
    text = page.read_text()
    links = [page.parent / target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    named = [ROOT / name for name in re.findall(r"`((?:examples|lstm_trace|docs)/[^`]+)`", text)]
    assert [str(target) for target in links + named if not target.exists()] == []


@PAGES
def test_every_setting_is_one(page):
    from lstm_trace.settings import Settings, table

    known = {row[0] for row in table(Settings())}
    assert set(re.findall(r"LSTM_TRACE_[A-Z_]+", page.read_text())) <= known

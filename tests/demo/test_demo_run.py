"""`lstm-trace demo` end to end, as a user starts it: what it prints and stores tells the story, and a real collector gets it all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("langgraph")
pytest.importorskip("ibis")

from tests.export.collector import collector
from tests.test_readme import ROOT, clean_environment, read_spans

__all__ = ["collector"]

SESSIONS = 300


@dataclass(frozen=True)
class Ran:
    """One finished demo."""

    out: Path
    text: str
    stored: list[dict[str, Any]] = field(repr=False)

    @property
    def store(self) -> str:
        return str(self.out / "store")

    def cli(self, *arguments: str) -> dict[str, Any]:
        return json.loads(command(*arguments, "--format", "json").stdout)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LSTM_TRACE_", "COV_"))}
    ran = subprocess.run(
        [sys.executable, "-c", "from lstm_trace.cli import main; main()", *arguments],
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return ran


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("demo")
    out = folder / "out"
    done = command("demo", "--out", str(out), "--sessions", str(SESSIONS))
    assert done.stderr == ""
    return Ran(out, done.stdout, read_spans(out / "store"))


@pytest.fixture(scope="module")
def rows(ran: Ran) -> list[dict[str, Any]]:
    """The rows of `lstm-trace cohorts`."""
    return ran.cli("cohorts", ran.store)["rows"]


def test_it_prints_a_trace_the_cohorts_the_verdict_and_where_everything_is(ran):
    for part in ("one trace", "lstm intent", "confidence 0.", "cohort 13-20", "step 3 retrieve_", "local-extractive", "tokens"):
        assert part in ran.text
    for part in ("1-4", "5-8", "9-12", "13-20", "classifier", "got worse", f"{ran.out / 'report.html'}", f"lstm-trace show {ran.store} "):
        assert part in ran.text
    assert (ran.out / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")


def test_the_classifier_did_it_and_the_chat_model_did_not(ran):
    found = ran.cli("diagnose", ran.store, "--baseline", "v1", "--candidate", "v2", "--outcome", "answer_quality")
    assert found["verdict"] == ["classifier"]
    assert found["n"] == {"baseline": SESSIONS, "candidate": SESSIONS}
    parts = {part["name"]: part for part in found["components"]}
    assert parts["classifier"]["ci_low"] > 5
    assert parts["generation"]["ci_low"] < 0 < parts["generation"]["ci_high"]
    assert {place["cohort"] for place in found["where"]} == {"13-20"}


@pytest.mark.parametrize("evaluation", ["answer_quality", "branch_match", "ground_truth_match"])
def test_only_sessions_of_more_than_twelve_events_got_worse(rows, evaluation):
    rows = [row for row in rows if row["evaluation"] == evaluation]
    rate = {(row["cohort"], row["release"]): row["fail_rate"] for row in rows}
    sure = {(row["cohort"], row["release"]): row["confidence_mean"] for row in rows}
    for cohort in ("1-4", "5-8", "9-12"):
        assert rate[cohort, "v2"] == pytest.approx(rate[cohort, "v1"], abs=0.03)
        assert sure[cohort, "v2"] == pytest.approx(sure[cohort, "v1"], abs=0.03)
    assert rate["13-20", "v2"] - rate["13-20", "v1"] > 0.25
    assert sure["13-20", "v1"] - sure["13-20", "v2"] > 0.15


def test_one_trace_holds_everything_an_engineer_looks_for(ran):
    trace_id = next(span["traceId"] for span in ran.stored if span["name"] == "lstm intent")
    trace = {span["name"]: span for span in ran.stored if span["traceId"] == trace_id}
    facts = {name: span["attributes"] for name, span in trace.items()}
    component, model = facts["lstm intent"], facts["chat local-extractive"]
    assert 0 < component["lstm.prediction.confidence"] <= 1
    assert int(component["lstm.sequence.length"]) >= 1
    assert component["lstm.cell"] == "LSTM"
    steps = {
        span["agent.trajectory.branch"]: int(span["agent.trajectory.step"]) for span in facts.values() if "agent.trajectory.branch" in span
    }
    assert sorted(steps.values()) == [1, 2, 3, 4]
    assert [branch.split("_")[0] for branch in sorted(steps, key=lambda branch: steps[branch])] == [
        "classify",
        "route",
        "retrieve",
        "answer",
    ]
    assert int(model["llm.token_count.prompt"]) > int(model["llm.token_count.completion"]) > 0
    assert model["llm.model_name"] == model["gen_ai.response.model"] == "local-extractive"
    assert model["lstm.upstream.span_id"] == trace["lstm intent"]["spanId"]
    assert all(
        int(span["endTimeUnixNano"]) > int(span["startTimeUnixNano"]) for span in trace.values() if not span["name"].startswith("evaluate")
    )
    assert facts["chain claims"]["lstm.evaluation.score.answer_quality"] in (0.0, 1.0)
    judged = {"ground_truth_match": "classify", "branch_match": "route", "context_relevance": "retrieve", "answer_quality": None}
    for name, step in judged.items():
        target = next(span for span in trace.values() if span["spanId"] == facts[f"evaluate {name}"]["lstm.evaluation.target.span_id"])
        branch = target["attributes"].get("agent.trajectory.branch")
        assert (branch.split("_")[0] if branch else None) == step
        assert facts[f"evaluate {name}"]["gen_ai.evaluation.score.value"] in (0.0, 1.0)


def test_both_releases_answered_the_same_sessions(ran):
    asked = {
        release: sorted(
            s["attributes"]["session.id"] for s in ran.stored if s["name"] == "lstm intent" and s["attributes"]["lstm.release"] == release
        )
        for release in ("v1", "v2")
    }
    assert asked["v1"] == asked["v2"]
    assert len(set(asked["v1"])) == SESSIONS


def test_escalations_and_thumbs_follow_what_went_wrong(rows):
    long = {row["release"]: row for row in rows if row["cohort"] == "13-20" and row["evaluation"] == "answer_quality"}
    for rate in ("escalation_rate", "thumbs_down_rate"):
        assert long["v2"][rate] > long["v1"][rate]


def test_no_text_of_a_customer_or_an_article_was_stored(ran):
    raw = "".join(file.read_text() for file in (ran.out / "store").glob("*.jsonl"))
    assert "lawyer" not in raw
    assert "working days" not in raw


@pytest.mark.real
def test_a_collector_gets_every_span_that_the_store_keeps(weights, tmp_path, collector):
    told = ["--release", "v1", "--keep", "20", "--weights", str(weights), "--store", str(tmp_path / "store"), "--sessions", "20"]
    ran = subprocess.run(
        [sys.executable, "-m", "lstm_trace.demo.deployment", *told, "--endpoint", collector.http_endpoint],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    stored = {span["spanId"] for span in read_spans(tmp_path / "store")}
    assert len(stored) > 20 * 10
    assert {span.span_id.hex() for span in collector.spans(len(stored))} == stored

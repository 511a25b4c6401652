"""The reading commands on a store on disk: what they print, and how they refuse."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lstm_trace.cli import main
from lstm_trace.store import open_store, store_of
from tests.analyse.incidents import COHORTS, Ids, World, rows, simulate

RANDOM = np.random.default_rng(11)
V1 = simulate(World(), 700, RANDOM)
V2 = simulate(replace(World(), classifier=(0.03, 0.03, 0.03, 0.1, 0.6)), 700, RANDOM)
HOSTILE = "\x1b[31m[bold]<script>alert(1)</script>"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    ids = Ids()
    made = [*rows(V1, "v1", ids), *rows(V2, "v2", ids)]
    made[2] |= {"name": HOSTILE, "model": HOSTILE, "branch": HOSTILE}
    path = tmp_path_factory.mktemp("store") / "spans.parquet"
    with store_of(made) as store:
        store.spans.to_parquet(path)
    return str(path)


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr("sys.argv", ["lstm-trace", *words])
        monkeypatch.setenv("COLUMNS", "160")
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return call


def test_cohorts_as_json_has_the_promised_shape(run, address):
    status, out, err = run("cohorts", address, "--evaluation", "answer_quality", "--format", "json")
    assert (status, err) == (0, "")
    table = json.loads(out)
    assert (table["traces"], table["spans"]) == (1400, 9800)
    assert table["skipped"] == {"malformed": 0, "duplicate": 0}
    promised = {
        "release", "cohort", "evaluation", "n", "failed", "errors", "fail_rate", "ci_low", "ci_high", "confidence_mean", "latency_p50_s",
        "latency_p99_s", "escalation_rate", "thumbs_down_rate", "input_tokens_mean", "output_tokens_mean",
    }  # fmt: skip
    assert all(promised <= set(row) for row in table["rows"])
    n = {(row["release"], row["cohort"]): (row["n"], row["failed"]) for row in table["rows"]}
    for release, outcomes in (("v1", V1), ("v2", V2)):
        for index, cohort in enumerate(COHORTS):
            inside = outcomes.cohort == index
            assert n[release, cohort] == (inside.sum(), outcomes.failed[inside].sum())


def test_cohorts_as_csv_and_table_say_the_same(run, address):
    _, out, _ = run("cohorts", address, "--by", "release", "--evaluation", "answer_quality", "--format", "csv")
    assert [(row["release"], row["n"]) for row in csv.DictReader(io.StringIO(out))] == [("v1", "700"), ("v2", "700")]
    _, out, _ = run("cohorts", address, "--by", "release", "--evaluation", "answer_quality")
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["v1", "700"], ["v2", "700"]]


def test_diagnose_as_json_has_the_promised_shape(run, address):
    status, out, _ = run("diagnose", address, "--baseline", "v1", "--candidate", "v2", "--format", "json")
    verdict = json.loads(out)
    assert status == 0
    assert {"baseline", "candidate", "outcome", "n", "change_pp", "verdict", "components", "where", "notes", "exemplars"} <= set(verdict)
    assert verdict["verdict"] == ["classifier"]
    assert verdict["n"] == {"baseline": 700, "candidate": 700}
    for part in verdict["components"]:
        assert {"name", "contribution_pp", "ci_low", "ci_high", "flagged"} <= set(part)
    assert {"component", "cohort", "baseline", "candidate"} == set(verdict["where"][0])


def test_fail_on_leaves_with_one(run, address):
    arguments = ("diagnose", address, "--baseline", "v1", "--candidate", "v2", "--fail-on")
    assert run(*arguments, "any")[0] == 1
    assert run(*arguments, "mix,retrieval")[0] == 0
    assert run("cohorts", address, "--evaluation", "answer_quality", "--fail-on", "0.2")[0] == 1
    assert run("cohorts", address, "--evaluation", "answer_quality", "--fail-on", "0.9")[0] == 0


def test_drift_as_json_has_the_promised_shape(run, address):
    arguments = ("drift", address, "--baseline", "v1", "--candidate", "v2")
    status, out, _ = run(*arguments, "--format", "json", "--fail-on", "confidence")
    signals = json.loads(out)["signals"]
    assert status == 1
    assert {"signal", "cohort", "n", "effect", "null_threshold", "flagged"} <= set(signals[0])
    row = next(row for row in signals if (row["signal"], row["cohort"]) == ("confidence", "all"))
    assert row["n"] == [700, 700]
    assert row["flagged"]
    assert run(*arguments, "--fail-on", "latency")[0] == 0


def test_a_watch_prints_every_look_and_leaves_at_an_alarm(run, address):
    arguments = ("drift", address, "--baseline", "v1", "--candidate", "v2", "--watch", "--every", "0", "--format", "json")
    status, out, _ = run(*arguments, "--looks", "2")
    looks = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [look["look"] for look in looks] == [1, 2]
    assert looks[0]["signals"] == looks[1]["signals"]
    assert run(*arguments, "--fail-on", "any")[0] == 1
    status, _, err = run(*arguments, "--looks", "1", "--fail-on", "confidense")
    assert (status, err.count("\n")) == (2, 1)
    assert "--fail-on 'confidense': accepted are any, confidence" in err


def test_a_watch_before_the_deployment_waits_for_the_first_trace(run, address):
    arguments = ("drift", address, "--baseline", "v1", "--candidate", "v3", "--watch", "--every", "0", "--looks", "2", "--fail-on", "any")
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    assert out.splitlines() == [f"no evidence yet: no call and no judgement of v3 in {address}"] * 2
    status, out, _ = run(*arguments, "--format", "json")
    assert (status, [json.loads(line)["signals"] for line in out.splitlines()]) == (0, [[], []])
    status, _, err = run("drift", address, "--baseline", "v9", "--candidate", "v3", "--watch", "--looks", "1")
    assert status == 2
    assert "release 'v9' is not in" in err


def test_show_prints_the_facts_and_the_scores_and_disarms_strings(run, address):
    status, out, _ = run("show", address, "0" * 31 + "1")
    assert status == 0
    for fact in ("confidence 0.", "steps", "cohort", "step 1 classify", "800 → 90 tokens", "answer_quality", "ground_truth_match"):
        assert fact in out
    assert "\x1b" not in out
    assert "\\x1b[31m[bold]<script>" in out


def test_show_takes_a_traceparent_and_the_start_of_an_id(run, address):
    trace_id = "0" * 31 + "1"
    whole = json.loads(run("show", address, trace_id, "--format", "json")[1])
    assert whole["trace_id"] == trace_id
    assert [span["name"] for span in whole["spans"]] == ["chain claims", "lstm intent", HOSTILE]
    assert json.loads(run("show", address, f"00-{trace_id}-{1:016x}-01", "--format", "json")[1]) == whole
    status, _, err = run("show", address, "0000")
    assert status == 2
    assert "is the start of several ids" in err


def test_report_is_one_page_without_live_markup(run, address, tmp_path):
    page = tmp_path / "report.html"
    status, _, _ = run("report", address, "-o", str(page), "--trace-url", "http://localhost:16686/trace/{trace_id}")
    text = page.read_text()
    assert status == 0
    assert "Classifier made it worse" in text
    assert "<script" not in text
    assert page.stat().st_size < 2_000_000
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cohorts", "{missing}"], "no such file or folder"),
        (["cohorts", "{store}", "--by", "colour"], "cannot group by 'colour'"),
        (["cohorts", "{store}", "--edges", "8,4"], "--edges '8,4'"),
        (["cohorts", "{store}", "--edges", "x"], "--edges 'x'"),
        (["cohorts", "{store}", "--since", "yesterday"], "--since 'yesterday': accepted is an ISO 8601 moment"),
        (["cohorts", "{store}", "--format", "xml"], "xml"),
        (["cohorts", "{store}", "--evaluation", "nothing"], "evaluation 'nothing' is not in"),
        (["show", "{store}", "zz"], "trace 'zz': accepted is a trace id"),
        (["show", "{store}", "ab" * 16], "is not in"),
        (["diagnose", "{store}", "--baseline", "v1", "--candidate", "v7"], "release 'v7' is not in"),
        (
            ["diagnose", "{store}", "--baseline", "v1", "--candidate", "v2", "--mechanism", "x"],
            "--mechanism 'x': accepted is NAME=EVALUATION",
        ),
        (["diagnose", "{store}", "--baseline", "v1", "--candidate", "v2", "--fail-on", "llm"], "--fail-on 'llm'"),
        (["diagnose", "{store}", "--baseline", "v1"], "--candidate"),
        (
            ["drift", "{store}", "--baseline", "v1", "--candidate", "v2", "--fail-on", "x"],
            "--fail-on 'x': accepted are any, or out of conf",
        ),
        (["drift", "{store}", "--baseline", "v1", "--candidate", "2026-01-01/2026-01-02"], "give two releases or two windows"),
        (["report", "{store}", "-o", "{folder}"], "is a folder"),
        (["report", "{store}", "--trace-url", "javascript:alert(1)//{trace_id}"], "accepted is an http or https address"),
    ],
)
def test_bad_input_is_one_line_and_two(run, address, tmp_path, words, message):
    places = {"store": address, "missing": str(tmp_path / "none"), "folder": str(tmp_path)}
    filled = [places.get(word.strip("{}"), word) if word.startswith("{") else word for word in words]
    status, out, err = run(*filled)
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert message in err


DIAGNOSE = [sys.executable, "-c", "from lstm_trace.cli import main; main()", "diagnose", "--baseline", "v1", "--candidate", "v2"]

PIPELINE = """
from opentelemetry import trace

def pipeline(case, put_back):
    trace.get_current_span().set_attribute("seen", put_back or "as it is")
    return put_back == "classifier"
"""


def test_a_replay_settles_the_verdict_and_is_traced_itself(address, tmp_path):
    (tmp_path / "mine.py").write_text(PIPELINE)
    command = [*DIAGNOSE, address, "--replay", "mine:pipeline", "--replay-inputs", "12", "--format", "json"]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    verdict = json.loads(done.stdout)
    assert verdict["verdict"] == ["classifier"]
    assert verdict["replay"] == [
        {
            "component": "classifier",
            "n": 12,
            "fixed": 12,
            "broken": 0,
            "errors": 0,
            "p_value": pytest.approx(2 / 2**10),  # the twelve inputs are of ten sessions
            "outcome": "confirmed",
        }
    ]
    with open_store(tmp_path / "lstm-traces-replay") as store:
        spans = store.spans.select("release", "attributes").to_pyarrow().to_pylist()
    assert len(spans) == 24
    assert {span["release"] for span in spans} == {"v2+replay"}
    attributes = [dict(span["attributes"]) for span in spans]
    assert sum(said.get("lstm.replay.put_back") == said["seen"] == "classifier" for said in attributes) == 12
    assert len({said["lstm.replay.trace_id"] for said in attributes}) == 12


STUBBORN = """
import sys, time
print("loading")
runs = 0

def pipeline(case, put_back):
    global runs
    runs += 1
    print("thinking")
    if runs % 6 == 1:
        time.sleep(60)
    if runs % 6 == 2:
        sys.exit(0)
    if runs % 6 == 3:
        return float("nan")
    return put_back == "classifier"
"""


def test_a_pipeline_that_hangs_leaves_or_prints_costs_one_input_each(address, tmp_path):
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    command = [*DIAGNOSE, address, "--replay", "stubborn:pipeline", "--replay-inputs", "15", "--replay-timeout", "0.2", "--format", "json"]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0
    assert set(done.stderr.split()) == {"loading", "thinking"}
    (row,) = json.loads(done.stdout)["replay"]
    assert row["errors"] > 0
    assert row["n"] + row["errors"] == 15
    assert row["fixed"] == row["n"] > 0


def test_a_module_that_leaves_while_it_loads_is_named(run, address, tmp_path, monkeypatch):
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    status, out, err = run("diagnose", address, "--baseline", "v1", "--candidate", "v2", "--replay", "leaves:pipeline")
    assert (status, out) == (2, "")
    assert "cannot be loaded: SystemExit" in err


def clean_environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LSTM_TRACE_"))}
    return kept | {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.parametrize(
    ("given", "message"),
    [("mine", "accepted is pkg.mod:function"), ("nowhere:f", "cannot be loaded: ModuleNotFoundError"), ("json:nothing", "AttributeError")],
)
def test_a_pipeline_that_cannot_be_loaded_is_named(run, address, given, message):
    status, out, err = run("diagnose", address, "--baseline", "v1", "--candidate", "v2", "--replay", given)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert message in err


def test_convert_writes_the_same_store(run, address, tmp_path):
    target = tmp_path / "out.parquet"
    status, out, _ = run("convert", address, str(target))
    assert status == 0
    assert "9,800 spans" in out
    tables = [run("cohorts", place, "--evaluation", "answer_quality", "--format", "json")[1] for place in (address, str(target))]
    assert tables[0] == tables[1]

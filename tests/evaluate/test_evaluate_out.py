"""`lstm-trace evaluate` towards the world: scores through a real collector, a progress bar on a real terminal."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lstm_trace import conventions as c
from lstm_trace.evaluate.sinks.base import Sink
from lstm_trace.facts import Evaluation
from tests.evaluate.stores import write_store
from tests.evaluate.test_evaluate_store import evaluations, gold_file, lstm_trace, wrong_at
from tests.export.collector import Collector, collector

__all__ = ["collector"]


def test_scores_go_through_a_real_collector(tmp_path: Path, collector: Collector, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    answered = write_store(store, 5)
    files = {file: file.read_bytes() for file in store.iterdir()}
    gold = gold_file(tmp_path / "gold.jsonl", wrong_at(answered, 2))
    status, out, err = lstm_trace(capsys, "evaluate", store, "--gold", gold, "--endpoint", collector.http_endpoint, "--format", "json")
    assert (status, err) == (0, "")
    assert json.loads(out)["spans"] == {"written": 10, "refused": 0}
    spans = collector.spans(10)
    judged: dict[str, str] = {}
    for span in spans:
        said = {each.key: each.value for each in span.attributes}
        assert [link.trace_id.hex() for link in span.links] == [said[c.EVALUATION_TARGET_TRACE_ID].string_value]
        if span.name == "evaluate ground_truth_match":
            judged[span.links[0].trace_id.hex()] = said[c.EVALUATION_LABEL].string_value
            assert isinstance(said[c.EVALUATION_SCORE].double_value, float)
    assert judged == {each.trace_id: "fail" if place == 2 else "pass" for place, each in enumerate(answered)}
    assert {file: file.read_bytes() for file in store.iterdir()} == files, "the store is only read"


def test_a_receiver_that_is_down_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    store, resume = tmp_path / "store", tmp_path / "resume.jsonl"
    gold = gold_file(tmp_path / "gold.jsonl", wrong_at(write_store(store, 2)))
    status, _, err = lstm_trace(capsys, "evaluate", store, "--gold", gold, "--endpoint", "http://127.0.0.1:9", "--resume", resume)
    assert status == 2
    assert "http://127.0.0.1:9: took only 0 of 4 spans; run it again" in err
    assert resume.read_text() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal here")
def test_a_terminal_shows_a_progress_bar_and_is_left_clean(tmp_path: Path) -> None:
    import pty

    store = tmp_path / "store"
    gold = gold_file(tmp_path / "gold.jsonl", wrong_at(write_store(store, 3)))
    outside, inside = pty.openpty()
    command = [sys.executable, "-c", "from lstm_trace.cli import main; main()", "evaluate", str(store), "--gold", str(gold)]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=inside, env=environ)
    os.close(inside)
    shown, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([outside], [], [], 0.2)[0]:
            try:
                read = os.read(outside, 4096)
            except OSError:  # Linux: the other side is closed
                break
            if not read:
                break
            shown += read
        elif process.poll() is not None:
            break
    os.close(outside)
    assert process.stdout is not None
    out = process.stdout.read().decode()
    process.stdout.close()
    assert process.wait() == 0
    assert b"evaluating" in shown
    assert b"6/6" in shown
    assert shown.rstrip().endswith(b"\x1b[2K"), "the bar is wiped when it is done"
    assert "evaluating" not in out
    assert "3 gold lines; 6 spans written" in out


class Noting(Sink):
    """Stands in for a backend's sink: it keeps what it is handed, and refuses what it does not hold."""

    backend = "Noting"

    def __init__(self) -> None:
        super().__init__()
        self.held: set[int] = set()
        self.taken: list[Evaluation] = []

    def send(self, evaluation: Evaluation) -> None:
        if evaluation.target.trace_id not in self.held:
            raise LookupError("no such trace")
        self.taken.append(evaluation)


NOTING = Noting()


def test_scores_also_go_to_a_backends_own_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    answered = write_store(store, 3)
    gold = gold_file(tmp_path / "gold.jsonl", [{"trace_id": each.trace_id, "label": each.predicted} for each in answered])
    NOTING.held = {int(each.trace_id, 16) for each in answered}
    command = ("evaluate", store, "--gold", gold, "--sink", "python:tests.evaluate.test_evaluate_out:NOTING")
    assert lstm_trace(capsys, *command)[0] == 0
    assert {(each.target.trace_id, each.name, each.score) for each in NOTING.taken} == {
        (trace_id, "ground_truth_match", 1.0) for trace_id in NOTING.held
    }
    assert len(evaluations(store)) == 3
    NOTING.held.pop()
    status, _, err = lstm_trace(capsys, *command)
    assert (status, err.splitlines()[-1]) == (2, "lstm-trace: Noting took only 5 of 6 evaluations; does it hold the judged traces?")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nope", "sink 'nope': accepted are phoenix, mlflow, langfuse, langsmith, and python:pkg.mod:name"),
        ("python:tests.evaluate.test_evaluate_out:PAGE", "has no attribute 'PAGE'"),
        ("python:os:sep", "sink 'python:os:sep': str is no lstm_trace.evaluate.sinks.base.Sink"),
    ],
)
def test_a_sink_that_leads_nowhere_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str) -> None:
    store = tmp_path / "store"
    gold = gold_file(tmp_path / "gold.jsonl", wrong_at(write_store(store, 1)))
    status, _, err = lstm_trace(capsys, "evaluate", store, "--gold", gold, "--sink", name)
    assert (status, err.count("\n")) == (2, 1)
    assert said in err


def keyless() -> None:
    raise RuntimeError("Missing credentials.\nSee the manual.")


@pytest.mark.parametrize("given", ["option", "environment"])
def test_a_judge_that_cannot_be_made_is_one_line_before_anything_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    store, name = tmp_path / "store", "python:tests.evaluate.test_evaluate_out:keyless"
    gold = gold_file(tmp_path / "gold.jsonl", wrong_at(write_store(store, 1)))
    if given == "environment":
        monkeypatch.setenv("LSTM_TRACE_JUDGE", name)
    options = ["--judge", name] if given == "option" else []
    status, _, err = lstm_trace(capsys, "evaluate", store, "--gold", gold, "--evaluator", "groundedness", *options)
    assert (status, err) == (2, f"lstm-trace: judge '{name}': RuntimeError: Missing credentials.\n")
    assert evaluations(store) == []

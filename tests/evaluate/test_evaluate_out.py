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
from tests.evaluate.stores import write_store
from tests.evaluate.test_evaluate_store import gold_file, lstm_trace, wrong_at
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

"""`lstm-trace evaluate` and `sample` over stores that are no folder of ours: Parquet, ClickHouse's own engine, Jaeger's query API."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lstm_trace.store import convert, open_store
from tests.evaluate.stores import Answered, write_store
from tests.evaluate.test_evaluate_store import evaluations, gold_file, lstm_trace, wrong_at
from tests.store.test_store_jaeger import Jaeger


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def requests(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(store.glob("*.jsonl")) for line in file.read_text().splitlines()]


@contextmanager
def in_parquet(store: Path) -> Iterator[str]:
    with open_store(store) as opened:
        convert(opened, store.parent / "traces.parquet")
    yield str(store.parent / "traces.parquet")


@contextmanager
def in_clickhouse(store: Path) -> Iterator[str]:
    session = pytest.importorskip("chdb.session")
    pytest.importorskip("clickhouse_connect")
    from tests.store.clickhouse_server import Server
    from tests.store.test_store_clickhouse import insert

    server = Server(session.Session())
    with serving(server):
        yield insert(server, "otel_traces", requests(store))
    server.session.close()


@contextmanager
def in_jaeger(store: Path) -> Iterator[str]:
    traces: dict[str, tuple[str, int, dict[str, Any]]] = {}
    for request in requests(store):
        for resource in request["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    found = traces.setdefault(span["traceId"], ("agent", int(span["startTimeUnixNano"]), {"resourceSpans": []}))
                    found[2]["resourceSpans"].append({**resource, "scopeSpans": [{**scope, "spans": [span]}]})
    server = Jaeger(traces)
    with serving(server):
        yield server.address


@pytest.mark.parametrize("elsewhere", [in_parquet, in_clickhouse, in_jaeger])
def test_traces_that_rest_elsewhere_are_sampled_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], elsewhere: Callable[[Path], Any]
) -> None:
    answered: list[Answered] = write_store(tmp_path / "store", 9)
    gold = gold_file(tmp_path / "gold.jsonl", [*wrong_at(answered, 2, 5), {"trace_id": "f" * 32, "label": "refund"}])
    with elsewhere(tmp_path / "store") as address:
        status, _, err = lstm_trace(capsys, "sample", address, "--n", "4", "-o", tmp_path / "to_label.jsonl")
        assert (status, err) == (0, "")
        status, out, err = lstm_trace(capsys, "evaluate", address, "--gold", gold, "--to", tmp_path / "scores", "--format", "json")
        assert (status, err) == (0, "")
        refused, _, said = lstm_trace(capsys, "evaluate", address, "--gold", gold)
    report = json.loads(out)
    assert report["gold"]["unknown"] == ["f" * 32]
    assert [(row["evaluation"], row["judged"], row["failed"]) for row in report["evaluations"]] == [
        ("ground_truth_match", 9, 2),
        ("branch_match", 9, 0),
    ]
    assert {row["target_trace_id"] for row in evaluations(tmp_path / "scores") if row["label"] == "fail"} == {
        answered[2].trace_id,
        answered[5].trace_id,
    }
    assert (refused, said.count("\n")) == (2, 1)
    assert "give --to FOLDER or --endpoint URL" in said
    assert len((tmp_path / "to_label.jsonl").read_text().splitlines()) == 4


@pytest.mark.skipif(not hasattr(__import__("signal"), "SIGKILL"), reason="no kill -9 here")
def test_what_was_judged_before_a_kill_is_kept_and_not_judged_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import subprocess
    import sys
    import time

    store, resume, scores = tmp_path / "store", tmp_path / "done.jsonl", tmp_path / "scores"
    gold = gold_file(tmp_path / "gold.jsonl", [{"trace_id": each.trace_id, "label": each.predicted} for each in write_store(store, 60)])
    (tmp_path / "mine.py").write_text(
        "import time\n"
        "from lstm_trace.evaluate import EvaluationResult\n"
        "class Slow:\n"
        "    name, subject = 'slow', 'prediction'\n"
        "    def evaluate(self, **_):\n"
        "        time.sleep(0.1)\n"
        "        open('asked', 'a').write('.')\n"
        "        return EvaluationResult(1.0, 'pass')\n"
    )
    args = ["evaluate", str(store), "--gold", str(gold), "--evaluator", "python:mine:Slow", "--workers", "2"]
    args += ["--resume", str(resume), "--to", str(scores), "--format", "json"]
    start = [sys.executable, "-c", "import sys; sys.path[:0] = ['.', sys.argv.pop(1)]; from lstm_trace.cli import main; main()"]
    command = [*start, str(Path(__file__).parents[2]), *args]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (resume.exists() and resume.read_text()):
        time.sleep(0.05)
    process.kill()
    process.wait()
    kept, asked = len(resume.read_text().splitlines()), len((tmp_path / "asked").read_text())
    assert 0 < kept <= asked < 60
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    (row,) = json.loads(done.stdout)["evaluations"]
    assert (row["resumed"], row["judged"]) == (kept, 60 - kept)
    assert len((tmp_path / "asked").read_text()) - asked == 60 - kept
    assert len({row["target_trace_id"] for row in evaluations(scores)}) == len(evaluations(scores)) == 60

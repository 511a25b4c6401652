"""How a command ends that could not come to its end: by SIGTERM, or because the engine beneath it gave up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.store.otlp import request, span, write

COMMANDS = """
import time
import duckdb
from lstm_trace.cli import app, main
from lstm_trace.store import open_store

@app.command()
def wait(store: str) -> None:
    with open_store(store):
        print("open", flush=True)
        time.sleep(60)

@app.command()
def query(store: str) -> None:
    with open_store(store) as opened:
        print("open", flush=True)
        opened.connection.con.execute("select sum(range % 7) from range(1000000000000)").fetchall()

@app.command()
def exhaust() -> None:
    raise duckdb.OutOfMemoryException("failed to allocate 7 GB")

@app.command()
def mistake() -> None:
    raise KeyError("ours")

main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM here")
def test_sigterm_leaves_no_folder_behind(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    store = write(tmp_path / "spans.jsonl", request(span(1)))
    command = [sys.executable, "-c", COMMANDS, "wait", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(scratch)}) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "open\n"
        assert list(scratch.iterdir()) != []
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 143
    assert list(scratch.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM here")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_a_query_ends_it_without_a_traceback(number: signal.Signals, status: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMANDS, "query", str(write(tmp_path / "spans.jsonl", request(span(1))))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == "open\n"
        time.sleep(0.5)
        running.send_signal(number)
        try:
            assert running.wait(30) == status
        finally:
            running.kill()
        assert "Traceback" not in running.stderr.read()


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [("exhaust", 2, "lstm-trace: the store could not be read: failed to allocate 7 GB"), ("mistake", 1, "KeyError: 'ours'")],
)
def test_an_engine_that_gives_up_is_one_line_and_a_mistake_of_ours_a_traceback(command: str, status: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", COMMANDS, command], capture_output=True, text=True, timeout=60, check=False)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, lines[-1]) == (status, said)
    assert (len(lines) == 1) is (status == 2)

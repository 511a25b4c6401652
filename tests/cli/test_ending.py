"""How a command ends that could not come to its end: by SIGTERM, or because the engine beneath it gave up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [("exhaust", 2, "lstm-trace: the store could not be read: failed to allocate 7 GB"), ("mistake", 1, "KeyError: 'ours'")],
)
def test_an_engine_that_gives_up_is_one_line_and_a_mistake_of_ours_a_traceback(command: str, status: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", COMMANDS, command], capture_output=True, text=True, timeout=60, check=False)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, lines[-1]) == (status, said)
    assert (len(lines) == 1) is (status == 2)

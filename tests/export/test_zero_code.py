"""`opentelemetry-instrument --traces_exporter lstm_trace` fills the store of a program that knows nothing of us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

_COMMAND = Path(sys.executable).with_name("opentelemetry-instrument")
_PROGRAM = "from opentelemetry import trace\nwith trace.get_tracer('app').start_as_current_span('work'): pass\nprint('done')\n"


@pytest.mark.skipif(not _COMMAND.exists(), reason="needs opentelemetry-instrument")
@pytest.mark.skipif(not entry_points(group="opentelemetry_traces_exporter", name="lstm_trace"), reason="needs lstm-trace to be installed")
@pytest.mark.parametrize("store", ["kept", "file"])
def test_the_exporter_is_found_by_its_name(tmp_path: Path, store: str) -> None:
    (tmp_path / "program.py").write_text(_PROGRAM)
    (tmp_path / "file").touch()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LSTM_TRACE_"))}
    done = subprocess.run(
        [
            str(_COMMAND),
            "--traces_exporter",
            "lstm_trace",
            "--metrics_exporter",
            "none",
            "--logs_exporter",
            "none",
            sys.executable,
            "program.py",
        ],
        cwd=tmp_path,
        env={**environ, "LSTM_TRACE_STORE": store},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "done\n"
    # A store that is a file costs one line and the program nothing; the default takes the spans.
    assert [line for line in done.stderr.splitlines() if "store=" in line] == (
        []
        if store == "kept"
        else [
            "store='file' is a file: accepted is a folder, which is made when the first span is written; the default 'lstm-traces' stands"
        ]
    )
    assert "Traceback" not in done.stderr
    (file,) = (tmp_path / ("kept" if store == "kept" else "lstm-traces")).glob("*.jsonl")
    (request,) = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert [span["name"] for scope in request["resourceSpans"][0]["scopeSpans"] for span in scope["spans"]] == ["work"]

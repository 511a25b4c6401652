"""`import lstm_trace` is light: it loads no framework, no database and no SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_HEAVY = (
    "torch",
    "langchain_core",
    "langgraph",
    "duckdb",
    "ibis",
    "pyarrow",
    "numpy",
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "requests",
    "grpc",
)


def _loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import lstm_trace",
        "import lstm_trace; lstm_trace.Settings(); lstm_trace.configure; lstm_trace.instrument",
        "import lstm_trace; lstm_trace.record_evaluation; lstm_trace.trace_ref()",
    ],
)
def test_importing_loads_nothing_heavy(code: str) -> None:
    loaded = _loaded(code)
    assert "lstm_trace" in loaded
    assert not [name for name in _HEAVY if name in loaded]


def test_configuring_loads_no_framework() -> None:
    loaded = _loaded("import lstm_trace; lstm_trace.configure(store='/tmp/never-written')")
    assert "opentelemetry.sdk.trace" in loaded
    assert not [name for name in ("torch", "langchain_core", "duckdb", "pyarrow", "grpc") if name in loaded]

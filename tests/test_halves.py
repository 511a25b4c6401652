"""The two halves never meet: what a service loads and what a laptop loads, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOAD_ALL = """
import importlib, pkgutil, sys
for room in {rooms!r}:
    module = importlib.import_module(room)
    for each in pkgutil.walk_packages(getattr(module, "__path__", []), room + "."):
        importlib.import_module(each.name)
print(sorted(name for name in {unwanted!r} if name in sys.modules))
"""
RUNNING = ["lstm_trace.configure", "lstm_trace.recorder", "lstm_trace.record", "lstm_trace.upstream", "lstm_trace.export"]
READING = ["lstm_trace.store", "lstm_trace.analyse", "lstm_trace.report"]


@pytest.mark.parametrize(
    ("rooms", "unwanted"),
    [
        (RUNNING, ["torch", "langchain_core", "langgraph", "duckdb", "ibis", "pyarrow", "altair", "scipy", "lstm_trace.store"]),
        (["lstm_trace.instrument.lstm", "lstm_trace.instrument.langchain"], ["torch", "duckdb", "ibis", "pyarrow", "lstm_trace.store"]),
        (READING, ["torch", "langchain_core", "langgraph", "opentelemetry.sdk", "lstm_trace.recorder.spans", "lstm_trace.instrument.lstm"]),
    ],
    ids=["running", "instrument", "reading"],
)
def test_a_half_loads_nothing_of_the_other(rooms: list[str], unwanted: list[str]) -> None:
    script = LOAD_ALL.format(rooms=rooms, unwanted=unwanted)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"

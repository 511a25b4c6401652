"""The reading half loads neither a model framework nor the OpenTelemetry SDK."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
import lstm_trace.analyse, lstm_trace.report
for room in (lstm_trace.analyse, lstm_trace.report):
    for module in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
        importlib.import_module(module.name)
print(sorted({name.split(".sdk")[0] for name in sys.modules if name.split(".")[0] in ("torch", "langchain_core", "langgraph")
              or name.startswith("opentelemetry.sdk")}))
"""


def test_it_loads_no_framework_and_no_sdk():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

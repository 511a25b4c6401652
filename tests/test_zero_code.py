"""`opentelemetry-instrument` and two variables: a component and a chain traced without a line in the application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

MODELS = """
    import torch

    class IntentClassifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 8, batch_first=True)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, events):
            return self.head(self.lstm(events)[0][:, -1])
"""
APP = """
    import torch
    from langchain_core.runnables import RunnableLambda
    from shop.models import IntentClassifier

    model = IntentClassifier().eval()

    def classify(events):
        with torch.inference_mode():
            return int(model(events).argmax())

    chain = RunnableLambda(classify).with_config(run_name="classify") | RunnableLambda(lambda index: f"intent {index}")
    print(chain.invoke(torch.zeros(1, 7, 4)))
"""


def launch(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    package = folder / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text(textwrap.dedent(MODELS))
    (folder / "app.py").write_text(textwrap.dedent(APP))
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "LSTM_TRACE_", "COV_", "PYTEST_"))}
    return subprocess.run(
        [Path(sys.executable).parent / "opentelemetry-instrument", sys.executable, "app.py"],
        cwd=folder,
        env={
            **clean,
            "PYTHONPATH": str(folder),
            "OTEL_TRACES_EXPORTER": "lstm_trace",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_SERVICE_NAME": "shop",
            "LSTM_TRACE_STORE": str(folder / "traces"),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def spans_of(folder: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for path in sorted((folder / "traces").glob("*.jsonl")) for line in path.read_text().splitlines()]
    return {
        span["name"]: {**span, "attributes": {each["key"]: next(iter(each["value"].values())) for each in span.get("attributes", [])}}
        for line in lines
        for resource in line["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    }


def test_named_components_and_every_chain(tmp_path: Path) -> None:
    done = launch(tmp_path, LSTM_TRACE_COMPONENTS="shop.models:IntentClassifier")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("intent ")
    spans = spans_of(tmp_path)
    component, chain = spans["lstm IntentClassifier"], spans["chain classify"]
    assert component["traceId"] == chain["traceId"]
    assert component["parentSpanId"] == chain["spanId"]
    assert component["attributes"]["lstm.sequence.length"] == "7"
    assert component["attributes"]["lstm.cell"] == "LSTM"
    assert 1 / 3 <= component["attributes"]["lstm.prediction.confidence"] <= 1


def test_components_that_do_not_import_are_one_line_each_and_the_application_starts(tmp_path: Path) -> None:
    wrong = ["shop.models:NoSuchClass", "no.such.module:Thing", "quite wrong"]
    done = launch(tmp_path, LSTM_TRACE_COMPONENTS=",".join([*wrong, "shop.models:IntentClassifier"]))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    # A module that is never imported has nothing to decorate and nothing to complain about until then.
    for name in ("NoSuchClass", "quite wrong"):
        assert len([line for line in done.stderr.splitlines() if name in line]) == 1, done.stderr
    assert "lstm IntentClassifier" in spans_of(tmp_path)

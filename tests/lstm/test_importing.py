"""Whatever is asked for before torch, or the user's own package, has been imported happens after it; no import ever fails for us."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.test_readme import clean_environment

MODELS = """
    import torch

    class Intent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 8, batch_first=True)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, events):
            return self.head(self.lstm(events)[0][:, -1])

    def classify(events):
        return Intent()(events)
"""

# A package whose instrumentation is switched on in the middle of its own import, before the names that it takes over are there.
SHOP = """
    import lstm_trace
    lstm_trace.LSTMInstrumentor().instrument()
    from shop.models import Intent, classify
"""


def run(folder: Path, app: str, *, zero_code: bool = False, **environ: str) -> tuple[list[str], str]:
    """Run an application in a fresh process; return the names of its component spans and what stands on stderr."""
    package = folder / "shop"
    package.mkdir()
    (package / "__init__.py").write_text(textwrap.dedent(SHOP))
    (package / "models.py").write_text(textwrap.dedent(MODELS))
    (folder / "app.py").write_text(textwrap.dedent(app))
    launcher = [str(Path(sys.executable).parent / "opentelemetry-instrument")] if zero_code else []
    given = clean_environment()
    given |= {
        "PYTHONPATH": f"{folder}:{given['PYTHONPATH']}",
        "OTEL_TRACES_EXPORTER": "lstm_trace",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "LSTM_TRACE_STORE": str(folder / "traces"),
        **environ,
    }
    ran = subprocess.run(
        [*launcher, sys.executable, "app.py"], cwd=folder, env=given, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for path in sorted((folder / "traces").glob("*.jsonl")) for line in path.read_text().splitlines()]
    spans = [
        span["name"] for line in lines for resource in line["resourceSpans"] for scope in resource["scopeSpans"] for span in scope["spans"]
    ]
    return [name for name in spans if name.startswith("lstm ")], ran.stderr


def test_a_function_decorated_before_torch_is_imported(tmp_path: Path) -> None:
    app = """
        import lstm_trace
        providers = lstm_trace.configure(service_name="t")

        @lstm_trace.trace_lstm(name="early")
        def classify(events):
            return model(events)

        import torch

        model = torch.nn.Sequential(torch.nn.Linear(4, 3))
        classify(torch.zeros(5, 4))
        compiled = torch.compile(classify, backend="eager")
        for _ in range(3):
            compiled(torch.zeros(5, 4))
        providers.shutdown()
    """
    assert run(tmp_path, app) == (["lstm early"] * 4, "")


@pytest.mark.parametrize("how", ["LSTM_TRACE_AUTO", "LSTM_TRACE_COMPONENTS"])
def test_layers_of_a_torch_that_is_not_imported_yet(tmp_path: Path, how: str) -> None:
    pytest.importorskip("opentelemetry.distro")
    environ = {"LSTM_TRACE_AUTO": "1"} if how == "LSTM_TRACE_AUTO" else {"LSTM_TRACE_COMPONENTS": "torch.nn:LSTM"}
    app = "import torch\ntorch.nn.LSTM(4, 8)(torch.zeros(5, 2, 4))\n"
    assert run(tmp_path, app, zero_code=True, **environ) == (["lstm LSTM"], "")


@pytest.mark.parametrize("named", ["shop:Intent", "shop:classify"])
def test_a_name_that_a_package_still_importing_takes_over_from_elsewhere(tmp_path: Path, named: str) -> None:
    name = named.partition(":")[2]
    app = f"""
        import lstm_trace
        providers = lstm_trace.configure(service_name="t")
        import torch
        import shop
        events = torch.zeros(1, 7, 4)
        shop.Intent()(events) if "{name}" == "Intent" else shop.classify(events)
        providers.shutdown()
    """
    assert run(tmp_path, app, LSTM_TRACE_COMPONENTS=named) == ([f"lstm {name}"], "")


def test_a_name_that_never_comes_is_one_line(tmp_path: Path) -> None:
    app = "import lstm_trace; providers = lstm_trace.configure(service_name='t')\nimport shop\nproviders.shutdown()\n"
    spans, said = run(tmp_path, app, LSTM_TRACE_COMPONENTS="shop:Nothing,__main__:Script")
    assert spans == []
    assert said.splitlines() == [
        "LSTM_TRACE_COMPONENTS: '__main__:Script' is not traced: the script itself is never imported; decorate it there",
        "LSTM_TRACE_COMPONENTS: 'shop:Nothing' is not traced: shop has no Nothing",
    ]


def test_a_package_that_fails_to_import_fails_as_before(tmp_path: Path) -> None:
    app = """
        import lstm_trace, pathlib, sys
        pathlib.Path("broken.py").write_text("import lstm_trace; lstm_trace.LSTMInstrumentor().instrument(); raise KeyError('theirs')")
        try:
            import broken
        except KeyError as error:
            assert error.args == ("theirs",)
        assert "broken" not in sys.modules
    """
    assert run(tmp_path, app, LSTM_TRACE_COMPONENTS="broken:Thing") == ([], "")

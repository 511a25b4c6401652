"""Switching on: the recorder in force, our processor once a provider, and providers that come later."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from lstm_trace import LSTMInstrumentor, Settings, trace_lstm
from lstm_trace.instrument.lstm import zero_code
from lstm_trace.instrument.processor import add_upstream_processor, put_in_force
from lstm_trace.upstream import UpstreamProcessor
from tests.lstm.models import Padded
from tests.tracing import Traced


def ours(provider: TracerProvider) -> int:
    return sum(isinstance(each, UpstreamProcessor) for each in provider._active_span_processor._span_processors)


def test_our_processor_once_a_provider() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    for _ in range(3):
        put_in_force(tracer_provider=provider)
    assert ours(provider) == 1
    assert not add_upstream_processor(trace.NoOpTracerProvider(), Settings())


def test_a_provider_that_comes_later_gets_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_force(settings=Settings())
    later = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", later)
    trace_lstm(Padded(), name="it")(torch.tensor([[1, 2]]))
    assert ours(later) == 1


@pytest.mark.parametrize("given", [{"settings": 3}, {"provider": None}])
def test_a_wrong_argument_is_named(given: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="accepted"):
        put_in_force(**given)


def test_no_dependency_is_needed() -> None:
    code = (
        "import sys; from lstm_trace.instrument.lstm import LSTMInstrumentor, trace_lstm; trace_lstm(len); sys.exit('torch' in sys.modules)"
    )
    assert LSTMInstrumentor().instrumentation_dependencies() == ()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_components_that_cannot_be_found_are_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "lstm_trace"):
        for _ in range(2):
            zero_code.watch(["nowhere.models:X", "bad", "tests.lstm.models:Nope"])
    assert [record.getMessage() for record in caplog.records] == [
        "LSTM_TRACE_COMPONENTS: no module nowhere.models is found for 'nowhere.models:X': it is traced only if the application imports it",
        "LSTM_TRACE_COMPONENTS: 'bad' is not usable: accepted is package.module:Name",
        "LSTM_TRACE_COMPONENTS: 'tests.lstm.models:Nope' is not traced: tests.lstm.models has no Nope",
    ]


def test_a_component_named_in_the_environment(seen: Traced, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    package = Path(str(tmp_path)) / "named_models.py"
    package.write_text("def risk(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    zero_code.watch(["named_models:risk"])
    assert "named_models" not in sys.modules
    import named_models

    named_models.risk(torch.zeros(1, 3))
    assert [span.name for span in seen.spans] == ["lstm risk"]

"""One trace from an LSTM component through the chain around it to the score, and what made an answer worse.

Every name below loads its room at first use: importing the package loads neither torch nor langchain nor the OpenTelemetry SDK.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Eager, and light: these two functions share their names with their rooms, and the function must win.
from lstm_trace.configure import configure
from lstm_trace.instrument import instrument, uninstrument

if TYPE_CHECKING:
    from lstm_trace.configure import Providers
    from lstm_trace.facts import Evaluation, Prediction, SequenceFacts, StateFacts, Step, TraceRef
    from lstm_trace.instrument.langchain import LangChainInstrumentor, trace_chain
    from lstm_trace.instrument.lstm import LSTMInstrumentor, batch_scope, trace_lstm, traced_session
    from lstm_trace.instrument.onnx import wrap_onnx
    from lstm_trace.record import (
        record_escalation,
        record_evaluation,
        record_feedback,
        record_prediction,
        suppress,
        trace_ref,
        upstream_prediction,
    )
    from lstm_trace.settings import Settings
    from lstm_trace.upstream import current_step

_ROOMS = {
    "Providers": "configure",
    "Evaluation": "facts",
    "Prediction": "facts",
    "SequenceFacts": "facts",
    "StateFacts": "facts",
    "Step": "facts",
    "TraceRef": "facts",
    "LangChainInstrumentor": "instrument.langchain",
    "trace_chain": "instrument.langchain",
    "LSTMInstrumentor": "instrument.lstm",
    "batch_scope": "instrument.lstm",
    "wrap_onnx": "instrument.onnx",
    "trace_lstm": "instrument.lstm",
    "traced_session": "instrument.lstm",
    "record_escalation": "record",
    "record_evaluation": "record",
    "record_feedback": "record",
    "record_prediction": "record",
    "suppress": "record",
    "trace_ref": "record",
    "upstream_prediction": "record",
    "Settings": "settings",
    "current_step": "upstream",
}

__all__ = [
    "Evaluation",
    "LSTMInstrumentor",
    "LangChainInstrumentor",
    "Prediction",
    "Providers",
    "SequenceFacts",
    "Settings",
    "StateFacts",
    "Step",
    "TraceRef",
    "batch_scope",
    "configure",
    "current_step",
    "instrument",
    "record_escalation",
    "record_evaluation",
    "record_feedback",
    "record_prediction",
    "suppress",
    "trace_chain",
    "trace_lstm",
    "trace_ref",
    "traced_session",
    "uninstrument",
    "upstream_prediction",
    "wrap_onnx",
]


def __getattr__(name: str) -> Any:
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""Trace recurrent components: decorate them, or name them, and every call becomes a span. Nothing here imports torch."""

from lstm_trace.instrument.lstm.batch import batch_scope
from lstm_trace.instrument.lstm.decorator import trace_lstm
from lstm_trace.instrument.lstm.instrumentor import LSTMInstrumentor
from lstm_trace.instrument.lstm.session import traced_session

__all__ = ["LSTMInstrumentor", "batch_scope", "trace_lstm", "traced_session"]

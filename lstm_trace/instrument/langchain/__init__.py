"""LangChain and LangGraph as spans: `LangChainInstrumentor` for all of it, `trace_chain` for what the user names."""

from __future__ import annotations

from lstm_trace.instrument.langchain.chain import trace_chain
from lstm_trace.instrument.langchain.instrumentor import LangChainInstrumentor

__all__ = ["LangChainInstrumentor", "trace_chain"]

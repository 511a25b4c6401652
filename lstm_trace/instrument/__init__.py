"""Both instrumentors at once. The files below this one are the only ones that know a framework."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any


def instrument(**given: Any) -> None:
    """Switch every instrumentor on whose framework is installed; ``given`` as for each of them. Calling it again changes nothing."""
    for instrumentor in _instrumentors():
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(**given)


def uninstrument() -> None:
    """Switch them off again: every decorated component is silent and LangChain is as it was."""
    for instrumentor in _instrumentors():
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


def _instrumentors() -> list[Any]:
    from lstm_trace.instrument.lstm import LSTMInstrumentor

    found: list[Any] = [LSTMInstrumentor()]
    if find_spec("langchain_core") is not None:
        from lstm_trace.instrument.langchain import LangChainInstrumentor

        found.append(LangChainInstrumentor())
    return found

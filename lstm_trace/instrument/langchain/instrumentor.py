"""Switch the tracing of LangChain and LangGraph on and off."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from lstm_trace.instrument.langchain.embeddings import EmbeddingPatches
from lstm_trace.instrument.langchain.handler import handler
from lstm_trace.instrument.langchain.patches import Patches
from lstm_trace.instrument.langchain.sites import sites
from lstm_trace.instrument.processor import put_in_force, release

_patches = Patches(sites())
_embeddings = EmbeddingPatches()


class LangChainInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]
    """Traces every chain, agent, model, tool and retriever of LangChain and LangGraph; one for the process.

    ``instrument(tracer_provider=, meter_provider=, logger_provider=, settings=)``; what is not given is the global one at call time.
    ``uninstrument()`` puts every function of LangChain back, the very same objects, and ends the spans of runs that are open.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Name what must be installed."""
        return ("langchain-core >= 1.0",)

    def live_runs(self) -> int:
        """Count the runs whose spans are open now."""
        return len(handler.live)

    def _instrument(self, **kwargs: Any) -> None:
        recorder = put_in_force(by="langchain", **kwargs)
        handler.silenced = False
        handler.use(recorder)
        _patches.apply()
        _embeddings.apply()

    def _uninstrument(self, **kwargs: Any) -> None:
        _patches.restore()
        _embeddings.restore()
        handler.close_open()
        release("langchain")
        handler.silenced = True
        handler.use(None)
        handler.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=handler.forget)

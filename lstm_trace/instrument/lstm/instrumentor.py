"""``LSTMInstrumentor``: on, off, and zero code, as OpenTelemetry's own instrumentors do it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from lstm_trace.instrument.lstm import layers, switch, zero_code
from lstm_trace.instrument.lstm.call import live_calls
from lstm_trace.instrument.processor import put_in_force, release


class LSTMInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Puts providers and settings in force for every decorated component and watches for those that ``LSTM_TRACE_COMPONENTS`` names.

    ``instrument(tracer_provider=, meter_provider=, logger_provider=, settings=)``; without a provider the global one is used at call time.
    ``auto=True`` (or ``LSTM_TRACE_AUTO=1``) also gives every undecorated ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` a span of its own.
    ``uninstrument()`` silences every decorated component, also later ones, until ``instrument()``.
    """

    _auto: bool | None = None

    def __init__(self, auto: bool | None = None) -> None:
        if auto is not None:
            self._auto = bool(auto)

    def instrumentation_dependencies(self) -> Collection[str]:
        """Name nothing: a component may be a plain function, and torch need not be installed."""
        return ()

    def live_runs(self) -> int:
        """Count the component calls that run now and are traced."""
        return live_calls()

    def _instrument(self, **given: Any) -> None:
        recorder = put_in_force(by="lstm", **given)
        zero_code.watch(recorder.settings.components)
        layers.turn(recorder.settings.auto if self._auto is None else self._auto)
        switch.turn(True)

    def _uninstrument(self, **_: Any) -> None:
        switch.turn(False)
        layers.turn(False)
        release("lstm")
        self._auto = None

"""``LSTMInstrumentor``: on, off, and zero code, as OpenTelemetry's own instrumentors do it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from lstm_trace.instrument.lstm import switch, zero_code
from lstm_trace.instrument.lstm.call import live_calls
from lstm_trace.instrument.processor import put_in_force


class LSTMInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Puts providers and settings in force for every decorated component and watches for those that ``LSTM_TRACE_COMPONENTS`` names.

    ``instrument(tracer_provider=, meter_provider=, logger_provider=, settings=)``; without a provider the global one is used at call time.
    ``uninstrument()`` silences every decorated component, also later ones, until ``instrument()``.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Name nothing: a component may be a plain function, and torch need not be installed."""
        return ()

    def live_runs(self) -> int:
        """Count the component calls that run now and are traced."""
        return live_calls()

    def _instrument(self, **given: Any) -> None:
        recorder = put_in_force(**given)
        zero_code.watch(recorder.settings.components)
        switch.turn(True)

    def _uninstrument(self, **_: Any) -> None:
        switch.turn(False)

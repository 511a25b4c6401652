"""The only room that starts spans, adds events and links and records metrics: facts in, telemetry out."""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry import _logs, metrics, trace

from lstm_trace.guard import shield
from lstm_trace.recorder.components import Components
from lstm_trace.recorder.evaluations import Evaluations, OpenEvaluation
from lstm_trace.recorder.run_spans import RunSpan
from lstm_trace.recorder.source import SUPPRESS_KEY
from lstm_trace.recorder.spans import Event, OpenSpan
from lstm_trace.settings import Settings


class Recorder(Components):
    """Writes facts as telemetry to the given providers, or to the global ones in force at call time.

    ``meters`` records metrics, ``evaluations`` scores that belong to a span.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        logger_provider: _logs.LoggerProvider | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(
            settings, tracer_provider=tracer_provider, meter_provider=meter_provider, logger_provider=logger_provider, clock=clock
        )
        self.evaluations = Evaluations(self)


_default: Recorder | None = None


def default_recorder() -> Recorder:
    """Return the recorder that the application's own calls use: set by ``instrument()`` or made from the environment."""
    global _default
    if _default is None:
        _default = Recorder()
        shield.strict = shield.strict or _default.settings.strict
    return _default


def set_default_recorder(recorder: Recorder | None) -> None:
    """Put ``recorder`` in force; None forgets it."""
    global _default
    _default = recorder
    if recorder is not None and recorder.settings.strict:
        shield.strict = True


__all__ = ["SUPPRESS_KEY", "Event", "OpenEvaluation", "OpenSpan", "Recorder", "RunSpan", "default_recorder", "set_default_recorder"]

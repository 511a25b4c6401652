"""Scores as a backend's own annotations, beside OTLP: one file a backend, each in its extra, all of them span exporters."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from lstm_trace.errors import BadInput

if TYPE_CHECKING:
    from lstm_trace.evaluate.sinks.base import Sink

NAMES: Final = {"phoenix": "PhoenixSink", "mlflow": "MLflowSink", "langfuse": "LangfuseSink", "langsmith": "LangSmithSink"}


def sink_named(name: str) -> Sink:
    """Make the sink of that name, set up by its backend's own variables, or find ``python:pkg.mod:name``. Raises BadInput."""
    if name.startswith("python:"):
        from lstm_trace.evaluate.models import python_object
        from lstm_trace.evaluate.sinks.base import Sink

        found = python_object(name, "sink")
        if not isinstance(found, Sink):
            raise BadInput(f"sink {name!r}: {type(found).__qualname__} is no lstm_trace.evaluate.sinks.base.Sink")
        return found
    if name not in NAMES:
        raise BadInput(f"sink {name!r}: accepted are {', '.join(NAMES)}, and python:pkg.mod:name")
    made: type[Sink] = getattr(import_module(f"{__name__}.{name}"), NAMES[name])
    try:
        return made()
    except BadInput:
        raise
    except Exception as error:  # noqa: BLE001 - a client may refuse its settings with anything
        raise BadInput(f"sink {name!r}: {type(error).__qualname__}: {str(error).partition(chr(10))[0]}") from None

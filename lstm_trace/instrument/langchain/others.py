"""Other instrumentations of LangChain in the same process: one of us writes the spans, never both."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

_log = logging.getLogger("lstm_trace")

_PACKAGES: Final = ("openinference.instrumentation.", "opentelemetry.instrumentation.", "traceai_", "langtrace_")
said: set[str] = set()
"""The packages that were logged."""


def is_other(kind: type[Any]) -> bool:
    """Tell whether a callback handler of this class belongs to another instrumentation. The first of each package is logged."""
    if not kind.__module__.startswith(_PACKAGES):
        return False
    package = ".".join(kind.__module__.split(".")[:3])
    if package not in said:
        said.add(package)
        _log.warning(
            "%s instruments LangChain too: lstm-trace writes the spans (LSTM_TRACE_LANGCHAIN_SPANS=theirs leaves them to it)", package
        )
    return True


def without_others(handlers: Sequence[Any]) -> list[Any] | None:
    """Return the handlers without those of other instrumentations, or None where there are no such."""
    if not any(is_other(type(each)) for each in handlers):
        return None
    return [each for each in handlers if not is_other(type(each))]

"""Tell what is decorated, and what could be."""

from __future__ import annotations

import sys
from typing import Any, Final

from lstm_trace.instrument.lstm.component import Traced

MARK: Final = "__lstm_trace__"
"""Where a decorated class, function or proxy holds its decoration."""


def traced_of(target: Any) -> Traced | None:
    """Return the decoration of a class, an instance, a function or a proxy; None where it has none."""
    found = getattr(target, MARK, None)
    return found if isinstance(found, Traced) else None


def is_module(target: Any) -> bool:
    """Tell whether this is an ``nn.Module``; torch is not imported for it."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(target, torch.nn.Module)

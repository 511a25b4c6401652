"""How a component is being run: compiled, or not run at all but recorded by torch."""

from __future__ import annotations

import sys
from typing import Any

_compiler: Any = None
_tracing_state: Any = None
_graph_task: Any = None


def is_compiled(module: Any) -> bool:
    """Tell whether a module, or a function, is what ``torch.compile`` returned."""
    inner = getattr(module, "__dict__", {})
    return "_orig_mod" in (inner.get("_modules") or {}) or "_orig_mod" in inner or "_is_torch_compile" in inner


def is_apart() -> bool:
    """Tell whether this call is no inference: torch records the code instead of running it (``jit.trace``, ``export``), or runs it a
    second time during backward for activation checkpointing.
    """
    global _compiler, _tracing_state, _graph_task
    if _graph_task is None:
        torch: Any = sys.modules.get("torch")
        if torch is None:
            return False
        _compiler, _tracing_state = torch.compiler, torch._C._get_tracing_state
        _graph_task = torch._C._current_graph_task_id
    return _graph_task() != -1 or _tracing_state() is not None or getattr(_compiler, "_is_exporting_flag", False)


__all__ = ["is_apart", "is_compiled"]

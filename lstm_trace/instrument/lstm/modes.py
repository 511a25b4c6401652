"""How a component is being run: compiled, or not run at all but recorded by torch."""

from __future__ import annotations

import sys
from typing import Any

_found = False
_tracing_state: Any = None
_graph_task: Any = None
_exporting: Any = None
_fx: Any = None


class _Never:
    """Stands for a flag that this torch has not."""

    _is_exporting_flag = False
    _is_fx_tracing_flag = False


def is_compiled(module: Any) -> bool:
    """Tell whether a module, or a function, is what ``torch.compile`` returned."""
    inner = getattr(module, "__dict__", {})
    return "_orig_mod" in (inner.get("_modules") or {}) or "_orig_mod" in inner or "_is_torch_compile" in inner


def is_apart() -> bool:
    """Tell whether this call is no inference: torch records the code instead of running it (``jit.trace``, ``export``, ``torch.fx``), or
    runs it a second time during backward for activation checkpointing.
    """
    if not (_found or _find_torch()):
        return False
    return _graph_task() != -1 or _tracing_state() is not None or _exporting._is_exporting_flag or _fx._is_fx_tracing_flag


def _find_torch() -> bool:
    global _exporting, _tracing_state, _graph_task, _found, _fx
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return False
    tracer = sys.modules.get("torch.fx._symbolic_trace")  # whatever imports torch imports it
    _fx = tracer if hasattr(tracer, "_is_fx_tracing_flag") else _Never
    _exporting = torch.compiler if hasattr(torch.compiler, "_is_exporting_flag") else _Never
    _tracing_state = torch._C._get_tracing_state
    _graph_task = torch._C._current_graph_task_id
    _found = True
    return True


__all__ = ["is_apart", "is_compiled"]

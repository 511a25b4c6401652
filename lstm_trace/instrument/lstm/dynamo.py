"""Be seen under ``torch.compile`` without adding a graph break where there is a way around it.

Our ``__call__`` is a frame that Dynamo skips: it runs as plain Python outside of the graph, at every call, and the user's ``forward``
below it is compiled as if we were not there. So a component compiled before or after decorating has the same graphs as the bare one. A
component *inside* a larger compiled model is inlined into its graph instead; there we ask for one graph break, and where the user
demanded a full graph we leave the call untraced and say so once. The same holds for a recurrent layer that has a span of its own, where
Dynamo inlines it (``allow_rnn``). What we do ourselves is never compiled.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from lstm_trace.instrument.lstm.importing import when_imported

_log = logging.getLogger("lstm_trace")

_frames: set[CodeType] = set()
_told: set[str] = set()
_skip: Callable[[CodeType], None] | None = None


def _not_compiling() -> Any:
    return None


def _apart(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


callback: Callable[[], Any] = _not_compiling
"""Dynamo's frame callback in force: not None while a compiled region runs, so that our own Python would be compiled next."""

apart: Callable[..., Any] = _apart
"""Call one of our functions with Dynamo switched off."""

must_break: Callable[[str], bool]
"""Asked while Dynamo traces: whether a component that is inlined into a larger graph may break it."""

must_break_alone: Callable[[str], bool]
"""Asked while Dynamo traces a recurrent layer that would have a span of its own, were no decorated component around it."""

graph_break: Callable[[], None]


_asks: Callable[[], bool] = bool


def is_compiling() -> bool:
    """Tell whether Dynamo traces this: for what was decorated before torch was imported; else ``torch.compiler`` is asked itself."""
    return _asks()


def asker() -> Callable[[], bool]:
    """Return what tells whether Dynamo traces this: torch's own function where torch is loaded."""
    torch: Any = sys.modules.get("torch")
    return torch.compiler.is_dynamo_compiling if torch is not None else is_compiling


def skip(frame: Any) -> None:
    """Have Dynamo skip the frame of this function, but not what it calls; nothing is imported for it."""
    code: CodeType = frame.__code__
    if code in _frames:
        return
    _frames.add(code)
    if _skip is not None:
        _skip(code)


def _ask_torch(torch: Any) -> None:
    global _asks
    _asks = torch.compiler.is_dynamo_compiling


def _prepare(dynamo: Any) -> None:
    global _skip, apart, callback, graph_break, must_break, must_break_alone
    import torch
    from torch._dynamo.eval_frame import skip_code

    def decide(name: str) -> bool:
        from torch._dynamo.symbolic_convert import InstructionTranslator

        if torch.compiler.is_exporting():
            return False
        if not InstructionTranslator.current_tx().one_graph:
            return True
        if name not in _told:
            _told.add(name)
            _log.warning("component %s is part of a larger graph compiled with fullgraph=True: its calls are not traced", name)
        return False

    def decide_alone(name: str) -> bool:
        return not _is_below_ours() and decide(name)

    must_break = torch.compiler.assume_constant_result(decide)
    must_break_alone = torch.compiler.assume_constant_result(decide_alone)
    graph_break = dynamo.graph_break
    apart = dynamo.disable(_apart)
    callback = torch._C._dynamo.eval_frame.get_eval_frame_callback  # pyright: ignore[reportAttributeAccessIssue]
    _skip = skip_code
    every: Callable[[CodeType], None] = skip_code
    for code in _frames:
        every(code)


def _is_below_ours() -> bool:
    """Tell whether a call of ours is on the stack: of what is compiled here, a decorated component has the span, sampled or not."""
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if frame.f_code in _frames:
            return True
        frame = frame.f_back
    return False


when_imported("torch", _ask_torch)
when_imported("torch._dynamo", _prepare)

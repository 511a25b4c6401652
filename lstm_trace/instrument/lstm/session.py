"""Streaming inference: many small calls of a component, one span."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lstm_trace.facts import Prediction


@contextmanager
def traced_session(
    component: Any, session_id: str, *, every: int = 1, decision: Callable[[Prediction | None, Prediction], bool] | None = None
) -> Iterator[None]:
    """Write one span for all calls of ``component`` inside this block."""
    raise NotImplementedError
    yield

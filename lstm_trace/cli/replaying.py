"""Load the user's pipeline for `diagnose --replay`, and trace every run of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstm_trace import conventions as c
from lstm_trace.errors import BadInput

if TYPE_CHECKING:
    from lstm_trace.analyse.replay import Case, Pipeline


@contextmanager
def traced_pipeline(address: str, candidate: str, store: Path) -> Generator[Pipeline, None, None]:
    """The pipeline at ``pkg.mod:name``, every run a trace of its own under the release ``{candidate}+replay``.

    Its spans go to ``store``, or where the OTEL_* variables say. Raises BadInput that names what cannot be loaded.
    """
    import asyncio
    import inspect

    from opentelemetry import trace

    import lstm_trace

    function = _loaded(address)
    providers = lstm_trace.configure(service_name="lstm-trace-replay", release=f"{candidate}+replay", store=store)

    def run(case: Case, put_back: str | None) -> Any:
        span = trace.get_current_span()
        span.set_attribute(c.REPLAY_TRACE_ID, case.trace_id)
        if put_back is not None:
            span.set_attribute(c.REPLAY_PUT_BACK, put_back)
        answer = function(case, put_back)
        return asyncio.run(_awaited(answer)) if inspect.isawaitable(answer) else answer

    try:
        yield lstm_trace.trace_chain(run, name="replay")
    finally:
        providers.shutdown()


async def _awaited(answer: Any) -> Any:
    return await answer


def _loaded(address: str) -> Any:
    module, colon, name = address.partition(":")
    if not colon or not module or not name:
        raise BadInput(f"--replay {address!r}: accepted is pkg.mod:function")
    sys.path.insert(0, "")  # a module beside the caller, as `python -m` finds it
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # noqa: BLE001  # whatever the user's module raises while it loads becomes one line
        raise BadInput(f"--replay {address!r} cannot be loaded: {type(error).__name__}: {error}") from None
    finally:
        sys.path.remove("")
    if not callable(function):
        raise BadInput(f"--replay {address!r} is not callable; accepted is a function (case, put_back) -> passed")
    return function

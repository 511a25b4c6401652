"""Load the user's pipeline for `diagnose --replay`, and trace every run of it."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstm_trace import conventions as c
from lstm_trace.errors import BadInput

if TYPE_CHECKING:
    from lstm_trace.analyse.replay import Case, Pipeline


Answering = Callable[["Case", "str | None"], Any]
"""The user's function; what it returns may have to be awaited."""


@contextmanager
def traced_pipeline(function: Answering, candidate: str, store: Path, *, seconds: float) -> Generator[Pipeline, None, None]:
    """``function``, every run a trace of its own under the release ``{candidate}+replay``, ended after ``seconds``.

    Its spans go to ``store``, or where the OTEL_* variables say; what it prints goes to stderr. A run that takes longer raises
    TimeoutError, one that leaves the process RuntimeError.
    """
    import asyncio
    import inspect

    from opentelemetry import trace

    import lstm_trace

    providers = lstm_trace.configure(service_name="lstm-trace-replay", release=f"{candidate}+replay", store=store)

    def run(case: Case, put_back: str | None) -> Any:
        span = trace.get_current_span()
        span.set_attribute(c.REPLAY_TRACE_ID, case.trace_id)
        if put_back is not None:
            span.set_attribute(c.REPLAY_PUT_BACK, put_back)
        answer = function(case, put_back)
        return asyncio.run(_awaited(answer)) if inspect.isawaitable(answer) else answer

    traced = lstm_trace.trace_chain(run, name="replay")

    def bounded(case: Case, put_back: str | None) -> Any:
        try:
            # Our own output is a verdict, perhaps as JSON: theirs must not stand within it.
            with redirect_stdout(sys.stderr), _at_most(seconds):
                return traced(case, put_back)
        except SystemExit as left:
            raise RuntimeError(f"the pipeline left the process with status {left.code}") from left

    try:
        yield bounded
    finally:
        providers.shutdown()


@contextmanager
def _at_most(seconds: float) -> Generator[None, None, None]:
    """Raise TimeoutError in what runs after ``seconds``; where the system has no such signal (Windows) or off the main thread, never."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_: object) -> None:
        raise TimeoutError(f"the pipeline took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


async def _awaited(answer: Any) -> Any:
    return await answer


def loaded(address: str) -> Answering:
    """The function at ``pkg.mod:name``. Raises BadInput that names what cannot be loaded."""
    module, colon, name = address.partition(":")
    if not colon or not module or not name:
        raise BadInput(f"--replay {address!r}: accepted is pkg.mod:function")
    sys.path.insert(0, "")  # a module beside the caller, as `python -m` finds it
    try:
        with redirect_stdout(sys.stderr):
            function: Answering = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever the user's module raises while it loads becomes one line
        raise BadInput(f"--replay {address!r} cannot be loaded: {type(error).__name__}: {error}") from None
    finally:
        sys.path.remove("")
    if not callable(function):
        raise BadInput(f"--replay {address!r} is not callable; accepted is a function (case, put_back) -> passed")
    return function

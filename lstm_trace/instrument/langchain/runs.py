"""The runs that are open now: each is held by its run manager, and closes its span when that manager is dropped without an end."""

from __future__ import annotations

import queue
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

from opentelemetry.context import Context, create_key

from lstm_trace.guard import shield
from lstm_trace.recorder.run_spans import RunSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lstm_trace.instrument.langchain.in_force import InForce
    from lstm_trace.instrument.langchain.messages import Asked
    from lstm_trace.instrument.langchain.trajectory import Trajectory

Kind = Literal["chain", "agent", "llm", "tool", "retriever", "embedding"]

RUN_KEY: Final = create_key("lstm_trace.langchain.run")
"""The key under which an OpenTelemetry Context carries the innermost run that it belongs to."""

READER_KEY: Final = create_key("lstm_trace.langchain.reader")
"""The key under which it carries the Reader of the events of everything below."""


class Reader:
    """Whoever reads the events of a run that goes on in another task. ``left`` once they stopped before its end."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = False


class Run(RunSpan):
    """One run and its span. ``context`` is None once it ended, which also breaks the cycle between a run and its context.

    ``key`` stands for ``run_id`` in maps, ``now`` is what was in force as it started. ``above`` is the run that it is a step of.
    ``trajectory`` numbers the runs directly below this one, ``step_of`` is the one that waits for this run's end. ``attempts`` counts what
    this run tries again and again below itself. ``left`` says that whoever read this run's stream stopped before its end; ``beside`` are
    those that its failure drops; ``lacks_call_id`` says that a tool's call had no id as it began (langchain-core 1.0 names it later). A
    run that the sampler dropped is kept (``recording`` is False) so that everything below it is dropped with it.
    """

    asked: Asked | None = None
    first_chunk_ns: int | None = None
    attempts = 0
    left = False
    lacks_call_id = False
    beside: Sequence[Run] = ()
    thread_id: str | None = None

    def __init__(self, kind: Kind, above: Run | None, run_id: Any, now: InForce) -> None:
        # What every run is asked for, its own: a default on the class takes twenty times as long to read.
        self.recording = True
        self.hushes = self.outermost = self.interrupted = False
        self.latest = self.settled = None
        self.trajectory: Trajectory | None = None
        self.step_of: Trajectory | None = None
        self.tries: Scope | None = None
        self.kind: Kind = kind
        self.above = above
        self.run_id = run_id
        self.key: object = getattr(run_id, "int", run_id)  # a UUID is hashed by a Python function, its number is not
        self.now = now

    def is_tried_in(self, scope: Scope) -> bool:
        """Tell whether this run, or one above it, is one that ``scope`` tries things in."""
        run: Run | None = self
        while run is not None:
            if run.tries is scope:
                return True
            run = run.above
        return False

    def was_left(self, context: Context) -> bool:
        """Tell whether this run, whose context that was, is cancelled because nobody reads on: its own stream, or one above it."""
        reader: Any = context.get(READER_KEY)
        if reader is not None and reader.left:
            return True
        run: Run | None = self
        while run is not None:
            if run.left:
                return True
            run = run.above
        return False

    def is_within(self, above: Run) -> bool:
        """Tell whether this is the run ``above``, or one inside it."""
        run: Run | None = self
        while run is not None:
            if run is above:
                return True
            run = run.above
        return False

    def is_or_is_below(self, run_id: Any) -> bool:
        """Tell whether this is the run with that id, or one inside it."""
        run: Run | None = self
        while run is not None:
            if run.run_id is run_id or run.run_id == run_id:
                return True
            run = run.above
        return False


class Lease:
    """What a run manager holds of its run. Dropped before the run ended, it hands the run over for closing.

    A finaliser may run anywhere, also while its thread holds a lock of the SDK: it only puts the run into a reentrant queue.
    """

    __slots__ = ("run",)
    run: Run

    def __del__(self) -> None:
        if self.run.context is not None:
            _abandoned.put((self.run, time.time_ns()))


_abandoned: queue.SimpleQueue[tuple[Run, int]] = queue.SimpleQueue()
LEASE: Final = "_lstm_trace_lease"
"""The attribute under which a run manager holds its lease; a copy of the manager holds the same one."""


class LiveRuns:
    """The open runs by LangChain's run id. A run leaves when it ends or when its run manager is dropped."""

    def __init__(self, finish: Callable[[Run, int], None]) -> None:
        self._runs: dict[Any, Run] = {}
        self._finish = finish
        self._reaper: threading.Thread | None = None
        self._starting = threading.Lock()

    def __len__(self) -> int:
        self.reap()
        return len(self._runs)

    def get(self, run_id: Any) -> Run | None:
        """Return the open run with this id."""
        return self._runs.get(getattr(run_id, "int", run_id)) if self._runs else None

    def add(self, run: Run, manager: Any) -> None:
        """Note an open run and let its run manager hold it."""
        self._runs[run.key] = run
        manager.__dict__[LEASE] = lease = Lease()
        lease.run = run
        if self._reaper is None:
            self._start_reaper()

    def hold(self, run: Run) -> None:
        """Note an open run that its own frame closes."""
        self._runs[run.key] = run

    def reported(self) -> list[Run]:
        """Return the open runs whose ends LangChain reports, not those that a frame of ours closes; the outermost first."""
        return [run for run in list(self._runs.values()) if type(run.run_id) is not object]

    def remove(self, run: Run) -> None:
        """Note that a run ended."""
        known = self._runs.pop(run.key, None)
        if known is not run and known is not None:
            self._runs[run.key] = known

    def reap(self) -> None:
        """Close every run whose manager was dropped without an end."""
        while True:
            try:
                run, end_ns = _abandoned.get_nowait()
            except queue.Empty:
                return
            with shield:
                self._finish(run, end_ns)

    def clear(self) -> None:
        """Forget everything; for the child of a fork, whose parent closes these runs."""
        self._runs.clear()
        self._reaper = None
        self._starting = threading.Lock()

    def _start_reaper(self) -> None:
        with self._starting:
            if self._reaper is None:
                self._reaper = threading.Thread(target=self._wait, name="lstm-trace-abandoned-runs", daemon=True)
                self._reaper.start()

    def _wait(self) -> None:
        while self._reaper is threading.current_thread():
            run, end_ns = _abandoned.get()
            with shield:
                self._finish(run, end_ns)


def run_of(manager: Any) -> Run | None:
    """Return the run that a run manager holds, ended or not."""
    lease = getattr(manager, "__dict__", {}).get(LEASE)
    return None if lease is None else lease.run


class Scope:
    """One call of a framework function inside which a run will start. It learns that run, whose context is current until the call returns.

    ``graph`` and ``agent`` say what the run is, ``thread`` is its conversation. ``adopt`` is a run that is open already and that the
    framework's own run is to become instead of a second span. With ``tries`` several
    runs may start, each of which tries one thing after another below itself; the scope is never taken. ``several`` are the runs of a
    model that is asked several things in one call.
    """

    def __init__(self, *, graph: bool = False, agent: bool = False, adopt: Run | None = None, tries: bool = False) -> None:
        self.thread: str | None = None
        self.run: Run | None = None
        self.several: list[Run] = []
        self.taken = self.reported = False
        self.tries = tries
        self.graph = graph
        self.agent = agent
        self.adopt = adopt

    @classmethod
    def around(cls, run: Run, *, reported: bool = False) -> Scope:
        """Return the scope of a call whose run is open already. With ``reported`` the framework reports its exceptions itself."""
        scope = cls()
        scope.run, scope.taken, scope.reported = run, True, reported
        return scope


scopes: ContextVar[Scope | None] = ContextVar("lstm_trace_langchain_scope", default=None)


def take_scope() -> Scope | None:
    """Return the scope that waits for a run to start here, once."""
    scope = scopes.get()
    if scope is None or scope.taken:
        return None
    scope.taken = not scope.tries
    return scope


def waiting_run() -> Run | None:
    """Return the open run that the next framework run is to become, and take it over from the scope around."""
    scope = scopes.get()
    if scope is None or scope.taken or scope.adopt is None:
        return None
    scope.taken = True
    return scope.adopt

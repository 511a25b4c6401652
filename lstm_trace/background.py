"""Work off the caller's path: a few daemon threads, a bounded queue that drops with a count when it is full, drained at shutdown."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable

from lstm_trace.guard import shield

_log = logging.getLogger("lstm_trace")

_EXIT_SECONDS = 10.0


class Background:
    """Runs jobs in at most ``workers`` threads, which start with the first job; at most ``capacity`` jobs wait.

    A job's exception is a mistake of ours and goes to the shield. At exit what waits is worked off for up to ten seconds; a job that
    hangs cannot hold the process up for longer. The child of a fork begins with nothing.

    >>> work = Background("example", workers=1, capacity=8)
    >>> seen = []
    >>> work.submit(lambda: seen.append(1)), work.drain(5.0), seen
    (True, True, [1])
    """

    def __init__(self, name: str, *, workers: int = 2, capacity: int = 256) -> None:
        if workers < 1 or capacity < 1:
            raise ValueError(f"workers={workers!r}, capacity={capacity!r}: accepted are whole numbers from 1")
        self._name = name
        self._workers = workers
        self._capacity = capacity
        self._start_over()
        _all.add(self)

    def _start_over(self) -> None:
        self._queue: queue.Queue[Callable[[], object]] = queue.Queue(self._capacity)
        self._threads: list[threading.Thread] = []
        self._idle = threading.Condition()
        self._open = 0
        self.dropped = 0

    def __len__(self) -> int:
        """Count the jobs that wait or run."""
        return self._open

    def submit(self, job: Callable[[], object]) -> bool:
        """Queue a job and return at once; False, counted in ``dropped``, where the queue is full."""
        with self._idle:
            self._open += 1
            if len(self._threads) < min(self._workers, self._open):
                self._start_thread()
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            self._done()
            self._drop()
            return False
        return True

    def drain(self, seconds: float = _EXIT_SECONDS) -> bool:
        """Wait until nothing waits or runs; False where ``seconds`` were not enough. Called from a job, it does not wait for itself."""
        deadline = time.monotonic() + seconds
        with self._idle:
            while self._open and threading.current_thread() not in self._threads:
                left = deadline - time.monotonic()
                if left <= 0 or not self._idle.wait(left):
                    return not self._open
        return True

    def _start_thread(self) -> None:
        if not self._threads:
            # Registered at the first job, so after the providers': exit runs in reverse order, and they are still open then.
            atexit.register(_drain_at_exit, weakref.ref(self))
        # Daemon threads: those of concurrent.futures are joined without a time limit, and a judge that hangs would hang the exit.
        thread = threading.Thread(target=self._work, name=f"lstm-trace-{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        jobs = self._queue
        while True:
            job = jobs.get()
            try:
                with shield:
                    job()
            finally:
                del job
                self._done()

    def _done(self) -> None:
        with self._idle:
            self._open -= 1
            if not self._open:
                self._idle.notify_all()

    def _drop(self) -> None:
        with self._idle:
            self.dropped += 1
            first = self.dropped == 1
        if first:
            _log.warning(
                "lstm-trace: the queue of %s is full (%d wait): from now on some are dropped and counted", self._name, self._capacity
            )


_all: weakref.WeakSet[Background] = weakref.WeakSet()


def drain_all(seconds: float = _EXIT_SECONDS) -> bool:
    """Drain every background of this process within about ``seconds`` in all."""
    deadline = time.monotonic() + seconds
    drained = [each.drain(max(0.0, deadline - time.monotonic())) for each in list(_all)]
    return all(drained)


def _drain_at_exit(background: weakref.ref[Background]) -> None:
    found = background()
    if found is not None and not found.drain():
        _log.warning("lstm-trace: %d jobs were not done when the process ended", len(found))


def _forget_after_fork() -> None:
    for each in list(_all):
        each._start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)

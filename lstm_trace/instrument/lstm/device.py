"""Complete the span of a call on an accelerator from another thread, so that the caller's never waits for the device.

After the forward pass the output (reduced on the device where it is large) and those inputs that lengths are read from are copied without
blocking, in the caller's own stream, into pinned memory that is used again; events mark when the forward and the copies were done. The
finisher waits for them, reads the numbers with the same code as on the CPU, and ends the span at the time at which the device was done.
What is open is bounded, in calls and in bytes: where the device is too far behind, a span is written without its prediction rather than the
caller held up.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from lstm_trace import upstream
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import handing
from lstm_trace.instrument.lstm.copies import Copies, is_capturing, make_copies
from lstm_trace.instrument.lstm.handing import Said

if TYPE_CHECKING:
    from lstm_trace.instrument.lstm.handing import Handing

_log = logging.getLogger("lstm_trace")

OPEN_LIMIT: Final = 256
"""Calls that wait for their device at most."""
BYTES_LIMIT: Final = 64 << 20
"""Bytes of their copies at most."""
_SETTLE_SECONDS: Final = 0.05
"""What a span that starts waits at most for the finisher's own work; for the device it never does."""

on_cpu_too = False
"""Take tensors on the CPU for an accelerator's; for tests of this path where there is none."""


def defer(call: Handing, output: Any) -> bool:
    """Hand a call over to the finisher; False where nothing that has to be read is on an accelerator."""
    try:
        is_elsewhere = on_cpu_too or handing.is_elsewhere(call, output)
    except Exception as error:  # noqa: BLE001  an output that refuses to be looked at costs the prediction, not the span
        shield.caught(error)
        return False
    if not is_elsewhere:
        return False
    read: Said | None = None
    copies: Copies | None = None
    try:
        if is_capturing():
            call.captured()
            return True
        call.handed_over()
        if _finisher.is_full():
            handing.leave_values(call)
            _finisher.drop(call)
            return True
        copies = make_copies(handing.device_of(call, output))
        read = handing.hand(call, output, copies, BYTES_LIMIT - _finisher.bytes)
    except Exception as error:  # noqa: BLE001  a device out of memory costs the prediction, not the span
        handing.leave_values(call)
        call.deferred(None, call.recorder.clock())
        shield.caught(error)
        return True
    _finisher.put(_Handed(call, copies, read))
    return True


def after(job: Callable[[], None]) -> bool:
    """Have the finisher run a job after all calls handed over by now; False, and nothing done, where there are none."""
    return _finisher.put_after(job)


class _Handed:
    """One call that waits for its device."""

    __slots__ = ("bytes", "call", "copies", "read", "returned_ns", "trace_id")

    def __init__(self, call: Handing, copies: Copies, read: Said) -> None:
        self.call: Handing | None = call
        self.copies: Copies | None = copies
        self.read: Said | None = read
        self.bytes = copies.bytes
        self.trace_id = call.trace_id
        self.returned_ns = call.recorder.clock()

    def is_ready(self) -> bool:
        copies = self.copies
        return copies is None or copies.are_ready()

    def finish(self) -> None:
        call, copies = self.call, self.copies
        if call is None or copies is None:
            return
        try:
            end = max(copies.wait(call.recorder.clock), self.returned_ns)  # a call is not over before it has returned
            copies.fetch()
        except Exception:  # the device has failed: the span ends without its prediction
            handing.leave_values(call)
            call.deferred(None, call.recorder.clock())
            raise
        handing.take_back(call, copies)
        call.deferred(self.read, end)
        copies.release()

    def clear(self) -> None:
        """Let go of all tensors. At exit a thread that is inside torch then would end the process with an abort."""
        self.call = self.copies = self.read = None


class _Job:
    """Something to do after what was handed over before it."""

    __slots__ = ("_job",)
    bytes = 0
    trace_id = 0

    def __init__(self, job: Callable[[], None]) -> None:
        self._job: Callable[[], None] | None = job

    def finish(self) -> None:
        if self._job is not None:
            self._job()

    def clear(self) -> None:
        self._job = None

    def is_ready(self) -> bool:
        return True


class _Finisher:
    """One thread that ends spans in the order in which their calls were made."""

    def __init__(self) -> None:
        self._waiting: deque[_Handed | _Job] = deque()
        self._changed = threading.Condition()
        self._now: _Handed | _Job | None = None
        self._thread: threading.Thread | None = None
        self.bytes = 0
        self.done = 0
        self.dropped = 0

    def is_full(self) -> bool:
        return len(self._waiting) >= OPEN_LIMIT or self.bytes >= BYTES_LIMIT

    def drop(self, call: Handing) -> None:
        self.dropped += 1
        if self.dropped == 1:
            _log.warning(
                "the device is more than %d calls, or %d MiB, behind: spans are written without their predictions (logged once)",
                OPEN_LIMIT,
                BYTES_LIMIT >> 20,
            )
        call.deferred(None, call.recorder.clock())

    def put(self, handed: _Handed | _Job) -> None:
        with self._changed:
            self._put(handed)

    def put_after(self, job: Callable[[], None]) -> bool:
        with self._changed:
            if not self.pending() or threading.current_thread() is self._thread:
                return False
            self._put(_Job(job))
        return True

    def _put(self, handed: _Handed | _Job) -> None:
        self._waiting.append(handed)
        self.bytes += handed.bytes
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="lstm-trace finisher", daemon=True)
            self._thread.start()
            atexit.register(self.flush)  # after the provider's own registration, so it runs before that shuts down
            upstream.settle = settle
        self._changed.notify_all()

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until every call handed over has its span; False where the device took longer than ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.pending(), timeout)

    def settle(self, trace_id: int) -> None:
        """Let the finisher catch up with what the device has done already of a trace; what it is still at is not waited for."""
        if not self.pending() or threading.current_thread() is self._thread or is_capturing():
            return
        with self._changed:
            waiting = [each for each in (self._now, *self._waiting) if each is not None]
            goal = self.done
            for number, each in enumerate(waiting, 1):
                if not each.is_ready():
                    break
                if each.trace_id == trace_id:
                    goal = self.done + number
            self._changed.wait_for(lambda: self.done >= goal, _SETTLE_SECONDS)

    def pending(self) -> int:
        return len(self._waiting) + (self._now is not None)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                handed = self._now = self._waiting.popleft()
            with shield:
                handed.finish()
            handed.clear()  # before anybody is told that nothing is left to do
            with self._changed:
                self._now = None
                self.bytes -= handed.bytes
                self.done += 1
                self._changed.notify_all()
            del handed


_finisher = _Finisher()


def settle(trace_id: int) -> None:
    """Complete what the device is known to have done of a trace, so that a span that starts now sees it upstream."""
    _finisher.settle(trace_id)


def flush(timeout: float = 30.0) -> bool:
    """Wait until every call handed over has its span."""
    return _finisher.flush(timeout)


def pending() -> int:
    """Count the calls whose span waits for the device."""
    return _finisher.pending()


def dropped() -> int:
    """Count the spans that were written without a prediction because the device was too far behind."""
    return _finisher.dropped


def _after_fork() -> None:
    global _finisher
    _finisher = _Finisher()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

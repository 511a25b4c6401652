"""Complete the span of a call on an accelerator from another thread, so that the caller's never waits for the device.

After the forward pass the output (reduced on the device where it is large) and the integer inputs that hold lengths are copied without
blocking, on a side stream, into pinned memory that is used again; an event marks the end. The finisher waits for the event, reads the
numbers with the same code as on the CPU, and ends the span at the time at which the device was done. What is open is bounded: where
the device is too far behind, a span is written without its prediction rather than the caller held up.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import outputs, prediction

if TYPE_CHECKING:
    from lstm_trace.instrument.lstm.call import Call

_log = logging.getLogger("lstm_trace")

OPEN_LIMIT: Final = 256
"""Calls that wait for their device at most."""
_REDUCED_ABOVE: Final = 4096
_LENGTHS_AXES: Final = 2


class Copies(Protocol):
    """Copies under way from a device."""

    def wait(self) -> None:
        """Block until the device has run what was queued when they were made."""
        ...

    def tensors(self) -> list[Any]:
        """Return them on the CPU, after ``wait``."""
        ...

    def release(self) -> None:
        """Give their memory back."""
        ...


# --- How a device copies --------------------------------------------------------------------------------------------------


class _Pool:
    """Pinned buffers by size, used again: pinning memory is slow and makes the device wait."""

    def __init__(self, limit: int = 64) -> None:
        self._free: dict[int, list[Any]] = {}
        self._limit = limit
        self._lock = threading.Lock()

    def take(self, size: int) -> Any:
        size = 1 << max(9, (size - 1).bit_length())
        with self._lock:
            free = self._free.get(size)
            if free:
                return free.pop()
        import torch

        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def give(self, buffers: Sequence[Any]) -> None:
        with self._lock:
            for each in buffers:
                free = self._free.setdefault(each.numel(), [])
                if len(free) < self._limit:
                    free.append(each)


class _CudaCopies:
    """Copies from a CUDA (or ROCm) device: a side stream, pinned memory, one event."""

    _streams: dict[int, Any] = {}  # noqa: RUF012  one a device, for the life of the process
    _pool = _Pool()

    def __init__(self, given: Sequence[Any]) -> None:
        import torch

        device = given[0].device
        stream = self._streams.get(device.index)
        if stream is None:
            stream = self._streams[device.index] = torch.cuda.Stream(device)
        self._ran = torch.cuda.Event(blocking=True)
        self._ran.record(torch.cuda.current_stream(device))
        stream.wait_event(self._ran)
        self._buffers: list[Any] = []
        self._copies: list[Any] = []
        with torch.cuda.stream(stream):
            for each in given:
                size = each.numel() * each.element_size()
                buffer = self._pool.take(size)
                self._buffers.append(buffer)
                host = buffer[:size].view(each.dtype).view(each.shape)
                host.copy_(each, non_blocking=True)
                each.record_stream(stream)
                self._copies.append(host)
            self._copied = torch.cuda.Event(blocking=True)
            self._copied.record(stream)

    def wait(self) -> None:
        self._ran.synchronize()

    def tensors(self) -> list[Any]:
        self._copied.synchronize()
        return self._copies

    def release(self) -> None:
        self._copies = []
        self._pool.give(self._buffers)
        self._buffers = []


class _PlainCopies:
    """Copies from any other device: it is the finisher that waits. On the CPU, for tests, they are made at once."""

    def __init__(self, given: Sequence[Any]) -> None:
        self._given = [each.clone() if each.is_cpu else each for each in given]

    def wait(self) -> None:
        self._given = [each.cpu() for each in self._given]

    def tensors(self) -> list[Any]:
        return self._given

    def release(self) -> None:
        self._given = []


def _copy(given: Sequence[Any]) -> Copies:
    return _CudaCopies(given) if given[0].is_cuda else _PlainCopies(given)


on_cpu_too = False
"""Take tensors on the CPU for an accelerator's; for tests of this path where there is none."""


def is_capturing() -> bool:
    """Tell whether a CUDA graph is being captured: nothing runs then, and nothing may be copied."""
    import torch

    return bool(torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


# --- What is handed over --------------------------------------------------------------------------------------------------


class _Handed(NamedTuple):
    call: Call
    copies: Copies
    output: Any
    """The output as the finisher reads it; a number stands for one of the copies."""
    reduced: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _At(NamedTuple):
    """Stands for the copy with this number."""

    number: int


def defer(call: Call, output: Any) -> bool:
    """Hand a call over to the finisher; False where its output is not on an accelerator."""
    found = None
    with shield:  # what cannot be read here leaves the span to be written without it
        found = _tensor(call, output)
    if found is None or not (on_cpu_too or not found.is_cpu) or found.is_meta:
        return False
    if found.is_cuda and is_capturing():
        return True  # a graph is captured: this was no inference
    known, options = call.known, call.traced.options
    kind = known.output if isinstance(known.output, str) else "logits"
    reduced = (
        kind in prediction.ROWS and found.ndim == 2 and found.shape[1] > 1 and found.numel() > _REDUCED_ABOVE and options.prediction is None
    )
    given: list[Any] = [prediction.reduce(found, kind, options.temperature) if reduced else found.detach()]
    args = tuple(_handed(each, given) for each in call.args)
    kwargs = {name: _handed(each, given) for name, each in call.kwargs.items()}
    said: Any = output if options.prediction is not None else _At(0)
    call.args, call.kwargs = (), {}  # what the user passed may be freed now
    if _finisher.is_full():
        _finisher.drop(call)
        return True
    try:
        copies = _copy(given)
    except Exception as error:  # noqa: BLE001  a device out of pinned memory costs the prediction, not the span
        call.deferred(None, False, call.recorder.clock())
        shield.caught(error)
        return True
    _finisher.put(_Handed(call, copies, said, reduced, args, kwargs))
    return True


def _tensor(call: Call, output: Any) -> Any:
    how = call.known.output
    found = outputs.as_tensor(how(output)) if callable(how) else outputs.tensor_of(output)
    return found if found is not None and outputs.is_tensor(found) and found.numel() else None


def _handed(value: Any, given: list[Any]) -> Any:
    """Return what the finisher reads of an argument: a copy of ids, masks and lengths, only the shape of features."""
    if not outputs.is_tensor(value):
        return value
    if value.ndim <= _LENGTHS_AXES and not value.is_floating_point():
        given.append(value.detach())
        return _At(len(given) - 1)
    return value.detach().to("meta")


def _filled(value: Any, copies: Sequence[Any]) -> Any:
    return copies[value.number] if isinstance(value, _At) else value


# --- The finisher ---------------------------------------------------------------------------------------------------------


class _Finisher:
    """One thread that ends spans in the order in which their calls were made."""

    def __init__(self) -> None:
        self._waiting: deque[_Handed] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def is_full(self) -> bool:
        return len(self._waiting) >= OPEN_LIMIT

    def drop(self, call: Call) -> None:
        self.dropped += 1
        if self.dropped == 1:
            _log.warning("the device is more than %d calls behind: spans are written without their predictions (logged once)", OPEN_LIMIT)
        call.deferred(None, False, call.recorder.clock())

    def put(self, handed: _Handed) -> None:
        with self._changed:
            self._waiting.append(handed)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="lstm-trace finisher", daemon=True)
                self._thread.start()
                atexit.register(self.flush)  # after the provider's own registration, so it runs before that shuts down
            self._changed.notify_all()

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until every call handed over has its span; False where the device took longer than ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def pending(self) -> int:
        return len(self._waiting) + self._busy

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                handed = self._waiting.popleft()
                self._busy = True
            with shield:
                self._finish(handed)
            with self._changed:
                self._busy = False
                self._changed.notify_all()
            del handed

    def _finish(self, handed: _Handed) -> None:
        call = handed.call
        try:
            handed.copies.wait()
            end = call.recorder.clock()
            copies = handed.copies.tensors()
        except Exception:
            call.deferred(None, False, call.recorder.clock())  # the device has failed: the span ends without its prediction
            raise
        call.args = tuple(_filled(each, copies) for each in handed.args)
        call.kwargs = {name: _filled(each, copies) for name, each in handed.kwargs.items()}
        call.deferred(_filled(handed.output, copies), handed.reduced, end)
        handed.copies.release()


_finisher = _Finisher()


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

"""Copy a few numbers from a device without anybody waiting for it, and tell when the device was done.

Copies are made in the stream that is current for the caller, right behind the forward pass: whatever the caller does next with the same
tensors (another step into a static buffer, an operation in place, a replayed graph) comes after them. A side stream would read too late.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

Clock = Callable[[], int]


class Copies(Protocol):
    """Copies under way from a device. They begin at ``mark``, which stands behind the forward pass."""

    bytes: int

    def add(self, tensor: Any) -> int:
        """Begin to copy a tensor; return its number."""
        ...

    def begun(self) -> None:
        """Note that all copies have been asked for."""
        ...

    def are_ready(self) -> bool:
        """Tell, without waiting, whether they are there."""
        ...

    def wait(self, clock: Clock) -> int:
        """Block until the device has done the forward pass; return when that was, in nanoseconds since the epoch."""
        ...

    def fetch(self) -> None:
        """Block until the copies are there."""
        ...

    def __getitem__(self, number: int) -> Any:
        """Return a copy, on the CPU, after ``fetch``."""
        ...

    def release(self) -> None:
        """Give their memory back."""
        ...


def make_copies(device: Any) -> Copies:
    """Begin copies from this device."""
    return _CudaCopies(device) if device is not None and device.type == "cuda" else _PlainCopies()


class _PlainCopies:
    """Copies from any device but CUDA's: a clone in the device's own order now, and it is the finisher that waits for it."""

    def __init__(self) -> None:
        self.bytes = 0
        self._held: list[Any] = []

    def add(self, tensor: Any) -> int:
        self._held.append(tensor.detach().clone())
        self.bytes += tensor.numel() * tensor.element_size()
        return len(self._held) - 1

    def begun(self) -> None:
        """There is nothing to note."""

    def are_ready(self) -> bool:
        return all(each.is_cpu for each in self._held)

    def wait(self, clock: Clock) -> int:
        self._held = [each.cpu() for each in self._held]
        return clock()

    def fetch(self) -> None:
        """``wait`` has them."""

    def __getitem__(self, number: int) -> Any:
        return self._held[number]

    def release(self) -> None:
        self._held = []


# --- CUDA, and ROCm, which goes by its name --------------------------------------------------------------------------------


class _Pool:
    """Pinned buffers by size, used again: pinning memory is slow and makes the device wait. Bounded in bytes."""

    def __init__(self, limit: int = 64 << 20) -> None:
        self._free: dict[int, list[Any]] = {}
        self._limit = limit
        self._kept = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> Any:
        """Return a buffer of at least ``size`` bytes."""
        size = 1 << max(9, (size - 1).bit_length())
        with self._lock:
            free = self._free.get(size)
            if free:
                self._kept -= size
                return free.pop()
        return _pinned(size)

    def give(self, buffers: Sequence[Any]) -> None:
        """Take buffers back that no device writes to any more."""
        with self._lock:
            for each in buffers:
                size = each.numel()
                if self._kept + size <= self._limit:
                    self._kept += size
                    self._free.setdefault(size, []).append(each)


def _pinned(size: int) -> Any:
    """Return new pinned memory, whatever mode or default device the caller's code runs in."""
    import torch

    # A tensor made in inference mode cannot be written to outside of it, and the pool outlives the caller's mode.
    with torch.inference_mode(False), captures_elsewhere_allowed():
        return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)


class _CudaCopies:
    """Copies into pinned memory behind the forward pass, with one event before them and one after."""

    _pool = _Pool()
    _anchors: dict[int, tuple[Any, int]] = {}  # noqa: RUF012  one a device: an event, and the time at which it was seen to happen

    def __init__(self, device: Any) -> None:
        import torch

        self.bytes = 0
        self._device = device
        self._stream = torch.cuda.current_stream(device)
        self._ran = torch.cuda.Event(enable_timing=True, blocking=True)
        self._copied = torch.cuda.Event(blocking=True)
        self._ran.record(self._stream)
        self._buffers: list[Any] = []
        self._held: list[Any] = []

    def add(self, tensor: Any) -> int:
        tensor = tensor.detach()
        if tensor.device != self._device:
            # Lengths that stay on the CPU, and the rare tensor of another device, which is brought here in order.
            tensor = tensor.clone() if tensor.is_cpu else tensor.to(self._device, non_blocking=True)
        if tensor.is_cpu:
            self._held.append(tensor)
            return len(self._held) - 1
        tensor = tensor.contiguous()  # a copy of anything else is made in pageable memory first, and waits
        size = tensor.numel() * tensor.element_size()
        buffer = self._pool.take(size)
        self._buffers.append(buffer)
        self.bytes += buffer.numel()
        host = buffer[:size].view(tensor.dtype).view(tensor.shape)
        host.copy_(tensor, non_blocking=True)
        self._held.append(host)
        return len(self._held) - 1

    def begun(self) -> None:
        self._copied.record(self._stream)

    def are_ready(self) -> bool:
        with captures_elsewhere_allowed():
            return bool(self._copied.query())

    def wait(self, clock: Clock) -> int:
        allow_captures_elsewhere()
        came_late = self._ran.query()
        self._ran.synchronize()
        now = clock()
        index = self._device.index or 0
        anchor = self._anchors.get(index)
        if came_late and anchor is not None:
            # It had happened before this thread looked: how long after an event that was seen, the device itself knows.
            event, seen = anchor
            return min(now, seen + int(event.elapsed_time(self._ran) * 1e6))
        if not came_late:
            self._anchors[index] = (self._ran, now)
        return now

    def fetch(self) -> None:
        self._copied.synchronize()

    def __getitem__(self, number: int) -> Any:
        return self._held[number]

    def release(self) -> None:
        self._held = []
        self._pool.give(self._buffers)
        self._buffers = []


def is_capturing() -> bool:
    """Tell whether a CUDA graph is being captured here: nothing runs then, and nothing may be copied or asked for."""
    torch: Any = sys.modules.get("torch")
    return bool(torch is not None and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


# By default a capture is invalidated by what *any* thread asks of the device, the state of an event or new pinned memory included. A
# thread may declare that what it asks has nothing to do with captures of others.

_RELAXED: Final = 2
"""``cudaStreamCaptureModeRelaxed``"""

_exchange: Any = None
_relaxed = threading.local()


def allow_captures_elsewhere() -> None:
    """Keep what this thread asks of CUDA from invalidating a graph that another thread captures; for a thread that captures none."""
    if not getattr(_relaxed, "on", False):
        _relaxed.on = True
        _set_capture_mode(_RELAXED)


@contextmanager
def captures_elsewhere_allowed() -> Generator[None, None, None]:
    """Do the same for a few calls on a thread that is not ours."""
    before = _set_capture_mode(_RELAXED)
    try:
        yield
    finally:
        _set_capture_mode(before)


def _set_capture_mode(mode: int) -> int:
    """Set this thread's mode and return the one before."""
    global _exchange
    if _exchange is None:
        _exchange = _find_exchange()
    given = ctypes.c_int(mode)
    _exchange(ctypes.byref(given))
    return given.value


def _find_exchange() -> Callable[[Any], object]:
    torch: Any = sys.modules["torch"]
    is_hip = torch.version.hip is not None
    name = "hipThreadExchangeStreamCaptureMode" if is_hip else "cudaThreadExchangeStreamCaptureMode"
    major = str(torch.version.hip or torch.version.cuda or "").split(".")[0]
    for library in (None, f"libamdhip64.so.{major}" if is_hip else f"libcudart.so.{major}"):
        try:
            found = getattr(ctypes.CDLL(library), name)
        except (OSError, AttributeError, TypeError):
            continue
        found.argtypes, found.restype = [ctypes.POINTER(ctypes.c_int)], ctypes.c_int
        return found  # type: ignore[no-any-return]
    return lambda _: None

"""Keep judges below a provider's rate limit: evenly spaced starts, shared by all workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """Let at most ``per_second`` callers a second through, one after the other; None lets everyone through.

    >>> Pace(None).wait()
    """

    def __init__(
        self, per_second: float | None, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        if per_second is not None and not per_second > 0:
            raise ValueError(f"per_second={per_second!r}: accepted is a number above 0")
        self._gap = 0.0 if per_second is None else 1.0 / per_second
        self._clock = clock
        self._sleep = sleep
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is the caller's turn."""
        if not self._gap:
            return
        with self._lock:
            now = self._clock()
            mine = max(now, self._next)
            self._next = mine + self._gap
        if mine > now:
            self._sleep(mine - now)

"""Our mistakes never reach the user's call: they are logged once a place, counted, and raised only where tests ask for it."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

_log = logging.getLogger("lstm_trace")


class Shield:
    """A reusable context manager around our own lines, never around the user's call.

    An ``Exception`` raised inside is swallowed, counted in ``mistakes`` and logged with its traceback the first time its place is
    met; with ``strict`` it is raised. ``BaseException`` (KeyboardInterrupt, cancellation) always passes. It holds no state while
    entered, so one instance serves every thread.

    >>> from lstm_trace.guard import Shield
    >>> quiet = Shield()
    >>> with quiet:
    ...     _ = 1 + 1
    >>> quiet.mistakes
    0
    """

    __slots__ = ("_lock", "_seen", "mistakes", "strict")

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.mistakes = 0
        self._seen: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        if self.strict:
            return False
        self._note(error, trace)
        return True

    def caught(self, error: Exception) -> None:
        """Treat a mistake caught by an ``except`` of ours like one raised inside: for code that runs too often to enter anything."""
        if self.strict:
            raise error
        self._note(error, error.__traceback__)

    def _note(self, error: Exception, trace: TracebackType | None) -> None:
        last = trace
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        place = (last.tb_frame.f_code.co_filename, last.tb_lineno) if last is not None else ("", 0)
        with self._lock:
            self.mistakes += 1
            known = place in self._seen
            self._seen.add(place)
        if not known:
            # Only the type and the place: an exception's text may hold the user's content.
            _log.error("lstm-trace went on without what failed: %s at %s:%d (logged once)", type(error).__name__, *place)


shield = Shield()
"""The shield of this process; ``Settings(strict=True)`` and our tests make it raise."""

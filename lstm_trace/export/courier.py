"""Batches delivered to one OTLP endpoint on a thread of its own: nobody waits for a slow, silent or missing receiver."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from opentelemetry.instrumentation.utils import suppress_instrumentation

from lstm_trace.export.endpoint import Target
from lstm_trace.export.outage import Outages
from lstm_trace.guard import shield

_NOISE: Final = tuple(
    f"opentelemetry.exporter.otlp.proto.{name}"
    for name in ("http.trace_exporter", "http.metric_exporter", "http._log_exporter", "grpc.exporter")
)
_PENDING: Final = 32
"""Batches that wait at most (of 512 spans by default); what comes after goes back to the caller."""
_FIRST_PATIENCE: Final = 5.0
"""Seconds from the start that a receiver which was never met gets to come up, as beside us in the same compose file."""
_RETRY_FIRST, _RETRY_LAST = 5.0, 60.0


class _HeldBack(logging.Filter):
    """Keeps what the OTLP exporters log on *our* delivery thread, for our one line; a user's own exporters log on other threads."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self.text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if threading.get_ident() != self._thread:
            return True
        self.text += f"{record.getMessage()}\n"
        return False

    def __enter__(self) -> _HeldBack:
        for name in _NOISE:
            # First, so that the exporter's own filter against repetition never sees what is held back here.
            logging.getLogger(name).filters.insert(0, self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in _NOISE:
            logging.getLogger(name).removeFilter(self)


class Courier:
    """Delivers batches to one endpoint, in order, on one daemon thread.

    ``connect()`` makes the exporter. ``undelivered(batch)`` is called with every batch that was taken and could not be delivered; ``fate``
    says in the log line where those are ("kept in /var/store"). The line comes once an outage, and one more when the endpoint takes
    batches again. After a failure nothing is tried for 5 seconds, then 10, 20 … 60.
    """

    def __init__(
        self, target: Target, connect: Callable[[], Any], undelivered: Callable[[Any], None], *, fate: str, outages: Outages
    ) -> None:
        self._target = target
        self._connect = connect
        self._undelivered = undelivered
        self._fate = fate
        self._outages = outages
        outages.watch(target)
        self._exporter: Any = None
        self._failures = 0
        self._retry_at = 0.0
        self._met = False
        self._patience = time.monotonic() + _FIRST_PATIENCE
        self._begin()
        if hasattr(os, "register_at_fork"):
            begin = weakref.WeakMethod(self._begin)

            def after_in_child() -> None:
                method = begin()
                if method is not None:
                    method()

            os.register_at_fork(after_in_child=after_in_child)

    def _begin(self) -> None:
        # Also in the child of a fork: what waited is the parent's to deliver, and neither its lock nor its connection may be shared.
        self._changed = threading.Condition()
        self._waiting: deque[Any] = deque()
        self._current: Any = None
        self._returning = False
        self._closing = False
        self._exporter = None
        # Now, not with the first batch: from 3.12 on no thread can be started once the interpreter is on its way out.
        self._thread = threading.Thread(target=self._run, name=f"lstm-trace-{self._target.signal}", daemon=True)
        self._thread.start()

    # --- the caller's side ---------------------------------------------------------------------------------------------

    def offer(self, batch: Any) -> bool:
        """Take a batch for delivery. False where it stays the caller's: closed, too many wait, or an outage whose next try is not due."""
        with self._changed:
            if self._closing or len(self._waiting) >= _PENDING:
                return False
            if self._failures and (time.monotonic() < self._retry_at or self._busy()):
                return False
            self._waiting.append(batch)
            self._changed.notify_all()
            return True

    def drain(self, seconds: float) -> bool:
        """Wait until every batch taken so far was delivered or returned. False when ``seconds`` are over before."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy(), max(0.0, seconds))

    def close(self, seconds: float) -> None:
        """Deliver what waits within ``seconds``, return the rest, stop.

        A batch that is on its way then counts as undelivered: twice is better than never.
        """
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        # Where this receiver failed spans already, an exit waits no second time for it.
        done = self.drain(0.0 if self._target.signal != "traces" and self._outages.spans_failed(self._target) else seconds)
        exporter = self._exporter
        if exporter is not None:
            with suppress(Exception):
                exporter.shutdown()  # also ends its wait between two tries
        if done or self.drain(0.5):
            return
        with self._changed:
            left = [self._current, *self._waiting] if self._current is not None else list(self._waiting)
            self._current = None
            self._waiting.clear()
        self._outages.begins(self._target, "no answer before the process ended", self._fate)
        for batch in left:
            self._undelivered(batch)

    def _busy(self) -> bool:
        return bool(self._waiting) or self._current is not None or self._returning

    # --- the thread's side ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        changed = self._changed
        with _HeldBack() as noise, suppress_instrumentation():
            while True:
                with changed:
                    changed.wait_for(lambda: self._waiting or self._closing)
                    if not self._waiting:
                        return
                    batch = self._current = self._waiting.popleft()
                resting = self._failures > 0 and time.monotonic() < self._retry_at
                delivered = not resting and self._deliver(batch, noise)
                with changed:
                    # close() may have taken the batch back in the meantime.
                    self._returning = not delivered and self._current is batch
                    self._current = None
                try:
                    if self._returning:
                        with shield:
                            self._undelivered(batch)
                finally:
                    with changed:
                        self._returning = False
                        changed.notify_all()

    def _deliver(self, batch: Any, noise: _HeldBack) -> bool:
        noise.text = ""
        unreachable = True
        try:
            if not self._met or self._failures:
                self._knock()
            unreachable = False
            if self._exporter is None:
                self._exporter = self._connect()
            delivered = bool(self._exporter.export(batch).name == "SUCCESS")
            reason = _short(noise.text)
        except Exception as error:  # noqa: BLE001 - whatever the exporter or the network raises, the batch is returned
            delivered, reason = False, _short(f"{getattr(error, 'strerror', None) or error or type(error).__name__}")
        if delivered:
            if self._failures:
                self._outages.ends(self._target)
            self._failures, self._met = 0, True
        else:
            self._failures += 1
            self._retry_at = time.monotonic() + min(_RETRY_FIRST * 2 ** (self._failures - 1), _RETRY_LAST)
            self._outages.begins(self._target, reason, self._fate, unreachable=unreachable)
        return delivered

    def _knock(self) -> None:
        """Open a connection and close it: a missing receiver is known at once, not after the exporter's own seven seconds of tries."""
        from urllib.request import getproxies  # loads much, and only a failing or new receiver needs it

        address = self._target.address
        if address is None or getproxies():
            return
        while (refusal := _refusal(address)) is not None:
            with self._changed:
                over = self._failures or time.monotonic() >= self._patience
                if over or self._changed.wait_for(lambda: self._closing, 0.5):
                    raise refusal


def _refusal(address: tuple[str, int]) -> OSError | None:
    try:
        socket.create_connection(address, timeout=2.0).close()
    except OSError as error:
        return error
    return None


def _short(text: str) -> str:
    """Cut an exporter's log message down to why it failed."""
    patterns = (
        r"\[Errno -?\d+\] ([^'\")]+)",
        r"code: (\d{3}.*)",
        r"StatusCode\.(\w+)",
        r"([Rr]ead timed out)",
        r"Transient error (.*) encountered",
        r"reason: (it .*)",
    )
    for pattern in patterns:
        found = re.search(pattern, text)
        if found:
            return found[1].strip().replace(", reason:", "")
    return " ".join(text.split())[:160] or "it refused without a reason"

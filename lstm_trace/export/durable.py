"""Spans on the disk before they are sent: what a killed process wrote is delivered by the next one that uses the same store.

Each process appends to files of its own, ``durable-*.jsonl``, waits until a line is on the disk, and holds a lock on the file. A thread
sends the lines and notes beside the file how far it came (``.sent``). A file without a lock belonged to a process that has ended: whoever
takes the lock delivers the rest and removes it. Delivery is at least once: a kill between the receiver's answer and the note sends one
request again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from lstm_trace.export import spool
from lstm_trace.export.endpoint import Target
from lstm_trace.export.line_file import LineFile
from lstm_trace.export.otlp_json import StoreExporter
from lstm_trace.export.outage import Outages
from lstm_trace.export.stored_lines import Line, batches, lines, together
from lstm_trace.export.wire import Answer, Sender, sender
from lstm_trace.guard import shield

_log = logging.getLogger("lstm_trace")

_FILE_BYTES: Final = 16 * 1024 * 1024
_EXIT_SECONDS: Final = 3.0
_RETRY_FIRST, _RETRY_LAST = 1.0, 30.0
_PATIENCE: Final = 5.0
"""Seconds that a receiver gets to come up before the log line."""
_LOOK_AROUND: Final = 30.0
"""Seconds between two looks for files whose process has ended."""


class _Outage(Exception):
    """The receiver does not take spans now; the argument says why."""


def durable_store(folder: str | os.PathLike[str], *, strict: bool, delivered: bool) -> StoreExporter:
    """Make a store whose lines are on the disk when ``export`` returns; ``delivered`` says that a DurableExporter will deliver them."""
    if not delivered:
        return StoreExporter(folder, strict=strict, file=partial(LineFile, synced=True))
    file = partial(LineFile, prefix=spool.PREFIX, synced=True, locked=True)
    return StoreExporter(folder, strict=strict, max_file_bytes=_FILE_BYTES, file=file)


class DurableExporter(SpanExporter):
    """Write spans to ``store``, which ``durable_store()`` made, then deliver them to ``target`` beside the application.

    With ``keep`` delivered files stay in the store, else they are removed.
    """

    def __init__(self, target: Target, store: StoreExporter, *, keep: bool, outages: Outages) -> None:
        self._written = store
        self._delivery = _Delivery(target, store.file, keep=keep, outages=outages)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Return when ``spans`` are on the disk."""
        written = self._written.export(spans)
        self._delivery.wake()
        return written

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until everything is delivered. False when the time is over before, or the receiver does not take spans."""
        return self._delivery.drain(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Deliver what there is within three seconds at most; the rest stays on the disk for the next process."""
        self._delivery.close(min(timeout_millis / 1000, _EXIT_SECONDS))
        self._written.shutdown()
        self._delivery.leave()


class _Delivery:
    """The thread that delivers this process's file and those whose process has ended."""

    def __init__(self, target: Target, own: LineFile, *, keep: bool, outages: Outages) -> None:
        self._target = target
        self._own = own
        self._keep = keep
        self._failures = 0
        self._retry_at = 0.0
        self._failing_since = 0.0
        self._reason = ""
        self._outages = outages
        outages.watch(target)
        self._begin()
        if hasattr(os, "register_at_fork"):
            begin = weakref.WeakMethod(self._begin)

            def after_in_child() -> None:
                method = begin()
                if method is not None:
                    method()

            os.register_at_fork(after_in_child=after_in_child)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._asked = self._answered = 0
        self._closing = False
        self._receiver: Sender | None = None
        self._thread = threading.Thread(target=self._run, name="lstm-trace-durable", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something to deliver."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait until what there is now is delivered."""
        deadline = time.monotonic() + seconds
        with self._changed:
            asked = self._asked
            self._changed.wait_for(lambda: self._answered >= asked or self._failures > 0, max(0.0, deadline - time.monotonic()))
            return self._answered >= asked and not self._failures

    def close(self, seconds: float) -> None:
        """Deliver what there is, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(max(0.0, seconds))
        if self._failures or self._thread.is_alive():
            self._speak(self._reason or "no answer before the process ended")

    def leave(self) -> None:
        """Remove what this process delivered whole, now that its own file is closed."""
        if not self._thread.is_alive() and not self._keep:
            with shield:
                for path in self._files():
                    spool.remove_delivered(path)

    def _run(self) -> None:
        changed = self._changed
        with suppress_instrumentation():
            while True:
                with changed:
                    wait = self._retry_at - time.monotonic() if self._failures else _LOOK_AROUND
                    changed.wait_for(lambda: self._closing or (not self._failures and self._asked > self._answered), max(0.0, wait))
                    asked, closing = self._asked, self._closing
                if not (closing and self._failures):
                    with shield:
                        self._round()
                with changed:
                    self._answered = asked
                    changed.notify_all()
                if closing:
                    if self._receiver is not None:
                        self._receiver.close()
                    return

    def _round(self) -> None:
        try:
            for path in self._files():
                self._deliver(path)
                if path != self._own.path and not self._keep:
                    spool.remove_delivered(path)
        except _Outage as outage:
            now = time.monotonic()
            self._failing_since = self._failing_since if self._failures else now
            self._failures += 1
            self._retry_at = now + min(_RETRY_FIRST * 2 ** (self._failures - 1), _RETRY_LAST)
            self._reason = str(outage)
            if now - self._failing_since >= _PATIENCE:
                self._speak(self._reason)
        else:
            self._outages.ends(self._target)
            self._failures, self._reason = 0, ""

    def _speak(self, reason: str) -> None:
        self._outages.begins(self._target, reason, f"waiting in {self._own.folder}")

    def _files(self) -> Iterator[Path]:
        """Every file that is ours to deliver: our own, and those whose lock we get, for as long as the caller looks at them."""
        for path in sorted(self._own.folder.glob(f"{spool.PREFIX}-*.jsonl")):
            if path == self._own.path:
                yield path
                continue
            with spool.claim(path) as ours:
                if ours:
                    yield path

    def _deliver(self, path: Path) -> None:
        for batch in batches(lines(path, spool.sent(path), numbered=False)):
            self._hand_over(batch)
            spool.note(path, batch[-1].end)

    def _hand_over(self, batch: Sequence[Line]) -> None:
        good = [line for line in batch if line.message is not None]
        self._set_aside([line for line in batch if line.message is None], "no OTLP JSON")
        if not good:
            return
        if self._receiver is None:
            self._receiver = sender(self._target)
        answer: Answer = self._receiver.send(together(good))
        if answer.bad_data and len(good) > 1:
            # One line may spoil a request for the others.
            for line in good:
                self._hand_over([line])
        elif answer.bad_data:
            self._set_aside(good, answer.reason)
        elif answer.reason:
            raise _Outage(answer.reason[:200])
        elif answer.rejected:
            _log.warning("%s rejected %d spans of a request that it took", self._target.shown, answer.rejected)

    def _set_aside(self, refused: Sequence[Line], reason: str) -> None:
        if not refused:
            return
        kept = LineFile(self._own.folder, max_file_bytes=_FILE_BYTES, prefix="refused", synced=True)
        for line in refused:
            kept.append(line.raw)
        where = kept.path
        kept.close()
        _log.warning("%d lines that %s finds fault with (%s) are kept in %s", len(refused), self._target.shown, reason, where)

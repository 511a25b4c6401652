"""Whole lines appended to files of one process in one folder, across forks, rotation, a full disk and a folder that is taken away."""

from __future__ import annotations

import os
import threading
import time
import weakref
from pathlib import Path

from lstm_trace.errors import BadInput


def usable(given: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return ``given`` where it is a folder that can be written to or made. Raises BadInput, one line, where it is not."""
    text = os.fspath(given)
    if not text:
        raise BadInput("store='': accepted is the path of a folder, such as lstm-traces")
    folder = nearest = _absolute(given)
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        what = "is a file" if nearest == folder else f"lies below {str(nearest)!r}, which is a file"
        raise BadInput(f"store={text!r} {what}: accepted is a folder, which is made when the first span is written")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise BadInput(f"store={text!r} cannot be written to ({str(nearest)!r} is read-only for this user): accepted is a writable folder")
    return given


def _absolute(given: str | os.PathLike[str]) -> Path:
    # Absolute from here on: a daemon that changes its directory later writes to the same place.
    return Path(os.fspath(given)).expanduser().absolute()


_sync = getattr(os, "fdatasync", os.fsync)


def lock(descriptor: int) -> bool:
    """Take the exclusive lock on an open file; False where another open file has it. Without such locks (Windows) it is always taken."""
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:
        return True
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


class LineFile:
    """Append-only lines in ``folder``: one file a process, and a new one when ``max_file_bytes`` are reached or after a fork.

    The folder and file are made with the first line. Each line is one write; where the disk takes only a part of it, that part is taken
    back, so a reader meets whole lines (a process killed inside the write can leave one torn line at the end of its own file).

    ``synced`` waits for each line to be on the disk itself. ``locked`` holds an exclusive lock on the file for as long as this process
    writes to it, so that another one can tell a file whose writer has died.

    ``append`` raises OSError when the disk refuses; ``usable()`` asks before.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        max_file_bytes: int,
        prefix: str = "spans",
        synced: bool = False,
        locked: bool = False,
    ) -> None:
        if max_file_bytes < 1:
            raise BadInput(f"max_file_bytes={max_file_bytes!r}: accepted is a whole number from 1")
        self.folder = _absolute(folder)
        self._max_file_bytes = max_file_bytes
        self._prefix = prefix
        self._synced = synced
        self._locked = locked
        self.path: Path | None = None
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._size = 0
        if hasattr(os, "register_at_fork"):
            forget = weakref.WeakMethod(self._forget)

            def after_in_child() -> None:
                method = forget()
                if method is not None:
                    method()

            os.register_at_fork(after_in_child=after_in_child)

    def append(self, line: bytes) -> None:
        """Append one line, which ends with a newline. Raises OSError when it cannot be written whole."""
        with self._lock:
            descriptor = self._open(len(line))
            written = 0
            try:
                while written < len(line):
                    written += os.write(descriptor, line[written:])
                if self._synced:
                    _sync(descriptor)
            except OSError:
                # This file has no other writer: cutting it back leaves the lines before.
                if written:
                    os.ftruncate(descriptor, self._size)
                raise
            self._size += len(line)

    def close(self) -> None:
        """Close the file. A later ``append`` begins a new one."""
        with self._lock:
            self._close()

    def _open(self, needed: int) -> int:
        if self._descriptor is not None:
            full = self._size and self._size + needed > self._max_file_bytes
            # A file that was removed would take the lines and keep none of them.
            if not full and os.fstat(self._descriptor).st_nlink:
                return self._descriptor
            self._close()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._descriptor, self._size = self._create(), 0
        return self._descriptor

    def _create(self) -> int:
        stem = f"{self._prefix}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        number = 0
        while True:
            # Exclusive: a second exporter, or the same pid in another container, begins a file of its own.
            path = self.folder / f"{stem}-{number}.jsonl"
            try:
                descriptor = os.open(path, flags, 0o666)
            except FileExistsError:
                number += 1
                continue
            if self._locked:
                lock(descriptor)
            self.path = path
            return descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = self.path = None

    def _forget(self) -> None:
        # In the child of a fork: another thread of the parent may have held the lock, and the file stays the parent's.
        self._lock = threading.Lock()
        self._close()

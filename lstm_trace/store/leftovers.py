"""What a killed process left on disk: known by a lock that nobody holds, and removed by the next one.

A lock and not a process id, which another container that shares the folder may give to a process of its own. Where the system has no
such locks (Windows), nothing is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_LOCK: Final = "lock"
_YOUNG_S: Final = 60.0
"""Seconds. Something this young may be between its making and its lock."""


def hold(path: Path) -> int:
    """Lock a folder or file of ours, as long as this process lives and the returned descriptor is open (-1: not to be had here)."""
    try:
        descriptor = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return -1
    return descriptor if _locked(descriptor) else -1


def let_go(descriptor: int) -> None:
    """Unlock what ``hold`` locked."""
    if descriptor >= 0:
        os.close(descriptor)


def sweep(candidates: Iterable[Path]) -> None:
    """Remove those folders and files of ours whose process is gone."""
    for path in candidates:
        with contextlib.suppress(OSError):
            if path.is_symlink() or time.time() - path.stat().st_mtime < _YOUNG_S or path.stat().st_uid != os.getuid():
                continue
            _remove(path)


def _remove(path: Path) -> None:
    descriptor = os.open(_lock_of(path), os.O_RDWR | os.O_CLOEXEC)
    try:
        if not _locked(descriptor):
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def _lock_of(path: Path) -> Path:
    return path / _LOCK if path.is_dir() else path


def _locked(descriptor: int) -> bool:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True

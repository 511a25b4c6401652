"""How much memory and how many processors this process may have: what its container and its limits say, not what the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lstm_trace.errors import BadInput

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")
_BEYOND: Final = 1 << 60
"""Bytes. Control groups write an unlimited amount as a number beyond this, or as `max`."""


ENOUGH: Final = 384 << 20
"""Bytes with which a store of any size is read and converted."""
_SMALL: Final = 32 << 20
"""Bytes of unpacked lines that are read with less."""
_PACKED: Final = {".gz": 10, ".zst": 10, ".zstd": 10}
"""How many times larger a file of that name is at least taken to be."""
_OWN_FORM: Final = ".parquet"


def check(shown: str, path: Path) -> None:
    """Refuse a large store of lines where memory is too little to read it: the kernel would kill the process in the middle of it.

    Raises BadInput, one line that names the store, ``shown``, and what is needed.
    """
    allowed = memory()
    if allowed is None or allowed >= ENOUGH:
        return
    files = [path] if path.is_file() else [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    size = sum(_size(file) for file in files)
    if size > _SMALL:
        raise BadInput(
            f"{shown}: about {size >> 20:,} MB of spans cannot be read in the {allowed >> 20} MB of memory that this process may take; "
            f"give it {ENOUGH >> 20} MB, or read a smaller part or its Parquet file"
        )


def _size(file: Path) -> int:
    suffix = file.suffix.lower()
    try:
        return 0 if suffix == _OWN_FORM or not file.is_file() else file.stat().st_size * _PACKED.get(suffix, 1)
    except OSError:
        return 0


def memory() -> int | None:
    """Bytes that this process may take: the least of its control groups' limits and its own (RLIMIT_DATA, RLIMIT_AS); None without any."""
    limits = [*_of_groups(), *_of_process()]
    return min(limits, default=None)


def within(most: int, share: int) -> int:
    """``most`` bytes, or where memory is limited one in ``share`` of it, if that is less."""
    allowed = memory()
    return most if allowed is None else min(most, allowed // share)


def processors() -> int:
    """Processors that this process may run on at once, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for path in _group("cpu"):
        quota = _text(path / "cpu.max") or f"{_text(path / 'cpu.cfs_quota_us')} {_text(path / 'cpu.cfs_period_us')}"
        allowed, _, period = quota.partition(" ")
        if allowed.isdigit() and period.isdigit() and int(period):
            count = min(count, -(-int(allowed) // int(period)))
    return max(1, count)


def _of_groups() -> Iterator[int]:
    for path in _group("memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            text = _text(path / name)
            if text.isdigit() and int(text) < _BEYOND:
                yield int(text)


def _of_process() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield soft


def _group(controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those around it, in version 2 and in the ``controller``'s version 1."""
    for line in _text(_OWN).splitlines():
        _, controllers, place = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        base = _CGROUPS / controller if controllers else _CGROUPS
        # Inside a container the path may be the host's, which is not to be seen there: then the root is this container's own.
        within = Path(place.lstrip("/"))
        yield from (base / part for part in (within, *within.parents))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""

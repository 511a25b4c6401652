"""Files that wait to be delivered: whose they are, and how far each came."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lstm_trace.export.line_file import lock

PREFIX: Final = "durable"


@contextmanager
def claim(path: Path) -> Generator[bool, None, None]:
    """Take a file for as long as the block runs; False where a living process has it, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        yield lock(descriptor) and path.exists()  # its last owner may have removed it in between
    finally:
        os.close(descriptor)


def sent(path: Path) -> int:
    """Bytes of ``path`` that were delivered."""
    try:
        return int(_beside(path).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def note(path: Path, end: int) -> None:
    """Remember that ``path`` was delivered up to byte ``end``."""
    draft = path.with_suffix(".draft")
    draft.write_text(str(end))
    draft.replace(_beside(path))


def remove_delivered(path: Path) -> None:
    """Remove ``path`` if every whole line was delivered: what may follow was torn by a kill, and never promised."""
    if sent(path) >= path.read_bytes().rfind(b"\n") + 1:
        path.unlink(missing_ok=True)
        _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_suffix(".sent")

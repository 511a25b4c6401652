"""The resume file of a long run: which evaluations are written already, one JSON line each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lstm_trace.errors import BadInput


class ResumeFile:
    """Remembers the keys of evaluations that were written with a score; without a path it remembers nothing.

    A line cut off by a kill is passed over. Raises BadInput where the file cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = None if path is None else Path(path)
        self._done = frozenset[str]() if self._path is None else _read(self._path)
        self._append(b"")  # a place that cannot be written to is told before anything is judged, and paid for

    def __contains__(self, key: str) -> bool:
        return key in self._done

    def __len__(self) -> int:
        return len(self._done)

    def add(self, keys: Iterable[str]) -> None:
        """Append keys that are written by now."""
        self._append("".join(json.dumps({"done": key}) + "\n" for key in keys).encode())

    def _append(self, lines: bytes) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a+b") as file:
                if lines and file.tell():
                    file.seek(-1, os.SEEK_END)
                    lines = lines if file.read(1) == b"\n" else b"\n" + lines  # a kill cut the last line off
                file.write(lines)
        except OSError as error:
            raise BadInput(f"--resume {self._path}: {error.strerror or error}") from None


def key_of(identifier: str, material: Any) -> str:
    """Name one evaluation of one material: corrected gold is another evaluation, to be run again."""
    text = identifier + json.dumps(material, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _read(path: Path) -> frozenset[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    except OSError as error:
        raise BadInput(f"--resume {path}: {error.strerror or error}") from None
    if lines and not any(_key(line) for line in lines):
        raise BadInput(f"--resume {path}: not a resume file of this command; it would be written to")
    return frozenset(key for line in lines if (key := _key(line)))


def _key(line: str) -> str | None:
    try:
        return str(json.loads(line)["done"])
    except (ValueError, TypeError, KeyError):
        return None

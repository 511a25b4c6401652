"""Which files of a folder may hold spans, and what is in a file: told by its first bytes, not by its name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa

Form = Literal["json", "protobuf", "framed", "parquet", "empty", "other"]

SUFFIXES: Final = (".jsonl", ".json", ".ndjson", ".otlp", ".pb", ".binpb", ".proto", ".bin", ".parquet")
"""Names of files in a folder that are looked at, also with `.gz`, `.zst` or `.zstd` behind them."""

_PACKED: Final = (".gz", ".zst", ".zstd")
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PARQUET: Final = b"PAR1"
_PIECE: Final = 1 << 18
"""Bytes that are read at a time, and read again where a compressed file is torn."""
_BOM: Final = b"\xef\xbb\xbf"
_REQUEST_FIELD: Final = 0x0A
"""Field 1, length-delimited: what every non-empty ExportTraceServiceRequest begins with."""


def found_in(folder: Path, closed: list[Path]) -> Iterator[Path]:
    """The files below ``folder`` that may hold spans, in the order of their paths. Links are followed, each folder once: a loop ends.

    A folder that cannot be listed is added to ``closed``. Pipes and devices are passed over: reading one would wait for a writer.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop(0)
        try:
            status = here.stat()
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            closed.append(here)
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                waiting.append(Path(entry.path))
            elif _may_hold_spans(entry.name) and not _waits(entry):
                yield Path(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _waits(entry: os.DirEntry[str]) -> bool:
    try:
        return not stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # a link to nothing: sniffing says so
        return False


def _may_hold_spans(name: str) -> bool:
    stem = name.lower()
    for packed in _PACKED:
        stem = stem.removesuffix(packed)
    return stem.endswith(SUFFIXES)


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What a file holds: its ``form`` and the ``compression`` around it."""

    form: Form
    compression: Literal["gzip", "zstd"] | None = None


def sniff(path: Path) -> Sniffed:
    """Tell what ``path`` holds from its first bytes. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        head = file.read(64)
    compression: Literal["gzip", "zstd"] | None = "gzip" if head.startswith(_GZIP) else "zstd" if head.startswith(_ZSTD) else None
    if compression is not None:
        with Unpacked(path, compression) as stream:
            head = stream.read(64)
            if stream.torn and not head:
                return Sniffed("other", compression)
    return Sniffed(_form(head), compression)


def _form(head: bytes) -> Form:
    text = head.removeprefix(_BOM).lstrip()
    if not text:
        return "empty"
    if head.startswith(_PARQUET):
        return "parquet"
    if text[:1] in (b"{", b"["):
        return "json"
    if head[4:8] == _ZSTD:
        return "framed"
    delimited = len(head) > 4 and head[0] == 0 and head[4] in (_REQUEST_FIELD, ord("{"))
    varint = _after_varint(head)
    if delimited or head[0] == _REQUEST_FIELD or (varint < len(head) and head[varint] == _REQUEST_FIELD):
        return "protobuf"
    # Lines of JSON whose first one is broken: still text.
    return "other" if b"\0" in head or not _is_text(head) else "json"


def _after_varint(head: bytes) -> int:
    end = 0
    while end < len(head) and head[end] & 0x80 and end < 5:
        end += 1
    return end + 1


def _is_text(head: bytes) -> bool:
    try:
        head[:-4].decode()  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


class Unpacked:
    """A file read through its compression. It may end in the middle, as one does whose writer is alive: then it is ``torn``.

    Reading raises only when the file cannot be opened.
    """

    def __init__(self, path: Path, compression: str | None) -> None:
        self.torn = False
        self._path = path
        self._compression = compression
        self._stream = self._open()
        self._given = 0
        self._ended = False

    def _open(self) -> Any:
        if self._compression is None:
            return self._path.open("rb")
        return pa.CompressedInputStream(pa.OSFile(os.fspath(self._path)), self._compression)

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes; fewer only at the end."""
        parts: list[bytes] = []
        left = size
        while left and not self._ended:
            part = self._part(left if left > 0 and self._compression is None else _PIECE if left < 0 else min(_PIECE, left))
            parts.append(part)
            left = left if left < 0 else left - len(part)
        return b"".join(parts)

    def _part(self, size: int) -> bytes:
        try:
            part: bytes = self._stream.read(size)
            self._ended = not part
        except (OSError, EOFError, pa.ArrowInvalid):
            part, self._ended, self.torn = self._salvaged(size), True, True
        self._given += len(part)
        return part

    def _salvaged(self, size: int) -> bytes:
        """What lies before a tear. Arrow fails a whole read for it, so the piece is read again byte by byte."""
        self.close()
        out = bytearray()
        try:
            self._stream = self._open()
            left = self._given
            while left:
                left -= len(self._stream.read(min(_PIECE, left)))
            while len(out) < size and (byte := self._stream.read(1)):
                out += byte
        except (OSError, EOFError, pa.ArrowInvalid):
            pass
        return bytes(out)

    def restart(self) -> None:
        """Go back to the beginning."""
        self.close()
        self._stream = self._open()
        self._given, self._ended, self.torn = 0, False, False

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

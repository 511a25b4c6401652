"""Files as blocks of whole JSON lines, whatever they are packed in, and no more of a growing file than was there when it was opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import orjson

from lstm_trace.store import allowance, protobuf
from lstm_trace.store.files import Sniffed, Unpacked
from lstm_trace.store.lenient import Tally

BLOCK: Final = 12 << 20
"""Bytes read at a time: large enough for the parser, small enough that several fit into memory unpacked."""
LONGEST_LINE: Final = 1 << 28
"""Bytes. A longer line is skipped and counted: it could not be parsed in one piece."""
_LARGEST_DOCUMENT: Final = 1 << 28
_FIRST_LINE: Final = 1 << 16
_BOM: Final = b"\xef\xbb\xbf"


def blocks_of(path: Path, sniffed: Sniffed, tally: Tally) -> Iterator[bytes]:
    """Blocks of whole lines, each line one export request as JSON. What ends in the middle or is damaged is counted in ``tally``."""
    with Unpacked(path, sniffed.compression) as stream:
        if sniffed.form == "json":
            size = os.stat(path).st_size if sniffed.compression is None else None
            whole = _document(stream, size)
            yield from [whole] if whole is not None else _lines(stream, size, tally)
        else:
            yield from protobuf.blocks_of(stream, block_size(), tally)
        tally.malformed += stream.torn


def whole_blocks(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same lines in blocks of about ``BLOCK`` bytes: a folder of many small files would be parsed file by file otherwise."""
    waiting: list[bytes] = []
    size, full = 0, block_size()
    for block in blocks:
        if waiting and size + len(block) > full:
            yield b"\n".join(waiting)
            waiting, size = [], 0
        waiting.append(block)
        size += len(block)
    if waiting:
        yield b"\n".join(waiting)


def block_size() -> int:
    """Bytes: ``BLOCK``, or less where memory is limited."""
    return allowance.within(BLOCK, 128)


def _document(stream: Unpacked, size: int | None) -> bytes | None:
    """One JSON document that was written over several lines, on one; None (and the stream at its start) when it is lines of JSON."""
    if size is None or size > _LARGEST_DOCUMENT:
        return None
    first, _, more = stream.read(_FIRST_LINE).removeprefix(_BOM).lstrip().partition(b"\n")
    stream.restart()
    if not more or first.rstrip().endswith((b"}", b"]")):
        return None
    try:
        return orjson.dumps(orjson.loads(stream.read(size).removeprefix(_BOM)))
    except (ValueError, RecursionError):
        stream.restart()
        return None


def _lines(stream: Unpacked, size: int | None, tally: Tally) -> Iterator[bytes]:
    rest = bytearray()
    skipping = False
    for chunk in _chunks(stream, size):
        cut = chunk.rfind(b"\n") + 1
        if cut == 0:
            rest += chunk
        else:
            if not skipping:
                yield b"".join((rest, memoryview(chunk)[:cut])) if rest or cut < len(chunk) else chunk
            elif (first := chunk.find(b"\n") + 1) < cut:
                yield chunk[first:cut]
            skipping, rest = False, bytearray(chunk[cut:])
        if len(rest) > LONGEST_LINE:
            tally.malformed += not skipping
            skipping, rest = True, bytearray()
    if rest.strip() and not skipping:
        yield bytes(rest)


def _chunks(stream: Unpacked, size: int | None) -> Iterator[bytes]:
    left, full = size, block_size()
    first = True
    while chunk := stream.read(full if left is None else min(full, left)):
        left = None if left is None else left - len(chunk)
        yield chunk.removeprefix(_BOM) if first else chunk
        first = False

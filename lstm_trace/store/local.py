"""A store that is a file or a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lstm_trace.errors import BadInput
from lstm_trace.store.blocks import blocks_of, whole_blocks
from lstm_trace.store.files import SUFFIXES, Sniffed, found_in, sniff
from lstm_trace.store.lenient import Tally
from lstm_trace.store.opened import ACCEPTED, Store
from lstm_trace.store.parquet import open_files, readable
from lstm_trace.store.spool import Spool, tables_of

_READABLE = ("json", "protobuf", "framed", "parquet")


def open_path(address: str, path: Path, *, flat: bool = False) -> Store:
    """Open the file or folder at ``path``; ``flat``: see ``open_store``. Raises BadInput likewise."""
    import duckdb

    files, unreadable = _looked_at(address, path)
    vanished: list[Path] = []
    ready = [file for file, sniffed in files if sniffed.form == "parquet"]
    others = [(file, sniffed) for file, sniffed in files if sniffed.form != "parquet"]
    flat = flat and not ready  # Parquet is read where it lies, and only what is asked for
    tally = Tally()
    spool = Spool()
    try:
        try:
            if others:
                spool.fill(tables_of(whole_blocks(_blocks(others, tally, vanished)), tally, flat=flat), flat=flat)
        except OSError as error:
            where = f"no room to unpack it in {spool.folder.parent} ({error.strerror or error}); TMPDIR names another folder"
            raise BadInput(f"{address}: {where}") from None
        except (MemoryError, duckdb.OutOfMemoryException):
            raise BadInput(f"{address}: not enough memory to read it; some 500 MB are needed, however large it is") from None
        skipped = {"malformed": tally.malformed, "other_signals": tally.other_signals, "unreadable": unreadable + len(vanished)}
        skipped = {name: count for name, count in skipped.items() if count}
        if not (spool.rows or ready):
            raise BadInput(_no_spans(address, skipped))
        return open_files(
            address,
            [*ready, *([spool.file] if spool.rows else [])],
            skipped,
            scratch=spool.folder,
            closing=spool.close,
            evaluation_events=bool(ready) or tally.evaluation_events > 0,
            flat=flat,
        )
    except BaseException:
        spool.close()
        raise


def _looked_at(address: str, path: Path) -> tuple[list[tuple[Path, Sniffed]], int]:
    try:
        folder = path.is_dir()
        if not folder and not path.exists():
            raise BadInput(f"{address}: no such file or folder; a store is {ACCEPTED}")
        closed: list[Path] = []
        candidates = list(found_in(path, closed)) if folder else [path]
        if path in closed:
            raise BadInput(f"{address}: this folder cannot be listed; a store is {ACCEPTED}")
        if not folder and not path.is_file():
            raise BadInput(f"{address}: neither a file nor a folder; a store is {ACCEPTED}")
    except (OSError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{address}: cannot be read ({getattr(error, 'strerror', None) or error}); a store is {ACCEPTED}") from None
    files: list[tuple[Path, Sniffed]] = []
    unreadable = len(closed)
    for file in candidates:
        try:
            sniffed = sniff(file)
        except OSError as error:
            if not folder:
                raise BadInput(f"{address}: cannot be read ({error.strerror or error})") from None
            unreadable += 1
            continue
        if folder and sniffed.form == "parquet" and not readable(file):
            unreadable += 1
        elif sniffed.form in _READABLE:
            files.append((file, sniffed))
        elif not folder:
            what = "is empty" if sniffed.form == "empty" else "is not a store of traces"
            raise BadInput(f"{address}: {what}; a store is {ACCEPTED}")
        elif sniffed.form == "other":
            unreadable += 1
    if not files and unreadable:
        raise BadInput(f"{address}: a folder of which nothing can be read ({unreadable} unreadable); a store is {ACCEPTED}")
    if not files:
        raise BadInput(f"{address}: a folder without traces; its files {', '.join(SUFFIXES)} are read, plain or .gz or .zst")
    return files, unreadable


def _blocks(files: list[tuple[Path, Sniffed]], tally: Tally, vanished: list[Path]) -> Iterator[bytes]:
    def of_one(path: Path, sniffed: Sniffed) -> Iterator[bytes]:
        try:
            yield from blocks_of(path, sniffed, tally)
        except OSError:  # delivered and removed, or rotated, since the folder was listed
            vanished.append(path)

    for path, sniffed in files:
        yield from of_one(path, sniffed)


def _no_spans(address: str, skipped: dict[str, int]) -> str:
    left_out = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in skipped.items() if count)
    return f"{address}: holds no span ({left_out or 'nothing in it'}); a store is {ACCEPTED}"

"""Any store as one Parquet file with promoted columns and marks: the form that large stores are read from fastest."""

# pyarrow.compute makes its functions when it is imported, where no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict
from glob import escape
from pathlib import Path
from typing import Any, Final

from lstm_trace.errors import BadInput
from lstm_trace.store import allowance
from lstm_trace.store.leftovers import hold, let_go, sweep
from lstm_trace.store.opened import Store
from lstm_trace.store.schema import spans_schema

SUFFIX: Final = ".parquet"
_BATCH: Final = 1 << 15
"""Rows that are read at a time."""
_SMALL_BATCH: Final = 1 << 11
"""Likewise where memory is limited: rows may be wide."""
_ROW_GROUP: Final = 1 << 17
"""Rows. DuckDB reads row groups in parallel and skips them by their statistics; but a footer of many takes long to read."""
_LARGEST_GROUP: Final = 64 << 20
"""Bytes of Arrow memory that may wait for a row group to fill: huge attributes make small groups."""


def convert(store: Store, target: str | os.PathLike[str]) -> int:
    """Write every span of ``store`` to the Parquet file ``target`` and return how many; the file is there whole, or not at all.

    A file of that name is replaced in the end. Raises BadInput, one line, when ``target`` does not end in ``.parquet`` (readers of a
    folder go by that) or cannot be written.
    """
    place = Path(os.fspath(target)).expanduser()
    if place.is_dir():
        raise BadInput(f"{place}: is a folder; accepted is the name of the Parquet file to write")
    if place.suffix.lower() != SUFFIX:
        raise BadInput(f"{place}: what is written is Parquet; accepted is a name that ends in {SUFFIX}")
    if not place.parent.is_dir():
        raise BadInput(f"{place}: there is no folder {place.parent}; accepted is the name of the Parquet file to write")
    unfinished = place.with_name(f".{place.name}.{os.getpid()}.unfinished")
    sweep(place.parent.glob(f".{escape(place.name)}.*.unfinished"))
    try:
        with _as_one_file(store) as spans:
            rows = _write(spans, dict(store.skipped), unfinished)
        os.replace(unfinished, place)
    except OSError as error:
        raise BadInput(f"{place}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    return rows


@contextlib.contextmanager
def _as_one_file(store: Store) -> Generator[Store, None, None]:
    """The store itself, where it is one Parquet file; else a copy: marks are joined by the place of a row, on this machine."""
    if store.numbered is not None:
        yield store
        return
    import pyarrow as pa

    from lstm_trace.store.parquet import open_files
    from lstm_trace.store.spool import Spool

    spool = Spool()
    try:
        schema = spans_schema().to_pyarrow()
        spool.fill(pa.Table.from_batches([batch]).cast(schema) for batch in store.batches(_at_once()))
        with open_files(store.address, [spool.file], {}, scratch=spool.folder, closing=spool.close) as copied:
            yield copied
    finally:
        spool.close()


def _write(store: Store, skipped: dict[str, int], place: Path) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    from lstm_trace.store.marking import Marking
    from lstm_trace.store.parquet import EACH_ONCE, LATEST_MARKED, MARKED, frugal, marked_schema

    schema = marked_schema().to_pyarrow()
    written = 0
    (scratch,) = store.connection.con.execute("select current_setting('temp_directory')").fetchone()
    with frugal(store.connection.con), tempfile.TemporaryDirectory(prefix="marks-", dir=scratch) as folder, place.open("xb") as file:
        held = hold(place)
        try:
            marking = Marking(store, Path(folder))
            metadata = {EACH_ONCE: json.dumps(skipped).encode(), MARKED: json.dumps(asdict(marking.known)).encode()}
            if marking.latest_marked:
                metadata[LATEST_MARKED] = b"1"
            tables = (pa.Table.from_batches([batch]).cast(schema) for batch in marking.batches(_at_once()))
            with parquet.ParquetWriter(file, schema.with_metadata(metadata), compression="zstd") as writer:
                for group in _alike(tables):
                    writer.write_table(group)
                    written += group.num_rows
            file.flush()
            os.fsync(file.fileno())
        finally:
            let_go(held)
    return written


def _at_once() -> int:
    return _BATCH if allowance.memory() is None else _SMALL_BATCH


def _alike(tables: Iterable[Any]) -> Iterator[Any]:
    """The rows regrouped so that a row group holds rows of one kind only.

    So a query for one kind passes over the row groups of the others by their statistics.
    """
    import pyarrow as pa

    largest = allowance.within(_LARGEST_GROUP, 32)
    waiting: dict[int, list[Any]] = {}
    for table in tables:
        for kind, of_kind in enumerate(_kinds(table)):
            if (part := table.filter(of_kind)).num_rows:
                held = waiting.setdefault(kind, [])
                held.append(part)
                if sum(one.num_rows for one in held) >= _ROW_GROUP or sum(one.nbytes for one in held) >= largest:
                    yield pa.concat_tables(waiting.pop(kind))
    for held in waiting.values():
        yield pa.concat_tables(held)


def _kinds(table: Any) -> list[Any]:
    """Which rows are component calls, which evaluations, which model calls, which stand for a trace or a step, and which are the rest."""
    import pyarrow.compute as pc

    from lstm_trace.store.marks import LEADS_STEP, TRACE_CALLS

    call = pc.greater(table[TRACE_CALLS], 0).fill_null(False)
    evaluation = pc.and_not(pc.is_valid(table["evaluation_name"]), call)
    model = pc.and_not(pc.equal(table["span_kind"], "LLM").fill_null(False), pc.or_(evaluation, call))
    taken = pc.or_(pc.or_(evaluation, call), model)
    stands = pc.and_not(pc.or_(pc.is_valid(table[TRACE_CALLS]), pc.is_valid(table[LEADS_STEP])), taken)
    return [call, evaluation, model, stands, pc.invert(pc.or_(taken, stands))]

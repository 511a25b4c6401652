"""Any store as one Parquet file with promoted columns and marks: the form that large stores are read from fastest."""

# pyarrow.compute makes its functions when it is imported, where no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator, Iterable, Iterator
from glob import escape
from pathlib import Path
from typing import Any, Final

from lstm_trace.errors import BadInput
from lstm_trace.store.evaluations import by_age
from lstm_trace.store.leftovers import hold, let_go, sweep
from lstm_trace.store.opened import Store, batches_of
from lstm_trace.store.schema import spans_schema

SUFFIX: Final = ".parquet"
_BATCH: Final = 1 << 15
"""Rows that are read at a time."""
_ROW_GROUP: Final = 1 << 16
"""Rows. DuckDB reads row groups in parallel and skips them by their statistics."""
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
        with _in_duckdb(store) as spans:
            rows = _write(spans, dict(store.skipped), unfinished)
        os.replace(unfinished, place)
    except OSError as error:
        raise BadInput(f"{place}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    return rows


@contextlib.contextmanager
def _in_duckdb(store: Store) -> Generator[Store, None, None]:
    """The store itself, or a copy of its spans on this machine: marks take joins for which a distant account may have no room."""
    if store.connection.name == "duckdb":
        yield store
        return
    import pyarrow as pa

    from lstm_trace.store.parquet import open_files
    from lstm_trace.store.spool import Spool

    spool = Spool()
    try:
        schema = spans_schema().to_pyarrow()
        spool.fill(pa.Table.from_batches([batch]).cast(schema) for batch in store.batches(_BATCH))
        with open_files(store.address, [spool.file], {}, scratch=spool.folder, closing=spool.close) as copied:
            yield copied
    finally:
        spool.close()


def _write(store: Store, skipped: dict[str, int], place: Path) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    from lstm_trace.store.marks import MARKS, marked, own_work
    from lstm_trace.store.parquet import EACH_ONCE, LATEST_MARKED, MARKED

    traces = store.spans.filter(own_work(store.spans)).trace_id.nunique().to_pyarrow().as_py()
    counts = {"spans": store.spans.count().to_pyarrow().as_py(), "traces": traces}
    metadata = {EACH_ONCE: json.dumps(skipped).encode(), MARKED: json.dumps(counts).encode()}
    rows = by_age(store.spans)
    if not rows.filter(rows.age == 0, rows.is_event).count().to_pyarrow().as_py():
        metadata[LATEST_MARKED] = b"1"
    schema = spans_schema().to_pyarrow()
    for name, kind in MARKS.items():
        schema = schema.append(pa.field(name, pa.string() if kind == "string" else pa.bool_()))
    written = 0
    with place.open("xb") as file:
        held = hold(place)
        try:
            tables = (pa.Table.from_batches([batch]).cast(schema) for batch in batches_of(store.connection, marked(store.spans), _BATCH))
            with parquet.ParquetWriter(file, schema.with_metadata(metadata), compression="zstd") as writer:
                for group in _alike(tables):
                    writer.write_table(group)
                    written += group.num_rows
            file.flush()
            os.fsync(file.fileno())
        finally:
            let_go(held)
    return written


def _alike(tables: Iterable[Any]) -> Iterator[Any]:
    """The rows regrouped so that a row group holds component calls only, or evaluations, or model calls, or the rest.

    So a query for one of them passes over the row groups of the others by their statistics.
    """
    import pyarrow as pa

    waiting: dict[int, list[Any]] = {}
    for table in tables:
        kinds = _kinds(table)
        for kind in range(4):
            if (part := table.filter(kinds[kind])).num_rows:
                held = waiting.setdefault(kind, [])
                held.append(part)
                if sum(one.num_rows for one in held) >= _ROW_GROUP or sum(one.nbytes for one in held) >= _LARGEST_GROUP:
                    yield pa.concat_tables(waiting.pop(kind))
    for held in waiting.values():
        yield pa.concat_tables(held)


def _kinds(table: Any) -> list[Any]:
    import pyarrow.compute as pc

    evaluation = pc.is_valid(table["evaluation_name"])
    call = pc.and_not(pc.is_valid(table["component"]), evaluation)
    model = pc.and_not(pc.equal(table["span_kind"], "LLM").fill_null(False), pc.or_(evaluation, call))
    return [call, evaluation, model, pc.invert(pc.or_(pc.or_(evaluation, call), model))]

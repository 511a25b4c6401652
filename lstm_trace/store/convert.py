"""Any store as one Parquet file with promoted columns: the form that large stores are read from fastest."""

# pyarrow.compute makes its functions when it is imported, where no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Final

from lstm_trace.errors import BadInput
from lstm_trace.store.evaluations import by_age
from lstm_trace.store.opened import Store
from lstm_trace.store.schema import spans_schema

_ROW_GROUP: Final = 1 << 17
"""Rows. DuckDB reads row groups in parallel and skips them by their statistics."""
_SEPARATOR: Final = "/"


def convert(store: Store, target: str | os.PathLike[str]) -> int:
    """Write every span of ``store`` to the Parquet file ``target`` and return how many; the file is there whole, or not at all.

    A file of that name is replaced in the end. Raises BadInput, one line, when ``target`` cannot be written.
    """
    place = Path(os.fspath(target)).expanduser()
    if place.is_dir():
        raise BadInput(f"{place}: is a folder; accepted is the name of the Parquet file to write")
    if not place.parent.is_dir():
        raise BadInput(f"{place}: there is no folder {place.parent}; accepted is the name of the Parquet file to write")
    unfinished = place.with_name(f".{place.name}.{os.getpid()}.unfinished")
    try:
        rows = _write(store, unfinished)
        os.replace(unfinished, place)
    except OSError as error:
        raise BadInput(f"{place}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    return rows


def _write(store: Store, place: Path) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    from lstm_trace.store.parquet import EACH_ONCE, LATEST_MARKED, SUPERSEDED

    superseded, events_count = _superseded(store)
    metadata = {EACH_ONCE: json.dumps(dict(store.skipped)).encode()}
    if not events_count:
        metadata[LATEST_MARKED] = b"1"
    schema = spans_schema().to_pyarrow()
    wider = schema.append(pa.field(SUPERSEDED, pa.bool_())).with_metadata(metadata)
    rows = 0
    with place.open("xb") as file, parquet.ParquetWriter(file, wider, compression="zstd") as writer:
        for batch in store.batches(_ROW_GROUP):
            table = pa.Table.from_batches([batch]).cast(schema)
            known_as = pc.binary_join_element_wise(table["trace_id"], table["span_id"], _SEPARATOR)
            marked = pc.if_else(pc.is_in(known_as, value_set=superseded), True, pa.scalar(None, pa.bool_()))
            writer.write_table(table.append_column(SUPERSEDED, marked))
            rows += table.num_rows
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return rows


def _superseded(store: Store) -> tuple[Any, int]:
    """The spans whose evaluation a later one replaces, as `trace/span`, and how many evaluations that count stand as events only."""
    rows = by_age(store.spans)
    older = rows.filter(rows.age > 0, ~rows.is_event)
    known_as = older.trace_id.concat(_SEPARATOR, older.span_id).name("known_as")
    events = rows.filter(rows.age == 0, rows.is_event).count()
    return known_as.to_pyarrow().combine_chunks(), int(events.to_pyarrow().as_py())

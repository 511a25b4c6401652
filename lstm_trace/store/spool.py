"""Spans on their way in: parsed on several threads and written, block by block, to a Parquet file in a temporary folder.

DuckDB takes ten times as long to take in maps from Arrow as pyarrow takes to write them as Parquet; and a file may be larger than memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from lstm_trace.store import allowance
from lstm_trace.store.blocks import block_size
from lstm_trace.store.leftovers import hold, let_go, sweep
from lstm_trace.store.lenient import Tally
from lstm_trace.store.schema import COLUMNS

_PREFIX: Final = "lstm-trace-"
_ROW_GROUP: Final = 1 << 16
"""Rows. DuckDB reads row groups in parallel and skips them by their statistics."""
_LARGEST_GROUP: Final = 64 << 20
"""Bytes of Arrow memory that may wait for a row group to fill: huge attributes make small groups."""

_A_BLOCK: Final = 192 << 20
_TIMES_A_BLOCK: Final = 24
"""Bytes that a block may take while it is parsed, at least, and in bytes of it: its lines, the same as nested columns, and as rows."""

_ITEMS: Final = ("events", "links")
_DISTINCT: Final = (
    "trace_id", "span_id", "parent_span_id", "session_id", "user_id", "upstream_span_id", "target_trace_id", "target_span_id",
    "evaluation_identifier", "evaluation_explanation",
)  # fmt: skip
"""Texts that are another one in nearly every row."""
_ASKED_FOR: Final = ("trace_id", "start_ns", "component", "evaluation_name")
"""Columns by whose statistics a query may pass over rows."""


class Spool:
    """A temporary folder with one Parquet file of the canonical spans table. ``close`` removes it; of a killed process, the next one."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        held = hold(self.folder)
        self.file = self.folder / "spans.parquet"
        self.rows = 0
        # Also where nobody closes the store, and when the interpreter ends.
        self._removal = weakref.finalize(self, _remove, self.folder, held)
        # A killed process removes nothing: this one does it for those before.
        sweep(self.folder.parent.glob(f"{_PREFIX}*"))

    def fill(self, tables: Iterable[Any], *, flat: bool = False) -> None:
        """Write Arrow tables of ``flatten.arrow_schema(flat=flat)``; once."""
        # Late: a store that is Parquet already needs none of it, and to import it takes as long as a small query.
        import pyarrow as pa
        from pyarrow import parquet

        from lstm_trace.store.flatten import arrow_schema

        # Read a few times at most: what says little of a column is not worked out for it.
        how: dict[str, Any] = {"compression": "lz4", "use_dictionary": _repeating(), "write_statistics": list(_ASKED_FOR)}
        with parquet.ParquetWriter(os.fspath(self.file), arrow_schema(flat=flat), **how) as writer:
            for group in _grouped(tables):
                writer.write_table(group)
                self.rows += group.num_rows
        pa.default_memory_pool().release_unused()

    def close(self) -> None:
        """Remove the folder."""
        self._removal()


def _repeating() -> list[str]:
    """The columns, and parts of them, whose texts are worth a dictionary."""
    flat = [column.name for column in COLUMNS if column.type == "string" and column.name not in _DISTINCT]
    nested = [f"{owner}.key_value.key" for owner in ("attributes", "resource", *(f"{items}.list.element.attributes" for items in _ITEMS))]
    return [*flat, *nested, "resource.key_value.value", "events.list.element.name"]


def _remove(folder: Path, held: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    let_go(held)


def _grouped(tables: Iterable[Any]) -> Iterator[Any]:
    import pyarrow as pa

    largest = allowance.within(_LARGEST_GROUP, 16)
    waiting: list[Any] = []
    for table in tables:
        waiting.append(table)
        if sum(part.num_rows for part in waiting) >= _ROW_GROUP or sum(part.nbytes for part in waiting) >= largest:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def tables_of(blocks: Iterable[bytes], tally: Tally, *, flat: bool = False) -> Iterator[Any]:
    """Arrow tables of ``flatten.arrow_schema(flat=flat)`` from blocks of OTLP JSON lines, in their order.

    Parsed on as many threads as there are processors for, on fewer where memory is limited.
    """
    from lstm_trace.store.attributes import NestedValue
    from lstm_trace.store.flatten import spans_of
    from lstm_trace.store.parse import parse_block

    plain = flat  # hardly any column is made of arrays or maps: they are parsed where one is

    def read(block: bytes) -> tuple[list[Any], Tally]:
        nonlocal plain
        own = Tally()
        try:
            return [spans_of(requests, own, flat=flat) for requests in parse_block(block, own, flat=flat, plain=plain)], own
        except NestedValue:
            plain = False
            return read(block)

    each = max(_A_BLOCK, _TIMES_A_BLOCK * block_size())
    workers = max(1, min(4, allowance.processors(), allowance.within(4 * each, 2) // each))
    waiting: deque[Future[tuple[list[Any], Tally]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="lstm-trace-store") as pool:
        for block in blocks:
            waiting.append(pool.submit(read, block))
            if len(waiting) > workers:
                yield from _done(waiting.popleft(), tally)
        while waiting:
            yield from _done(waiting.popleft(), tally)


def _done(future: Future[tuple[list[Any], Tally]], tally: Tally) -> list[Any]:
    tables, own = future.result()
    tally.add(own)
    return tables

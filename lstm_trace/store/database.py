"""Spans in a DuckDB database of their own: filled block by block on several threads, each span once, larger than memory on disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from lstm_trace.store.evaluations import evaluations_of
from lstm_trace.store.flatten import arrow_schema, spans_of
from lstm_trace.store.lenient import Tally
from lstm_trace.store.opened import Store
from lstm_trace.store.parse import parse_block

_ON_DISK_FROM: Final = 256 << 20
"""Bytes of input from which the database is a file: DuckDB compresses and spills a file, not what it holds in memory."""


class Database:
    """A DuckDB database that holds one store's spans while the store is open. ``close`` removes it with its files."""

    def __init__(self, expected_bytes: int = 0) -> None:
        import ibis

        self.folder = Path(tempfile.mkdtemp(prefix="lstm-trace-"))
        place = os.fspath(self.folder / "spans.duckdb") if expected_bytes >= _ON_DISK_FROM else ":memory:"
        self.connection = ibis.duckdb.connect(place, temp_directory=os.fspath(self.folder))
        self.duck = self.connection.con
        self.duck.register("part", arrow_schema().empty_table())
        self.duck.execute("create table spans as select * from part")

    def fill(self, tables: Iterable[Any]) -> None:
        """Append Arrow tables of ``flatten.arrow_schema()``."""
        for table in tables:
            self.duck.register("part", table)
            self.duck.execute("insert into spans select * from part")
        self.duck.unregister("part")

    def drop_repeated(self) -> int:
        """Keep each span once, of several deliveries the one that ended last; returns how many rows went."""
        # By hash first: nearly always there is nothing to drop, and that is known without sorting anything.
        query = """
            with hashed as (select rowid as row, hash(trace_id, span_id) as known_as from spans),
            again as (select known_as from hashed group by known_as having count(*) > 1),
            numbered as (
                select spans.rowid as row,
                    row_number() over (partition by trace_id, span_id order by end_ns desc nulls last, spans.rowid) as number
                from spans join hashed on hashed.row = spans.rowid join again using (known_as)
            )
            delete from spans where rowid in (select row from numbered where number > 1)
        """
        return int(self.duck.execute(query).fetchall()[0][0])

    def count(self) -> int:
        """Rows in the spans table."""
        return int(self.duck.execute("select count(*) from spans").fetchall()[0][0])

    def store(self, address: str, skipped: dict[str, int]) -> Store:
        """The filled database as an open store."""
        spans = self.connection.table("spans")
        return Store(address, spans, skipped, self.connection, self.close, evaluations_of(spans))

    def close(self) -> None:
        """Disconnect and remove the files."""
        self.connection.disconnect()
        shutil.rmtree(self.folder, ignore_errors=True)


def tables_of(blocks: Iterable[bytes], tally: Tally) -> Iterator[Any]:
    """Canonical Arrow tables from blocks of OTLP JSON lines, in their order, parsed on as many threads as there are processors."""
    workers = max(1, min(4, os.cpu_count() or 1))
    waiting: deque[Future[tuple[list[Any], Tally]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="lstm-trace-store") as pool:
        for block in blocks:
            waiting.append(pool.submit(_tables, block))
            if len(waiting) > workers:
                yield from _done(waiting.popleft(), tally)
        while waiting:
            yield from _done(waiting.popleft(), tally)


def _tables(block: bytes) -> tuple[list[Any], Tally]:
    tally = Tally()
    return [spans_of(requests, tally) for requests in parse_block(block, tally)], tally


def _done(future: Future[tuple[list[Any], Tally]], tally: Tally) -> list[Any]:
    tables, own = future.result()
    tally.add(own)
    return tables

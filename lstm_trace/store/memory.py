"""A store made of plain rows, for analyses of spans that rest nowhere, and for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lstm_trace.store.opened import Store
from lstm_trace.store.schema import COLUMNS, spans_schema


def store_of(rows: Iterable[Mapping[str, Any]]) -> Store:
    """A store in memory. A row maps column names of ``schema.COLUMNS`` to values; a missing one is null, a missing map or list empty.

    Raises ValueError that names a column which does not exist.

    >>> with store_of([{"trace_id": "0" * 31 + "1", "span_id": "0" * 15 + "1", "name": "chain claims"}]) as store:
    ...     store.spans.name.to_pyarrow().to_pylist()
    ['chain claims']
    """
    import ibis
    import pyarrow as pa

    known = {column.name for column in COLUMNS}
    empty: dict[str, Any] = {column.name: [] if column.type.startswith(("array", "map")) else None for column in COLUMNS}
    filled: list[dict[str, Any]] = []
    for row in rows:
        if unknown := set(row) - known:
            raise ValueError(f"no column {sorted(unknown)[0]!r} in the spans table; the columns are {', '.join(sorted(known))}")
        filled.append(empty | {name: list(value.items()) if isinstance(value, dict) else value for name, value in row.items()})
    connection = ibis.duckdb.connect()
    table = pa.Table.from_pylist(filled, schema=spans_schema().to_pyarrow())
    spans = connection.create_table("spans", table)
    return Store("memory", spans, connection=connection, closing=connection.disconnect)

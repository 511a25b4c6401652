"""Parquet files of the canonical spans table as an open store, read where they lie.

``convert`` writes them, and every reader of other files spools through one. A converted file says in its metadata that each span is in
it once, and which of its evaluation spans a later one replaces (``SUPERSEDED``): opening it reads nothing but its footer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lstm_trace.errors import BadInput
from lstm_trace.store.evaluations import evaluations_of, of_spans
from lstm_trace.store.opened import ACCEPTED, Store
from lstm_trace.store.schema import COLUMNS, spans_schema

EACH_ONCE: Final = b"lstm_trace.each_once"
"""Key of a converted file's metadata; its value is the JSON of what was skipped on the way."""
LATEST_MARKED: Final = b"lstm_trace.latest_marked"
"""Key of a converted file's metadata: every evaluation that counts is a span of its own, and not ``SUPERSEDED``."""
SUPERSEDED: Final = "superseded"
"""Column of a converted file, beside those of the spans table: a later evaluation has this span's identifier."""


def open_files(
    address: str,
    files: Sequence[Path],
    skipped: Mapping[str, int],
    *,
    scratch: Path,
    closing: Callable[[], None],
    evaluation_events: bool = True,
    count_repeated: bool = True,
) -> Store:
    """Open Parquet ``files`` as one store. ``scratch``: a folder for what does not fit into memory, removed by ``closing``."""
    import ibis

    connection = ibis.duckdb.connect(temp_directory=os.fspath(scratch))

    def close() -> None:
        connection.disconnect()
        closing()

    try:
        promises = _promises(address, files)
        _create_view(connection.con, address, files)
        counts = {"malformed": 0, "duplicate": 0, **promises.skipped}
        for name, count in skipped.items():
            counts[name] = counts.get(name, 0) + count
        if not promises.each_once:
            counts["duplicate"] += _drop_repeated(connection.con) * count_repeated
        spans = connection.table("spans")
        if not _one(connection.con, "select count(*) from spans"):
            raise BadInput(f"{address}: holds no span; a store is {ACCEPTED}")
        if promises.latest_marked:
            columns = ", ".join(column.name for column in COLUMNS)
            live = f"select {columns} from given where evaluation_name is not null and {SUPERSEDED} is not true"
            connection.con.execute(f"create view live_evaluations as {live}")
            evaluations = of_spans(connection.table("live_evaluations"))
        else:
            evaluations = evaluations_of(spans, events=evaluation_events)
    except BaseException:
        close()
        raise
    return Store(address, spans, counts, connection, close, evaluations)


@dataclass(frozen=True, slots=True)
class _Promises:
    """What the metadata of a converted file spares its readers."""

    each_once: bool = False
    latest_marked: bool = False
    skipped: Mapping[str, int] = field(default_factory=dict[str, int])


def _promises(address: str, files: Sequence[Path]) -> _Promises:
    import pyarrow as pa
    from pyarrow import parquet

    if len(files) != 1:
        return _Promises()  # each file keeps its word, but not the others'
    try:
        metadata = parquet.read_schema(os.fspath(files[0])).metadata or {}
        skipped = json.loads(metadata.get(EACH_ONCE, b"{}"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadInput(f"{address}: not Parquet that can be read ({str(error).splitlines()[0]})") from None
    return _Promises(EACH_ONCE in metadata, LATEST_MARKED in metadata, skipped)


def _create_view(duck: Any, address: str, files: Sequence[Path]) -> None:
    import duckdb

    listed = ", ".join(_quoted(os.fspath(file)) for file in files)
    source = f"read_parquet([{listed}], union_by_name = true, filename = true, file_row_number = true)"
    try:
        held = {row[0]: row[1] for row in duck.execute(f"describe select * from {source}").fetchall()}
    except duckdb.Error as error:
        raise BadInput(f"{address}: not Parquet that can be read ({str(error).splitlines()[0]})") from None
    for needed in ("trace_id", "span_id"):
        if needed not in held:
            raise BadInput(f"{address}: Parquet without a column {needed}; accepted is what `lstm-trace convert` writes")
    shown: list[str] = []
    for column, (accepted, kind) in zip(COLUMNS, _duck_types(), strict=True):
        if column.name not in held:
            shown.append(f"{_empty(kind)} as {column.name}")
        elif accepted(held[column.name]):
            shown.append(column.name)
        elif column.type.startswith(("map", "array")):
            raise BadInput(f"{address}: column {column.name} is {held[column.name]}; accepted is {kind}")
        else:
            shown.append(f"try_cast({column.name} as {kind}) as {column.name}")
    shown.append(SUPERSEDED if held.get(SUPERSEDED) == "BOOLEAN" else f"false as {SUPERSEDED}")
    duck.execute(f"create view given as select {', '.join(shown)}, filename as _file, file_row_number as _row from {source}")
    duck.execute(f"create view spans as select {', '.join(column.name for column in COLUMNS)} from given")


def _duck_types() -> list[tuple[Callable[[str], bool], str]]:
    """For each column: whether a DuckDB type is the canonical one, and that type's name."""
    from ibis.backends.sql.datatypes import DuckDBType

    def accepts(kind: Any) -> Callable[[str], bool]:
        return lambda held: bool(DuckDBType.from_string(held) == kind)

    return [(accepts(kind), DuckDBType.to_string(kind)) for kind in spans_schema().types]


def _empty(kind: str) -> str:
    if kind.endswith("[]"):
        return f"cast([] as {kind})"
    return f"cast(map {{}} as {kind})" if kind.startswith("MAP") else f"cast(null as {kind})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _drop_repeated(duck: Any) -> int:
    """Leave each span once in the view, of several deliveries the one that ended last; returns how many rows that leaves out."""
    # By hash first: nearly always there is nothing to leave out, and that is known without sorting anything.
    again = """
        create table again as select known_as from (select hash(trace_id, span_id) as known_as from given)
        group by known_as having count(*) > 1
    """
    duck.execute(again)
    if not _one(duck, "select count(*) from again"):
        return 0
    repeated = """
        create table repeated as select _file, _row from (
            select _file, _row,
                row_number() over (partition by trace_id, span_id order by end_ns desc nulls last, _file, _row) as number
            from given where hash(trace_id, span_id) in (select known_as from again)
        ) where number > 1
    """
    duck.execute(repeated)
    columns = ", ".join(column.name for column in COLUMNS)
    duck.execute(f"create or replace view spans as select {columns} from given anti join repeated using (_file, _row)")
    return int(_one(duck, "select count(*) from repeated"))


def _one(duck: Any, query: str) -> Any:
    return duck.execute(query).fetchall()[0][0]

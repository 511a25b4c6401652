"""Parquet files of the canonical spans table as an open store, read where they lie.

``convert`` writes them, and every reader of other files spools through one. Two columns of a converted file are not in the spans table:
``superseded`` marks the evaluation spans that a later one of equal identifier replaces, and ``judgements`` holds the evaluations that stand
as events. With them, and the file's own word that each span is in it once, opening a converted file reads nothing but its footer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lstm_trace.errors import BadInput
from lstm_trace.store.evaluations import evaluations_of
from lstm_trace.store.opened import Store
from lstm_trace.store.schema import COLUMNS, spans_schema

EACH_ONCE: Final = b"lstm_trace.each_once"
"""Key of a converted file's metadata."""


def open_files(
    address: str,
    files: Sequence[Path],
    skipped: Mapping[str, int],
    *,
    scratch: Path,
    closing: Callable[[], None],
    evaluation_events: bool = True,
) -> Store:
    """Open Parquet ``files`` as one store. ``scratch``: a folder for what does not fit into memory, removed by ``closing``."""
    import ibis

    connection = ibis.duckdb.connect(temp_directory=os.fspath(scratch))

    def close() -> None:
        connection.disconnect()
        closing()

    try:
        _create_view(connection.con, address, files)
        duplicate = _drop_repeated(connection.con)
        spans = connection.table("spans")
    except BaseException:
        close()
        raise
    counts = {"malformed": 0, **skipped, "duplicate": skipped.get("duplicate", 0) + duplicate}
    return Store(address, spans, counts, connection, close, evaluations_of(spans, events=evaluation_events))


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
        create temp table again as select known_as from (select hash(trace_id, span_id) as known_as from given)
        group by known_as having count(*) > 1
    """
    duck.execute(again)
    if not _one(duck, "select count(*) from again"):
        return 0
    repeated = """
        create temp table repeated as select _file, _row from (
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

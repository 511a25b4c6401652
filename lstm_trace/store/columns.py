"""How the canonical columns are read out of Parquet files: which expression is which column, of which rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from lstm_trace.errors import BadInput
from lstm_trace.store.marks import MARKS, ROW
from lstm_trace.store.schema import COLUMNS, EVENTS, LINKS, MAP, NESTED

NAMES: Final = tuple(column.name for column in COLUMNS)
FLAT_NAMES: Final = tuple(name for name in NAMES if name not in NESTED)
_TYPES: Final = {**{column.name: column.type for column in COLUMNS}, **MARKS, ROW: "int64"}
_DUCK_TYPES: Final = {"string": "VARCHAR", "int64": "BIGINT", "float64": "DOUBLE", "boolean": "BOOLEAN"}
_EMPTY: Final = {
    MAP: "cast(map([], []) as map(varchar, varchar))",
    EVENTS: 'cast([] as struct("name" varchar, time_ns bigint, attributes map(varchar, varchar))[])',
    LINKS: "cast([] as struct(trace_id varchar, span_id varchar, attributes map(varchar, varchar))[])",
}
_PLACED: Final = "union_by_name = true, filename = true, file_row_number = true"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of Parquet files: of each column the expression that reads it. ``where`` and ``source`` are DuckDB's SQL.

    A query names the few columns that it asks about: DuckDB looks at the statistics of every column of a subquery, read or not, which
    takes longer than to answer a small question.
    """

    source: str
    shown: Mapping[str, str]
    where: str = ""

    def query(self, names: Iterable[str]) -> str:
        """The SQL that reads these columns."""
        columns = ", ".join(self.shown[name] if self.shown[name] == name else f"{self.shown[name]} as {name}" for name in names)
        return f"select {columns} from {self.source}{self.where and f' where {self.where}'}"

    def table(self, connection: Any, names: Iterable[str]) -> Any:
        """These columns as an ibis table."""
        import ibis

        asked = list(dict.fromkeys(names))
        # With the schema given: connection.table() would ask DuckDB for it and parse its answer, which takes as long as a small query.
        return connection.sql(self.query(asked), schema=ibis.schema({name: _TYPES[name] for name in asked}))

    def flat(self) -> Rows:
        """The same without the nested columns."""
        return replace(self, shown={name: shown for name, shown in self.shown.items() if name not in NESTED})

    def only(self, where: str) -> Rows:
        """Those for which ``where`` holds, an expression in which ``{name}`` stands for a column."""
        return replace(self, where=where.format_map(self.shown))

    def without(self, table: str, *keys: str) -> Rows:
        """Those that are not in ``table``, a table of ``keys``."""
        return Rows(f"({self.query(self.shown)}) anti join {table} using ({', '.join(keys)})", {name: name for name in self.shown})


def rows_of_files(duck: Any, address: str, files: Sequence[Path]) -> tuple[Rows, Rows]:
    """The rows of ``files``, and the same with their place: ``marks.ROW``, ``_file`` and ``_row``, which DuckDB takes longer to plan.

    Raises BadInput where the files are no Parquet, or Parquet of something else.
    """
    import duckdb

    listed = ", ".join(quoted(os.fspath(file)) for file in files)
    source = f"read_parquet([{listed}]{', union_by_name = true' if len(files) > 1 else ''})"
    try:
        held = {row[0]: row[1] for row in duck.execute(f"describe select * from {source}").fetchall()}
    except duckdb.Error as error:
        raise BadInput(f"{address}: not Parquet that can be read ({str(error).splitlines()[0]})") from None
    for needed in ("trace_id", "span_id"):
        if needed not in held:
            raise BadInput(f"{address}: Parquet without a column {needed}; accepted is what `lstm-trace convert` writes")
    shown: dict[str, str] = {}
    for column in COLUMNS:
        kind = _DUCK_TYPES.get(column.type, "")
        if column.name not in held:
            shown[column.name] = _EMPTY.get(column.type, f"cast(null as {kind})")
        elif held[column.name] == kind or (not kind and _same_type(held[column.name], column.type)):
            shown[column.name] = column.name
        elif not kind:
            raise BadInput(f"{address}: column {column.name} is {held[column.name]}; accepted is {column.type}")
        else:
            shown[column.name] = f"try_cast({column.name} as {kind})"
    for name, type_ in MARKS.items():
        kind = _DUCK_TYPES[type_]
        shown[name] = name if held.get(name) == kind else f"cast(null as {kind})"
    placed = {**shown, "_file": "filename", "_row": "file_row_number", ROW: "file_row_number"}
    return Rows(source, shown), Rows(f"read_parquet([{listed}], {_PLACED})", placed)


def _same_type(held: str, canonical: str) -> bool:
    """Whether DuckDB's name of a nested type (its spelling differs between releases) means the canonical one."""
    import ibis
    from ibis.backends.sql.datatypes import DuckDBType

    return bool(DuckDBType.from_string(held) == ibis.dtype(canonical))


def quoted(text: str) -> str:
    """``text`` as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"

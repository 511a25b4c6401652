"""Parquet files of the canonical spans table as an open store, read where they lie.

``convert`` writes them, and every reader of other files spools through one. A converted file says in its metadata that each span is in
it once, how many there are, and that it carries marks (``marks.MARKS``): opening it reads nothing but its footer.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from lstm_trace.errors import BadInput
from lstm_trace.store.evaluations import NEEDED, evaluations_of, of_spans
from lstm_trace.store.marks import MARKS, ROW, SUPERSEDED
from lstm_trace.store.opened import ACCEPTED, Known, Store, quiet
from lstm_trace.store.schema import COLUMNS, EVENTS, LINKS, MAP, spans_schema

EACH_ONCE: Final = b"lstm_trace.each_once"
"""Key of a converted file's metadata; its value is the JSON of what was skipped on the way."""
LATEST_MARKED: Final = b"lstm_trace.latest_marked"
"""Key of a converted file's metadata: every evaluation that counts is a span of its own, and not ``SUPERSEDED``."""
MARKED: Final = b"lstm_trace.marks.2"
"""Key of a converted file's metadata: it has every mark. The value is the JSON of ``opened.Known``. Files with the marks of an
older version are read without them."""

_LEAST_MEMORY: Final = 512 << 20
_MEMORY_A_THREAD: Final = 128 << 20
"""Bytes that DuckDB needs to get on, by its own account."""
_UNITS: Final = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_NAMES: Final = tuple(column.name for column in COLUMNS)
_TYPES: Final = {**{column.name: column.type for column in COLUMNS}, **MARKS, ROW: "int64"}
_DUCK_TYPES: Final = {"string": "VARCHAR", "int64": "BIGINT", "float64": "DOUBLE", "boolean": "BOOLEAN"}
_EMPTY: Final = {
    MAP: "cast(map {} as map(varchar, varchar))",
    EVENTS: 'cast([] as struct("name" varchar, time_ns bigint, attributes map(varchar, varchar))[])',
    LINKS: "cast([] as struct(trace_id varchar, span_id varchar, attributes map(varchar, varchar))[])",
}


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
    import duckdb
    import ibis

    connection = ibis.duckdb.connect(temp_directory=os.fspath(scratch))
    quiet(connection.con)

    def close() -> None:
        connection.disconnect()
        closing()

    with contextlib.suppress(duckdb.CatalogException):  # an older DuckDB: then each query reads the footer again
        connection.con.execute("set parquet_metadata_cache = true")
    try:
        promises = _promises(connection.con, address, files)
        _create_view(connection.con, address, files)
        counts = {"malformed": 0, "duplicate": 0, **promises.skipped}
        for name, count in skipped.items():
            counts[name] = counts.get(name, 0) + count
        if not promises.each_once:
            with frugal(connection.con):
                counts["duplicate"] += _drop_repeated(connection.con) * count_repeated
        spans = _columns(connection, "spans", _NAMES)
        if not (promises.known or _one(connection.con, "select count(*) from spans")):
            raise BadInput(f"{address}: holds no span; a store is {ACCEPTED}")
        if promises.latest_marked:
            connection.con.execute(f"create view judging as from given where evaluation_name is not null and {SUPERSEDED} is not true")
            evaluations = of_spans(_columns(connection, "judging", NEEDED))
        else:
            evaluations = evaluations_of(_columns(connection, "spans", NEEDED), events=evaluation_events)
        numbered = _columns(connection, "numbered", (*_NAMES, ROW)) if len(files) == 1 else None
    except BaseException:
        close()
        raise
    return Store(
        address,
        spans,
        counts,
        connection,
        close,
        ready_evaluations=evaluations,
        marked=partial(_columns, connection, "given") if promises.known else None,
        known=promises.known,
        judging=partial(_columns, connection, "judging") if promises.known and promises.latest_marked else None,
        numbered=numbered,
        evaluation_events=evaluation_events,
        narrow=partial(_columns, connection, "spans"),
    )


@contextlib.contextmanager
def frugal(duck: Any) -> Generator[None, None, None]:
    """DuckDB keeps to a fixed memory and writes to disk what does not fit: for work over all ids, which grows with the store."""
    limit = max(_LEAST_MEMORY, _MEMORY_A_THREAD * (os.cpu_count() or 1))
    (held,) = duck.execute("select current_setting('memory_limit')").fetchone()
    amount, unit = held.split()
    if float(amount) * _UNITS.get(unit, 1) > limit:
        duck.execute(f"set memory_limit = '{limit >> 20} MiB'")
    try:
        yield
    finally:
        duck.execute(f"set memory_limit = '{held}'")


def readable(file: Path) -> bool:
    """Whether a file's footer says that it is Parquet: one that is cut off or still written has none."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        parquet.read_metadata(os.fspath(file))
    except (OSError, ValueError, pa.ArrowException):
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Promises:
    """What the metadata of a converted file spares its readers."""

    each_once: bool = False
    latest_marked: bool = False
    known: Known | None = None
    skipped: Mapping[str, int] = field(default_factory=dict[str, int])


def _promises(duck: Any, address: str, files: Sequence[Path]) -> _Promises:
    import duckdb

    if len(files) != 1:
        return _Promises()  # each file keeps its word, but not the others'
    try:
        metadata = dict(duck.execute(f"select key, value from parquet_kv_metadata({_quoted(os.fspath(files[0]))})").fetchall())
        skipped = json.loads(metadata.get(EACH_ONCE, b"{}"))
        known = Known(**json.loads(metadata[MARKED])) if EACH_ONCE in metadata and MARKED in metadata else None
    except (duckdb.Error, ValueError, TypeError) as error:
        raise BadInput(f"{address}: not Parquet that can be read ({str(error).splitlines()[0]})") from None
    return _Promises(EACH_ONCE in metadata, LATEST_MARKED in metadata, known, skipped)


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
    for column in COLUMNS:
        kind = _DUCK_TYPES.get(column.type, "")
        if column.name not in held:
            shown.append(f"{_EMPTY.get(column.type, f'cast(null as {kind})')} as {column.name}")
        elif held[column.name] == kind or (not kind and _same_type(held[column.name], column.type)):
            shown.append(column.name)
        elif not kind:
            raise BadInput(f"{address}: column {column.name} is {held[column.name]}; accepted is {column.type}")
        else:
            shown.append(f"try_cast({column.name} as {kind}) as {column.name}")
    for name, type_ in MARKS.items():
        kind = _DUCK_TYPES[type_]
        shown.append(name if held.get(name) == kind else f"cast(null as {kind}) as {name}")
    duck.execute(f"create view given as select {', '.join(shown)}, filename as _file, file_row_number as _row from {source}")
    _show(duck, "given")


def _show(duck: Any, rows: str) -> None:
    duck.execute(f"create or replace view spans as select {', '.join(_NAMES)} from {rows}")
    duck.execute(f"create or replace view numbered as select {', '.join(_NAMES)}, _row as {ROW} from {rows}")


def _same_type(held: str, canonical: str) -> bool:
    """Whether DuckDB's name of a nested type (its spelling differs between releases) means the canonical one."""
    import ibis
    from ibis.backends.sql.datatypes import DuckDBType

    return bool(DuckDBType.from_string(held) == ibis.dtype(canonical))


def _columns(connection: Any, view: str, names: Iterable[str]) -> Any:
    import ibis

    shown = list(dict.fromkeys(names))
    # With the schema given: connection.table() would ask DuckDB for it and parse its answer, which takes as long as a small query.
    return connection.sql(f"select {', '.join(shown)} from {view}", schema=ibis.schema({name: _TYPES[name] for name in shown}))


def marked_schema() -> Any:
    """The ibis schema of the spans table with ``marks.MARKS``."""
    import ibis

    return ibis.schema({**spans_schema(), **MARKS})


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
    _show(duck, "given anti join repeated using (_file, _row)")
    return int(_one(duck, "select count(*) from repeated"))


def _one(duck: Any, query: str) -> Any:
    return duck.execute(query).fetchall()[0][0]

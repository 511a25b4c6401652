"""Parquet files of the canonical spans table as an open store, read where they lie.

``convert`` writes them, and every reader of other files spools through one. A converted file says in its metadata that each span is in
it once, how many there are, and that it carries marks (``marks.MARKS``): opening it reads nothing but its footer.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

from lstm_trace.errors import BadInput
from lstm_trace.store import allowance
from lstm_trace.store.columns import FLAT_NAMES, NAMES, Rows, quoted, rows_of_files
from lstm_trace.store.evaluations import NEEDED, evaluations_of, of_spans
from lstm_trace.store.marks import MARKS, ROW, SUPERSEDED
from lstm_trace.store.opened import ACCEPTED, Known, Store, quiet
from lstm_trace.store.schema import spans_schema
from lstm_trace.store.stopping import done, stoppable

EACH_ONCE: Final = b"lstm_trace.each_once"
"""Key of a converted file's metadata; its value is the JSON of what was skipped on the way."""
LATEST_MARKED: Final = b"lstm_trace.latest_marked"
"""Key of a converted file's metadata: every evaluation that counts is a span of its own, and not ``SUPERSEDED``."""
MARKED: Final = b"lstm_trace.marks.3"
"""Key of a converted file's metadata: it has every mark. The value is the JSON of ``opened.Known``. Files with the marks of an
older version are read without them."""

_FRUGAL_MEMORY: Final = 512 << 20
_MEMORY_A_THREAD: Final = 128 << 20
"""Bytes that DuckDB needs to get on, by its own account."""
_LEAST_MEMORY: Final = 128 << 20
"""Bytes below which DuckDB answers nothing."""
_OURS: Final = 352 << 20
"""Bytes that the rest of the process takes, everything imported included."""
_JUDGING: Final = f"{{evaluation_name}} is not null and {{{SUPERSEDED}}} is not true"
_UNITS: Final = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def open_files(
    address: str,
    files: Sequence[Path],
    skipped: Mapping[str, int],
    *,
    scratch: Path,
    closing: Callable[[], None],
    evaluation_events: bool = True,
    count_repeated: bool = True,
    flat: bool = False,
) -> Store:
    """Open Parquet ``files`` as one store. ``scratch``: a folder for what does not fit into memory, removed by ``closing``.

    ``flat``: they lack the nested columns, and evaluations have their notes beside them (``flatten.arrow_schema``).
    """
    import duckdb
    import ibis

    connection = ibis.duckdb.connect(temp_directory=os.fspath(scratch))
    within_allowance(quiet(connection.con))
    stoppable(connection.con)

    def close() -> None:
        done(connection.con)
        connection.disconnect()
        closing()

    with contextlib.suppress(duckdb.CatalogException):  # an older DuckDB: then each query reads the footer again
        connection.con.execute("set parquet_metadata_cache = true")
    try:
        promises = _promises(connection.con, address, files)
        given, placed = rows_of_files(connection.con, address, files)
        counts = {"malformed": 0, "duplicate": 0, **promises.skipped}
        for name, count in skipped.items():
            counts[name] = counts.get(name, 0) + count
        if not promises.each_once:
            with frugal(connection.con):
                repeated = _repeated(connection.con, placed)
            if repeated:
                given = placed = placed.without("repeated", "_file", "_row")
            counts["duplicate"] += repeated * count_repeated
        if not (promises.known or _one(connection.con, f"select count(*) from ({given.query(['span_id'])})")):
            raise BadInput(f"{address}: holds no span; a store is {ACCEPTED}")
        judging = given.only(_JUDGING) if promises.latest_marked else None
        if judging is not None:
            evaluations = of_spans(judging.table(connection, NEEDED))
        else:
            evaluations = evaluations_of(given.table(connection, NEEDED), events=evaluation_events)
        given = given.flat() if flat else given
        spans = given.table(connection, FLAT_NAMES if flat else NAMES)
        numbered = placed.table(connection, (*NAMES, ROW)) if len(files) == 1 and not flat else None
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
        marked=partial(given.table, connection) if promises.known else None,
        known=promises.known,
        judging=partial(judging.table, connection) if promises.known and judging is not None else None,
        numbered=numbered,
        evaluation_events=evaluation_events,
        narrow=partial(given.table, connection),
        noted=partial(given.table, connection) if flat else None,
    )


def within_allowance(duck: Any) -> None:
    """Keep DuckDB to what this process may take: by itself it would take four fifths of it, and leave too little for the rest of us."""
    allowed = allowance.memory()
    if allowed is None:
        return
    _lower_to(duck, max(_LEAST_MEMORY, allowed - _OURS))
    threads = max(1, min(allowance.processors(), (allowed - _OURS) // _MEMORY_A_THREAD))
    duck.execute(f"set threads = {threads}")


@contextlib.contextmanager
def frugal(duck: Any) -> Generator[None, None, None]:
    """DuckDB keeps to a fixed memory and writes to disk what does not fit: for work over all ids, which grows with the store."""
    held = _lower_to(duck, max(_FRUGAL_MEMORY, _MEMORY_A_THREAD * allowance.processors()))
    try:
        yield
    finally:
        duck.execute(f"set memory_limit = '{held}'")


def _lower_to(duck: Any, limit: int) -> str:
    """Lower DuckDB's memory to ``limit`` bytes, where it has more; returns what it had."""
    (held,) = duck.execute("select current_setting('memory_limit')").fetchone()
    amount, unit = held.split()
    if float(amount) * _UNITS.get(unit, 1) > limit:
        duck.execute(f"set memory_limit = '{limit >> 20} MiB'")
    return str(held)


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
        metadata = dict(duck.execute(f"select key, value from parquet_kv_metadata({quoted(os.fspath(files[0]))})").fetchall())
        skipped = json.loads(metadata.get(EACH_ONCE, b"{}"))
        known = _known(metadata[MARKED]) if EACH_ONCE in metadata and MARKED in metadata else None
    except (duckdb.Error, ValueError, TypeError) as error:
        raise BadInput(f"{address}: not Parquet that can be read ({str(error).splitlines()[0]})") from None
    return _Promises(EACH_ONCE in metadata, LATEST_MARKED in metadata, known, skipped)


def _known(told: bytes) -> Known:
    """What a converted file says of itself, so far as this version knows it: a later one may say more."""
    held = json.loads(told)
    return Known(**{item.name: held[item.name] for item in fields(Known) if item.name in held})


def marked_schema() -> Any:
    """The ibis schema of the spans table with ``marks.MARKS``."""
    import ibis

    return ibis.schema({**spans_schema(), **MARKS})


def _repeated(duck: Any, rows: Rows) -> int:
    """Write the place of spans that are there again to a table, of several deliveries all but the one that ended last; how many."""
    # By hash first: nearly always there is nothing to leave out, and that is known without sorting anything.
    again = f"""
        create table again as select known_as from (select hash(trace_id, span_id) as known_as from ({rows.query(("trace_id", "span_id"))}))
        group by known_as having count(*) > 1
    """
    duck.execute(again)
    if not _one(duck, "select count(*) from again"):
        return 0
    repeated = f"""
        create table repeated as select _file, _row from (
            select _file, _row,
                row_number() over (partition by trace_id, span_id order by end_ns desc nulls last, _file, _row) as number
            from ({rows.query(("trace_id", "span_id", "end_ns", "_file", "_row"))})
            where hash(trace_id, span_id) in (select known_as from again)
        ) where number > 1
    """
    duck.execute(repeated)
    return int(_one(duck, "select count(*) from repeated"))


def _one(duck: Any, query: str) -> Any:
    return duck.execute(query).fetchall()[0][0]

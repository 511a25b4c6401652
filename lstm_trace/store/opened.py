"""An open store: its spans and evaluations as ibis tables, and what was skipped on the way in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any, Final

from lstm_trace.store.evaluations import evaluations_of

ACCEPTED: Final = (
    "a folder or file of OTLP JSON lines or OTLP protobuf, a Parquet file or folder, clickhouse://host:port/database, "
    "or jaeger+http://host:16686"
)

_ENGINES: Final = ("duckdb", "clickhouse_connect")
_NOTHING_LOST: Final = ("duplicate", "other_signals")


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a converted store without asking: ``releases`` are those of own work, with its first and last start (ns)."""

    spans: int
    traces: int
    """Those that hold more than evaluations."""
    all_called: bool
    """Every trace has a component call."""
    releases: Mapping[str, tuple[int, int]]
    steps_judged: bool = True
    """An evaluation may be of a span within a step of a trajectory."""
    steps: Sequence[Mapping[str, Any]] | None = None
    """One row a ``release`` (``marks.STEP_RELEASE``) and ``step`` of a trajectory: in how many traces it was reached (``n``), and in how
    many of those a span of it ended in error (``failed``). None where nobody counted, or where they are too many to be told here."""


@dataclass(frozen=True, eq=False)
class Store:
    """A store of traces, open for reading. A context manager; ``close`` frees its connection and temporary files.

    ``spans`` is the canonical spans table (``schema.COLUMNS``), an ibis table of which ``connection`` is the backend. ``skipped``
    counts what is not in it: ``malformed`` (lines and spans that could not be read, a line still being written among them),
    ``duplicate`` (deliveries of a span that is in the table already), and further keys where they occur.
    """

    address: str
    spans: Any
    skipped: Mapping[str, int] = field(default_factory=lambda: {"malformed": 0, "duplicate": 0})
    connection: Any = None
    closing: Callable[[], None] = _nothing
    ready_evaluations: Any = None
    marked: Callable[[Iterable[str]], Any] | None = None
    """``spans`` with these columns, also out of the marks of a converted file (``marks.MARKS``); None where nobody worked them out."""
    known: Known | None = None
    """What a converted file says of itself."""
    judging: Callable[[Iterable[str]], Any] | None = None
    """Likewise of the spans that are evaluations, each once; None where some stand as events, or nobody marked them."""
    numbered: Any = None
    """``spans`` with their place in the file (``row_number``), where the store is one Parquet file."""
    evaluation_events: bool = True
    """Whether an evaluation may stand as an event."""
    narrow: Callable[[Iterable[str]], Any] | None = None
    noted: Callable[[Iterable[str]], Any] | None = None
    """``spans`` with these columns, also ``marks.WEIGHT`` and ``EXPECTED``, where the store is flat: it has no attributes to look into."""

    def only(self, *columns: str) -> Any:
        """``spans`` with these columns: a query that is made of few columns is made and understood in less time."""
        return self.spans.select(*columns) if self.narrow is None else self.narrow(columns)

    @cached_property
    def evaluations(self) -> Any:
        """Every evaluation once (``schema.EVALUATION_COLUMNS``), an ibis table on the same backend as ``spans``."""
        return evaluations_of(self.spans) if self.ready_evaluations is None else self.ready_evaluations

    @property
    def left_out(self) -> str:
        """What could not be read, to end a message about something missing with: it may have been there. Empty where all was read."""
        counted = [f"{n} {what.replace('_', ' ')}" for what, n in self.skipped.items() if n and what not in _NOTHING_LOST]
        return f" ({', '.join(counted)} skipped)" if counted else ""

    def trace(self, trace_id: str) -> Any:
        """The spans of one trace, earliest first; no rows when the store does not hold it. ``trace_id``: hex, in either case."""
        return self.spans.filter(self.spans.trace_id == trace_id.strip().lower()).order_by("start_ns", "span_id")

    def batches(self, rows: int) -> Iterator[Any]:
        """The spans as Arrow record batches of about ``rows`` rows, without ever holding them all."""
        return batches_of(self.connection, self.spans, rows)

    def close(self) -> None:
        """Free what the store holds. Its tables cannot be used afterwards."""
        self.closing()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and type(error).__module__.partition(".")[0].lstrip("_") in _ENGINES:
            error.args = (f"{self.address}: {error}", *error.args[1:])  # an engine's message rarely names what it was reading
        self.close()


def batches_of(connection: Any, table: Any, rows: int) -> Iterator[Any]:
    """The rows of an expression as Arrow record batches of about ``rows`` rows, without ever holding them all."""
    if connection.name != "duckdb":
        yield from table.to_pyarrow_batches(chunk_size=rows)
        return
    yield from rows_of(connection, connection.compile(table), rows)


def rows_of(connection: Any, query: str, rows: int) -> Iterator[Any]:
    """The rows of a query in DuckDB's SQL as Arrow record batches of about ``rows`` rows."""
    # Not through ibis: it calls a method that DuckDB 2 no longer has. A cursor, so that the reader may stay open beside other queries.
    cursor = quiet(connection.con.cursor())
    relation = cursor.sql(query)
    read = relation.to_arrow_reader if hasattr(relation, "to_arrow_reader") else relation.fetch_record_batch
    yield from read(rows)


def quiet(duck: Any) -> Any:
    """DuckDB without its progress bar, which it writes to the output: into the JSON of a command that takes longer than two seconds."""
    duck.execute("set enable_progress_bar = false")
    return duck

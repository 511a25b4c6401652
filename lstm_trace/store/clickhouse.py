"""A store that is the Collector's ``otel_traces`` table in ClickHouse: nothing is copied, every query runs there.

Source: exporter/clickhouseexporter of opentelemetry-collector-contrib, its default (map) schema. Older releases of the exporter write
``SPAN_KIND_CLIENT`` and ``STATUS_CODE_ERROR`` where newer ones write ``Client`` and ``Error``, and have no ``ScopeName``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from lstm_trace.errors import BadInput
from lstm_trace.store.canonical import promoted
from lstm_trace.store.evaluations import NEEDED, evaluations_of
from lstm_trace.store.opened import Store

_TABLE: Final = "otel_traces"
_FORM: Final = "clickhouse://user:password@host:8123/database?table=otel_traces&secure=true&distinct=check|trust"
_NEEDED: Final = (
    "Timestamp",
    "TraceId",
    "SpanId",
    "ParentSpanId",
    "SpanName",
    "SpanKind",
    "ServiceName",
    "ResourceAttributes",
    "SpanAttributes",
    "Duration",
    "StatusCode",
    "Events.Timestamp",
    "Events.Name",
    "Events.Attributes",
    "Links.TraceId",
    "Links.SpanId",
    "Links.Attributes",
)


def open_clickhouse(address: str, shown: str) -> Store:
    """Open ``clickhouse://…``. Raises BadInput, see ``open_store``; ``shown`` is the address as error messages give it, without password.

    ``distinct=trust`` in the address skips the one query over all ids that looks for spans delivered twice.
    """
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query))
    if unknown := set(options) - {"table", "secure", "distinct"}:
        raise BadInput(f"{shown}: unknown option {sorted(unknown)[0]!r}; accepted is {_FORM}")
    connection = _connected(parts, options, shown)
    try:
        name = options.get("table", _TABLE)
        table = _table(connection, name, shown)
        spans_here = table.count().to_pyarrow().as_py()
        rows = table.filter(table.TraceId != "", table.SpanId != "")
        skipped = {"malformed": spans_here - rows.count().to_pyarrow().as_py(), "duplicate": 0}
        if spans_here == skipped["malformed"]:
            raise BadInput(f"{shown}: table {name} holds no span")
        if options.get("distinct", "check") == "check":
            distinct = rows.select("TraceId", "SpanId").distinct().count().to_pyarrow().as_py()
            skipped["duplicate"] = spans_here - skipped["malformed"] - distinct
        if skipped["duplicate"]:
            rows = _each_once(rows)
        named = _renamed(rows)
    except BaseException:
        connection.disconnect()
        raise

    def narrow(columns: Iterable[str]) -> Any:
        return promoted(named, columns)

    evaluations = evaluations_of(narrow(NEEDED))
    return Store(shown, promoted(named), skipped, connection, connection.disconnect, evaluations, narrow=narrow)


def _connected(parts: Any, options: dict[str, str], shown: str) -> Any:
    try:
        import ibis

        connect = ibis.clickhouse.connect
        from clickhouse_connect.driver.exceptions import Error, OperationalError
    except (ImportError, AttributeError):
        raise BadInput(f"{shown}: reading ClickHouse needs `pip install 'lstm-trace[clickhouse]'`") from None
    # Without a logging set-up of the application's, Python prints the client's errors: what is raised says the same.
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())
    try:
        return connect(
            host=parts.hostname or "localhost",
            port=parts.port,
            database=unquote(parts.path.lstrip("/")) or "default",
            user=unquote(parts.username or "default"),
            password=unquote(parts.password or ""),
            secure=options.get("secure", "false").lower() in ("true", "1", "yes"),
        )
    except ValueError:  # a port that is no number
        raise BadInput(f"{shown}: not an address; accepted is {_FORM}") from None
    except (Error, OSError) as error:
        said = "does not answer" if isinstance(error, (OperationalError, OSError)) else "answers with an error"
        raise BadInput(f"{shown}: ClickHouse {said} ({_first_line(error)})") from None


def _table(connection: Any, name: str, shown: str) -> Any:
    from clickhouse_connect.driver.exceptions import Error
    from ibis.common.exceptions import IbisError

    try:
        table = connection.table(name)
    except (Error, IbisError) as error:
        raise BadInput(f"{shown}: no table {name} ({_first_line(error)}); the Collector's ClickHouse exporter makes it") from None
    if missing := [column for column in _NEEDED if column not in table.columns]:
        raise BadInput(f"{shown}: table {name} has no column {missing[0]}; accepted is the Collector's ClickHouse exporter's table")
    if not table.SpanAttributes.type().is_map():
        raise BadInput(f"{shown}: column SpanAttributes of {name} is no map; accepted is the exporter's default schema (`json: false`)")
    return table


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _each_once(rows: Any) -> Any:
    import ibis

    number = ibis.row_number().over(ibis.window(group_by=["TraceId", "SpanId"], order_by=rows.Duration.desc()))
    rows = rows.mutate(delivery=number)
    return rows.filter(rows.delivery == 0).drop("delivery")


def _renamed(rows: Any) -> Any:
    """The exporter's columns under our names, in our types."""
    import ibis

    def engine(time: Any) -> Any:
        """Name the types of a function that ClickHouse has: ibis reads the signature and never calls it."""

    nanoseconds = ibis.udf.scalar.builtin(engine, name="toUnixTimestamp64Nano", signature=(("timestamp(9)",), "int64"))  # pyright: ignore[reportCallIssue, reportArgumentType]

    def plain(name: str) -> Any:
        return rows[name].cast("string").nullif("")

    start = nanoseconds(rows.Timestamp)
    start = (start > 0).ifelse(start, ibis.null("int64"))
    # Unsigned in the table: of a span that ends before it starts the exporter leaves two to the power of 64 minus the difference.
    took = rows.Duration.cast("int64")
    scope = plain("ScopeName") if "ScopeName" in rows.columns else rows.SpanAttributes.get("otel.library.name", "").nullif("")
    event_time = rows["Events.Timestamp"].map(lambda time: nanoseconds(time))
    return rows.select(
        trace_id=rows.TraceId.lower(),
        span_id=rows.SpanId.lower(),
        parent_span_id=plain("ParentSpanId").lower(),
        name=plain("SpanName"),
        kind=plain("SpanKind").lower().replace("span_kind_", ""),
        service=plain("ServiceName"),
        scope=scope,
        start_ns=start,
        end_ns=start + took,
        duration_s=(took >= 0).ifelse(took / 1e9, ibis.null("float64")),
        status=plain("StatusCode").lower().replace("status_code_", ""),
        attributes=rows.SpanAttributes.cast("map<string, string>"),
        resource=rows.ResourceAttributes.cast("map<string, string>"),
        events=_zipped(rows["Events.Name"], event_time, rows["Events.Attributes"], names=("name", "time_ns", "attributes")),
        links=_zipped(rows["Links.TraceId"], rows["Links.SpanId"], rows["Links.Attributes"], names=("trace_id", "span_id", "attributes")),
    )


def _zipped(first: Any, second: Any, third: Any, *, names: tuple[str, str, str]) -> Any:
    import ibis

    return first.zip(second, third).map(lambda item: ibis.struct({name: item[f"f{number}"] for number, name in enumerate(names, 1)}))

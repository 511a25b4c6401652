"""The Collector's ClickHouse table through ClickHouse's own engine (chDB), its HTTP protocol, the real client and ibis."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.make_spans import lines
from lstm_trace.errors import BadInput
from lstm_trace.store import convert, open_store
from lstm_trace.store.attributes import number_text
from lstm_trace.store.schema import evaluations_schema, spans_schema
from tests.store.otlp import TRACE, attributes, request, span, write

session = pytest.importorskip("chdb.session")
pytest.importorskip("clickhouse_connect")

from tests.store.clickhouse_server import Handler, Server  # noqa: E402 - needs chDB

# exporter/clickhouseexporter/example/default_ddl/traces.sql, without codecs, indices and TTL
TABLE = """
CREATE TABLE IF NOT EXISTS {name} (
    Timestamp DateTime64(9), TraceId String, SpanId String, ParentSpanId String, TraceState String,
    SpanName LowCardinality(String), SpanKind LowCardinality(String), ServiceName LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String), ScopeName String, ScopeVersion String,
    SpanAttributes Map(LowCardinality(String), String), Duration UInt64,
    StatusCode LowCardinality(String), StatusMessage String,
    Events Nested (Timestamp DateTime64(9), Name LowCardinality(String), Attributes Map(LowCardinality(String), String)),
    Links Nested (TraceId String, SpanId String, TraceState String, Attributes Map(LowCardinality(String), String))
) ENGINE = MergeTree() PARTITION BY toDate(Timestamp) ORDER BY (ServiceName, SpanName, Timestamp)
"""
KINDS = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
CODES = ("Unset", "Ok", "Error")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(session.Session())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    server.session.close()


def plain(value: Mapping[str, Any]) -> Any:
    (form, held), *_ = value.items() or [("stringValue", "")]
    if form == "arrayValue":
        return [plain(item) for item in held.get("values", ())]
    if form == "kvlistValue":
        return {item["key"]: plain(item["value"]) for item in held["values"]}
    return int(held) if form == "intValue" else float(held) if form == "doubleValue" else held


def as_string(value: Mapping[str, Any]) -> str:
    """pcommon.Value.AsString, which the exporter stores."""
    held = plain(value)
    if isinstance(held, str):
        return held
    if isinstance(held, float):
        return number_text(held)
    return json.dumps(held, separators=(",", ":"))


def as_map(entries: Any) -> dict[str, str]:
    made: dict[str, str] = {}
    for entry in entries or ():
        made.setdefault(entry["key"], as_string(entry["value"]))
    return made


def seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def exported(requests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of otel_traces as exporter_traces.go makes them."""
    for group in (group for whole in requests for group in whole["resourceSpans"]):
        resource = as_map(group["resource"].get("attributes"))
        for scope in group["scopeSpans"]:
            for made in scope["spans"]:
                start, end = int(made["startTimeUnixNano"]), int(made["endTimeUnixNano"])
                events, links = made.get("events", []), made.get("links", [])
                yield {
                    "Timestamp": seconds(start),
                    "TraceId": made["traceId"],
                    "SpanId": made["spanId"],
                    "ParentSpanId": made.get("parentSpanId", ""),
                    "SpanName": made["name"],
                    "SpanKind": KINDS[made["kind"]],
                    "ServiceName": resource.get("service.name", ""),
                    "ResourceAttributes": resource,
                    "ScopeName": scope["scope"]["name"],
                    "SpanAttributes": as_map(made.get("attributes")),
                    "Duration": (end - start) % 2**64,
                    "StatusCode": CODES[made["status"].get("code", 0)],
                    "Events.Timestamp": [seconds(int(event["timeUnixNano"])) for event in events],
                    "Events.Name": [event["name"] for event in events],
                    "Events.Attributes": [as_map(event.get("attributes")) for event in events],
                    "Links.TraceId": [link["traceId"] for link in links],
                    "Links.SpanId": [link["spanId"] for link in links],
                    "Links.TraceState": ["" for _ in links],
                    "Links.Attributes": [as_map(link.get("attributes")) for link in links],
                }


def insert(server: Server, name: str, requests: list[dict[str, Any]], table: str = TABLE) -> str:
    """A table of the exporter's making; returns the store's address."""
    server.session.query(table.format(name=name))
    body = "\n".join(json.dumps(row) for row in exported(requests))
    server.session.query(f"INSERT INTO {name} SETTINGS input_format_import_nested_json = 0 FORMAT JSONEachRow {body}")
    return f"{server.address}?table={name}"


def event(name: str, **held: Any) -> dict[str, Any]:
    return {"timeUnixNano": "1750000000000000005", "name": name, "attributes": attributes(held)}


def odd_spans() -> list[dict[str, Any]]:
    """What the made sessions lack: every kind of value, foreign vocabularies, every form of evaluation, odd times."""
    values: list[Any] = ["7", "", "x", 7, 0.5, 1e22, 1e-7, -1, True, "true", "1e400", {"doubleValue": "NaN"}, ["a", 1], "0x1F", " 7"]
    names = (
        "lstm.sequence.length",
        "lstm.prediction.confidence",
        "lstm.prediction.nonfinite",
        "lstm.release",
        "gen_ai.evaluation.score.value",
    )
    made = [span(number, dict.fromkeys(names, value)) for number, value in enumerate(values, 100)]
    judged = {"evaluations.0.evaluation.name": "oi", "evaluations.0.evaluation.score": 0.5}
    ours = {"gen_ai.evaluation.name": "g", "lstm.evaluation.identifier": "same"}
    return [
        *made,
        span(
            200, {"gen_ai.operation.name": "chat", "gen_ai.usage.prompt_tokens": 3, "gen_ai.system": "openai", "gen_ai.request.model": "m"}
        ),
        span(198, {"llm.request.type": "chat", "gen_ai.usage.prompt_tokens": 7}),
        span(199, {"traceloop.span.kind": "workflow", "traceloop.entity.name": "claims"}),
        span(201, {"fi.span.kind": "llm", "llm.model": "m2", "llm.token_count.prompt": 5, "enduser.id": "u"}, parentSpanId=f"{200:016x}"),
        span(202, judged, links=[{"traceId": "e" * 32, "spanId": "d" * 16, "attributes": attributes({"k": "v"})}]),
        span(203, judged | {"openinference.span.kind": "EVALUATOR"}, parentSpanId=f"{200:016x}"),
        span(204, judged),
        span(205, ours | {"gen_ai.evaluation.score.value": 0.1, "lstm.evaluation.target.trace_id": TRACE.upper()}),
        span(206, ours | {"gen_ai.evaluation.score.label": "fail"}, endTimeUnixNano="1750000009000000000"),
        span(
            207,
            events=[event("gen_ai.evaluation.result", **{"gen_ai.evaluation.name": "e", "gen_ai.evaluation.score.value": 1}), event("x")],
        ),
        span(208, {"gen_ai.evaluation.name": "nothing"}, endTimeUnixNano="1"),
        span(209, kind=3, status={"code": 2}, name='it\'s "here" \\ \n \u202e'),
        span(210, status={"code": 1}, kind=0),
    ]


def everything(store: Any) -> tuple[list[Any], list[Any]]:
    def plain_rows(table: Any, *by: str) -> list[Any]:
        return table.order_by(*by).to_pyarrow().to_pylist()

    return plain_rows(store.spans, "trace_id", "span_id"), plain_rows(store.evaluations, "trace_id", "span_id", "evaluation_name")


def test_clickhouse_and_duckdb_give_equal_rows(server: Server, tmp_path: Path) -> None:
    requests = [json.loads(line) for line in lines(160)] + [request(*odd_spans(), resource={"service.name": "odd", "service.version": "9"})]
    requests.append(requests[0])  # delivered twice
    with open_store(write(tmp_path / "spans.jsonl", *requests)) as here, open_store(insert(server, "equal_rows", requests)) as there:
        assert there.spans.schema() == spans_schema()
        assert there.evaluations.schema() == evaluations_schema()
        assert there.skipped == here.skipped == {"malformed": 0, "duplicate": 160}
        expected, found = everything(here), everything(there)
        assert len(expected[0]) == 160 + 28
        for mine, theirs in zip(expected[0] + expected[1], found[0] + found[1], strict=True):
            assert theirs == mine
        trace = here.trace("1".zfill(32)).to_pyarrow().to_pylist()
        assert there.trace("1".zfill(32)).to_pyarrow().to_pylist() == trace
        assert len(trace) == 7
        convert(there, tmp_path / "out.parquet")
    with open_store(tmp_path / "out.parquet") as copied:
        assert everything(copied) == expected


def test_an_older_exporters_table_is_read_too(server: Server) -> None:
    older = TABLE.replace("ScopeName String, ScopeVersion String,", "").replace("Duration UInt64", "Duration Int64")
    made = request(span(1, {"lstm.sequence.length": 3}, kind=3, status={"code": 2}))
    address = insert(server, "older", [made], older)
    server.session.query(
        "ALTER TABLE older UPDATE SpanKind = 'SPAN_KIND_CLIENT', StatusCode = 'STATUS_CODE_ERROR' WHERE 1 SETTINGS mutations_sync = 1"
    )
    with open_store(address) as store:
        assert store.spans.select("kind", "status", "length", "scope").to_pyarrow().to_pylist() == [
            {"kind": "client", "status": "error", "length": 3, "scope": None}
        ]


def test_rows_without_ids_are_left_out_and_counted(server: Server) -> None:
    with open_store(insert(server, "no_ids", [request(span(1), span(2, traceId=""), span(3, spanId=""))])) as store:
        assert store.skipped == {"malformed": 2, "duplicate": 0}
        assert store.spans.count().to_pyarrow().as_py() == 1


def test_deliveries_are_not_compared_where_the_address_says_so(server: Server) -> None:
    with open_store(insert(server, "twice", [request(span(1)), request(span(1))]) + "&distinct=trust") as store:
        assert store.skipped["duplicate"] == 0


def test_what_is_no_store_is_refused_in_one_line(server: Server) -> None:
    server.session.query("CREATE TABLE IF NOT EXISTS other (a String) ENGINE = Memory")
    server.session.query(TABLE.format(name="empty"))
    json_type = TABLE.format(name="json_type").replace("SpanAttributes Map(LowCardinality(String), String)", "SpanAttributes JSON")
    server.session.query(json_type)
    for address, says in [
        (f"{server.address}?table=missing", "no table missing"),
        (f"{server.address}?table=other", "no column Timestamp"),
        (f"{server.address}?table=empty", "table empty holds no span"),
        (f"{server.address}?table=json_type", "SpanAttributes of json_type is no map"),
        (f"{server.address}?tabel=x", "unknown option 'tabel'"),
        ("clickhouse://127.0.0.1:1/default", "does not answer"),
        ("clickhouse://127.0.0.1:port/default", "not an address"),
        ("clickhouse://me:secret@127.0.0.1:1/default", "clickhouse://me:***@127.0.0.1:1/default"),
    ]:
        with pytest.raises(BadInput) as caught:
            open_store(address)
        message = str(caught.value)
        assert says in message
        assert "\n" not in message
        assert "secret" not in message


def refused(handler: Handler) -> bool:
    """As ClickHouse answers a wrong password."""
    said = (
        b"Code: 516. DB::Exception: me: Authentication failed: password is incorrect, or there is no user with such name.\n\nIf you forgot"
    )
    handler.send_response(403)
    handler.send_header("X-ClickHouse-Exception-Code", "516")
    handler.send_header("Content-Length", str(len(said)))
    handler.end_headers()
    handler.wfile.write(said)
    return True


def gone(handler: Handler) -> bool:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
    return True


def test_a_wrong_password_and_a_server_that_goes_away_are_one_line(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    address = insert(server, "going", [request(span(1))])
    try:
        server.instead = refused
        with pytest.raises(BadInput, match=r"clickhouse://me:\*\*\*@.* answers with an error .*Authentication failed"):
            open_store(address.replace("//", "//me:secret@"))
        server.instead = gone
        with pytest.raises(BadInput, match="ClickHouse does not answer"):
            open_store(address)
        server.instead = None
        with pytest.raises(Exception, match=r"table=going: .*Remote end closed"), open_store(address) as store:  # noqa: PT012 - both parts
            server.instead = gone
            store.spans.count().to_pyarrow()
    finally:
        server.instead = None
    assert capfd.readouterr().err == ""

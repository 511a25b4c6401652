from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_trace.store import open_store
from lstm_trace.store.attributes import number_text
from lstm_trace.store.schema import COLUMNS, spans_schema
from tests.store.otlp import START, TRACE, attributes, one, request, rows, span, spans_in, write


def test_a_span_is_read_whole(tmp_path: Path) -> None:
    made = span(
        2,
        {
            "lstm.component.name": "intent",
            "lstm.sequence.length": 14,
            "lstm.prediction.confidence": 0.25,
            "lstm.prediction.nonfinite": False,
        },
        parentSpanId=f"{1:016x}",
        kind=3,
        status={"code": 2, "message": "no"},
        events=[{"timeUnixNano": str(START), "name": "lstm.prediction", "attributes": attributes({"lstm.batch.index": 0})}],
        links=[{"traceId": TRACE, "spanId": f"{9:016x}", "attributes": attributes({"lstm.link.kind": "upstream"})}],
    )
    resource = {"service.name": "claims", "service.version": "2026.11"}
    with open_store(write(tmp_path / "spans.jsonl", request(made, resource=resource, scope="lstm_trace"))) as store:
        table = store.spans.to_pyarrow()
        assert store.spans.schema() == spans_schema()
        assert store.skipped == {"malformed": 0, "duplicate": 0}
    found = {name: held for name, held in table.to_pylist()[0].items() if held is not None}
    assert found == {
        "trace_id": TRACE,
        "span_id": "0000000000000002",
        "parent_span_id": "0000000000000001",
        "name": "span 2",
        "kind": "client",
        "service": "claims",
        "scope": "lstm_trace",
        "start_ns": START + 2,
        "end_ns": START + 2 + 1_500_000_000,
        "duration_s": 1.5,
        "status": "error",
        "release": "2026.11",
        "component": "intent",
        "length": 14,
        "confidence": 0.25,
        "nonfinite": False,
        "attributes": [
            ("lstm.component.name", "intent"),
            ("lstm.sequence.length", "14"),
            ("lstm.prediction.confidence", "0.25"),
            ("lstm.prediction.nonfinite", "false"),
        ],
        "resource": [("service.name", "claims"), ("service.version", "2026.11")],
        "events": [{"name": "lstm.prediction", "time_ns": START, "attributes": [("lstm.batch.index", "0")]}],
        "links": [{"trace_id": TRACE, "span_id": "0000000000000009", "attributes": [("lstm.link.kind", "upstream")]}],
    }


def test_every_promoted_column_reads_each_of_its_attributes(tmp_path: Path) -> None:
    samples = {"string": "text", "int64": 7, "float64": 0.5, "boolean": True}
    asked = [(column, name) for column in COLUMNS for name in column.attributes]
    made = [span(number, {name: samples[column.type]}) for number, (column, name) in enumerate(asked, 1)]
    found, _ = spans_in(write(tmp_path / "spans.jsonl", request(*made)))
    for (column, name), row in zip(asked, found, strict=True):
        expected = samples[column.type]
        assert row[column.name] == ("TEXT" if column.case == "upper" else expected), name


def test_the_first_attribute_that_reads_as_the_type_wins(tmp_path: Path) -> None:
    both = {"llm.token_count.prompt": 5, "gen_ai.usage.input_tokens": 6}
    assert one(tmp_path, span(1, both), "input_tokens") == 6
    unreadable = {"gen_ai.usage.input_tokens": "many", "llm.token_count.prompt": 5}
    assert one(tmp_path, span(1, unreadable), "input_tokens") == 5


def test_release_is_the_spans_own_before_the_resources_version(tmp_path: Path) -> None:
    path = write(
        tmp_path / "spans.jsonl",
        request(span(1), span(2, {"lstm.release": "v2"}), resource={"service.version": "v1"}),
        request(span(3), resource={"lstm.release": "r", "service.version": "v1"}),
    )
    with open_store(path) as store:
        assert rows(store, "release") == ["v1", "v2", "r"]


@pytest.mark.parametrize(
    ("fields", "column", "expected"),
    [
        ({"startTimeUnixNano": START}, "start_ns", START),
        ({"startTimeUnixNano": "soon"}, "start_ns", None),
        ({"startTimeUnixNano": "9999999999999999999"}, "start_ns", None),
        ({"startTimeUnixNano": "0"}, "duration_s", None),
        ({"endTimeUnixNano": "1"}, "duration_s", None),
        ({"endTimeUnixNano": None}, "end_ns", None),
        ({"kind": "SPAN_KIND_CLIENT"}, "kind", "client"),
        ({"kind": "3"}, "kind", "client"),
        ({"kind": 77}, "kind", "unspecified"),
        ({"kind": None}, "kind", "unspecified"),
        ({"status": {"code": "STATUS_CODE_ERROR"}}, "status", "error"),
        ({"status": {"code": 1}}, "status", "ok"),
        ({"status": None}, "status", "unset"),
        ({"status": "broken"}, "status", "unset"),
        ({"name": None}, "name", None),
        ({"parentSpanId": ""}, "parent_span_id", None),
        ({"parentSpanId": "0" * 16}, "parent_span_id", None),
        ({"spanId": "ABCDEF0123456789"}, "span_id", "abcdef0123456789"),
        ({"traceId": "CvdlGRbNQ92ESOshHIAxnA=="}, "trace_id", TRACE),
        ({"attributes": None}, "attributes", []),
        ({"attributes": "broken"}, "attributes", []),
        ({"events": [None, 5, {"name": "e"}]}, "events", [{"name": "e", "time_ns": None, "attributes": []}]),
    ],
    ids=repr,
)
def test_fields_in_the_forms_that_writers_use(tmp_path: Path, fields: dict[str, object], column: str, expected: object) -> None:
    found = one(tmp_path, span(1, **fields), column)
    if column == "events":
        found = [event for event in found if event["name"]]
    assert found == expected


@pytest.mark.parametrize(
    ("held", "text", "length", "confidence"),
    [
        ({"intValue": "7"}, "7", 7, 7.0),
        ({"intValue": 7}, "7", 7, 7.0),
        ({"stringValue": "7"}, "7", 7, 7.0),
        ({"doubleValue": 7.0}, "7", 7, 7.0),
        ({"doubleValue": 0.5}, "0.5", None, 0.5),
        ({"doubleValue": "NaN"}, "NaN", None, None),
        ({"doubleValue": "-Infinity"}, "-Infinity", None, None),
        ({"doubleValue": 1e22}, "1e+22", None, 1e22),
        ({"stringValue": "0x1F"}, "0x1F", None, None),
        ({"stringValue": "nan"}, "nan", None, None),
        ({"stringValue": "inf"}, "inf", None, None),
        ({"stringValue": ""}, "", None, None),
        ({"intValue": "99999999999999999999"}, "99999999999999999999", None, 1e20),
        ({"boolValue": True}, "true", None, None),
        ({"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "2"}, {"arrayValue": {}}]}}, '["a",2,[]]', None, None),
        ({"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": False}}]}}, '{"k":false}', None, None),
        ({"bytesValue": "AAE="}, "AAE=", None, None),
        ({}, "", None, None),
    ],
    ids=repr,
)
def test_values_of_any_type_are_kept_as_text_and_promoted_where_they_read_as_the_type(
    tmp_path: Path, held: dict[str, object], text: str, length: int | None, confidence: float | None
) -> None:
    made = span(1, {"lstm.sequence.length": held, "lstm.prediction.confidence": held})
    kept, found_length, found_confidence = one(tmp_path, made, "attributes", "length", "confidence")
    assert kept == [("lstm.sequence.length", text), ("lstm.prediction.confidence", text)]
    assert (found_length, found_confidence) == (length, confidence)


def test_arrays_that_are_no_json_by_the_book_are_kept(tmp_path: Path) -> None:
    deep = "[" * 3000 + "]" * 3000
    line = json.dumps(request(span(1, {"numbers": [0.5, float("nan"), float("inf")]}), span(2, {"deep": {"arrayValue": "DEEP"}})))
    spans, tally = spans_in(write(tmp_path / "spans.jsonl", line.replace('"DEEP"', deep)))
    numbers, nested = (dict(row["attributes"]) for row in spans)
    assert numbers == {"numbers": "[0.5,null,null]"}
    assert nested["deep"] in (deep, "[]")  # a Python that can read so deep an array finds no values in it
    assert tally.malformed == 0


def test_lines_of_any_length_are_read_in_their_order(tmp_path: Path) -> None:
    sizes = [1, 400_000, 1, 1, 300_000, *[2_000] * 500, 700_000]
    lines = [request(span(number, {"text": "x" * size})) for number, size in enumerate(sizes, start=1)]
    spans, tally = spans_in(write(tmp_path / "spans.jsonl", *lines[:3], "", *lines[3:]))
    assert [len(dict(row["attributes"])["text"]) for row in spans] == sizes
    assert [row["span_id"] for row in spans] == [f"{number:016x}" for number in range(1, len(sizes) + 1)]
    assert tally.malformed == 0


def test_of_an_attribute_given_twice_the_first_counts(tmp_path: Path) -> None:
    made = span(1, attributes=attributes({"a": "1", "b": "2"}) + attributes({"a": "3"}))
    assert one(tmp_path, made, "attributes") == [("a", "1"), ("b", "2")]


def test_several_resources_scopes_and_spans_on_one_line(tmp_path: Path) -> None:
    first, second = (
        request(span(1), span(2), resource={"service.name": "a"}),
        request(span(3), resource={"service.name": "b"}, scope="other"),
    )
    first["resourceSpans"][0]["scopeSpans"].append({"scope": {"name": "later"}, "spans": [span(4)]})
    both = {"resourceSpans": first["resourceSpans"] + [{"scopeSpans": []}, {}] + second["resourceSpans"]}
    with open_store(write(tmp_path / "spans.jsonl", both)) as store:
        assert rows(store, "name", "service", "scope") == [
            ("span 1", "a", "lib"),
            ("span 2", "a", "lib"),
            ("span 3", "b", "other"),
            ("span 4", "a", "later"),
        ]


def snake(item: object) -> object:
    if isinstance(item, dict):
        return {"".join("_" + letter.lower() if letter.isupper() else letter for letter in key): snake(held) for key, held in item.items()}
    return [snake(held) for held in item] if isinstance(item, list) else item


@pytest.mark.parametrize(
    "bent",
    [
        lambda whole: snake(whole),
        lambda whole: {"result": whole},
        lambda whole: [whole],
        lambda whole: json.loads(json.dumps(whole).replace("scopeSpans", "instrumentationLibrarySpans")),
        lambda whole: json.dumps(whole).replace('"a"', '"a\\ud800"').replace('"0.5"', "0.5"),
        lambda whole: json.dumps(whole).replace('"0.5"', "NaN"),
        lambda whole: "\ufeff" + json.dumps(whole),
        lambda whole: json.dumps(whole) + "\r",
        lambda whole: json.dumps(whole, indent=2),
    ],
    ids=[
        "field names of the protobuf",
        "Jaeger's envelope",
        "an array",
        "the older name",
        "half a surrogate pair",
        "NaN",
        "BOM",
        "CRLF",
        "indented",
    ],
)
def test_bent_forms_are_read_too(tmp_path: Path, bent: object) -> None:
    whole = request(span(1, {"a": "a", "n": {"doubleValue": "0.5"}, "lstm.sequence.length": 3}))
    (row,), tally = spans_in(write(tmp_path / "spans.json", bent(whole)))
    assert (row["trace_id"], row["name"], row["length"], row["start_ns"]) == (TRACE, "span 1", 3, START + 1)
    assert tally.malformed == 0


def test_one_trace_in_the_order_of_its_spans(tmp_path: Path) -> None:
    other = span(1, traceId="f" * 32)
    with open_store(write(tmp_path / "spans.jsonl", request(span(3), other, span(1), span(2)))) as store:
        assert store.trace(TRACE.upper()).to_pyarrow().column("name").to_pylist() == ["span 1", "span 2", "span 3"]
        assert store.trace("e" * 32).count().to_pyarrow().as_py() == 0


scalars = st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans())


@settings(max_examples=40, deadline=None)
@given(held=st.lists(st.dictionaries(st.text(), scalars, max_size=5), min_size=1, max_size=6))
def test_whatever_text_and_numbers_are_written_come_back(tmp_path_factory: pytest.TempPathFactory, held: list[dict[str, object]]) -> None:
    def text(item: object) -> str:
        return str(item).lower() if isinstance(item, bool) else number_text(item) if isinstance(item, float) else str(item)

    made = [span(number, given_) for number, given_ in enumerate(held, 1)]
    line = json.dumps(request(*made), ensure_ascii=False).encode("utf-8", "surrogatepass")
    found, tally = spans_in(write(tmp_path_factory.mktemp("s") / "spans.jsonl", line))
    assert [dict(row["attributes"]) for row in found] == [{key: text(item) for key, item in one_.items()} for one_ in held]
    assert tally.malformed == 0

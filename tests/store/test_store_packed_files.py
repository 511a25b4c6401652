from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from lstm_trace.store import open_store
from lstm_trace.store.blocks import BLOCK
from tests.store.otlp import START, TRACE, request, rows, span, spans_in

LINES = [json.dumps(request(span(number, {"lstm.sequence.length": number}))).encode() for number in range(1, 4)]


def zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


def delimited(*messages: bytes) -> bytes:
    """Four bytes of length before each, as the Collector's file exporter writes."""
    return b"".join(len(message).to_bytes(4, "big") + message for message in messages)


def varint_delimited(*messages: bytes) -> bytes:
    """As protobuf's writeDelimitedTo writes."""

    def varint(number: int) -> bytes:
        out = b""
        while number > 0x7F:
            out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
        return out + bytes([number])

    return b"".join(varint(len(message)) + message for message in messages)


def any_value(held: Any) -> AnyValue:
    if isinstance(held, bool):
        return AnyValue(bool_value=held)
    if isinstance(held, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in held]))
    if isinstance(held, dict):
        return AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key=key, value=any_value(item)) for key, item in held.items()]))
    if held is None:
        return AnyValue()
    name = {int: "int_value", float: "double_value", str: "string_value", bytes: "bytes_value"}[type(held)]
    return AnyValue(**{name: held})


def message(number: int, **held: Any) -> bytes:
    """One request as protobuf, of one span that is ``otlp.span(number)``."""
    whole = ExportTraceServiceRequest()
    group = whole.resource_spans.add()
    group.resource.attributes.add(key="service.name", value=any_value("claims"))
    scope = group.scope_spans.add()
    scope.scope.name = "lib"
    made = scope.spans.add(
        trace_id=bytes.fromhex(TRACE),
        span_id=number.to_bytes(8, "big"),
        name=f"span {number}",
        kind=1,
        start_time_unix_nano=START + number,
        end_time_unix_nano=START + number + 1_500_000_000,
        attributes=[KeyValue(key=key.replace("__", "."), value=any_value(item)) for key, item in held.items()],
    )
    made.events.add(time_unix_nano=START, name="e", attributes=[KeyValue(key="k", value=any_value(1))])
    made.links.add(trace_id=bytes.fromhex(TRACE), span_id=(9).to_bytes(8, "big"))
    made.status.code = 2
    return whole.SerializeToString()


MESSAGES = [message(number, lstm__sequence__length=number) for number in range(1, 4)]
WHOLE = b"\n".join(LINES) + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        WHOLE,
        WHOLE[:-1],
        gzip.compress(WHOLE),
        gzip.compress(LINES[0] + b"\n") + gzip.compress(b"\n".join(LINES[1:])),
        zstd(WHOLE),
        zstd(LINES[0] + b"\n") + zstd(b"\n".join(LINES[1:])),
        delimited(*(zstd(line) for line in LINES)),
        delimited(*LINES),
        delimited(*MESSAGES),
        delimited(*(zstd(one) for one in MESSAGES)),
        varint_delimited(*MESSAGES),
        b"".join(MESSAGES),
        gzip.compress(delimited(*MESSAGES)),
        zstd(delimited(*MESSAGES)),
    ],
    ids=[
        "lines",
        "last line unended",
        "gzip",
        "gzip of two members",
        "zstd",
        "zstd of two frames",
        "the Collector's compressed JSON",
        "JSON with lengths",
        "the Collector's protobuf",
        "the Collector's compressed protobuf",
        "protobuf's own delimiting",
        "one request, concatenated messages are one",
        "protobuf in gzip",
        "protobuf in zstd",
    ],
)
def test_a_file_is_told_by_its_content(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spans.bin"
    path.write_bytes(content)
    found, tally = spans_in(path)
    assert [(row["name"], row["length"], row["service"], row["start_ns"]) for row in found] == [
        (f"span {n}", n, "claims", START + n) for n in (1, 2, 3)
    ]
    assert tally.malformed == 0


def test_packed_files_of_a_folder_are_one_store(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LINES[0]))
    (tmp_path / "b.json.zst").write_bytes(zstd(LINES[1]))
    (tmp_path / "c.pb").write_bytes(MESSAGES[2])
    with open_store(tmp_path) as store:
        assert rows(store, "name", "length") == [("span 1", 1), ("span 2", 2), ("span 3", 3)]
        assert store.skipped == {"malformed": 0, "duplicate": 0}


@pytest.mark.parametrize(
    "content",
    [
        WHOLE[:-5],
        gzip.compress(WHOLE)[:-12],
        zstd(b"\n".join(LINES[:2]) + b"\n") + zstd(LINES[2])[:-20],
        delimited(*MESSAGES)[:-5],
        delimited(*MESSAGES[:2]) + b"\0\0",
        delimited(*MESSAGES[:2], b"\x0a\xff\xff"),
        delimited(*(zstd(line) for line in LINES))[:-3],
        varint_delimited(*MESSAGES)[:-5],
    ],
    ids=["lines", "gzip", "zstd", "lengths", "half a length", "a damaged message", "compressed messages", "varints"],
)
def test_a_file_that_its_writer_still_writes_gives_what_is_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_bytes(content)
    found, tally = spans_in(path)
    assert [row["name"] for row in found][:2] == ["span 1", "span 2"]
    assert tally.malformed >= 1


def test_protobuf_says_what_json_says(tmp_path: Path) -> None:
    held = {
        "a": "x",
        "b": 7,
        "c": 0.5,
        "d": True,
        "e": ["x", 1, [False]],
        "f": {"k": 1},
        "g": b"\0\1",
        "h": None,
        "i": float("nan"),
        "j": 2**62,
    }
    (tmp_path / "spans.pb").write_bytes(message(1, **held))
    with open_store(tmp_path / "spans.pb") as store:
        assert rows(store, "attributes", "events", "links", "status", "kind", "scope", "duration_s") == [
            (
                [
                    ("a", "x"),
                    ("b", "7"),
                    ("c", "0.5"),
                    ("d", "true"),
                    ("e", '["x",1,[false]]'),
                    ("f", '{"k":1}'),
                    ("g", "AAE="),
                    ("h", ""),
                    ("i", "NaN"),
                    ("j", str(2**62)),
                ],
                [{"name": "e", "time_ns": START, "attributes": [("k", "1")]}],
                [{"trace_id": TRACE, "span_id": f"{9:016x}", "attributes": []}],
                "error",
                "internal",
                "lib",
                1.5,
            )
        ]


def test_lines_longer_than_a_block_and_blocks_that_end_in_a_line(tmp_path: Path) -> None:
    filler = ["x" * (BLOCK // 3 + number) for number in range(8)]
    made = [json.dumps(request(span(number, {"f": text}))).encode() for number, text in enumerate(filler, 1)]
    made.insert(3, json.dumps(request(span(20, {"f": "y" * (2 * BLOCK)}))).encode())
    path = tmp_path / "spans.jsonl"
    path.write_bytes(b"\n".join(made))
    with open_store(path) as store:
        assert rows(store, "name") == [f"span {number}" for number in (*range(1, 9), 20)]
        assert store.skipped["malformed"] == 0


def test_a_file_that_grows_while_it_is_read_ends_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_bytes(LINES[0] + b"\n")
    stop = threading.Event()

    def write_on() -> None:
        number = 2
        with path.open("ab") as file:
            while not stop.wait(0.0005):
                file.write(json.dumps(request(span(number))).encode() + b"\n")
                file.flush()
                number += 1

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        counts = []
        for _ in range(2):
            with open_store(path) as store:
                counts.append(store.spans.count().to_pyarrow().as_py())
                assert store.skipped["malformed"] <= 1
    finally:
        stop.set()
        writer.join()
    assert counts == sorted(counts)
    with open_store(path) as store:
        assert store.skipped["malformed"] == 0
        assert store.spans.count().to_pyarrow().as_py() == len(path.read_bytes().splitlines())


@settings(max_examples=50, deadline=None)
@given(
    content=st.binary(min_size=1, max_size=80),
    head=st.sampled_from([b"", b"\x0a", b"\0\0\0\x05\x0a", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08", b"PAR1"]),
)
def test_damaged_files_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, head: bytes) -> None:
    path = tmp_path_factory.mktemp("s") / "spans.bin"
    path.write_bytes(head + content)
    assert spans_in(path)[0] == []


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_cut_of_a_packed_file_gives_a_beginning_of_it(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([delimited(*MESSAGES), zstd(WHOLE), gzip.compress(WHOLE), varint_delimited(*MESSAGES)]))
    path = tmp_path_factory.mktemp("s") / "spans.bin"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    found = [row["name"] for row in spans_in(path)[0]]
    assert found == ["span 1", "span 2", "span 3"][: len(found)]

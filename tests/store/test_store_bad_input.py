from __future__ import annotations

import gc
import gzip
import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lstm_trace.errors import BadInput
from lstm_trace.store import open_store
from tests.store.otlp import TRACE, attributes, one, request, rows, span, spans_in, write

GOOD = json.dumps(request(span(1))).encode()


def refused(path: object) -> str:
    with pytest.raises(BadInput) as caught:
        open_store(os.fspath(path))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n ", "is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not a store of traces"),
        (bytes(random.Random(1).randbytes(5000)), "is not a store of traces"),
        (b"hello\nworld\n", "holds no span (2 malformed)"),
        (b'{"resourceSpans": [', "holds no span (1 malformed)"),
        (b"{}\n[]\n", "holds no span (1 other signals)"),
        (b'{"resourceLogs": []}\n', "holds no span (1 other signals)"),
        (json.dumps(request(span(1, traceId="0" * 32))).encode(), "holds no span (1 malformed)"),
        (gzip.compress(b""), "is empty"),
        (b"\x1f\x8bnot gzip at all", "is not a store of traces"),
        (b"PAR1 but not Parquet", "Parquet"),
    ],
    ids=[
        "nothing",
        "blank",
        "png",
        "noise",
        "text",
        "cut",
        "empty objects",
        "logs",
        "no ids",
        "empty gzip",
        "broken gzip",
        "broken parquet",
    ],
)
def test_a_file_without_spans_is_refused_by_name(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "given.jsonl"
    path.write_bytes(content)
    message = refused(path)
    assert message.startswith(str(path))
    assert says in message


def test_a_place_that_is_no_store_is_refused_by_name(tmp_path: Path) -> None:
    assert "no such file or folder" in refused(tmp_path / "missing")
    assert "a folder without traces" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert "a folder without traces" in refused(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert str(tmp_path / "loop") in refused(tmp_path / "loop")
    assert "sqlite://" in refused("sqlite://x")
    assert "empty address" in refused("")
    assert "\0" not in refused("a\0b")
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in refused(tmp_path / "pipe")


def test_what_cannot_be_read_is_skipped_and_counted(tmp_path: Path) -> None:
    lines = [
        GOOD,
        GOOD[:-20],
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"null",
        b'{"resourceSpans": "text"}',
        json.dumps(request(span(2, traceId=None), span(3, spanId="xyz"), span(4), span(5, spanId=7))).encode(),
        b'{"resourceMetrics": []}',
        b"{" * 5000,
    ]
    path = write(tmp_path / "spans.jsonl", *lines)
    with path.open("ab") as file:
        file.write(GOOD[: len(GOOD) // 2])  # the writer is alive
    with open_store(path) as store:
        assert rows(store, "name") == ["span 1", "span 4"]
        # 7 values on 6 lines (one holds two), 3 spans, and the line that is still being written
        assert store.skipped == {"malformed": 11, "duplicate": 0, "other_signals": 1}


def test_a_broken_line_costs_no_other_line(tmp_path: Path) -> None:
    lines = [json.dumps(request(span(number))).encode() for number in range(1, 301)]
    lines[150] = lines[150][:100]
    lines[299] = lines[299][:-1]
    with open_store(write(tmp_path / "spans.jsonl", *lines)) as store:
        assert store.spans.count().to_pyarrow().as_py() == 298
        assert store.skipped["malformed"] == 2


def test_the_same_span_delivered_again_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", request(span(1), span(2)), request(span(1)))
    write(tmp_path / "b.jsonl", request(span(2), span(3)), request(span(3, traceId="f" * 32)))
    with open_store(tmp_path) as store:
        assert rows(store, "trace_id", "name") == [(TRACE, "span 1"), (TRACE, "span 2"), (TRACE, "span 3"), ("f" * 32, "span 3")]
        assert store.skipped == {"malformed": 0, "duplicate": 2}


def test_one_bad_file_in_a_folder_costs_no_other(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", request(span(1)))
    write(tmp_path / "sub" / "b.json", request(span(2)))
    (tmp_path / "c.jsonl").write_bytes(b"")
    (tmp_path / "d.bin").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    (tmp_path / "e.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    (tmp_path / "f.jsonl").symlink_to(tmp_path / "f.jsonl")
    (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / ".hidden.jsonl").write_bytes(GOOD.replace(b"span 1", b"hidden"))
    (tmp_path / "report.html").write_text("<p>")
    with open_store(tmp_path) as store:
        assert rows(store, "name") == ["span 1", "span 2"]
        assert store.skipped == {"malformed": 0, "duplicate": 0, "unreadable": 3}


def test_a_linked_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.jsonl", request(span(1)))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with open_store(tmp_path / "store") as store:
        assert rows(store, "name") == ["span 1"]


def test_a_file_that_is_closed_to_us(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", request(span(1)))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "cannot be read" in refused(path)


def test_a_huge_attribute_and_a_huge_line(tmp_path: Path) -> None:
    huge = "x" * (20 << 20)
    path = write(tmp_path / "spans.jsonl", request(span(1)), request(span(2, {"input.value": huge})), request(span(3)))
    with open_store(path) as store:
        assert rows(store, "name") == ["span 1", "span 2", "span 3"]
        held = store.spans.filter(store.spans.name == "span 2").attributes.to_pyarrow()[0].as_py()
    assert held == [("input.value", huge)]


HOSTILE = [
    "'; drop table spans; --",
    '"quoted"',
    "a\0b",
    "\u202e\U0001f4a3",
    "<script>alert(1)</script>",
    "%s {0} $1",
    "\\",
    "\n\r\t",
    "x" * 70000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
def test_hostile_text_stays_text(tmp_path: Path, text: str) -> None:
    made = span(1, {text: text, "lstm.prediction.label": text, "lstm.release": text}, name=text)
    assert one(tmp_path, made, "name", "label", "release") == (text, text, text)


def test_hostile_folder_names(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "here" *[a]?{b}%'
    write(folder / "x'y.jsonl", request(span(1)))
    with open_store(folder) as store:
        assert rows(store, "name") == ["span 1"]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "spans.jsonl", request(span(1)))
    with open_store(path) as store:
        assert rows(store, "name") == ["span 1"]
    (tmp_path / "bad.jsonl").write_text("hello")
    refused(tmp_path / "bad.jsonl")
    open_store(path)  # and nobody closes it
    gc.collect()
    assert list(scratch.iterdir()) == []
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bad.jsonl", "scratch", "spans.jsonl"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "resourceSpans",
                    "scopeSpans",
                    "spans",
                    "attributes",
                    "key",
                    "value",
                    "stringValue",
                    "intValue",
                    "doubleValue",
                    "traceId",
                    "events",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(held=json_values)
def test_no_json_of_any_shape_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, held: object) -> None:
    whole = {"resourceSpans": [{"scopeSpans": [{"spans": [span(2, attributes=held), held]}, held]}, held]}
    found, _ = spans_in(write(tmp_path_factory.mktemp("s") / "s.jsonl", request(span(1)), whole, json.dumps(held)))
    assert found[0]["name"] == "span 1"


@settings(max_examples=60, deadline=None)
@example(noise=b"\x00\x00\x00\x00" + 6 * b"\x80", at=26)
@given(noise=st.binary(max_size=60), at=st.integers(0, len(GOOD)))
def test_no_bytes_between_lines_or_in_them_break_the_reader(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    found, _ = spans_in(write(tmp_path_factory.mktemp("s") / "s.jsonl", GOOD, GOOD[:at] + noise + GOOD[at:], noise, GOOD))
    assert sum(row["name"] == "span 1" for row in found) >= 2


@settings(max_examples=15, deadline=None)
@given(content=st.binary(max_size=200))
def test_a_file_of_any_bytes_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("s") / "s.jsonl"
    path.write_bytes(content)
    assert refused(path)


def test_attributes_that_are_not_text_by_key(tmp_path: Path) -> None:
    entries = [*attributes({"good": "1"}), {"key": None, "value": {"stringValue": "x"}}, {"value": {"stringValue": "y"}}, {"key": "empty"}]
    assert one(tmp_path, span(1, attributes=entries), "attributes") == [("good", "1"), ("empty", "")]


def test_what_is_missing_may_have_been_among_what_was_skipped(tmp_path):
    from lstm_trace.analyse.cohorts import cohorts
    from lstm_trace.analyse.diagnose import diagnose
    from lstm_trace.analyse.onetrace import read_trace

    path = tmp_path / "spans.jsonl"
    path.write_text("\n".join([json.dumps(request(span(1, {"lstm.release": "v1"}), span(2, {"lstm.release": "v2"}))), "{broken", '{"a"']))
    with open_store(path) as store:
        for look in (
            lambda: diagnose(store, "v1", "v2"),
            lambda: diagnose(store, "v1", "v3"),
            lambda: cohorts(store, evaluation="answer_quality"),
            lambda: read_trace(store, "f" * 32),
        ):
            with pytest.raises(BadInput, match=r"\(2 malformed skipped\)$"):
                look()

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from lstm_trace.errors import BadInput
from lstm_trace.store import convert, open_store
from lstm_trace.store.schema import evaluations_schema, spans_schema
from tests.store.otlp import TRACE, attributes, request, rows, span, write


def everything(store: object) -> tuple[list[object], list[object]]:
    def sorted_rows(table: object) -> list[object]:
        return sorted(table.to_pyarrow().to_pylist(), key=repr)

    return sorted_rows(store.spans), sorted_rows(store.evaluations)


def judged(number: int, identifier: str, score: float) -> dict[str, object]:
    return span(
        number,
        {"gen_ai.evaluation.name": "g", "gen_ai.evaluation.score.value": score, "lstm.evaluation.identifier": identifier, "n": number},
        links=[{"traceId": TRACE, "spanId": f"{1:016x}"}],
    )


def event(name: str, **held: object) -> dict[str, object]:
    return {"timeUnixNano": "5", "name": "gen_ai.evaluation.result", "attributes": attributes({"gen_ai.evaluation.name": name} | held)}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Spans of every kind, one delivered twice, one line broken, one evaluation replaced by a later one."""
    made = [
        span(1, {"lstm.sequence.length": 3, "x": "y"}, events=[event("g", **{"lstm.evaluation.identifier": "a"})]),
        judged(2, "a", 0.2),
        judged(3, "a", 0.3),
        judged(4, "b", 0.4),
    ]
    return write(tmp_path / "spans.jsonl", request(*made), request(made[0]), "{broken")


@pytest.mark.parametrize("events", [(), ("only as event",)], ids=["spans", "spans and events"])
def test_a_converted_store_says_the_same(tmp_path: Path, lines: Path, events: tuple[str, ...]) -> None:
    with lines.open("ab") as file:
        file.write(write(tmp_path / "more", request(span(9, events=[event(name) for name in events]))).read_bytes())
    target = tmp_path / "out.parquet"
    with open_store(lines) as store:
        assert convert(store, target) == 5
        expected = everything(store)
    with open_store(target) as store:
        assert everything(store) == expected
        assert store.spans.schema() == spans_schema()
        assert store.evaluations.schema() == evaluations_schema()
        assert store.skipped == {"malformed": 1, "duplicate": 1}
        again = tmp_path / "again.parquet"
        convert(store, again)
    with open_store(again) as store:
        assert everything(store) == expected
    assert sorted(row["score"] for row in expected[1] if row["score"] is not None) == [0.3, 0.4]
    assert len(expected[1]) == 2 + len(events)


def test_several_parquet_files_and_lines_beside_them_are_one_store(tmp_path: Path, lines: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    with open_store(lines) as store:
        convert(store, folder / "a.parquet")
        convert(store, folder / "b.parquet")
        expected = everything(store)
    with open_store(folder) as store:
        assert everything(store) == expected
        assert store.skipped["duplicate"] == 4
    write(folder / "c.jsonl", request(span(1), span(7)))
    with open_store(folder) as store:
        assert rows(store, "name") == ["span 1", "span 2", "span 3", "span 4", "span 7"]


def test_a_parquet_file_of_other_tools_needs_only_its_ids(tmp_path: Path) -> None:
    table = pa.table(
        {"trace_id": [TRACE], "span_id": ["1" * 16], "length": ["12"], "confidence": pa.array([0.5], pa.float32()), "own": [1]}
    )
    parquet.write_table(table, tmp_path / "spans.parquet")
    with open_store(tmp_path / "spans.parquet") as store:
        assert store.spans.schema() == spans_schema()
        assert rows(store, "trace_id", "length", "confidence", "attributes", "events") == [(TRACE, 12, 0.5, [], [])]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"span_id": ["1"]}, "without a column trace_id"),
        ({"trace_id": ["1"]}, "without a column span_id"),
        ({"trace_id": ["1"], "span_id": ["1"], "attributes": ["{}"]}, "column attributes is VARCHAR"),
        ({"trace_id": pa.array([], pa.string()), "span_id": pa.array([], pa.string())}, "holds no span"),
    ],
    ids=["no trace", "no span", "other type", "no rows"],
)
def test_parquet_that_is_no_store_is_refused_by_name(tmp_path: Path, table: dict[str, object], says: str) -> None:
    path = tmp_path / "spans.parquet"
    parquet.write_table(pa.table(table), path)
    with pytest.raises(BadInput, match=says) as caught:
        open_store(path)
    assert str(caught.value).startswith(str(path))


def test_a_cut_parquet_file_is_refused(tmp_path: Path, lines: Path) -> None:
    with open_store(lines) as store:
        convert(store, tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="not Parquet that can be read"):
        open_store(tmp_path / "cut.parquet")


def test_a_target_that_cannot_be_written_is_refused_and_nothing_is_left(tmp_path: Path, lines: Path) -> None:
    with open_store(lines) as store:
        with pytest.raises(BadInput, match="is a folder"):
            convert(store, tmp_path)
        for name in ("out.csv", "out", "out.parquet.gz", ".parquet"):
            with pytest.raises(BadInput, match="a name that ends in"):
                convert(store, tmp_path / name)
        with pytest.raises(BadInput, match="there is no folder"):
            convert(store, tmp_path / "no" / "out.parquet")
        with pytest.raises(BadInput, match="cannot be written"):
            convert(store, "/proc/out.parquet")
    assert [item.name for item in tmp_path.iterdir()] == ["spans.jsonl"]


def test_a_conversion_that_fails_half_way_leaves_what_was_there(tmp_path: Path, lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.parquet"
    target.write_bytes(b"what was there")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with open_store(lines) as store, monkeypatch.context() as patched:
        patched.setattr(parquet.ParquetWriter, "write_table", full)
        with pytest.raises(BadInput, match="No space left on device"):
            convert(store, target)
        with pytest.raises(BadInput, match="no room to unpack"):
            open_store(lines)
    assert target.read_bytes() == b"what was there"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["out.parquet", "spans.jsonl"]

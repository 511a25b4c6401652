"""The room's promises to its neighbours: what it exports, what it loads, and how a store is made of rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lstm_trace.store
from lstm_trace.store import convert, open_store, schema, store_of
from tests.store.otlp import TRACE, request, span, write


def test_the_exported_names() -> None:
    assert sorted(lstm_trace.store.__all__) == ["Store", "convert", "open_store", "store_of"]


def test_reading_loads_no_torch_no_langchain_and_no_sdk(tmp_path: Path) -> None:
    path = write(tmp_path / "spans.jsonl", request(span(1)))
    code = (
        "import sys; from lstm_trace.store import open_store; store = open_store(sys.argv[1]);"
        "store.evaluations.count().to_pyarrow(); store.close();"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'langchain_core', 'langgraph')"
        " or name.startswith('opentelemetry.sdk')])"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_importing_the_room_loads_no_engine() -> None:
    code = "import sys, lstm_trace.store; print([name for name in ('duckdb', 'ibis', 'pyarrow', 'numpy', 'pandas') if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_every_column_is_named_once_and_says_what_it_means() -> None:
    for columns in (schema.COLUMNS, schema.EVALUATION_COLUMNS):
        names = [column.name for column in columns]
        assert len(names) == len(set(names))
        assert all(column.meaning for column in columns)


def test_a_store_of_rows_is_a_store(tmp_path: Path) -> None:
    own = {"trace_id": TRACE, "span_id": "1" * 16, "name": "evaluate g", "evaluation_name": "g", "evaluation_score": 0.5}
    held = {"attributes": {"a": "b"}, "target_trace_id": TRACE, "events": [{"name": "e", "time_ns": 1, "attributes": [("k", "v")]}]}
    with store_of([own | held]) as store:
        assert store.spans.schema() == schema.spans_schema()
        assert store.evaluations.score.to_pyarrow().to_pylist() == [0.5]
        assert store.skipped == {"malformed": 0, "duplicate": 0}
        convert(store, tmp_path / "out.parquet")
    with open_store(tmp_path / "out.parquet") as copied:
        assert copied.spans.attributes.to_pyarrow().to_pylist() == [[("a", "b")]]
        assert copied.evaluations.score.to_pyarrow().to_pylist() == [0.5]


def test_a_row_with_an_unknown_column_is_refused() -> None:
    with pytest.raises(ValueError, match="no column 'lenght'"):
        store_of([{"lenght": 3}])

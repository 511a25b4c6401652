"""The benchmark measures what it says: equal data for equal sizes, and two ways to one answer."""

from __future__ import annotations

import hashlib
from pathlib import Path

from benchmarks.bench_analyse import multiplied, same_answer
from benchmarks.make_spans import lines, write
from lstm_trace.store import convert, open_store


def test_the_made_spans_are_the_same_everywhere() -> None:
    assert hashlib.sha256("".join(lines(800)).encode()).hexdigest()[:16] == "aedfdbb86b8f6bf8"
    assert len(list(lines(800))) == 4


def test_cohorts_and_the_sql_beside_it_count_the_same(tmp_path: Path) -> None:
    source, copied, larger = tmp_path / "spans.jsonl", tmp_path / "spans.parquet", tmp_path / "larger.parquet"
    write(source, 1600)
    with open_store(source) as store:
        assert convert(store, copied) == 1600
    assert same_answer(str(copied))
    multiplied(copied, larger, 3)
    with open_store(larger) as store:
        assert store.spans.count().to_pyarrow().as_py() == 4800
        assert store.spans.trace_id.nunique().to_pyarrow().as_py() == 3 * 400
        assert store.evaluations.count().to_pyarrow().as_py() == 600

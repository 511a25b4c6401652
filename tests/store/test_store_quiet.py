"""What DuckDB would print while it works does not reach the output, where a command's JSON goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.make_spans import lines
from lstm_trace.store import convert, open_store
from lstm_trace.store.opened import quiet


def test_no_query_of_a_store_shows_a_progress_bar(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text("".join(lines(160)))
    with open_store(path) as store:
        convert(store, tmp_path / "spans.parquet")
    with open_store(tmp_path / "spans.parquet") as store:
        duck = store.connection.con
        assert duck.execute("select current_setting('enable_progress_bar')").fetchone() == (False,)
        duck.execute("set progress_bar_time = 1")  # which switches it on
        quiet(duck).sql("select count(*) from range(20000) a, range(20000) b where a.range * b.range % 7 = 3").to_arrow_table()
    assert capfd.readouterr() == ("", "")

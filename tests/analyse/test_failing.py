"""What counts as failed: the label where it says so, else the score, else nothing."""

from __future__ import annotations

import ibis
import pytest

from lstm_trace.analyse import cases


@pytest.mark.parametrize(
    ("label", "score", "failed"),
    [
        ("pass", 0.1, 0),
        ("Fail", 0.9, 1),
        ("incorrect", None, 1),
        ("Correct", None, 0),
        ("hallucinated", 1.0, 1),
        ("refund", 0.49, 1),
        ("refund", 0.5, 0),
        ("refund", None, None),
        (None, 0.2, 1),
        (None, None, None),
    ],
)
def test_the_label_decides_then_the_score(label: str | None, score: float | None, failed: int | None) -> None:
    rows = ibis.memtable([(label, score, "ok")], schema={"label": "string", "score": "float64", "status": "string"})
    assert rows.select(failed=cases.failed(rows)).to_pyarrow().column("failed").to_pylist() == [failed]

"""A store opened for an analysis of flat columns: it says what the whole one says, and holds nothing nested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lstm_trace.analyse.cohorts import cohorts
from lstm_trace.analyse.prepared import noted
from lstm_trace.store import convert, open_store
from lstm_trace.store.schema import COLUMNS, NESTED
from tests.store.otlp import START, TRACE, attributes, evaluations, request, rows, span, write

FLAT = [column.name for column in COLUMNS if column.name not in NESTED]
JUDGED = {"gen_ai.evaluation.name": "answer_quality", "gen_ai.evaluation.score.value": 0.0}
TARGET = {"lstm.evaluation.target.trace_id": TRACE, "lstm.evaluation.target.span_id": f"{1:016x}", "lstm.evaluation.status": "ok"}


def judged_in_every_way() -> list[Any]:
    """A call, judged by a span of ours with notes, by a foreign span with a link, and by an event."""
    event = {
        "timeUnixNano": str(START),
        "name": "gen_ai.evaluation.result",
        "attributes": attributes(JUDGED | {"gen_ai.evaluation.name": "grounded"}),
    }
    other = {"timeUnixNano": str(START), "name": "lstm.prediction", "attributes": attributes({"lstm.batch.index": 0})}
    facts = {"lstm.component.name": "intent", "lstm.sequence.length": 14, "lstm.prediction.confidence": 0.25, "app.channel": "chat"}
    notes = {"lstm.evaluation.weight": 2.5, "lstm.evaluation.metadata.expected": "refund"}
    link = {"traceId": TRACE, "spanId": f"{1:016x}", "attributes": attributes({"a": "b"})}
    return [
        request(span(1, facts, events=[other, event]), resource={"service.version": "v1"}),
        request(span(2, JUDGED | TARGET | notes, traceId="a" * 32)),
        request(span(3, JUDGED | {"gen_ai.evaluation.name": "fluent"}, traceId="b" * 32, links=[link])),
    ]


@pytest.mark.parametrize("written", ["gen_ai.evaluation.result", "gen_ai.evaluation.resul\\u0074", "gen_\\u0061i.evaluation.result"])
def test_a_flat_store_says_what_the_whole_one_says(tmp_path: Path, written: str) -> None:
    lines = [json.dumps(line).replace("gen_ai.evaluation.result", written) for line in judged_in_every_way()]
    path = write(tmp_path / "spans.jsonl", *lines, "no JSON")
    said = ("evaluation_name", "score", "status", "target_trace_id", "target_span_id", "release", "confidence")
    with open_store(path) as whole, open_store(path, flat=True) as flat:
        assert flat.skipped == whole.skipped == {"malformed": 1, "duplicate": 0}
        assert rows(flat, *FLAT) == rows(whole, *FLAT)
        assert evaluations(flat, *said) == evaluations(whole, *said)
        assert len(evaluations(flat, *said)) == 3
        assert noted(flat).to_pyarrow().to_pylist() == noted(whole).to_pyarrow().to_pylist()
        assert cohorts(flat).as_dict() == cohorts(whole).as_dict()


@pytest.mark.parametrize(
    "held",
    [{"arrayValue": {"values": [{"stringValue": "a"}]}}, {"kvlistValue": {"values": []}}, {"bytesValue": "AAE="}, {}, None],
    ids=repr,
)
@pytest.mark.parametrize("name", ["lstm.prediction.label", "lstm.sequence.length"])
def test_columns_made_of_arrays_maps_and_bytes_are_the_same_in_a_flat_store(tmp_path: Path, name: str, held: Any) -> None:
    odd = {"key": name, "value": held}
    other = {"key": "app.tags", "value": {"arrayValue": {"values": [{"intValue": "1"}]}}}
    made = [request(span(number, attributes=[other, odd] if number == 2 else [other])) for number in (1, 2, 3)]
    path = write(tmp_path / "spans.jsonl", *made, request(span(4), resource={"service.name": ["a", 1]}))
    with open_store(path) as whole, open_store(path, flat=True) as flat:
        assert rows(flat, *FLAT) == rows(whole, *FLAT)
        assert rows(flat, "service")[3] == '["a",1]'


def test_a_flat_store_has_no_nested_columns(tmp_path: Path) -> None:
    with open_store(write(tmp_path / "spans.jsonl", *judged_in_every_way()), flat=True) as flat:
        assert list(flat.spans.columns) == FLAT
        for name in NESTED:
            with pytest.raises(KeyError, match=name):
                flat.only("trace_id", name)


def test_weights_that_are_no_weights_are_none(tmp_path: Path) -> None:
    weights = (2, "0.5", 0.0, -1.0, "NaN", "Infinity", "much", True)
    made = [span(number, JUDGED | {"lstm.evaluation.weight": weight}) for number, weight in enumerate(weights, start=1)]
    with open_store(write(tmp_path / "spans.jsonl", request(*made)), flat=True) as flat:
        found = {row["carrier_span_id"]: row["weight"] for row in noted(flat).to_pyarrow().to_pylist()}
    assert found == {f"{1:016x}": 2.0, f"{2:016x}": 0.5}


def test_parquet_opened_flat_is_read_where_it_lies(tmp_path: Path) -> None:
    with open_store(write(tmp_path / "spans.jsonl", *judged_in_every_way())) as store:
        convert(store, tmp_path / "spans.parquet")
    with open_store(tmp_path / "spans.parquet", flat=True) as flat:
        assert {row["app.channel"] for row in map(dict, rows(flat, "attributes")) if "app.channel" in row} == {"chat"}

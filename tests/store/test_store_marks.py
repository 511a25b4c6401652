"""What a converted file works out beforehand is what the queries would have found: equal answers, from fewer rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet

from benchmarks.make_spans import lines
from lstm_trace.analyse.cases import View
from lstm_trace.analyse.cohorts import cohorts
from lstm_trace.store import convert, open_store
from lstm_trace.store.marks import MARKS
from lstm_trace.store.parquet import MARKED
from tests.store.otlp import START, attributes, request, span, write


def in_trace(number: int, *spans: dict[str, object]) -> list[dict[str, object]]:
    return [made | {"traceId": f"{number:032x}"} for made in spans]


def step(number: int, at: int, *, failed: bool = False, **held: object) -> dict[str, object]:
    return span(number, {"agent.trajectory.step": at} | held, status={"code": 2 if failed else 0})


def judgement(number: int, trace: int, of: int | None, label: str, *, identifier: str = "", later: int = 0) -> dict[str, object]:
    held: dict[str, object] = {
        "openinference.span.kind": "EVALUATOR",
        "gen_ai.evaluation.name": "g",
        "gen_ai.evaluation.score.label": label,
        "lstm.evaluation.target.trace_id": f"{trace:032x}",
        "lstm.evaluation.status": "ok",
        "lstm.evaluation.identifier": identifier or f"i{number}",
    }
    aim = {} if of is None else {"lstm.evaluation.target.span_id": f"{of:016x}"}
    return span(number, held | aim, traceId="e" * 32, endTimeUnixNano=str(START + 2_000_000_000 + later))


CALL = {"lstm.component.name": "intent", "lstm.sequence.length": 3, "lstm.prediction.confidence": 0.5, "lstm.release": "r"}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Steps of two releases, steps of none, steps judged and failed in every way, traces without a call, judges with steps of their own."""
    event = {
        "timeUnixNano": str(START),
        "name": "gen_ai.evaluation.result",
        "attributes": attributes({"gen_ai.evaluation.name": "e", "gen_ai.evaluation.score.value": 0.1}),
    }
    judge = {"lstm.evaluation.judge.name": "g", "openinference.span.kind": "LLM"}
    spans = [
        *in_trace(1, span(1, CALL), step(2, 1, **{"lstm.release": "b"}), step(3, 1, **{"lstm.release": "a"}, failed=True), step(4, 2)),
        *in_trace(2, step(1, 1), step(2, 1, failed=True), step(3, 1, failed=True), step(4, 2) | {"events": [event]}),
        *in_trace(3, span(1, {"lstm.upstream.component": "intent", "lstm.upstream.cohort": "5-8"}), step(2, 1, **CALL), span(3, CALL)),
        *in_trace(4, span(1, judge | CALL), step(2, 3, **judge)),
        *in_trace(5, span(1, CALL | {"gen_ai.evaluation.name": "own", "gen_ai.evaluation.score.value": 0.2})),
        judgement(11, 1, 4, "fail"),
        judgement(12, 2, 1, "fail", identifier="same"),
        judgement(13, 2, 1, "pass", identifier="same", later=5),
        judgement(14, 3, 3, "fail"),
        judgement(15, 3, None, "pass"),
        judgement(16, 9, 9, "fail"),
    ]
    return write(tmp_path / "odd.jsonl", request(*spans, resource={"service.name": "claims"}))


@pytest.mark.parametrize(
    "view", [View(), View(edges=(2,)), View(component="intent"), View(since_ns=START + 2), View(until_ns=START + 2)], ids=repr
)
@pytest.mark.parametrize("by", [("cohort", "release"), ("step",)])
def test_a_converted_store_gives_equal_tables(tmp_path: Path, odd: Path, by: tuple[str, ...], view: View) -> None:
    with open_store(odd) as store:
        assert store.marked is None
        convert(store, tmp_path / "odd.parquet")
        expected = cohorts(store, by, view=view).as_dict()
    with open_store(tmp_path / "odd.parquet") as store:
        assert store.marked is not None
        assert cohorts(store, by, view=view).as_dict() == expected


def test_marks_say_what_the_rows_say(tmp_path: Path, odd: Path) -> None:
    with open_store(odd) as store:
        convert(store, tmp_path / "odd.parquet")
    rows = parquet.read_table(tmp_path / "odd.parquet", columns=["trace_id", "span_id", *MARKS]).to_pylist()
    said = {
        (int(row.pop("trace_id"), 16), int(row.pop("span_id"), 16)): {name: value for name, value in row.items() if value is not None}
        for row in rows
    }
    assert said[1, 1] == {"trace_calls": 1, "leads_trace": True}
    assert said[1, 2] == {"leads_step": True, "step_release": "a", "step_failed": True}
    assert said[1, 3] == {}
    assert said[1, 4] == {"leads_step": True, "step_release": ""}
    assert said[2, 1].items() > {"trace_calls": 0, "leads_step": True, "step_release": "", "step_failed": True}.items()
    assert said[3, 2].items() > {"trace_calls": 2, "leads_trace": True}.items()
    assert said[3, 3] == {"trace_calls": 2, "judged": True}
    assert said[4, 1] == said[4, 2] == {}
    evaluations = {number: said[int("e" * 32, 16), number] for number in range(11, 17)}
    assert evaluations[11].items() > {"of_step": 2, "of_step_release": "", "of_release": "r", "of_length": 3}.items()
    assert evaluations[12]["superseded"] is True
    assert evaluations[13].items() > {"of_step": 1, "of_step_release": "", "of_step_failed": True}.items()
    assert evaluations[14]["of_confidence"] == evaluations[15]["of_confidence"] == 0.5
    assert evaluations[16] == {}


def test_row_groups_hold_one_kind_of_span(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text("".join(lines(1600)))
    with open_store(path) as store:
        convert(store, tmp_path / "out.parquet")
    file = parquet.ParquetFile(tmp_path / "out.parquet")
    whole = [
        (bool(table["component"].null_count), bool(table["evaluation_name"].null_count))
        for table in (file.read_row_group(number) for number in range(file.num_row_groups))
    ]
    assert sorted(whole) == [(False, True), (True, False), (True, True), (True, True), (True, True)]


def test_a_file_of_an_older_version_is_read_without_marks(tmp_path: Path, odd: Path) -> None:
    with open_store(odd) as store:
        convert(store, tmp_path / "new.parquet")
        expected = cohorts(store).as_dict()
    table = parquet.read_table(tmp_path / "new.parquet")
    kept = {key: value for key, value in table.schema.metadata.items() if key != MARKED}
    older = table.drop_columns([name for name in MARKS if name != "superseded"]).replace_schema_metadata(kept)
    parquet.write_table(older, tmp_path / "old.parquet")
    with open_store(tmp_path / "old.parquet") as store:
        assert store.marked is None
        assert cohorts(store).as_dict() == expected


def test_a_file_that_says_more_of_itself_or_less_is_read_all_the_same(tmp_path: Path, odd: Path) -> None:
    with open_store(odd) as store:
        convert(store, tmp_path / "new.parquet")
        expected = cohorts(store).as_dict()
    table = parquet.read_table(tmp_path / "new.parquet")
    known = json.loads(table.schema.metadata[MARKED])
    assert known["steps"]
    for number, said in enumerate((known | {"of_a_later_version": 1}, known | {"steps": None})):
        metadata = table.schema.metadata | {MARKED: json.dumps(said).encode()}
        parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / f"{number}.parquet")
        with open_store(tmp_path / f"{number}.parquet") as store:
            assert store.marked is not None
            assert cohorts(store).as_dict() == expected

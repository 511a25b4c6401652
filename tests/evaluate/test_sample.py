"""`lstm-trace sample`: a draw that no outcome can steer, and weights that undo it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_trace.errors import BadInput
from lstm_trace.evaluate.drawing import Candidate, draw
from lstm_trace.evaluate.gold import read_gold
from tests.evaluate.stores import write_store
from tests.evaluate.test_evaluate_store import lstm_trace


def population(*sizes: int) -> list[Candidate]:
    return [
        Candidate(f"{stratum:08x}{member:024x}", "intent", None, (str(stratum),))
        for stratum, size in enumerate(sizes)
        for member in range(size)
    ]


@pytest.mark.parametrize(
    ("sizes", "n", "allocate", "taken"),
    [
        ((100, 100), 10, "equal", (5, 5)),
        ((100, 3, 100), 21, "equal", (9, 3, 9)),
        ((100, 100), 5, "equal", (2, 3)),
        ((90, 10), 20, "proportional", (18, 2)),
        ((970, 20, 10), 20, "proportional", (18, 1, 1)),
        ((2, 2), 100, "equal", (2, 2)),
        ((2, 2), 100, "proportional", (2, 2)),
    ],
)
def test_each_stratum_gets_its_share(sizes: tuple[int, ...], n: int, allocate: str, taken: tuple[int, ...]) -> None:
    drawn = draw(population(*sizes), n, allocate=allocate)  # type: ignore[arg-type]
    counted = Counter(int(each.candidate.stratum[0]) for each in drawn)
    assert tuple(counted[stratum] for stratum in range(len(sizes))) == taken


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(0, 200), st.sampled_from(["equal", "proportional"]), st.integers(0, 3)
)
def test_the_weights_add_up_to_everything(sizes: list[int], more: int, allocate: str, seed: int) -> None:
    drawn = draw(population(*sizes), len(sizes) + more, seed=seed, allocate=allocate)  # type: ignore[arg-type]
    assert len(drawn) == min(len(sizes) + more, sum(sizes))
    assert len({each.candidate.trace_id for each in drawn}) == len(drawn)
    assert sum(each.weight for each in drawn) == pytest.approx(sum(sizes))
    assert all(0 < each.probability <= 1 for each in drawn)


def test_the_weighted_rate_is_that_of_everything_although_the_draw_is_lopsided() -> None:
    everyone = population(2000, 100)
    failing = {each.trace_id for each in everyone if int(each.trace_id, 16) % 100 < (10 if each.stratum == ("0",) else 60)}
    true = len(failing) / len(everyone)
    rates: list[float] = []
    plain: list[float] = []
    for seed in range(40):
        drawn = draw(everyone, 160, seed=seed)
        wrong = [each for each in drawn if each.candidate.trace_id in failing]
        rates.append(sum(each.weight for each in wrong) / sum(each.weight for each in drawn))
        plain.append(len(wrong) / len(drawn))
    assert sum(rates) / len(rates) == pytest.approx(true, abs=0.01)
    assert sum(plain) / len(plain) > true + 0.1


def test_a_smaller_draw_is_part_of_a_larger_one_and_the_order_of_the_store_does_not_matter() -> None:
    everyone = population(50, 50)
    small, large = ({each.candidate.trace_id for each in draw(everyone, n, seed=7)} for n in (10, 40))
    assert small < large
    assert small == {each.candidate.trace_id for each in draw(reversed(everyone), 10, seed=7)}
    assert small != {each.candidate.trace_id for each in draw(everyone, 10, seed=8)}


def test_fewer_than_the_strata_is_refused() -> None:
    with pytest.raises(BadInput, match=r"--n 1: accepted is a number from 2, one for each stratum \(0, 1\)"):
        draw(population(5, 5), 1)


def test_the_command_writes_lines_to_label_that_are_gold_once_labelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, output = tmp_path / "store", tmp_path / "to_label.jsonl"
    answered = write_store(store, 30, release="v1") + write_store(store, 10, release="v2", seed=1, lengths=(3,))
    status, out, err = lstm_trace(capsys, "sample", store, "--n", "12", "--stratify", "cohort,release", "-o", output, "--format", "json")
    assert (status, err) == (0, "")
    strata = json.loads(out)["strata"]
    assert [(row["stratum"], row["drawn"]) for row in strata] == [("1-4|v1", 4), ("1-4|v2", 4), ("13-20|v1", 4)]
    assert sum(row["traces"] for row in strata) == 40
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    by_id = {each.trace_id: each for each in answered}
    for line in lines:
        drawn = by_id[line["trace_id"]]
        assert line["release"] == drawn.release
        assert line["cohort"] == ("1-4" if drawn.length == 3 else "13-20")
        assert line["weight"] == pytest.approx(1 / line["inclusion_probability"])
        assert drawn.predicted not in json.dumps(line), "who labels must not see what was predicted"
        line["label"] = drawn.predicted
    output.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(read_gold(output).lines) == 12
    status, out, _ = lstm_trace(capsys, "evaluate", store, "--gold", output, "--format", "json")
    (row,) = json.loads(out)["evaluations"]
    assert (row["judged"], row["failed"], row["weighted"]) == (12, 0, True)
    # What was judged in between does not change the next draw: evaluations are no traces to label, and no outcome steers it.
    again = tmp_path / "again.jsonl"
    lstm_trace(capsys, "sample", store, "--n", "12", "-o", again)
    assert {json.loads(line)["trace_id"] for line in again.read_text().splitlines()} == {line["trace_id"] for line in lines}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--stratify", "label"], "--stratify 'label': accepted are cohort, release"),
        (["--stratify", "evaluation_label"], "an outcome may not steer what is labelled"),
        (["--component", "none"], "no span of component 'none', so there is nothing to label"),
        (["--allocate", "greedy"], "--allocate 'greedy': accepted are equal and proportional"),
        (["--n", "0"], "--n"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], said: str) -> None:
    store, output = tmp_path / "store", tmp_path / "to_label.jsonl"
    write_store(store, 2)
    status, _, err = lstm_trace(capsys, "sample", store, "-o", output, *args)
    assert (status, err.count("\n"), output.exists()) == (2, 1, False)
    assert said in err


def test_labels_that_were_filled_in_are_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, output = tmp_path / "store", tmp_path / "to_label.jsonl"
    write_store(store, 2)
    output.write_text("mine")
    status, _, err = lstm_trace(capsys, "sample", store, "-o", output)
    assert (status, output.read_text()) == (2, "mine")
    assert "it exists" in err
    assert lstm_trace(capsys, "sample", store, "-o", output, "--force")[0] == 0
    assert output.read_text() != "mine"


def test_a_draw_without_strata_is_a_simple_random_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, output = tmp_path / "store", tmp_path / "to_label.jsonl"
    write_store(store, 10)
    assert lstm_trace(capsys, "sample", store, "-o", output, "--stratify", "", "--n", "4")[0] == 0
    assert {json.loads(line)["weight"] for line in output.read_text().splitlines()} == {2.5}

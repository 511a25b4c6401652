"""What limits a verdict: each limit is seen in the store, said in a note, and acted on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lstm_trace.analyse.diagnose import diagnose
from lstm_trace.analyse.labelled import labelled
from lstm_trace.store import store_of
from tests.analyse.incidents import MECHANISMS, Ids, World, rows, simulate

BUG = replace(World(), classifier=(0.03, 0.03, 0.03, 0.3, 0.6))


def sides(before, after, n=600):
    random = np.random.default_rng(17)
    return simulate(before, n, random), simulate(after, n, random)


def store_with(v1, v2, **given):
    ids = Ids()
    later = given.pop("later", {})
    return store_of([*rows(v1, "v1", ids, **given), *rows(v2, "v2", ids, **(given | later))])


def said(found, start):
    return [note for note in found.notes if note.startswith(start)]


def test_a_stricter_judge_is_not_taken_for_a_worse_model():
    with store_with(*sides(World(), replace(World(), generation=(0.2, 0.9))), later={"evaluator": "2"}) as store:
        found = diagnose(store, "v1", "v2")
    assert found.verdict == ("insufficient_evidence",)
    assert said(found, "evaluator version of answer_quality changed (1 against 2): generation cannot be told from its evaluator")


def test_a_changed_judge_still_lets_the_classifier_be_found():
    with store_with(*sides(World(), BUG), later={"evaluator": "2"}) as store:
        assert diagnose(store, "v1", "v2").verdict == ("classifier",)


def test_a_version_that_both_releases_have_is_compared_on():
    v1, v2 = sides(World(), World())
    ids = Ids()
    made = [*rows(v1, "v1", ids), *rows(v2, "v2", ids)]
    for row in made:
        if row["release"] == "v2" and row.get("evaluation_name") == "answer_quality" and int(row["target_trace_id"], 16) % 2:
            row |= {"evaluation_version": "2", "evaluation_label": "fail"}
    with store_of(made) as store:
        found = diagnose(store, "v1", "v2")
    assert "generation" not in found.verdict
    assert 250 < found.n[1] < 350
    assert said(found, "evaluator version of answer_quality changed (1 against 1/2): compared on 1 only")


def test_a_mechanism_without_scores_is_said_to_stand_under_what_comes_after_it():
    only = {name: evaluation for name, evaluation in MECHANISMS.items() if name != "retrieval"}
    with store_with(*sides(World(), BUG), evaluations=only) as store:
        found = diagnose(store, "v1", "v2")
    assert [part.name for part in found.components] == ["mix", "classifier", "routing", "generation"]
    assert found.verdict == ("classifier",)
    assert said(found, "retrieval is not measured")


def test_a_mechanism_with_few_labels_is_left_out_rather_than_guessed():
    sparse = {"labelled": lambda name, index: name != "context_relevance" or index < 20}
    with store_with(*sides(World(), BUG), **sparse) as store:
        found = diagnose(store, "v1", "v2")
    assert found.n == (600, 600)
    assert found.verdict == ("classifier",)
    assert said(found, "retrieval is left out: fewer than 50 traces")


def test_what_comes_after_a_mechanism_with_few_labels_is_not_blamed_for_it():
    """A worse classifier leads to wrong branches: without gold enough they would be the router's."""
    sparse = {"labelled": lambda name, index: name != "ground_truth_match" or index < 20}
    with store_with(*sides(World(), BUG), **sparse) as store:
        found = diagnose(store, "v1", "v2")
    assert found.verdict == ("insufficient_evidence",)
    assert said(found, "classifier is left out: fewer than 50 traces of a release have ground_truth_match; what comes after")


def test_labels_that_hang_on_the_outcome_are_named():
    v1, v2 = sides(World(), World())
    ids = Ids()
    failures_only = [
        {"labelled": lambda name, index, side=side: name != "ground_truth_match" or bool(side.failed[index]) or index % 4 == 0}
        for side in (v1, v2)
    ]
    with store_of([*rows(v1, "v1", ids, **failures_only[0]), *rows(v2, "v2", ids, **failures_only[1])]) as store:
        found = diagnose(store, "v1", "v2")
    assert said(found, "gold of classifier is not independent of the outcome")
    assert said(found, "few labels")


def test_inclusion_weights_give_back_what_was_drawn_unevenly():
    """The longest sequences are all labelled, of the others every fourth, with weight 4: the weighted rate is the whole store's."""
    v1, v2 = sides(World(), BUG, n=2000)
    ids = Ids()
    made = []
    for release, side in (("v1", v1), ("v2", v2)):
        drawn = {index for index in range(2000) if side.cohort[index] == 4 or index % 4 == 0}
        made += rows(side, release, ids, labelled=lambda name, index, drawn=drawn: index in drawn)
    cohort_of = {row["trace_id"]: row["cohort"] for row in made if row.get("component")}
    for row in made:
        if row.get("evaluation_name"):
            row["attributes"] = {"lstm.evaluation.weight": "1" if cohort_of[row["target_trace_id"]] == "21+" else "4"}
    with store_of(made) as store:
        cells = labelled(store, "v1", "v2")
        found = diagnose(store, "v1", "v2")
    assert found.verdict == ("classifier",)
    assert cells.weighted()[1].sum() == pytest.approx(2000, rel=0.05)
    for rate, side in zip(found.rates, (v1, v2), strict=True):
        weight = np.where(side.cohort == 4, 1.0, np.where(np.arange(2000) % 4 == 0, 4.0, 0.0))
        assert rate == pytest.approx((weight * side.failed).sum() / weight.sum())
    assert found.mix.ci_low < 0 < found.mix.ci_high


def test_an_evaluator_that_failed_counts_as_an_error_and_never_as_a_failure():
    from lstm_trace.analyse.cohorts import cohorts

    v1, _ = sides(World(), World(), n=100)
    made = list(rows(v1, "v1", Ids()))
    broken = [row for row in made if row.get("evaluation_name") == "answer_quality"][:30]
    for row in broken:
        row |= {"evaluation_score": None, "evaluation_label": None, "evaluation_status": "error"}
    with store_of(made) as store:
        (row,) = cohorts(store, ("release",), evaluation="answer_quality").rows
    assert (row.n, row.errors, row.failed) == (70, 30, int(v1.failed[30:].sum()))


def test_of_two_judgements_with_one_identifier_the_latest_counts():
    from lstm_trace.analyse.cohorts import cohorts

    v1, _ = sides(World(), World(), n=50)
    made = list(rows(v1, "v1", Ids()))
    again = [
        row
        | {
            "span_id": f"{9_000_000 + i:016x}",
            "trace_id": f"{9_000_000 + i:032x}",
            "end_ns": row["end_ns"] + 10**9,
            "evaluation_label": "fail",
        }
        for i, row in enumerate(made)
        if row.get("evaluation_name") == "answer_quality"
    ]
    with store_of([*made, *again]) as store:
        (row,) = cohorts(store, ("release",), evaluation="answer_quality").rows
    assert (row.n, row.failed) == (50, 50)


def test_traces_without_gold_count_as_those_like_them():
    v1, v2 = sides(World(), BUG)
    with store_with(v1, v2, labelled=lambda name, index: name != "ground_truth_match" or index % 3 == 0) as store:
        found = diagnose(store, "v1", "v2")
    assert found.verdict == ("classifier",)
    assert found.n == (600, 600)
    assert found.rates == pytest.approx((v1.failed.mean(), v2.failed.mean()))
    assert said(found, "few labels: 200 of 600 and 200 of 600 judged traces have every label; the others count as those that are like them")

"""The cohort table: every figure is counted again by hand from the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from lstm_trace.analyse.cases import View
from lstm_trace.analyse.cohorts import cohorts
from lstm_trace.errors import BadInput
from lstm_trace.store import store_of
from tests.analyse.incidents import COHORTS, Ids, World, rows, simulate

RANDOM = np.random.default_rng(3)
V1 = simulate(World(), 300, RANDOM)
V2 = simulate(World(classifier=(0.03, 0.03, 0.03, 0.3, 0.5)), 200, RANDOM)


@pytest.fixture(scope="module")
def store():
    ids = Ids()
    with store_of([*rows(V1, "v1", ids), *rows(V2, "v2", ids)]) as opened:
        yield opened


def test_every_cohort_is_counted_by_hand(store):
    table = cohorts(store, evaluation="answer_quality")
    assert (table.traces, table.spans) == (500, 500 * 7)
    found = {(row.group["release"], row.group["cohort"]): row for row in table.rows}
    for release, outcomes in (("v1", V1), ("v2", V2)):
        for index, cohort in enumerate(COHORTS):
            inside, row = outcomes.cohort == index, found[release, cohort]
            failed, n = int(outcomes.failed[inside].sum()), int(inside.sum())
            assert (row.n, row.failed, row.errors, row.calls, row.traces) == (n, failed, 0, n, n)
            assert row.fail_rate == pytest.approx(failed / n)
            assert (row.ci_low, row.ci_high) == pytest.approx(proportion_confint(failed, n, method="wilson"))
            assert row.confidence_mean == pytest.approx(outcomes.confidence[inside].mean())
            latency = (5 + np.flatnonzero(inside) % 7) / 1000
            assert row.latency_p50_s == pytest.approx(np.quantile(latency, 0.5))
            assert row.latency_p99_s == pytest.approx(np.quantile(latency, 0.99))
            assert row.input_tokens_mean == pytest.approx((800 + np.flatnonzero(inside) % 5).mean())


def test_cohorts_come_in_order_and_without_a_filter_hold_every_evaluation(store):
    table = cohorts(store, ("cohort",))
    assert [row.group["cohort"] for row in table.rows[::4]] == list(COHORTS)
    assert {row.evaluation for row in table.rows} == {"answer_quality", "branch_match", "context_relevance", "ground_truth_match"}


def test_edges_cut_the_lengths_anew(store):
    table = cohorts(store, ("cohort",), evaluation="answer_quality", view=View(edges=(12,)))
    n = {row.group["cohort"]: row.n for row in table.rows}
    lengths = np.concatenate([V1.length, V2.length])
    assert n == {"1-12": int((lengths <= 12).sum()), "13+": int((lengths > 12).sum())}


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (("label",), {"refund", "status"}),
        (("app.channel",), {"web", "phone"}),
        (("branch",), {"classify", "answer_refund", "answer_status"}),
        (("step",), {"3"}),
        (("agent.trajectory.step",), {"3"}),
        (("position",), {"1", "2-3", "4-6"}),
        (("time_gap",), {"unknown"}),
        (("component",), {"intent"}),
        (("service",), {"claims"}),
    ],
)
def test_other_dimensions(store, by, expected):
    table = cohorts(store, by, evaluation="answer_quality")
    assert {row.group[table.by[0]] for row in table.rows} == expected
    if by != ("branch",):
        assert sum(row.n for row in table.rows) == 500


def test_a_window_of_time_takes_the_traces_that_started_in_it(store):
    from tests.analyse.incidents import MINUTE_NS, START_NS

    table = cohorts(store, ("release",), evaluation="answer_quality", view=View(since_ns=START_NS, until_ns=START_NS + 10 * MINUTE_NS))
    assert [row.n for row in table.rows] == [10, 10]
    assert [row.calls for row in table.rows] == [10, 10]


def test_an_unknown_dimension_or_evaluation_is_named(store):
    with pytest.raises(BadInput, match="cannot group by 'colour'"):
        cohorts(store, ("colour",))
    with pytest.raises(BadInput, match="'grounded' is not in memory; it holds 'answer_quality'"):
        cohorts(store, evaluation="grounded")


def test_a_step_fails_by_its_spans_and_its_judgements(store):
    steps = {(row.release, row.step): (row.n, row.failed) for row in cohorts(store).late_steps}
    assert steps == {
        ("v1", 1): (300, int(V1.classifier.sum())),
        ("v1", 3): (300, 0),
        ("v2", 1): (200, int(V2.classifier.sum())),
        ("v2", 3): (200, 0),
    }


def test_what_a_judge_spends_is_not_the_answers():
    judged = [
        {**row, "span_id": f"{number:016x}", "input_tokens": 90_000, "judge": "answer_quality"}
        for number, row in enumerate(rows(V1, "v1", Ids()), start=2**40)
        if row.get("input_tokens")
    ]
    assert judged
    with store_of(rows(V1, "v1", Ids())) as plain, store_of([*rows(V1, "v1", Ids()), *judged]) as with_judges:
        spent = [[row.input_tokens_mean for row in cohorts(each, ("cohort",)).rows] for each in (plain, with_judges)]
    assert spent[0] == spent[1]

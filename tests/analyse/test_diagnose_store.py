"""Diagnose over a store: the figures of the verdict are the store's, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lstm_trace.analyse.diagnose import diagnose
from lstm_trace.errors import BadInput
from lstm_trace.store import store_of
from tests.analyse.incidents import Ids, World, rows, simulate

RANDOM = np.random.default_rng(7)
V1 = simulate(World(), 1200, RANDOM)
V2 = simulate(replace(World(), classifier=(0.03, 0.03, 0.03, 0.04, 0.45)), 1100, RANDOM)


@pytest.fixture(scope="module")
def store():
    ids = Ids()
    with store_of([*rows(V1, "v1", ids), *rows(V2, "v2", ids)]) as opened:
        yield opened


@pytest.fixture(scope="module")
def verdict(store):
    return diagnose(store, "v1", "v2")


def test_the_bug_is_found_where_it_is(verdict):
    assert verdict.verdict == ("classifier",)
    assert [part.name for part in verdict.components if part.flagged] == ["classifier"]
    assert [(place.component, place.cohort) for place in verdict.where] == [("classifier", "21+")]
    for side, outcomes in (("baseline", V1), ("candidate", V2)):
        assert getattr(verdict.where[0], side) == pytest.approx(outcomes.classifier[outcomes.cohort == 4].mean())


def test_contributions_sum_to_the_change_in_the_store(verdict):
    change = 100 * (V2.failed.mean() - V1.failed.mean())
    assert verdict.change_pp == pytest.approx(change)
    assert sum(part.contribution_pp for part in verdict.components) == pytest.approx(change)
    assert verdict.mix.pp + verdict.rate.pp == pytest.approx(change)
    assert verdict.n == (1200, 1100)
    assert verdict.outcome == "answer_quality"


def test_exemplars_are_failed_traces_of_the_component_in_its_cohort(verdict):
    indices = [int(trace, 16) for trace in verdict.exemplars]
    v2 = [(i, 1200 * 5 + 1 + i * 5) for i in range(1100)]  # five traces a session: its own and four of its judgements
    bad = [trace for i, trace in v2 if V2.failed[i] and V2.classifier[i] and V2.cohort[i] == 4]
    index = {trace: i for i, trace in enumerate(range(1200 * 5 + 1, 1200 * 5 + 1 + 1100 * 5, 5))}
    ranked = sorted(bad, key=lambda trace: (V2.confidence[index[trace]], -V2.length[index[trace]], trace))
    assert indices == ranked[:5]
    assert indices != sorted(bad)[:5]


def test_the_sentence_says_it(verdict):
    assert "made worse by classifier" in verdict.sentence
    assert "in sequences of 21+ steps" in verdict.sentence


def test_what_is_not_in_the_store_is_named(store):
    with pytest.raises(BadInput, match="release 'v9' is not in memory; it holds 'v1', 'v2'"):
        diagnose(store, "v1", "v9")
    with pytest.raises(BadInput, match="outcome 'x' is not an evaluation"):
        diagnose(store, "v1", "v2", outcome="x")
    with pytest.raises(BadInput, match="mechanism 'llm': accepted are classifier, routing, retrieval"):
        diagnose(store, "v1", "v2", mechanisms={"llm": "answer_quality"})
    with pytest.raises(BadInput, match="are both 'v1'"):
        diagnose(store, "v1", "v1")


def test_other_classes_that_come_are_said_beside_a_worse_classifier():
    """Class b is told apart worse in both releases alike, and makes up 15 % of the first and 60 % of the second."""
    random, ids, made = np.random.default_rng(21), Ids(), []
    for release, share in (("v1", 0.15), ("v2", 0.6)):
        outcomes = simulate(World(), 900, random)
        is_b = random.random(900) < share
        wrong = (random.random(900) < np.where(is_b, 0.3, 0.05)).astype(int)
        label = iter(np.where(is_b ^ (wrong == 1), "b", "a"))
        replaced = replace(outcomes, classifier=wrong, failed=np.maximum(outcomes.failed, wrong))
        made += [row | ({"label": next(label)} if row.get("component") else {}) for row in rows(replaced, release, ids)]
    with store_of(made) as store:
        found = diagnose(store, "v1", "v2")
    assert found.verdict == ("classifier",)
    assert any("of the predictions within cohorts went to other labels" in note for note in found.notes)


def test_a_bug_that_moves_labels_by_its_own_share_is_not_said_to_be_other_classes(verdict):
    assert not any("other labels" in note for note in verdict.notes)

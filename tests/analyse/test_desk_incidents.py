"""Incidents of a help desk, as their traces tell them: the verdict names the cause, also where labels are missing or other tickets came."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lstm_trace.analyse.completing import complete
from lstm_trace.analyse.diagnose import diagnose, judge
from lstm_trace.store import open_store
from tests.analyse.desk import KINDS, NO_ALARM, Case, Desk, Hurt, Recorded
from tests.analyse.desk_table import outcome_of
from tests.analyse.desk_written import desk_store, labelled_of, record
from tests.analyse.test_incidents import NoTraces


def test_the_cause_is_named_and_nothing_else():
    became = {kind: outcome_of(kind, 0, 2000) for kind in KINDS if kind != "hidden difficulty"}
    words = [word for word, _ in became.values()]
    print({kind: told for kind, (word, told) in became.items() if word not in ("right", "quiet")})
    assert words.count("right") / (len(words) - len(NO_ALARM)) >= 0.9
    assert words.count("alarm") == 0


GAPS = Desk(by_gap=1.2)
INTENTS = Desk(skill=2.6)


@pytest.mark.parametrize(
    ("before", "after", "recorded", "said"),
    [
        (GAPS, replace(GAPS, gap_h=24.0), Recorded(), "other time gaps"),
        (INTENTS, replace(INTENTS, intents=(0.15, 0.15, 0.15, 0.25, 0.3)), Recorded(), "other right labels"),
        (INTENTS, replace(INTENTS, intents=(0.15, 0.15, 0.15, 0.25, 0.3)), Recorded(gold=0.4), "other right labels"),
    ],
)
def test_other_tickets_are_mix_and_no_worse_classifier(before, after, recorded, said):
    with desk_store(before, after, (2000, 2000), recorded, np.random.default_rng(5)) as store:
        found = diagnose(store, "v1", "v2")
    assert found.verdict == ("mix",)
    assert any(said in note for note in found.notes)
    assert sum(part.contribution_pp for part in found.components) == pytest.approx(found.change_pp)


def test_where_gold_does_not_say_what_came_the_note_does():
    after = replace(INTENTS, intents=(0.15, 0.15, 0.15, 0.25, 0.3))
    with desk_store(INTENTS, after, (2000, 2000), Recorded(expected=False), np.random.default_rng(5)) as store:
        found = diagnose(store, "v1", "v2")
    assert found.verdict == ("classifier",)
    assert any("went to other labels" in note for note in found.notes)


def test_as_the_recorder_writes_it(tmp_path):
    given = Case(Desk(), Desk(hurt=(Hurt("classifier", 0.3, "long"),)), Recorded(graded=True), ())
    record(given, 500, tmp_path, np.random.default_rng(3))
    with open_store(str(tmp_path)) as store:
        found = diagnose(store, "v1", "v2")
    assert found.verdict == ("classifier",)
    assert found.n == (500, 500)
    assert {place.cohort for place in found.where} <= {"13-20", "21+"}


def test_gold_drawn_by_the_outcome_does_not_bend_the_rates():
    """Of what failed everything has gold, of the rest a tenth: counted as they are, half of the labelled traces failed."""
    random, n = np.random.default_rng(8), 20_000
    wrong = random.random(n) < 0.1
    failed = random.random(n) < np.where(wrong, 0.6, 0.1)
    gold = failed | (random.random(n) < 0.1)
    table = np.zeros((1, 1, 2, 3, 3))
    np.add.at(table, (0, 0, 0, np.where(gold, wrong, 2), failed.astype(int)), 1.0)
    cells = complete(table, table)[0][0, 0]
    assert cells.sum() == pytest.approx(n)
    assert cells[:, 1].sum() == pytest.approx(failed.sum())
    assert cells[1].sum() / n == pytest.approx(wrong.mean(), abs=0.01)
    assert table[0, 0, 0, 1, :2].sum() / table[0, 0, 0, :2, :2].sum() > 0.2


def test_labels_missing_here_and_there_are_shared_out_as_the_whole_is():
    random, n = np.random.default_rng(9), 60_000
    wrong = random.random(n) < 0.2
    astray = random.random(n) < np.where(wrong, 0.7, 0.05)
    failed = random.random(n) < np.where(astray, 0.5, 0.1)
    seen = [np.where(random.random(n) < 0.5, label, 2) for label in (wrong, astray, failed)]
    table, truth = np.zeros((1, 1, 2, 3, 3, 3)), np.zeros((2, 2, 2))
    np.add.at(table, (0, 0, 0, *seen), 1.0)
    np.add.at(truth, (wrong.astype(int), astray.astype(int), failed.astype(int)), 1.0)
    cells = complete(table, table)[0][0, 0]
    assert cells / n == pytest.approx(truth / n, abs=0.01)


def test_without_gold_for_most_a_worse_model_is_told_from_all_of_them():
    """With gold for one in ten, its tickets alone would not do."""
    found = []
    for gold in (0.1, 1.0):
        given = Case(Desk(), Desk(hurt=(Hurt("generation", 0.06),)), Recorded(gold=gold), ())
        cells = labelled_of(given, (1500, 1500), np.random.default_rng(11), NoTraces())
        found.append(judge(cells, "v1", "v2"))
    assert [verdict.verdict for verdict in found] == [("generation",)] * 2

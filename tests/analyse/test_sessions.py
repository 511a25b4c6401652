"""Answers of one session are alike: they count as far as they differ, in intervals, in tests and in the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lstm_trace.analyse.diagnose import Verdict, diagnose, judge
from lstm_trace.analyse.labelled import Labelled
from lstm_trace.analyse.sessions import sessions_of
from lstm_trace.store import store_of
from tests.analyse.incidents import COHORTS, Ids, World, rows, simulate
from tests.analyse.test_incidents import NoTraces

SHAPE = (len(COHORTS), 2, 2)


def quiet_release(sessions: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(session, cell) of traces: eight a session, whose customer stays in one cohort and is either easy or hard to understand."""
    session = np.repeat(np.arange(sessions), 8)
    cohort = random.integers(0, 5, sessions)[session]
    hard = random.random(sessions) < 0.1
    wrong = random.random(session.size) < np.where(hard, 0.8, 0.02)[session]
    failed = random.random(session.size) < np.where(wrong, 0.8, 0.04)
    return session, np.ravel_multi_index((cohort, wrong.astype(int), failed.astype(int)), SHAPE)


def judged_quiet(seed: int, *, told: bool) -> Verdict:
    random = np.random.default_rng(seed)
    sides = [quiet_release(150, random) for _ in range(2)]
    counts = np.stack([np.bincount(cell, minlength=20).reshape(*SHAPE, 1) for _, cell in sides]).astype(float)
    sessions = tuple(sessions_of(session, cell, np.ones(cell.size), 20) for session, cell in sides)
    cells = Labelled("ok", COHORTS, ("classifier",), counts, np.ones(1), (1200, 1200), (), frozenset(), NoTraces())
    return judge(replace(cells, sessions=sessions) if told else cells, "v1", "v2", seed=seed)  # type: ignore[arg-type]


def alarms(runs: int, *, told: bool) -> int:
    return sum(not {"none", "insufficient_evidence"} & set(judged_quiet(seed, told=told).verdict) for seed in range(runs))


def test_quiet_sessions_raise_no_alarm():
    assert alarms(30, told=False) >= 5  # what it is that sessions save from
    assert alarms(30, told=True) == 0


@pytest.fixture(scope="module")
def outcomes():
    random = np.random.default_rng(3)
    worse = replace(World(), classifier=(0.03, 0.03, 0.03, 0.3, 0.5))
    return simulate(World(), 400, random), simulate(worse, 400, random)


def store_with(outcomes, times: int, session):
    """Every trace so many times, in the session that ``session`` names for (trace, time)."""
    ids, made = Ids(), []
    for side, release in zip(outcomes, ("v1", "v2"), strict=True):
        for time in range(times):
            for place, row in enumerate(rows(side, release, ids)):
                made.append(row | {"session_id": session(place // 7, time)})  # 3 spans and 4 judgements a trace
    return store_of(made)


def test_an_answer_said_three_times_in_a_session_counts_once(outcomes):
    with store_with(outcomes, 1, lambda trace, time: f"s{trace}") as store:
        once = diagnose(store, "v1", "v2")
    with store_with(outcomes, 3, lambda trace, time: f"s{trace}") as store:
        thrice = diagnose(store, "v1", "v2")
    assert thrice.change_pp == pytest.approx(once.change_pp)
    assert thrice.verdict == once.verdict == ("classifier",)
    for one, three in zip(once.components, thrice.components, strict=True):
        assert three.ci_high - three.ci_low == pytest.approx(one.ci_high - one.ci_low, rel=0.15, abs=0.1)
        assert np.log10(three.p_value) == pytest.approx(np.log10(one.p_value), rel=0.2, abs=0.1)


def test_a_session_that_spans_a_whole_release_says_so(outcomes):
    with store_with(outcomes, 1, lambda trace, time: "always") as store:
        found = diagnose(store, "v1", "v2")
    assert found.verdict == ("classifier",)
    assert [note for note in found.notes if "fewer than 10 sessions" in note]


def test_a_weight_of_its_own_for_every_trace(outcomes):
    ids = Ids()
    random = np.random.default_rng(5)
    made = []
    for side, release in zip(outcomes, ("v1", "v2"), strict=True):
        for row in rows(side, release, ids):
            judged = row.get("evaluation_name") is not None
            weight = {"attributes": {"lstm.evaluation.weight": repr(float(random.uniform(1.0, 9.0)))}} if judged else {}
            made.append(row | weight)
    with store_of(made) as store:
        found = diagnose(store, "v1", "v2")
    assert found.verdict == ("classifier",)
    assert found.n == (400, 400)

"""Replay: putting the old component back settles whether it is to blame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lstm_trace.analyse.diagnose import diagnose
from lstm_trace.analyse.replay import replay
from lstm_trace.errors import BadInput
from lstm_trace.store import store_of
from tests.analyse.incidents import Ids, World, rows, simulate

RANDOM = np.random.default_rng(21)
V1 = simulate(World(), 1000, RANDOM)
V2 = simulate(replace(World(), classifier=(0.03, 0.03, 0.03, 0.05, 0.5)), 1000, RANDOM)
FAILED = {f"{5001 + 5 * index:032x}": bool(V2.failed[index]) for index in range(1000)}


@pytest.fixture(scope="module")
def store():
    ids = Ids()
    with store_of([*rows(V1, "v1", ids), *rows(V2, "v2", ids)]) as opened:
        yield opened


@pytest.fixture(scope="module")
def verdict(store):
    return diagnose(store, "v1", "v2")


def test_a_component_that_did_it_is_confirmed(store, verdict):
    seen = []

    def pipeline(case, put_back):
        seen.append((case.trace_id, put_back))
        return not FAILED[case.trace_id] or put_back == "classifier"

    after, (row,) = replay(store, verdict, pipeline)
    inside = [trace for index, trace in enumerate(FAILED) if V2.cohort[index] == 4]
    assert {trace for trace, _ in seen} == set(inside)
    assert {put_back for _, put_back in seen} == {None, "classifier"}
    assert (row.n, row.fixed, row.broken) == (len(inside), sum(FAILED[trace] for trace in inside), 0)
    assert row.outcome == "confirmed"
    assert after.verdict == ("classifier",)
    assert not any("hidden difficulty" in note for note in after.notes)
    assert any(note.startswith("replay confirmed classifier") for note in after.notes)


def test_a_component_whose_return_changes_nothing_is_cleared(store, verdict):
    after, (row,) = replay(store, verdict, lambda case, put_back: not FAILED[case.trace_id])
    assert (row.fixed, row.broken, row.outcome) == (0, 0, "cleared")
    assert after.verdict == ("none",)
    assert not any(part.flagged for part in after.components)
    assert any("the inputs themselves got harder" in note for note in after.notes)


def test_too_few_inputs_decide_nothing(store, verdict):
    after, (row,) = replay(store, verdict, lambda case, put_back: 0.4, at_most=3)
    assert row.outcome == "undecided"
    assert after.verdict == ("classifier",)
    assert any("hidden difficulty not excluded" in note for note in after.notes)


def test_inputs_that_cannot_be_run_are_counted_and_all_of_them_is_an_error(store, verdict):
    def sometimes(case, put_back):
        if int(case.trace_id, 16) % 2:
            raise RuntimeError("no document store")
        return not FAILED[case.trace_id] or put_back is not None

    _, (row,) = replay(store, verdict, sometimes)
    assert row.errors > 0
    assert row.n + row.errors == int((V2.cohort == 4).sum())

    def never(case, put_back):
        raise RuntimeError("no document store")

    with pytest.raises(BadInput, match="with classifier put back, the first with RuntimeError: no document store"):
        replay(store, verdict, never)


def test_a_score_that_is_no_number_is_an_input_that_cannot_be_run(store, verdict):
    ran = iter(range(1000))
    _, (row,) = replay(store, verdict, lambda case, put_back: float("nan") if next(ran) % 4 < 2 else 1.0, at_most=6)
    assert (row.n, row.errors) == (3, 3)


def test_where_nothing_is_blamed_nothing_is_run_and_a_note_says_so(store, verdict):
    after, settled = replay(store, replace(verdict, verdict=("none",)), lambda case, put_back: 1 / 0)
    assert settled == ()
    assert after.notes[-1].startswith("replay: nothing was run")

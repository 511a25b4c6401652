"""Drift: what moved is flagged within its cohort, what only varies is not, and looking often raises no alarm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from lstm_trace.analyse.calibration import calibration_error, reliability
from lstm_trace.analyse.divergence import jensen_shannon, null_threshold, wasserstein
from lstm_trace.analyse.drift import drift
from lstm_trace.analyse.sequential import capital, evidence
from lstm_trace.analyse.sides import releases
from lstm_trace.analyse.watch import watch
from lstm_trace.errors import BadInput
from lstm_trace.store import store_of
from tests.analyse.incidents import MINUTE_NS, START_NS, Ids, World, rows, simulate

BUG = replace(World(), classifier=(0.03, 0.03, 0.03, 0.4, 0.6))


def store_with(v1, v2, change=lambda row: row):
    random, ids = np.random.default_rng(5), Ids()
    made = [*rows(simulate(v1, 600, random), "v1", ids)]
    made += [change(row) for row in rows(simulate(v2, 600, random), "v2", ids, start_ns=START_NS + 1000 * MINUTE_NS)]
    return store_of(made)


def flagged(found):
    return {(row.signal, row.cohort) for row in found.signals if row.flagged}


def test_a_drop_of_confidence_shows_in_the_cohort_it_happened_in():
    with store_with(World(), BUG) as store:
        found = drift(store, "v1", "v2")
    assert {("confidence", "13-20"), ("confidence", "21+"), ("label_mix", "21+")} <= flagged(found)
    assert not {cohort for signal, cohort in flagged(found) if cohort in {"1-4", "5-8", "9-12"}}
    row = next(row for row in found.signals if (row.signal, row.cohort) == ("confidence", "all"))
    assert row.n == (600, 600)
    assert row.candidate < row.baseline


def test_nothing_is_flagged_without_a_change_and_the_estimate_says_what_it_assumes():
    with store_with(World(), World()) as store:
        found = drift(store, "v1", "v2")
    assert flagged(found) == set()
    assert {row.signal for row in found.signals} == {
        "confidence", "sequence_length", "label_mix", "latency", "calibration", "state_foreign"
    }  # fmt: skip
    assert "equal confidence" in found.estimate.assumption
    assert found.estimate.candidate == pytest.approx(0.966, abs=0.03)


def test_the_calibration_error_of_a_side_is_that_of_its_reliability_curve_and_of_a_count_by_hand():
    with store_with(World(), BUG) as store:
        found = drift(store, "v1", "v2")
        curve = reliability(store, "ground_truth_match")
        spans = {row["span_id"]: row for row in store.spans.to_pyarrow().to_pylist() if row["component"]}
        judged = [row for row in store.evaluations.to_pyarrow().to_pylist() if row["evaluation_name"] == "ground_truth_match"]
    row = next(row for row in found.signals if (row.signal, row.cohort) == ("calibration", "all"))
    for release, told in (("v1", row.baseline), ("v2", row.candidate)):
        of_release = [(spans[one["target_span_id"]]["confidence"], one["label"] == "pass") for one in judged if one["release"] == release]
        tenths = np.minimum([int(confidence * 10) for confidence, _ in of_release], 9)
        gap = np.array([right - confidence for confidence, right in of_release])
        by_hand = sum(abs(gap[tenths == tenth].sum()) for tenth in range(10)) / len(of_release)
        assert told == pytest.approx(by_hand, rel=1e-9)
        assert told == pytest.approx(calibration_error([one for one in curve if one.release == release]), rel=1e-9)


def test_a_moved_calibration_withholds_the_estimate():
    def overconfident(row):
        return row | {"confidence": 0.97} if row.get("component") else row

    with store_with(World(), BUG, overconfident) as store:
        found = drift(store, "v1", "v2")
    assert ("calibration", "all") in flagged(found)
    assert found.estimate.candidate is None
    assert "calibration moved" in found.estimate.withheld


def test_slower_and_foreign_calls_are_flagged():
    def worse(row):
        if not row.get("component"):
            return row
        state = "foreign" if int(row["span_id"], 16) % 10 == 0 else "zero"
        return row | {"duration_s": row["duration_s"] * 1.5, "state_origin": state}

    with store_with(World(), World(), worse) as store:
        assert {("latency", "all"), ("state_foreign", "all")} <= flagged(drift(store, "v1", "v2"))


def test_two_windows_compare_as_two_releases_do():
    with store_with(World(), BUG) as store:
        # START_NS is 2025-10-09T08:53:20Z; the candidate starts 1000 minutes later.
        found = drift(store, "2025-10-09/2025-10-10", "2025-10-10/2025-10-11")
        named = drift(store, "v1", "v2")
        assert [row.n for row in found.signals] == [row.n for row in named.signals]
        with pytest.raises(BadInput, match="overlap"):
            drift(store, "2025-10-09/2025-10-11", "2025-10-10/2025-10-12")


def test_distances_are_scipys():
    random = np.random.default_rng(1)
    before, after = random.integers(0, 50, 20).astype(float), random.integers(0, 50, 20).astype(float)
    grid = np.arange(20) * 0.05
    assert wasserstein(before, after, 0.05) == pytest.approx(wasserstein_distance(grid, grid, before, after))
    assert jensen_shannon(before, after) == pytest.approx(jensenshannon(before, after, base=2) ** 2)


@pytest.mark.parametrize("n", [50, 5000])
def test_the_null_threshold_is_exceeded_as_seldom_as_it_says(n):
    random = np.random.default_rng(2)
    shares = np.full(10, 0.1)
    over = 0
    for _ in range(300):
        before, after = (random.multinomial(n, shares).astype(float) for _ in range(2))
        over += jensen_shannon(before, after) > null_threshold(before, after, jensen_shannon, 0.05, random)
    assert 0.01 < over / 300 < 0.11


def test_an_e_process_looked_at_after_every_pair_alarms_no_more_often_than_it_says():
    random = np.random.default_rng(3)
    ever = sum(evidence(random.choice([-1.0, 0.0, 1.0], 4000), alpha=0.05).crossed_at is not None for _ in range(400))
    assert ever / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_an_e_process_sees_a_change_and_never_forgets_it():
    random = np.random.default_rng(4)
    path = capital(random.choice([-1.0, 1.0], 2000, p=[0.4, 0.6]))
    assert path.max() > 1e6
    assert evidence(np.concatenate([np.ones(30), -np.ones(300)]), alpha=0.05).crossed_at == 11


def test_a_watch_names_the_signal_its_direction_and_when():
    with store_with(World(), BUG) as store:
        found = {(row.signal, row.cohort): row for row in watch(store, "v1", "v2")}
    assert found["confidence", "13+"].flagged
    assert found["confidence", "13+"].direction == "down"
    assert found["failed ground_truth_match", "13+"].direction == "up"
    assert START_NS + 1000 * MINUTE_NS <= found["failed ground_truth_match", "13+"].alarmed_at_ns < START_NS + 1600 * MINUTE_NS
    assert not found["sequence_length", "all"].flagged
    assert not found["failed context_relevance", "13+"].pairs > 600


def test_releases_are_ordered_by_time_and_side_by_side_ones_by_name():
    ids = Ids()
    few = simulate(World(), 3, np.random.default_rng(1))
    made = [
        *rows(few, "v10", ids),
        *rows(few, "v9", ids, start_ns=START_NS - 10),
        *rows(few, "v1", ids, start_ns=START_NS + 99 * MINUTE_NS),
    ]
    with store_of(made) as store:
        assert releases(store) == ("v9", "v10", "v1")


def alike(release, start_ns, random, *, named):
    """Component calls of sixty customers, eight each, who stay as they are: one length, one matter, about one confidence."""
    for customer in range(60):
        length, label, confidence = int(random.integers(1, 40)), f"matter {random.integers(6)}", random.uniform(0.5, 0.98)
        for call in range(8):
            ids = {"trace_id": f"{start_ns + customer * 8 + call:032x}", "span_id": f"{customer * 8 + call:016x}"}
            at = start_ns + (customer + 60 * call) * MINUTE_NS
            yield ids | {
                "name": "lstm intent", "component": "intent", "release": release, "session_id": f"{release}/{customer}" if named else None,
                "start_ns": at, "end_ns": at + 1, "duration_s": 0.01 * float(random.uniform(1, 2)), "state_origin": "zero",
                "length": length, "label": label, "confidence": float(confidence + random.uniform(-0.01, 0.01)),
            }  # fmt: skip


def store_alike(seed, *, named):
    random = np.random.default_rng(seed)
    after = START_NS + 1000 * MINUTE_NS
    return store_of([*alike("v1", START_NS, random, named=named), *alike("v2", after, random, named=named)])


def test_calls_of_one_session_are_alike_and_that_is_no_drift():
    with store_alike(1, named=False) as store:
        assert {("confidence", "all"), ("label_mix", "all"), ("sequence_length", "all")} & flagged(drift(store, "v1", "v2"))
    with store_alike(1, named=True) as store:
        found = drift(store, "v1", "v2")
    assert flagged(found) == set()
    assert next(row for row in found.signals if row.signal == "confidence").n == (480, 480)


def test_a_watch_bets_once_a_session():
    with store_alike(2, named=False) as store:
        calls = {(row.signal, row.cohort): row for row in watch(store, "v1", "v2")}
    with store_alike(2, named=True) as store:
        sessions = {(row.signal, row.cohort): row for row in watch(store, "v1", "v2")}
    assert calls["confidence", "all"].pairs == 480
    assert sessions["confidence", "all"].pairs == 60
    assert not any(row.flagged for row in sessions.values())


def test_the_levels_of_a_watch_sum_to_its_own_and_never_fall():
    with store_with(World(), World()) as store:
        whole = {(row.signal, row.cohort): row.threshold for row in watch(store, "v1", "v2")}
        one = {(row.signal, row.cohort): row.threshold for row in watch(store, "v1", "v2", outcome="answer_quality")}
    assert sum(1.0 / threshold for threshold in whole.values()) <= 0.05
    assert all(whole[key] == threshold for key, threshold in one.items() if not key[0].startswith("failed"))

"""Compare: only matched windows count, in pairs, and what does not match is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from lstm_trace.analyse.compare import compare, compared
from lstm_trace.analyse.intervals import wilson
from lstm_trace.analyse.paired import flipped, mcnemar, summed
from lstm_trace.analyse.windows import Who, Windows
from lstm_trace.errors import BadInput
from lstm_trace.store import store_of
from tests.analyse.incidents import Ids, judgement, span

RANDOM = np.random.default_rng(9)
N = 240
WRONG = RANDOM.random(N) < 0.15, RANDOM.random(N) < 0.05
LENGTHS = RANDOM.integers(1, 30, N)
MS = RANDOM.integers(3, 9, N), RANDOM.integers(200, 400, N)


def calls(*, offset=0, same_trace=True, longer=0, shadowed=N, windows=None):
    """An LSTM and an LLM that predict the same intent, the LLM's model call two levels below its component."""
    ids = Ids()
    for index in range(N):
        trace, at = ids.of_trace(), 10**18 + index * 10**9
        root, one, two, inner, chat = (ids.of_span() for _ in range(5))
        session = None if windows is None else f"s{index // windows}"
        common = {"trace_id": trace, "release": "v1", "attributes": {"app.window": f"w{index}"}, "session_id": session}
        yield common | span(root, None, "chain claims", "CHAIN", at, 500)
        yield common | span(one, root, "lstm intent", "CHAIN", at, int(MS[0][index])) | {
            "component": "intent", "length": int(LENGTHS[index]), "label": "a",
        }  # fmt: skip
        yield judgement(ids, trace, one, "ground_truth_match", bool(WRONG[0][index]), "1", at, "v1")
        if index >= shadowed:
            continue
        other = common if same_trace else common | {"trace_id": ids.of_trace()}
        yield other | span(two, root, "lstm llm-intent", "CHAIN", at + 1, int(MS[1][index])) | {
            "component": "llm-intent", "length": int(LENGTHS[index]) + longer, "label": "ab"[index % 10 == 0],
            "attributes": {"app.window": f"w{index + offset}"},
        }  # fmt: skip
        yield other | span(inner, two, "chain prompt", "CHAIN", at + 2, 100)
        yield other | span(chat, inner, "chat small", "LLM", at + 3, 100) | {"model": "small", "input_tokens": 400, "output_tokens": 5}
        yield judgement(ids, other["trace_id"], two, "ground_truth_match", bool(WRONG[1][index]), "1", at, "v1")


def test_quality_latency_tokens_and_cost_stand_side_by_side():
    with store_of(calls()) as store:
        found = compare(store, "intent", "llm-intent", prices={"small": (1.0, 4.0)}, compute_price=0.36)
    one, two = WRONG
    assert (found.windows, found.unmatched, found.both_judged) == (N, (0, 0), N)
    assert (found.primary.failed, found.candidate.failed) == (one.sum(), two.sum())
    assert (found.only_primary_failed, found.only_candidate_failed) == ((one & ~two).sum(), (~one & two).sum())
    discordant = found.only_primary_failed + found.only_candidate_failed
    assert found.quality_p_value == pytest.approx(binomtest(found.only_primary_failed, discordant).pvalue)
    assert found.latency_ratio == pytest.approx(np.median(MS[1] / MS[0]), rel=0.01)
    assert found.latency_p_value < 1e-20
    assert found.candidate.latency_p99_s == pytest.approx(np.quantile(MS[1] / 1000, 0.99))
    assert (found.primary.input_tokens_mean, found.candidate.input_tokens_mean) == (0, 400)
    assert found.candidate.cost_per_1000 == pytest.approx((400 * 1.0 + 5 * 4.0) / 1000)
    assert found.primary.cost_per_1000 == pytest.approx(1000 * MS[0].mean() / 1000 / 3600 * 0.36)
    assert found.agreement == pytest.approx(0.9)
    assert [row.cohort for row in found.cohorts] == ["1-4", "5-8", "9-12", "13-20", "21+"]
    assert sum(row.n for row in found.cohorts) == N


def test_windows_are_matched_across_traces_by_an_attribute():
    with store_of(calls(same_trace=False)) as store:
        assert compare(store, "intent", "llm-intent", key="app.window").windows == N
        with pytest.raises(BadInput, match=r"no window of intent matches one of llm-intent by their place in a trace"):
            compare(store, "intent", "llm-intent")


def test_a_shadow_on_a_sample_is_compared_on_that_sample():
    with store_of(calls(shadowed=60)) as store:
        found = compare(store, "intent", "llm-intent")
    assert (found.windows, found.unmatched) == (60, (N - 60, 0))
    assert any("left out as unmatched: 180 calls of intent" in note for note in found.notes)


def test_windows_that_do_not_match_are_refused():
    with (
        store_of(calls(offset=100)) as store,
        pytest.raises(BadInput, match=r"windows do not match: by the attribute app.window 140 of 240"),
    ):
        compare(store, "intent", "llm-intent", key="app.window")
    with store_of(calls(longer=1)) as store, pytest.raises(BadInput, match=r"240 of 240 matched windows .* differ in length"):
        compare(store, "intent", "llm-intent")


def test_a_component_that_is_not_there_is_named():
    with store_of(calls()) as store:
        with pytest.raises(BadInput, match=r"component 'bert' has no call in memory; it holds 'intent', 'llm-intent'"):
            compare(store, "intent", "bert")
        with pytest.raises(BadInput, match=r"primary and candidate are both 'intent'"):
            compare(store, "intent", "intent")
        with pytest.raises(BadInput, match=r"component 'intent@v9' has no call"):
            compare(store, "intent", "intent@v9")


def test_a_model_without_a_price_has_no_cost():
    with store_of(calls()) as store:
        found = compare(store, "intent", "llm-intent", prices={"large": (1.0, 2.0)})
    assert found.candidate.cost_per_1000 is None
    assert "no cost for llm-intent: give --price small=IN,OUT" in found.notes


def test_windows_of_one_session_are_not_so_many_independent_ones():
    """Ten sessions, in each of which twelve windows say the same: as much as ten windows say, whoever counts them."""
    one, two = (np.repeat(wrong, 12) for wrong in ([True] * 6 + [False] * 4, [False] * 10))
    made = Windows(
        Who("a"), Who("b"), ("1-4",) * 120, np.repeat(np.arange(10), 12), ((None,) * 120,) * 2, np.tile([[0.01], [0.02]], 120),
        np.array([one, two], dtype=float), np.zeros((2, 120)), np.zeros((2, 120)), (frozenset(), frozenset()), (0, 0),
    )  # fmt: skip
    alone = replace(made, session=np.arange(120))
    together, apart = compared(made), compared(alone)
    assert (together.only_primary_failed, together.sessions, apart.sessions) == (72, 10, 120)
    assert together.quality_p_value == pytest.approx(mcnemar(6, 0)) == together.cohorts[0].q_value
    assert apart.quality_p_value == pytest.approx(mcnemar(72, 0))
    assert together.latency_p_value == pytest.approx(2 * 0.5**10)
    assert apart.latency_p_value < 1e-20
    assert (together.primary.ci_low, together.primary.ci_high) == pytest.approx(wilson(6, 10))
    assert (apart.primary.ci_low, apart.primary.ci_high) == pytest.approx(wilson(72, 120))
    assert "120 windows are of 10 sessions: the tests count a session once" in together.notes
    assert not any("sessions" in note for note in apart.notes)


def test_sessions_are_read_from_the_store():
    with store_of(calls(windows=4)) as store:
        found = compare(store, "intent", "llm-intent")
        assert (found.windows, found.sessions) == (N, N // 4)
    with store_of(calls()) as store:
        assert compare(store, "intent", "llm-intent").sessions == N


@given(st.lists(st.integers(-4, 4), max_size=10))
def test_the_sign_flip_test_is_the_count_of_all_signs(differences):
    sums = [abs(sum(signs)) for signs in itertools.product(*((-d, d) for d in differences))]
    assert flipped(np.array(differences, dtype=np.int64)) == pytest.approx(np.mean([s >= abs(sum(differences)) for s in sums]))


@given(st.integers(0, 40), st.integers(0, 40))
def test_without_sessions_it_is_mcnemars_test(first, second):
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)


def test_a_quiet_comparison_of_long_sessions_is_quiet():
    """Both contenders fail alike in the same sessions; counted as independent windows every third comparison would be significant."""
    random = np.random.default_rng(3)
    alarms = 0
    for _ in range(300):
        leaning = np.repeat(random.normal(0, 2, 40), 8)  # which of the two a session suits better
        rate = 1 / (1 + np.exp(1.5 - np.stack([leaning, -leaning]) / 2))
        failed = (random.random(rate.shape) < rate).astype(np.int64)
        alarms += flipped(summed(failed[1] - failed[0], np.repeat(np.arange(40), 8)).astype(np.int64)) < 0.05
    assert alarms <= 300 * 0.08


def test_as_many_unequal_sessions_as_there_may_be():
    random = np.random.default_rng(4)
    few, many = (random.integers(-3, 4, n) for n in (10_000, 60_000))
    assert 0 < flipped(few) <= 1
    exact = flipped(many[:11_000])
    scale = np.sqrt((many[:11_000] ** 2).sum())
    assert exact == pytest.approx(2 * norm.sf((abs(many[:11_000].sum()) - 0.5) / scale), rel=0.02)
    assert 0 < flipped(many) <= 1


def jobs(n, *, recorded=lambda index: True, sessions=None, repeats=0, agent=False, twice=False, models=("m",)):
    """Two components on the same windows; the second calls a model, which records tokens of the windows for which ``recorded`` says so.

    ``agent``: a span between holds the total as well; ``twice``: another instrumentation saw the same call, below it.
    """
    ids = Ids()
    for index in range(n):
        trace, at = ids.of_trace(), 10**18 + index * 10**9
        root, one, two, total, chat, again = (ids.of_span() for _ in range(6))
        session = None if sessions is None else f"s{index % sessions}"
        common = {"trace_id": trace, "release": "v1", "attributes": {"w": f"w{max(index, repeats)}"}, "session_id": session}
        spent = {"input_tokens": 100, "output_tokens": 7} if recorded(index) else {}
        yield common | span(root, None, "chain", "CHAIN", at, 500)
        yield common | span(one, root, "lstm a", "CHAIN", at, 5) | {"component": "a", "length": 5}
        yield common | span(two, root, "lstm b", "CHAIN", at, 50) | {"component": "b", "length": 5}
        yield common | span(total, two, "invoke_agent", "AGENT", at, 45) | (spent if agent else {})
        yield common | span(chat, total, "chat", "LLM", at, 40) | {"model": models[index % len(models)]} | spent
        if twice:
            yield common | span(again, chat, "chat", "LLM", at, 40) | {"model": "m-2026-01-01"} | spent
        for judged, wrong in ((one, index % 3 == 0), (two, index % 4 == 0)):
            yield judgement(ids, trace, judged, "ground_truth_match", wrong, "1", at, "v1")


PRICES = {"m": (1.0, 2.0)}
COST = 1000 * (100 * 1.0 + 7 * 2.0) / 1e6


def test_tokens_that_nobody_recorded_are_not_none_spent():
    with store_of(jobs(40, recorded=lambda index: False)) as store:
        found = compare(store, "a", "b", prices=PRICES)
    assert (found.primary.input_tokens_mean, found.primary.output_tokens_mean) == (0, 0)
    assert (found.candidate.input_tokens_mean, found.candidate.output_tokens_mean) == (None, None)
    assert found.candidate.cost_per_1000 is None
    assert "40 windows of b called a model that recorded no tokens" in found.notes
    assert "no cost for b: its model calls recorded no tokens" in found.notes
    with store_of(jobs(40, recorded=lambda index: index % 2)) as store:
        found = compare(store, "a", "b", prices=PRICES)
    assert (found.candidate.input_tokens_mean, found.candidate.cost_per_1000) == (100, pytest.approx(COST))
    assert "20 windows of b called a model that recorded no tokens: the others count" in found.notes


@pytest.mark.parametrize("how", [{"agent": True}, {"twice": True}, {"agent": True, "twice": True}], ids=["a total", "two spans", "both"])
def test_a_call_counts_once_however_often_its_tokens_were_recorded(how):
    with store_of(jobs(30, **how)) as store:
        found = compare(store, "a", "b", prices=PRICES | {"m-2026-01-01": (1.0, 2.0)} if how.get("agent") and how.get("twice") else PRICES)
    assert (found.candidate.input_tokens_mean, found.candidate.output_tokens_mean) == (100, 7)
    if how != {"agent": True, "twice": True}:
        assert found.candidate.cost_per_1000 == pytest.approx(COST)


def test_several_models_have_no_common_price():
    with store_of(jobs(30, models=("m", "n"))) as store:
        found = compare(store, "a", "b", prices=PRICES | {"n": (9.0, 9.0)})
    assert found.candidate.cost_per_1000 is None
    assert "no cost for b: its calls went to several models" in found.notes


def test_windows_of_one_session_have_no_interval():
    with store_of(jobs(40, sessions=1)) as store:
        found = compare(store, "a", "b")
    assert found.candidate.fail_rate == pytest.approx(0.25)
    assert (found.candidate.ci_low, found.candidate.ci_high, found.quality_p_value) == (None, None, 1.0)
    assert "40 windows are of 1 session: the tests count a session once, and one has no interval" in found.notes
    with store_of(jobs(1)) as store:
        found = compare(store, "a", "b")
    assert (found.primary.ci_low, found.primary.ci_high) == pytest.approx(wilson(1, 1))


def test_an_attribute_that_does_not_name_windows_is_refused():
    with store_of(jobs(40, repeats=20)) as store, pytest.raises(BadInput, match=r"the attribute w names 20 windows for 40 calls of a"):
        compare(store, "a", "b", key="w")
    with store_of(jobs(40, repeats=1)) as store:
        found = compare(store, "a", "b", key="w")
    assert (found.windows, found.unmatched) == (39, (0, 0))
    assert "left out as repeated: 1 calls of a, which had the same window again later" in found.notes


def test_a_component_is_not_compared_with_its_own_calls():
    with store_of(calls()) as store, pytest.raises(BadInput, match=r"'intent' and 'intent@v1' share calls"):
        compare(store, "intent", "intent@v1")

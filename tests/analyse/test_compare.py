"""Compare: only matched windows count, in pairs, and what does not match is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from lstm_trace.analyse.compare import compare
from lstm_trace.errors import BadInput
from lstm_trace.store import store_of
from tests.analyse.incidents import Ids, judgement, span

RANDOM = np.random.default_rng(9)
N = 240
WRONG = RANDOM.random(N) < 0.15, RANDOM.random(N) < 0.05
LENGTHS = RANDOM.integers(1, 30, N)
MS = RANDOM.integers(3, 9, N), RANDOM.integers(200, 400, N)


def calls(*, offset=0, same_trace=True, longer=0, shadowed=N):
    """An LSTM and an LLM that predict the same intent, the LLM's model call two levels below its component."""
    ids = Ids()
    for index in range(N):
        trace, at = ids.of_trace(), 10**18 + index * 10**9
        root, one, two, inner, chat = (ids.of_span() for _ in range(5))
        common = {"trace_id": trace, "release": "v1", "attributes": {"app.window": f"w{index}"}}
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

"""Incidents of a simulator that no threshold was chosen on: the verdict names the cause, and nothing that did not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lstm_trace.analyse.diagnose import judge
from tests.analyse.structural import Shop, labelled_of
from tests.analyse.test_incidents import NoTraces

SHOP = Shop()
CLUSTERED = Shop(per_session=4.0, customer=0.8)
STEEP = Shop(classifier=0.1, by_cohort=0.8)
HARD = Shop(classifier=0.15, retrieval=0.12, generation=0.25)
N = (2500, 2500)
INCIDENTS = {
    "classifier, long sessions": (SHOP, replace(SHOP, worse_classifier_long=1.5), N, {"classifier"}),
    "classifier, one matter": (SHOP, replace(SHOP, worse_on_first_matter=1.7), N, {"classifier"}),
    "classifier, foreign states": (SHOP, replace(SHOP, foreign=0.15), N, {"classifier"}),
    "classifier, on a canary": (SHOP, replace(SHOP, worse_classifier=1.4), (4000, 450), {"classifier"}),
    "classifier, clustered": (CLUSTERED, replace(CLUSTERED, worse_classifier=1.4), N, {"classifier"}),
    "routing": (SHOP, replace(SHOP, worse_routing=1.7), N, {"routing"}),
    "retrieval, one branch": (SHOP, replace(SHOP, worse_retrieval_in_one_branch=2.2), N, {"retrieval"}),
    "generation, long prompts": (SHOP, replace(SHOP, worse_generation_long=1.8), N, {"generation"}),
    "generation, late steps": (SHOP, replace(SHOP, worse_late=1.8), N, {"generation"}),
    "generation, tool errors": (SHOP, replace(SHOP, tool_errors=0.07), N, {"generation"}),
    "generation, where much fails": (HARD, replace(HARD, worse_generation=0.9), N, {"generation"}),
    "mix": (STEEP, replace(STEEP, log_length=2.75), N, {"mix"}),
    "mix and classifier": (STEEP, replace(STEEP, log_length=2.65, worse_classifier_long=1.4), N, {"mix", "classifier"}),
    "routing and retrieval": (SHOP, replace(SHOP, worse_routing=1.8, worse_retrieval=1.3), N, {"routing", "retrieval"}),
    "better classifier, worse generation": (SHOP, replace(SHOP, worse_classifier=-0.8, worse_generation=1.2), N, {"generation"}),
    "everything better": (SHOP, replace(SHOP, worse_classifier=-0.9, worse_generation=-0.5), N, {"none"}),
}
QUIET = (SHOP, CLUSTERED, Shop(per_session=8.0, customer=1.5), HARD)


def verdict(before, after, n, seed):
    cells = labelled_of(before, after, n, np.random.default_rng(seed), NoTraces())
    return set(judge(cells, "v1", "v2", seed=seed).verdict)


def test_the_cause_is_named():
    right = {(name, seed): verdict(*given, seed) == truth for name, (*given, truth) in INCIDENTS.items() for seed in range(2)}
    print([key for key, fine in right.items() if not fine])
    assert sum(right.values()) / len(right) >= 0.93


def test_quiet_releases_raise_no_alarm():
    verdicts = [verdict(shop, shop, N, seed) for seed in range(8) for shop in QUIET]
    assert sum(not {"none", "insufficient_evidence"} & found for found in verdicts) <= 1

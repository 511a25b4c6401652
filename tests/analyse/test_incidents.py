"""Two dozen incidents with a known cause: the verdict names it, and a quiet comparison raises no alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from lstm_trace.analyse.diagnose import Verdict, judge
from lstm_trace.analyse.labelled import Labelled
from tests.analyse.incidents import COHORTS, Outcomes, World, simulate

FINE = World()
WEAK = replace(FINE, classifier=(0.02, 0.03, 0.05, 0.08, 0.15))
EVERY = ("classifier", "routing", "retrieval")


class NoTraces:
    """Stands where a verdict looks for exemplar traces: these incidents have cells only."""

    def __getattr__(self, name: str) -> NoTraces:
        return self

    def __getitem__(self, name: str) -> NoTraces:
        return self

    def __call__(self, *given: object, **named: object) -> NoTraces:
        return self

    def __eq__(self, other: object) -> NoTraces:  # type: ignore[override]
        return self

    __hash__ = None

    def to_pylist(self) -> list[str]:
        return []


def cells(before: Outcomes, after: Outcomes, measured: Sequence[str] = EVERY, confounded: frozenset[str] = frozenset()) -> Labelled:
    counts = np.stack([before.counts(), after.counts()])[..., None]
    counts = counts.sum(axis=tuple(index + 2 for index, name in enumerate(EVERY) if name not in measured))
    n = (before.failed.size, after.failed.size)
    return Labelled("answer_quality", COHORTS, tuple(measured), counts, np.ones(1), n, (), confounded, NoTraces())


@dataclass(frozen=True)
class Incident:
    """Two worlds, what the verdict must be, and how many traces a release are labelled."""

    name: str
    after: World
    verdict: set[str]
    before: World = FINE
    n: tuple[int, int] = (3000, 3000)
    measured: tuple[str, ...] = EVERY
    confounded: frozenset[str] = field(default_factory=frozenset)


INCIDENTS = (
    Incident("classifier, longest", replace(FINE, classifier=(0.03, 0.03, 0.03, 0.04, 0.17)), {"classifier"}),
    Incident("classifier, longer than 12", replace(FINE, classifier=(0.03, 0.03, 0.03, 0.11, 0.11)), {"classifier"}),
    Incident("classifier, everywhere", replace(FINE, classifier=(0.08, 0.08, 0.08, 0.09, 0.09)), {"classifier"}),
    Incident("classifier, shortest", replace(FINE, classifier=(0.18, 0.03, 0.03, 0.04, 0.04)), {"classifier"}),
    Incident("classifier, severe", replace(FINE, classifier=(0.03, 0.03, 0.05, 0.4, 0.6)), {"classifier"}),
    Incident("classifier, severe, 800", replace(FINE, classifier=(0.03, 0.03, 0.05, 0.4, 0.6)), {"classifier"}, n=(800, 800)),
    Incident("classifier, few candidates", replace(FINE, classifier=(0.03, 0.03, 0.03, 0.15, 0.3)), {"classifier"}, n=(5000, 1000)),
    Incident("routing", replace(FINE, routing=(0.055, 0.6)), {"routing"}),
    Incident("routing, severe", replace(FINE, routing=(0.15, 0.6)), {"routing"}),
    Incident("retrieval", replace(FINE, retrieval=(0.09, 0.7)), {"retrieval"}),
    Incident("retrieval, severe", replace(FINE, retrieval=(0.2, 0.7)), {"retrieval"}),
    Incident("generation", replace(FINE, generation=(0.075, 0.8)), {"generation"}),
    Incident("generation, severe", replace(FINE, generation=(0.15, 0.85)), {"generation"}),
    Incident("mix", replace(WEAK, mix=(0.05, 0.15, 0.2, 0.3, 0.3)), {"mix"}, before=WEAK),
    Incident(
        "mix and generation", replace(WEAK, mix=(0.05, 0.15, 0.2, 0.3, 0.3), generation=(0.1, 0.8)), {"mix", "generation"}, before=WEAK
    ),
    Incident(
        "classifier and generation",
        replace(FINE, classifier=(0.03, 0.03, 0.03, 0.1, 0.25), generation=(0.085, 0.8)),
        {"classifier", "generation"},
    ),
    Incident("routing and retrieval", replace(FINE, routing=(0.08, 0.6), retrieval=(0.11, 0.7)), {"routing", "retrieval"}),
    Incident(
        "classifier better, generation worse",
        replace(FINE, generation=(0.08, 0.8)),
        {"generation"},
        before=replace(FINE, classifier=(0.08, 0.08, 0.08, 0.08, 0.08)),
    ),
    Incident("everything better", FINE, {"none"}, before=replace(FINE, classifier=(0.1,) * 5, generation=(0.08, 0.8))),
    Incident("mix moved, no harm", replace(FINE, mix=(0.1, 0.2, 0.25, 0.25, 0.2)), {"none"}),
    Incident("few labels", replace(FINE, classifier=(0.03, 0.03, 0.03, 0.06, 0.1)), {"insufficient_evidence"}, n=(120, 120)),
    Incident("few labels, quiet", FINE, {"insufficient_evidence"}, n=(150, 150)),
    Incident(
        "evaluator changed", replace(FINE, generation=(0.12, 0.9)), {"insufficient_evidence"}, confounded=frozenset({"generation"})
    ),
    Incident(
        "evaluator changed, classifier bug",
        replace(FINE, classifier=(0.03, 0.03, 0.03, 0.2, 0.3), generation=(0.12, 0.9)),
        {"classifier"},
        confounded=frozenset({"generation"}),
    ),
    Incident("retrieval not measured", replace(FINE, retrieval=(0.12, 0.7)), {"generation"}, measured=("classifier", "routing")),
    Incident("only the outcome measured", replace(FINE, classifier=(0.03, 0.03, 0.03, 0.3, 0.5)), {"generation"}, measured=()),
    Incident("quiet", FINE, {"none"}),
    Incident(
        "classifier, better for short ones, worse for long ones",
        replace(FINE, classifier=(0.03, 0.03, 0.03, 0.12, 0.16)),
        {"classifier"},
        before=replace(FINE, classifier=(0.14, 0.1, 0.03, 0.04, 0.04)),
    ),
)  # fmt: skip


def verdict_of(incident: Incident, seed: int) -> Verdict:
    random = np.random.default_rng([seed, INCIDENTS.index(incident) if incident in INCIDENTS else 99])
    sides = simulate(incident.before, incident.n[0], random), simulate(incident.after, incident.n[1], random)
    return judge(cells(*sides, incident.measured, incident.confounded), "v1", "v2", seed=seed)


def right(incident: Incident, runs: int) -> float:
    return sum(set(verdict_of(incident, seed).verdict) == incident.verdict for seed in range(runs)) / runs


def test_the_right_verdict_over_all_incidents():
    rates = {incident.name: right(incident, 6) for incident in INCIDENTS}
    print({name: round(rate, 2) for name, rate in rates.items() if rate < 1})
    assert np.mean(list(rates.values())) >= 0.95


def test_no_alarm_in_quiet_comparisons():
    quiet = Incident("quiet", FINE, {"none"})
    alarms = sum(not {"none", "insufficient_evidence"} & set(verdict_of(quiet, seed).verdict) for seed in range(150))
    assert alarms / 150 <= 0.02


def test_contributions_are_near_the_truth():
    incident = INCIDENTS[4]
    large = replace(incident, n=(400_000, 400_000))
    truth = {part.name: part.contribution_pp for part in verdict_of(large, 0).components}
    inside = [part.ci_low <= truth[part.name] <= part.ci_high for seed in range(25) for part in verdict_of(incident, seed).components]
    assert np.mean(inside) >= 0.9


def test_hidden_difficulty_is_said_not_to_be_excluded():
    found = verdict_of(Incident("hidden", replace(FINE, hidden=0.15), set()), 1)
    assert len(found.verdict) > 1
    assert any("hidden difficulty not excluded, and likelier here" in note for note in found.notes)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_next_to_nothing_is_insufficient(n):
    incident = Incident("tiny", FINE, {"insufficient_evidence"}, n=(n, n))
    assert verdict_of(incident, 0).verdict == ("insufficient_evidence",)


def test_with_few_labels_an_incident_is_not_called_none():
    """600 traces a release name the cause of half of the milder incidents; of the rest nobody may say that nothing got worse."""
    milder = [incident for incident in INCIDENTS[:18] if incident.n == (3000, 3000)]
    found = [(incident.verdict, set(verdict_of(replace(incident, n=(600, 600)), seed).verdict)) for incident in milder for seed in range(4)]
    right = sum(verdict == truth for truth, verdict in found)
    assert right >= 0.4 * len(found)
    assert sum(verdict == {"none"} for _, verdict in found) <= 0.02 * len(found)
    assert sum(bool(verdict - truth - {"insufficient_evidence"}) for truth, verdict in found) <= 0.03 * len(found)


def test_what_got_better_for_certain_is_none_with_few_labels_too():
    better = Incident("better", FINE, {"none"}, before=replace(FINE, classifier=(0.2,) * 5, generation=(0.12, 0.8)), n=(600, 600))
    assert right(better, 6) == 1.0


def test_of_one_trace_a_side_the_notes_say_what_the_intervals_are_worth():
    found = verdict_of(replace(INCIDENTS[0], n=(1, 1)), 0)
    assert found.verdict == ("insufficient_evidence",)
    assert any(note.startswith("few labels: 1 and 1 traces") for note in found.notes)

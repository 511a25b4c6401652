"""Incidents of a simulator that was written from the public pages alone: the verdict names the cause, and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest

from lstm_trace.analyse.diagnose import diagnose, judge
from lstm_trace.analyse.labelled import Labelled
from lstm_trace.store import open_store
from tests.analyse.claims import INCIDENTS, Incident, rows_of, simulate, write
from tests.analyse.desk_written import counted_of
from tests.analyse.test_incidents import NoTraces

NAMED = {incident.name: incident for incident in INCIDENTS}
CALM = {"none", "insufficient_evidence"}


def cells(incident: Incident, n: int, seed: int) -> Labelled:
    world, (before, after) = simulate(incident, n, seed)
    return counted_of([*rows_of(before, "v1"), *rows_of(after, "v2")], world.turns > 1, frozenset(), NoTraces())


def outcome(incident: Incident, n: int, seed: int) -> str:
    """What became of one draw: ``right``, or the verdict."""
    found = judge(cells(incident, n, seed), "v1", "v2", seed=seed)
    blamed = frozenset(found.verdict) - CALM
    return "right" if blamed == incident.truth else "+".join(found.verdict)


def test_the_right_verdict_over_all_incidents():
    found = Counter((incident.name, outcome(incident, 3000, 0)) for incident in INCIDENTS if incident.truth)
    print({name: verdict for name, verdict in found if verdict != "right"})
    assert sum(count for (_, verdict), count in found.items() if verdict == "right") >= 0.95 * found.total()


def test_next_to_no_alarm_without_harm():
    found = Counter(outcome(incident, 1000, seed) for incident in INCIDENTS if not incident.truth for seed in range(2))
    assert found.total() - found["right"] <= 1


@pytest.mark.parametrize(
    ("name", "child", "score"),
    [("the example of the API", False, True), ("retriever, three branches have one", True, False), ("mix, a harder intent", False, False)],
)
def test_spans_written_by_hand_are_read_as_what_happened(tmp_path, name, child, score):
    write(tmp_path, simulate(NAMED[name], 400, 0)[1], child=child, score=score)
    with open_store(tmp_path) as store:
        read = diagnose(store, "v1", "v2")
    meant = judge(cells(NAMED[name], 400, 0), "v1", "v2")
    assert (read.n, read.verdict) == (meant.n, meant.verdict)
    assert {part.name: part.contribution_pp for part in read.components} == pytest.approx(
        {part.name: part.contribution_pp for part in meant.components}, abs=0.01
    )

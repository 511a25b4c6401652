"""A cause that acts in some of the traces only: `where` names them by what tells them apart, and all where it acts on all."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from lstm_trace.analyse.diagnose import diagnose, judge
from lstm_trace.analyse.placing import placed
from lstm_trace.analyse.replay import replay
from lstm_trace.analyse.slices import CUTS, named
from lstm_trace.analyse.values import fetched
from lstm_trace.report.text import verdict_text
from lstm_trace.store import convert, open_store
from tests.analyse.claims import INCIDENTS, simulate, write
from tests.analyse.desk import Case, Desk, Hurt, Recorded
from tests.analyse.desk_written import labelled_of
from tests.analyse.test_claims_incidents import NAMED, cells
from tests.analyse.test_incidents import NoTraces

GOLD = replace(NAMED["classifier, one intent"], world={"expected": True})
LATE = replace(NAMED["model, late steps"], hurts=(("generation", "late", 0.2),))


def places(found):
    return {(place.component, place.cohort) for place in found.where}


@pytest.mark.parametrize(
    ("incident", "component", "cohort"),
    [
        (GOLD, "classifier", "label=refund"),
        (NAMED["router, one label"], "routing", "label=cancel"),
        (NAMED["retriever, one branch"], "retrieval", "label=status"),
        (NAMED["classifier, after a gap"], "classifier", "time_gap>1 h"),
        (LATE, "generation", "step>=4"),
    ],
)
def test_where_names_what_the_cause_acts_on(incident, component, cohort):
    found = [judge(cells(incident, 1500, seed), "v1", "v2", seed=seed) for seed in range(3)]
    assert [verdict.verdict for verdict in found] == [(component,)] * 3
    assert sum((component, cohort) in places(verdict) for verdict in found) >= 2


@pytest.mark.parametrize("name", ["classifier, everywhere", "router, everywhere", "retriever, everywhere", "model, everywhere"])
def test_a_cause_that_acts_on_all_is_named_as_such(name):
    found = [judge(cells(NAMED[name], 2000, seed), "v1", "v2", seed=seed) for seed in range(3)]
    component = next(iter(NAMED[name].truth))
    assert sum(places(verdict) == {(component, "all")} for verdict in found if verdict.verdict == (component,)) >= 2
    assert all(" where " not in verdict.sentence and " in sequences of " not in verdict.sentence for verdict in found)


def test_state_that_is_carried_over_is_seen_from_the_second_turn_on():
    base = Desk(turns=3.0, customer=0.4)
    given = Case(base, replace(base, hurt=(Hurt("classifier", 0.15, "carried"),)), Recorded(), ())
    found = [judge(labelled_of(given, (2000, 2000), np.random.default_rng(seed), NoTraces()), "v1", "v2") for seed in range(5)]
    assert [verdict.verdict for verdict in found] == [("classifier",)] * 5
    assert sum(("classifier", "position>=2") in places(verdict) for verdict in found) >= 3


def test_a_label_that_comes_more_often_is_no_worse_component():
    """Four times as many refunds, which are the hardest to tell: by what was predicted every label would hold more mistakes."""
    harder = next(incident for incident in INCIDENTS if incident.name == "mix, a harder intent")
    for seed in range(3):
        assert judge(cells(harder, 2000, seed), "v1", "v2", seed=seed).verdict == ("mix",)


def test_a_classifier_is_sliced_by_right_labels_and_what_comes_after_it_by_predicted_ones():
    by = {component: {cut.column for cut in CUTS if component in cut.components} for cut in CUTS for component in cut.components}
    assert by["classifier"] == {"expected", "gap", "position"}
    assert by["routing"] == by["retrieval"] == {"label", "gap", "position"}
    assert by["generation"] == {"label", "gap", "position", "step"}


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    write(folder, simulate(LATE, 800, 1)[1])
    with open_store(folder) as store:
        yield store


def test_a_store_says_the_same_in_words_and_as_json(late):
    found = diagnose(late, "v1", "v2")
    assert places(found) == {("generation", "step>=4")}
    assert found.sentence.endswith(", where step>=4.")
    assert json.loads(json.dumps(found.as_dict()))["where"][0]["cohort"] == "step>=4"
    assert any("generation where step>=4: own fail rate" in str(line) for line in verdict_text(found).renderables)


def test_its_rate_is_that_of_the_traces_it_names_and_examples_are_some_of_them(late):
    found = diagnose(late, "v1", "v2")
    before, after = simulate(LATE, 800, 1)[1]
    for rate, side in zip((found.where[0].baseline, found.where[0].candidate), (before, after), strict=True):
        clean = (side["step"] >= 4) & (side["classifier"] == 0) & (side["routing"] == 0) & (side["retrieval"] == 0)
        assert rate == pytest.approx(side["failed"][clean].mean())
    numbers = [int(trace[8:], 16) for trace in found.exemplars]
    assert len(numbers) == 5
    assert (after["step"][numbers] >= 4).all()


def test_only_its_traces_are_run_again(late):
    found, seen = diagnose(late, "v1", "v2"), set()
    replay(late, found, lambda case, put_back: bool(seen.add(case.trace_id)), at_most=2000)
    after = simulate(LATE, 800, 1)[1][1]
    assert {int(trace[8:], 16) for trace in seen} == set(np.flatnonzero(after["step"] >= 4))


def test_right_labels_and_predicted_ones_are_told_apart_in_a_store(tmp_path):
    write(tmp_path, simulate(GOLD, 800, 2)[1])
    with open_store(tmp_path) as store:
        found = diagnose(store, "v1", "v2")
    before, after = simulate(GOLD, 800, 2)[1]
    assert places(found) == {("classifier", "label=refund")}
    for rate, side in zip((found.where[0].baseline, found.where[0].candidate), (before, after), strict=True):
        assert rate == pytest.approx(side["classifier"][side["intent"] == 1].mean())
    assert (after["intent"][[int(trace[8:], 16) for trace in found.exemplars]] == 1).all()


def test_a_converted_store_says_the_same(tmp_path):
    """Its marks tell the last step of a trace, and its place in its session; the incident has sessions of four."""
    write(tmp_path, simulate(replace(NAMED["classifier, sessions"], hurts=(("generation", "late", 0.3),)), 400, 3)[1])
    with open_store(tmp_path) as store:
        convert(store, tmp_path / "spans.parquet")
        here, told = diagnose(store, "v1", "v2"), [positioned(store, column) for column in ("position", "step")]
    with open_store(tmp_path / "spans.parquet") as converted:
        assert converted.marked is not None
        assert [positioned(converted, column) for column in ("position", "step")] == told
        assert diagnose(converted, "v1", "v2").as_dict() == here.as_dict()
    assert {row["position"] for row in told[0]} == {"0", "1", "2"}
    assert places(here) == {("generation", "step>=4")}


def positioned(store, column):
    traces = store.only("trace_id", "component").filter(lambda spans: spans.component.notnull()).select("trace_id")
    return sorted(fetched(placed(store, traces, column)), key=lambda row: row["trace_id"])


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.column)
def test_every_name_is_read_back_as_the_slice_it_names(cut):
    for name in [f"label={value}" for value in ("a=b", "")] if cut.bounds is None else [cut.dimension + end for end in cut.bounds.values()]:
        part = named(name, cut.components[0])
        assert part is not None
        assert (part.name, part.cut) == (name, cut)


def test_a_cohort_of_lengths_is_no_slice():
    assert named("21+", "classifier") is None

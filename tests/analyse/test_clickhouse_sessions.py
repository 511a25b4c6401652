"""Where traces share a session, every analysis says the same on ClickHouse's engine as on DuckDB."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from benchmarks.make_spans import lines
from lstm_trace.analyse.cohorts import cohorts
from lstm_trace.analyse.compare import compare
from lstm_trace.analyse.diagnose import diagnose
from lstm_trace.analyse.drift import drift
from lstm_trace.analyse.labelled import labelled
from lstm_trace.analyse.sides import releases
from lstm_trace.analyse.watch import watch
from lstm_trace.store import open_store
from tests.store.otlp import write

pytest.importorskip("chdb.session")
pytest.importorskip("clickhouse_connect")

from tests.analyse.test_clickhouse import rounded
from tests.store.test_store_clickhouse import insert, server

__all__ = ["server"]
pytestmark = pytest.mark.real
A_SESSION = 5


def spans_of(request):
    return request["resourceSpans"][0]["scopeSpans"][0]["spans"]


def said(span):
    return {one["key"]: one["value"] for one in span["attributes"]}


def shared(requests):
    """The same traces, five to a session; beside each component call a shadow of it, and gold on both, which a session's number decides."""
    for request in requests:
        spans, more = spans_of(request), []
        for span in spans:
            for one in span["attributes"]:
                if one["key"] == "session.id":
                    number = int(one["value"]["stringValue"][2:])
                    one["value"] = {"stringValue": f"s-{number // A_SESSION}"}
        calls = {span["traceId"]: span for span in spans if "lstm.component.name" in said(span)}
        for span in [one for one in spans if said(one)["openinference.span.kind"]["stringValue"] == "EVALUATOR"]:
            call = calls[said(span)["lstm.evaluation.target.trace_id"]["stringValue"]]
            number = int(call["traceId"], 16)
            shadow = deepcopy(call)
            shadow["spanId"] = f"f{call['spanId'][1:]}"
            shadow["endTimeUnixNano"] = str(int(call["endTimeUnixNano"]) + 1_000_000 * (1 + number % 7))
            for one in shadow["attributes"]:
                if one["key"] == "lstm.component.name":
                    one["value"] = {"stringValue": "shadow"}
            more.append(shadow)
            for place, (target, wrong) in enumerate(((call, number // A_SESSION % 3 == 0), (shadow, number // A_SESSION % 4 == 0))):
                gold = deepcopy(span)
                gold["traceId"], gold["spanId"] = f"{place + 1}{span['traceId'][1:]}", f"{place + 1}{span['spanId'][1:]}"
                told = {
                    "gen_ai.evaluation.name": {"stringValue": "ground_truth_match"},
                    "gen_ai.evaluation.score.value": {"doubleValue": 0.0 if wrong else 1.0},
                    "gen_ai.evaluation.score.label": {"stringValue": "fail" if wrong else "pass"},
                    "lstm.evaluation.target.span_id": {"stringValue": target["spanId"]},
                    "lstm.evaluation.identifier": {"stringValue": f"gold-{place}-{number}"},
                }
                gold["attributes"] = [{"key": key, "value": value} for key, value in {**said(span), **told}.items()]
                gold["links"][0]["spanId"] = target["spanId"]
                more.append(gold)
        spans += more
    return requests


@pytest.fixture(scope="module")
def both(server, tmp_path_factory):
    requests = shared([json.loads(line) for line in lines(3200)])
    path = write(tmp_path_factory.mktemp("here") / "spans.jsonl", *requests)
    with open_store(path) as here, open_store(insert(server, "shared_sessions", requests)) as there:
        yield here, there


def test_the_place_in_a_session(both):
    here, there = (cohorts(store, ("position", "release")).as_dict() for store in both)
    assert there == rounded(here)
    assert {row["position"] for row in here["rows"]} == {"1", "2-3", "4-6"}


def test_sessions_are_clusters_on_either_engine(both):
    pair = releases(both[0])[:2]
    assert [[side.n for side in labelled(store, *pair).sessions] for store in both] == [[45, 36]] * 2
    for analysis in (diagnose, drift):
        here, there = (analysis(store, *pair).as_dict() for store in both)
        assert there == rounded(here)
    here, there = (watch(store, *pair) for store in both)
    assert here == there
    assert max(row.pairs for row in here) == 36


def test_a_comparison_counts_sessions(both):
    here, there = (compare(store, "intent", "shadow").as_dict() for store in both)
    assert there == rounded(here)
    assert (here["windows"], here["sessions"]) == (400, 400 // A_SESSION)
    assert here["only_primary_failed"] > 0 < here["only_candidate_failed"]

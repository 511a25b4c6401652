"""Every analysis says the same on ClickHouse's engine as on DuckDB, from the same spans."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.make_spans import lines
from lstm_trace.analyse.cases import View
from lstm_trace.analyse.cohorts import cohorts
from lstm_trace.analyse.compare import compare
from lstm_trace.analyse.diagnose import diagnose
from lstm_trace.analyse.drift import drift
from lstm_trace.analyse.onetrace import read_trace
from lstm_trace.analyse.values import fetched, quantile
from lstm_trace.analyse.watch import watch
from lstm_trace.errors import BadInput
from lstm_trace.store import open_store
from tests.store.otlp import request, span, write

pytest.importorskip("chdb.session")
pytest.importorskip("clickhouse_connect")

from tests.store.test_store_clickhouse import insert, server

__all__ = ["server"]
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def both(server, tmp_path_factory):
    requests = [json.loads(line) for line in lines(800)]
    # A call that says nothing of its session or branch.
    requests.append(request(span(1, {"lstm.component.name": "intent", "lstm.release": "v1", "lstm.sequence.length": 3})))
    path = write(tmp_path_factory.mktemp("here") / "spans.jsonl", *requests)
    with open_store(path) as here, open_store(insert(server, "analysed", requests)) as there:
        yield here, there


def rounded(value):
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-6, abs=1e-9)
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("by", [("cohort", "release"), ("branch", "position"), ("position",), ("service.name",)])
def test_cohorts(both, by):
    here, there = (cohorts(store, by).as_dict() for store in both)
    assert there == rounded(here)
    assert here["rows"]


def test_a_quantile_of_many_values_is_exact(both):
    values = both[1].connection.sql(
        "select if(number = 7, null, toFloat64(cityHash64(number))) as x, 1 as n from numbers(20000)", dialect="clickhouse"
    )
    drawn = np.array([row["x"] for row in fetched(values.filter(values.x.notnull()))])
    found = fetched(values.aggregate(**{f"p{level}": quantile(values.x, level / 100) for level in (0, 50, 99, 100)}))
    assert found == [{f"p{level}": pytest.approx(np.quantile(drawn, level / 100), rel=1e-12) for level in (0, 50, 99, 100)}]
    nothing = values.filter(values.x < 0)
    assert fetched(nothing.aggregate(p50=quantile(nothing.x, 0.5))) == [{"p50": None}]


def test_cohorts_with_other_edges_and_a_window(both):
    start = both[0].spans.start_ns.min().to_pyarrow().as_py()
    view = View(edges=(10,), since_ns=start + 1000, component="intent")
    here, there = (cohorts(store, view=view).as_dict() for store in both)
    assert there == rounded(here)


def sides(store):
    from lstm_trace.analyse.sides import releases

    return releases(store)[:2]


def test_diagnose_drift_and_watch(both):
    here, there = both
    pair = sides(here)
    assert sides(there) == pair
    for analysis in (diagnose, drift):
        assert analysis(there, *pair).as_dict() == rounded(analysis(here, *pair).as_dict())
    assert watch(there, *pair) == watch(here, *pair)


def test_one_trace(both):
    trace_id = "1".zfill(32)
    assert read_trace(both[1], trace_id).as_dict() == rounded(read_trace(both[0], trace_id).as_dict())


def test_a_comparison_is_refused_alike(both):
    said = []
    for store in both:
        with pytest.raises(BadInput) as caught:
            compare(store, "intent", "nothing")
        said.append(str(caught.value).replace(store.address, "STORE"))
    assert said[0] == said[1]

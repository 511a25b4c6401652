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
from tests.store.otlp import START, request, span, write

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


def contenders():
    """40 windows that an LSTM and an LLM both saw, the LLM two levels above its model call; some say nothing of tokens or of the window."""
    for index in range(40):
        number, window = 10 * index, {"app.window": f"w{index % 39}", "session.id": f"s{index // 4}"} if index % 13 else {}
        where = {"traceId": f"{index + 1:032x}"}
        seen = {"lstm.release": "v1", "lstm.sequence.length": index % 20 + 1, **window}
        fails = {name: "fail" if index % of == 0 else "pass" for name, of in (("intent", 5), ("llm", 7))}

        def judged(name, number, where=where, fails=fails):
            said = {"gen_ai.evaluation.name": "ground_truth_match", "gen_ai.evaluation.score.label": fails[name]}
            target = {"lstm.evaluation.target.trace_id": where["traceId"], "lstm.evaluation.target.span_id": f"{number:016x}"}
            return span(number + 10**6, {"openinference.span.kind": "EVALUATOR", **said, **target}, **where)

        tokens = {"gen_ai.usage.input_tokens": 100 + index, "gen_ai.usage.output_tokens": 7} if index % 8 else {}
        model = {"openinference.span.kind": "LLM", "gen_ai.request.model": "small", **tokens}
        ends = {"endTimeUnixNano": str(START + number + 10**6 * (index + 1))}
        yield request(
            span(number + 1, {"openinference.span.kind": "CHAIN"}, **where),
            span(number + 2, {"lstm.component.name": "intent", **seen}, parentSpanId=f"{number + 1:016x}", **where, **ends),
            span(number + 3, {"lstm.component.name": "llm", **seen}, parentSpanId=f"{number + 1:016x}", **where),
            span(number + 4, {"openinference.span.kind": "CHAIN"}, parentSpanId=f"{number + 3:016x}", **where),
            span(number + 5, model, parentSpanId=f"{number + 4:016x}", **where),
            judged("intent", number + 2),
            judged("llm", number + 3),
        )


@pytest.mark.parametrize("key", [None, "app.window"])
def test_a_comparison(server, tmp_path, key):
    requests = list(contenders())
    table = f"compared_{'key' if key else 'place'}"
    with open_store(write(tmp_path / "c.jsonl", *requests)) as here, open_store(insert(server, table, requests)) as there:
        found = [compare(store, "intent", "llm", key=key, prices={"small": (1.0, 4.0)}).as_dict() for store in (here, there)]
    assert found[1] == rounded(found[0])
    assert found[0]["windows"] == (36 if key else 40)
    assert found[0]["primary"]["failed"]
    assert found[0]["candidate"]["cost_per_1000"]


def test_a_comparison_is_refused_alike(both):
    said = []
    for store in both:
        with pytest.raises(BadInput) as caught:
            compare(store, "intent", "nothing")
        said.append(str(caught.value).replace(store.address, "STORE"))
    assert said[0] == said[1]

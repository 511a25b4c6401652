"""Evaluators that run after the answer: off its path, sampled, bounded, drained, and never in its way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import SpanContext, TraceFlags

from lstm_trace import conventions as c
from lstm_trace.background import Background
from lstm_trace.evaluate import EvaluationResult, Groundedness
from lstm_trace.evaluate.online import OnlineEvaluators, material_of
from lstm_trace.recorder import Recorder, set_default_recorder
from lstm_trace.settings import Settings
from tests.evaluate.scripted import ScriptedChatModel, verdict
from tests.tracing import Traced


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture(autouse=True)
def recorder(traced: Traced, reader: InMemoryMetricReader) -> Recorder:
    recorder = Recorder(Settings(release="v1"), tracer_provider=traced.provider, meter_provider=MeterProvider([reader]))
    set_default_recorder(recorder)
    return recorder


@pytest.fixture
def work() -> Background:
    return Background("test", workers=1, capacity=4)


def where(number: int, sampled: bool = True) -> SpanContext:
    return SpanContext(number, 0xABCD, is_remote=False, trace_flags=TraceFlags(int(sampled)))


class Noting:
    """An evaluator that notes what it was given, and waits where the test says so."""

    name = "noting"

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate, self.given, self.threads = gate, list[dict[str, Any]](), set[str]()

    def evaluate(self, **material: Any) -> EvaluationResult:
        if self.gate is not None:
            assert self.gate.wait(20)
        self.given.append(material)
        self.threads.add(threading.current_thread().name)
        return EvaluationResult(0.5, "fail")


def test_the_score_joins_the_answer_from_another_thread(traced: Traced, work: Background) -> None:
    noting = Noting()
    with traced.provider.get_tracer("app").start_as_current_span("chain claims") as span:
        answered = span.get_span_context()
    OnlineEvaluators([noting], run_in=work)(answered, ("How long?",), {}, {"answer": "Two years.", "documents": ["Two."]})
    assert work.drain(10)
    assert noting.given == [{"response": "Two years.", "context": ["Two."], "query": "How long?"}]
    assert noting.threads == {"lstm-trace-test-0"}
    evaluation = traced.named("evaluate noting")
    facts = dict(evaluation.attributes or {})
    assert (facts[c.EVALUATION_SCORE], facts[c.EVALUATION_TARGET_SPAN_ID]) == (0.5, f"{answered.span_id:016x}")
    assert c.EVALUATION_WEIGHT not in facts
    assert evaluation.parent is None


def test_also_inside_an_open_request_the_late_score_does_not_stretch_its_trace(traced: Traced, work: Background) -> None:
    with traced.provider.get_tracer("app").start_as_current_span("GET /answer") as request:
        OnlineEvaluators([Noting()], run_in=work)(request.get_span_context(), (), {}, "Two years.")
        assert work.drain(10)
    assert traced.named("evaluate noting").parent is None


def test_a_judge_runs_there_too(traced: Traced, work: Background) -> None:
    judge = ScriptedChatModel(script=[verdict(0.9)])
    OnlineEvaluators([Groundedness(judge=judge)], run_in=work)(where(5), ("How?",), {}, {"answer": "Two.", "context": "Two."})
    assert work.drain(10)
    assert (traced.named("evaluate groundedness").attributes or {})[c.EVALUATION_SCORE] == 0.9


@pytest.mark.parametrize(("sample", "low", "high"), [(1.0, 2000, 2000), (0.0, 0, 0), (0.05, 60, 140)])
def test_the_share_is_decided_by_the_trace_id(work: Background, sample: float, low: int, high: int) -> None:
    import random

    rng = random.Random(3)
    traces = [where(rng.getrandbits(128)) for _ in range(2000)]
    online, again = (OnlineEvaluators([Noting()], sample=sample, run_in=work) for _ in range(2))
    chosen = [each for each in traces if online.chosen(each)]
    assert low <= len(chosen) <= high
    assert chosen == [each for each in traces if again.chosen(each)], "every evaluator and process judges the same ones"


def test_of_what_a_ratio_sampler_kept_the_share_is_judged_and_not_all_of_it(work: Background) -> None:
    import random

    from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

    rng, sampler = random.Random(3), TraceIdRatioBased(0.05)
    drawn = (rng.getrandbits(128) for _ in range(40_000))
    kept = [each for each in drawn if sampler.should_sample(None, each, "chain").decision is Decision.RECORD_AND_SAMPLE]
    online = OnlineEvaluators([Noting()], sample=0.1, run_in=work)
    assert len(kept) > 1500
    assert sum(online.chosen(where(each)) for each in kept) / len(kept) == pytest.approx(0.1, abs=0.03)


def test_a_sampled_score_says_how_many_it_stands_for(traced: Traced, work: Background) -> None:
    online = OnlineEvaluators([Noting()], sample=0.25, run_in=work)
    for number in range(1, 9):
        online(where(number), (), {}, "Two years.")
    assert work.drain(10)
    assert {(span.attributes or {})[c.EVALUATION_WEIGHT] for span in traced.spans} == {4.0}


def test_an_answer_that_is_not_recorded_is_not_judged(work: Background) -> None:
    noting = Noting()
    OnlineEvaluators([noting], run_in=work)(where(1, sampled=False), (), {}, "Two years.")
    assert work.drain(10)
    assert noting.given == []


def test_a_full_queue_drops_with_a_count_and_never_waits(
    traced: Traced, reader: InMemoryMetricReader, caplog: pytest.LogCaptureFixture
) -> None:
    gate, work = threading.Event(), Background("test", workers=1, capacity=2)
    online = OnlineEvaluators([Noting(gate)], run_in=work)
    started = time.monotonic()
    online(where(1), (), {}, "first")
    while work._queue.qsize():  # the one worker holds it
        time.sleep(0.001)
    for number in range(2, 8):
        online(where(number), (), {}, "more")
    assert time.monotonic() - started < 5
    assert (work.dropped, len(work)) == (4, 3)
    assert len([record for record in caplog.records if "is full" in record.message]) == 1
    gate.set()
    assert work.drain(10)
    assert len(traced.spans) == 3
    data = reader.get_metrics_data()
    assert data is not None
    points = {m.name: [p.value for p in m.data.data_points] for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert points[c.METRIC_EVALUATIONS_DROPPED] == [4]
    assert points[c.METRIC_EVALUATIONS] == [3]


def test_a_reader_that_breaks_is_an_error_of_the_evaluation(traced: Traced, work: Background) -> None:
    def read(*_: Any) -> dict[str, Any]:
        raise KeyError("documents")

    OnlineEvaluators([Noting()], read=read, run_in=work)(where(1), (), {}, "Two years.")
    assert work.drain(10)
    facts = dict(traced.named("evaluate noting").attributes or {})
    assert (facts[c.EVALUATION_STATUS], facts[c.ERROR_TYPE]) == ("error", "KeyError")


def test_draining_has_a_limit() -> None:
    gate, work = threading.Event(), Background("test", workers=1, capacity=2)
    work.submit(lambda: gate.wait(20))
    assert work.drain(0.05) is False
    gate.set()
    assert work.drain(10) is True


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"evaluators": [Noting()], "sample": 1.5}, ValueError, "evaluate_sample=1.5: accepted is a share from 0 to 1"),
        ({"evaluators": [Noting()], "sample": True}, ValueError, "evaluate_sample=True"),
        ({"evaluators": "groundedness"}, TypeError, "evaluators='groundedness': accepted is a list"),
        ({"evaluators": [3]}, TypeError, r"evaluators=\[3\]: it has no name or no evaluate"),
        ({"evaluators": ["nope"]}, ValueError, "evaluator 'nope': accepted are"),
    ],
)
def test_a_wrong_argument_is_named_when_it_is_given(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        OnlineEvaluators(**options)


class Message:
    def __init__(self, content: str) -> None:
        self.content = content


LAST = Message("Two years.")


@pytest.mark.parametrize(
    ("args", "kwargs", "result", "material"),
    [
        (("How?",), {}, "Two.", {"response": "Two.", "query": "How?"}),
        ((), {"question": "How?"}, "Two.", {"response": "Two.", "query": "How?"}),
        (({"input": "How?"},), {}, {"output": "Two.", "context": []}, {"response": "Two.", "query": "How?", "context": []}),
        (({"messages": ["How?"]},), {}, {"messages": ["How?", LAST]}, {"response": LAST}),
        ((), {}, "Two.", {"response": "Two."}),
        (("How?",), {}, None, {"query": "How?"}),
    ],
)
def test_what_evaluators_are_given_is_read_from_the_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, material: dict[str, Any]
) -> None:
    assert material_of(args, kwargs, result) == material


EXITING = """
import sys, time
from lstm_trace.configure import configure
configure(service_name="agent", release="v1", store=sys.argv[1])
from opentelemetry import trace
from lstm_trace.evaluate import EvaluationResult
from lstm_trace.evaluate.online import OnlineEvaluators

class Slow:
    name = "slow"
    def evaluate(self, **_):
        time.sleep(float(sys.argv[2]))
        return EvaluationResult(1.0, "pass")

online = OnlineEvaluators([Slow()])
for _ in range(3):
    with trace.get_tracer("app").start_as_current_span("chain claims") as span:
        pass
    online(span.get_span_context(), (), {}, "Two years.")
"""


def test_what_waits_at_exit_is_worked_off_and_reaches_the_store(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", EXITING, str(tmp_path / "store"), "0.2"], check=True)
    text = "".join(file.read_text() for file in (tmp_path / "store").glob("*.jsonl"))
    assert text.count('"evaluate slow"') == 3


def test_shutting_the_providers_down_by_hand_loses_nothing_either(tmp_path: Path) -> None:
    code = EXITING + "\nfrom lstm_trace.configure import configure\nconfigure().shutdown()\n"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "store"), "0.2"], check=True)
    text = "".join(file.read_text() for file in (tmp_path / "store").glob("*.jsonl"))
    assert text.count('"evaluate slow"') == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_child_of_a_fork_begins_with_nothing() -> None:
    code = (
        "import os, threading\n"
        "from lstm_trace.background import Background\n"
        "gate, work = threading.Event(), Background('test', workers=1, capacity=2)\n"
        "work.submit(lambda: gate.wait(20))\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    done = threading.Event()\n"
        "    ok = len(work) == 0 and work.submit(done.set) and work.drain(5) and done.is_set()\n"
        "    os._exit(0 if ok else 1)\n"
        "gate.set()\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=60).returncode == 0

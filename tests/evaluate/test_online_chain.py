"""`trace_chain(evaluators=…)`: functions, coroutines and Runnables are judged after the answer, and never in its way."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda

import lstm_trace
from lstm_trace import conventions as c
from lstm_trace.evaluate import EvaluationResult, Groundedness
from lstm_trace.evaluate.online import background
from tests.evaluate.scripted import ScriptedChatModel, verdict
from tests.tracing import Traced


@pytest.fixture(autouse=True)
def instrumented(traced: Traced) -> Iterator[None]:
    instrumentor = lstm_trace.LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=traced.provider)
    yield
    assert background.drain(20)
    instrumentor.uninstrument()


class Noting:
    name = "noting"

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []

    def evaluate(self, **material: Any) -> EvaluationResult:
        self.given.append(material)
        return EvaluationResult(0.5, "fail")


def judged(traced: Traced, name: str = "chain claims") -> None:
    assert background.drain(20)
    target, evaluation = traced.named(name), traced.named("evaluate noting")
    facts = dict(evaluation.attributes or {})
    assert (facts[c.EVALUATION_TARGET_TRACE_ID], facts[c.EVALUATION_TARGET_SPAN_ID]) == (
        f"{target.context.trace_id:032x}",
        f"{target.context.span_id:016x}",
    )
    assert evaluation.context.trace_id != target.context.trace_id


def test_a_function(traced: Traced) -> None:
    noting = Noting()

    @lstm_trace.trace_chain(name="claims", evaluators=[noting])
    def answer(question: str) -> dict[str, Any]:
        return {"answer": "Two years.", "documents": ["Warranty: two years."]}

    assert answer("How long?")["answer"] == "Two years."
    judged(traced)
    assert noting.given == [{"response": "Two years.", "context": ["Warranty: two years."], "query": "How long?"}]


async def test_a_coroutine(traced: Traced) -> None:
    noting = Noting()

    @lstm_trace.trace_chain(name="claims", evaluators=[noting])
    async def answer(question: str) -> str:
        await asyncio.sleep(0)
        return "Two years."

    assert await answer("How long?") == "Two years."
    judged(traced)
    assert noting.given == [{"response": "Two years.", "query": "How long?"}]


def test_a_runnable(traced: Traced) -> None:
    noting = Noting()
    chain = RunnableLambda(lambda asked: {"answer": "Two years."}) | RunnableLambda(lambda found: found)
    chain = lstm_trace.trace_chain(chain, name="claims", evaluators=[noting])
    assert chain.invoke({"question": "How long?"}) == {"answer": "Two years."}
    judged(traced)
    assert noting.given == [{"response": "Two years.", "query": "How long?"}]


async def test_a_runnable_awaited(traced: Traced) -> None:
    noting = Noting()
    chain = lstm_trace.trace_chain(RunnableLambda(lambda asked: "Two years."), name="claims", evaluators=[noting])
    assert await chain.ainvoke("How long?") == "Two years."
    judged(traced)


def test_the_caller_may_say_what_is_judged(traced: Traced) -> None:
    noting = Noting()

    @lstm_trace.trace_chain(name="claims", evaluators=[noting], evaluate_with=lambda args, kwargs, result: {"response": result[0]})
    def answer(question: str) -> tuple[str, int]:
        return ("Two years.", 7)

    answer("How long?")
    judged(traced)
    assert noting.given == [{"response": "Two years."}]


def test_the_judges_calls_are_traced_below_the_evaluation_and_not_below_the_answer(traced: Traced) -> None:
    judge = ScriptedChatModel(script=[verdict(0.9)])

    @lstm_trace.trace_chain(name="claims", evaluators=[Groundedness(judge=judge)])
    def answer(question: str) -> dict[str, Any]:
        said = FakeListChatModel(responses=["Two years."]).invoke(question).text
        return {"answer": said, "documents": ["Warranty: two years."]}

    answer("How long?")
    assert background.drain(20)
    assert traced.tree().startswith("chain claims\n  chat FakeListChatModel\nevaluate groundedness\n  ")
    evaluation, call = traced.named("evaluate groundedness"), traced.named("chat scripted-judge")
    assert call.context.trace_id == evaluation.context.trace_id
    facts = dict(call.attributes or {})
    assert (facts[c.OI_TOKENS_PROMPT], facts[c.OI_TOKENS_COMPLETION], facts[c.EVALUATION_JUDGE_NAME]) == (210, 17, "groundedness")
    assert (evaluation.attributes or {})[c.EVALUATION_JUDGE_INPUT_TOKENS] == 210
    assert c.EVALUATION_JUDGE_NAME not in (traced.named("chat FakeListChatModel").attributes or {})


def test_an_answer_that_failed_is_not_judged(traced: Traced) -> None:
    noting = Noting()

    @lstm_trace.trace_chain(name="claims", evaluators=[noting])
    def answer() -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        answer()
    assert background.drain(20)
    assert noting.given == []
    assert traced.named("chain claims").status.is_ok is False


def test_a_slow_judge_does_not_hold_the_answer_up(traced: Traced) -> None:
    gate = threading.Event()

    class Waiting:
        name = "waiting"

        def evaluate(self, **_: Any) -> EvaluationResult:
            assert gate.wait(20)
            return EvaluationResult(1.0)

    @lstm_trace.trace_chain(name="claims", evaluators=[Waiting()])
    def answer() -> str:
        return "Two years."

    started = time.perf_counter()
    answer()
    assert time.perf_counter() - started < 5
    assert [span.name for span in traced.spans] == ["chain claims"]
    gate.set()
    assert background.drain(20)
    assert [span.name for span in traced.spans] == ["chain claims", "evaluate waiting"]


def test_a_copy_of_a_judged_chain_is_judged(traced: Traced) -> None:
    noting = Noting()
    chain = lstm_trace.trace_chain(RunnableLambda(len), name="claims", evaluators=[noting])
    copy.deepcopy(chain).invoke("How long?")
    judged(traced)


def test_a_judged_chain_can_be_pickled(traced: Traced) -> None:
    chain = lstm_trace.trace_chain(RunnableLambda(len), name="claims", evaluators=["branch_match"])
    again = pickle.loads(pickle.dumps(chain))
    assert again.invoke("How?") == 4
    assert background.drain(20)
    assert (traced.named("evaluate branch_match").attributes or {})[c.EVALUATION_STATUS] == "skipped"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"evaluators": ["nope"]}, "evaluator 'nope': accepted are"),
        ({"evaluators": ["branch_match"], "evaluate_sample": 2}, "evaluate_sample=2: accepted is a share from 0 to 1"),
    ],
)
def test_a_wrong_argument_is_named_at_decoration(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        lstm_trace.trace_chain(name="claims", **options)


def test_who_has_no_evaluators_does_not_load_their_room() -> None:
    code = "import sys, lstm_trace; lstm_trace.trace_chain(name='a')(print); sys.exit('lstm_trace.evaluate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_stream_is_judged_whole_once_it_ended(traced: Traced) -> None:
    noting = Noting()

    @lstm_trace.trace_chain(name="claims", evaluators=[noting])
    def answer(question: str) -> Iterator[str]:
        yield "Two "
        yield "years."

    stream = answer("How long?")
    assert next(stream) == "Two "
    assert noting.given == []
    assert list(stream) == ["years."]
    judged(traced)
    assert noting.given == [{"response": "Two years.", "query": "How long?"}]


async def test_an_async_stream_is_judged_whole(traced: Traced) -> None:
    noting = Noting()

    @lstm_trace.trace_chain(name="claims", evaluators=[noting])
    async def answer(question: str) -> Any:
        yield "Two "
        yield "years."

    assert [chunk async for chunk in answer("How long?")] == ["Two ", "years."]
    judged(traced)
    assert noting.given == [{"response": "Two years.", "query": "How long?"}]


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_a_streamed_runnable_is_judged_as_one_message(traced: Traced, mode: str) -> None:
    from langchain_core.messages import AIMessageChunk

    noting = Noting()
    chain = FakeListChatModel(responses=["Two."]) | RunnableLambda(lambda message: message)
    chain = lstm_trace.trace_chain(chain, name="claims", evaluators=[noting])
    chunks = list(chain.stream("How long?")) if mode == "stream" else [chunk async for chunk in chain.astream("How long?")]
    assert chunks
    judged(traced)
    ((material),) = noting.given
    assert isinstance(material["response"], AIMessageChunk)
    assert (material["response"].text, material["query"]) == ("Two.", "How long?")


@pytest.mark.parametrize("mode", ["invoke", "stream"])
def test_a_graph_is_judged_by_its_last_state(traced: Traced, mode: str) -> None:
    from typing import TypedDict

    from langgraph.graph import END, START, StateGraph

    class Ticket(TypedDict, total=False):
        question: str
        answer: str

    graph: Any = StateGraph(Ticket)
    graph.add_node("respond", lambda ticket: {"answer": "Two years."})
    graph.add_edge(START, "respond")
    graph.add_edge("respond", END)
    noting = Noting()
    agent = lstm_trace.trace_chain(graph.compile(name="claims"), name="claims", evaluators=[noting])
    asked = {"question": "How long?"}
    found = agent.invoke(asked) if mode == "invoke" else list(agent.stream(asked, stream_mode="values"))[-1]
    assert found["answer"] == "Two years."
    assert background.drain(20)
    assert noting.given == [{"response": "Two years.", "query": "How long?"}]


def test_a_stream_that_is_broken_off_is_no_answer(traced: Traced) -> None:
    noting = Noting()

    @lstm_trace.trace_chain(name="claims", evaluators=[noting])
    def answer() -> Iterator[str]:
        yield "Two "
        yield "years."

    stream: Any = answer()
    next(stream)
    stream.close()
    assert background.drain(20)
    assert noting.given == []
    assert traced.named("chain claims")


def test_what_is_sent_and_thrown_into_a_judged_stream_reaches_it(traced: Traced) -> None:
    heard: list[Any] = []

    @lstm_trace.trace_chain(name="claims", evaluators=[Noting()])
    def answer() -> Any:
        heard.append((yield "one"))
        try:
            yield "two"
        except KeyError as error:
            heard.append(error)
        yield "three"
        return "the end"

    stream = answer()
    assert next(stream) == "one"
    assert stream.send("hello") == "two"
    assert stream.throw(KeyError("no")) == "three"
    with pytest.raises(StopIteration) as stop:
        next(stream)
    assert stop.value.value == "the end"
    assert heard[0] == "hello"
    assert isinstance(heard[1], KeyError)
    assert background.drain(20)

"""trace_chain on everything that it takes: one span a call, the same result, the same laziness, the session on all below."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.base import RunnableSequence
from langgraph.graph.state import CompiledStateGraph
from opentelemetry import trace

import lstm_trace
from lstm_trace import Settings
from lstm_trace.recorder import Recorder, set_default_recorder
from tests.langchain.conftest import attributes
from tests.langchain.models import Scripted, predict
from tests.langchain.test_trajectory import parallel_graph
from tests.tracing import Traced


def current() -> str:
    return getattr(trace.get_current_span(), "name", "nothing")


@pytest.fixture(params=["instrumented", "bare"])
def on(request: Any, traced: Traced) -> Iterator[Traced]:
    """With LangChain instrumented, and with nothing but a recorder."""
    from lstm_trace.instrument.langchain.handler import handler

    if request.param == "instrumented":
        yield request.getfixturevalue("langchain")
        return
    handler.silenced = False
    set_default_recorder(Recorder(Settings(strict=True), tracer_provider=traced.provider))
    yield traced
    assert len(handler.live) == 0


def test_a_function(on: Traced) -> None:
    @lstm_trace.trace_chain(name="claims", session="ticket")
    def answer(question: str, *, ticket: str) -> str:
        """Answer."""
        predict("refund")
        return f"{question} {current()}"

    assert answer("where?", ticket="t-1") == "where? chain claims"
    assert answer.__doc__ == "Answer."
    assert attributes(on.named("chain claims")) == {"openinference.span.kind": "CHAIN", "session.id": "t-1"}
    assert attributes(on.named("lstm intent"))["session.id"] == "t-1"


def test_without_arguments_and_as_an_agent(on: Traced) -> None:
    @lstm_trace.trace_chain
    def answer() -> str:
        return current()

    assert answer() == "chain answer"
    assert lstm_trace.trace_chain(lambda: current(), name="helper", agent=True)() == "invoke_agent helper"
    assert attributes(on.named("invoke_agent helper"))["gen_ai.agent.name"] == "helper"


def test_an_exception_is_the_same_object_with_one_frame_more(on: Traced) -> None:
    raised = ConnectionError("secret")

    @lstm_trace.trace_chain
    def answer() -> None:
        raise raised

    with pytest.raises(ConnectionError) as caught:
        answer()
    assert caught.value is raised
    assert len(caught.traceback) == 3
    assert attributes(on.named("chain answer"))["error.type"] == "ConnectionError"
    assert current() == "nothing"


async def test_an_async_function(on: Traced) -> None:
    @lstm_trace.trace_chain
    async def answer() -> str:
        await asyncio.sleep(0)
        return current()

    assert inspect.iscoroutinefunction(answer)
    assert await asyncio.gather(answer(), answer()) == ["chain answer"] * 2
    task = asyncio.create_task(asyncio.wait_for(lstm_trace.trace_chain(asyncio.sleep, name="slow")(60), 0.01))
    with pytest.raises(asyncio.TimeoutError):
        await task
    assert attributes(on.named("chain slow"))["error.type"] == "asyncio.exceptions.CancelledError"


async def test_generators(on: Traced) -> None:
    @lstm_trace.trace_chain(name="letters")
    def letters() -> Iterator[str]:
        for _ in range(3):
            yield current()

    @lstm_trace.trace_chain(name="aletters")
    async def aletters() -> AsyncIterator[str]:
        for _ in range(3):
            yield current()

    assert inspect.isgeneratorfunction(letters)
    assert inspect.isasyncgenfunction(aletters)
    made = letters()
    assert on.spans == []
    for letter in made:
        assert (letter, current()) == ("chain letters", "nothing")
    async for letter in aletters():
        assert (letter, current()) == ("chain aletters", "nothing")
    for _ in letters():
        break
    early = aletters()
    await anext(early)
    await early.aclose()
    assert [span.name for span in on.spans] == ["chain letters", "chain aletters", "chain letters", "chain aletters"]


def test_methods(on: Traced) -> None:
    class Desk:
        @lstm_trace.trace_chain
        def answer(self) -> str:
            return current()

        @staticmethod
        @lstm_trace.trace_chain(name="static")
        def static() -> str:
            return current()

        @lstm_trace.trace_chain(name="class")
        @classmethod
        def of(cls) -> str:
            return current()

    assert (Desk().answer(), Desk.static(), Desk.of()) == ("chain answer", "chain static", "chain class")


async def test_a_runnable_is_the_same_object_and_has_one_span(on: Traced) -> None:
    chain = RunnableLambda(lambda given: predict("refund") or given) | RunnableLambda(lambda _: current())
    traced = lstm_trace.trace_chain(chain, name="claims", agent=True, session="ticket")
    assert traced is chain
    assert isinstance(traced, RunnableSequence)
    given = {"ticket": "t-1"}
    traced.invoke(given)
    await traced.ainvoke(given)
    assert "".join(traced.stream(given)) != ""
    assert "".join([each async for each in traced.astream(given)]) != ""

    assert len([span for span in on.spans if span.name == "invoke_agent claims"]) == 4
    assert not [span for span in on.spans if "RunnableSequence" in span.name]
    assert {attributes(span).get("session.id") for span in on.spans} == {"t-1"}
    assert current() == "nothing"


def test_a_runnable_still_composes_copies_and_pickles(on: Traced) -> None:
    chain = lstm_trace.trace_chain(RunnableLambda(str) | Scripted(), name="claims")
    assert (chain | RunnableLambda(lambda message: message.content)).invoke(1) == "yes"
    assert chain.with_config(tags=["x"]).invoke(1).content == "yes"
    assert copy.deepcopy(chain).invoke(1).content == "yes"
    assert pickle.loads(pickle.dumps(lstm_trace.trace_chain(Scripted(), name="model"))).invoke("x").content == "yes"
    assert "chain claims" in {span.name for span in on.spans}
    assert len([span for span in on.spans if span.name == "chain claims"]) >= 2


async def test_a_compiled_graph(on: Traced) -> None:
    graph = lstm_trace.trace_chain(parallel_graph().compile(), name="claims", agent=True)
    assert isinstance(graph, CompiledStateGraph)
    assert sorted(graph.invoke({})["seen"]) == ["a", "b", "c", "d"]
    await graph.ainvoke({})
    list(graph.stream({}))
    assert len([span for span in on.spans if span.name == "invoke_agent claims"]) == 3
    assert not [span for span in on.spans if "LangGraph" in span.name]
    assert graph.get_graph() is not None


def test_a_batch_of_a_named_runnable_has_its_name(langchain: Traced) -> None:
    chain = lstm_trace.trace_chain(RunnableLambda(str) | RunnableLambda(str.upper), name="claims")
    chain.batch([1, 2])
    assert len([span for span in langchain.spans if span.name == "chain claims"]) == 2


def test_works_without_langchain() -> None:
    import subprocess
    import sys

    code = """
import sys
sys.modules["langchain_core"] = None
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
memory, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
import lstm_trace
@lstm_trace.trace_chain
def answer(): return 1
trace.set_tracer_provider(provider)
answer()
print([span.name for span in memory.get_finished_spans()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "['chain answer']", done.stderr


def test_a_wrong_argument_is_named() -> None:
    with pytest.raises(TypeError, match="accepted are a function, a Runnable and a compiled graph"):
        lstm_trace.trace_chain(3)
    with pytest.raises(ValueError, match="accepted are question, or a callable"):
        lstm_trace.trace_chain(lambda question: question, session="ticket")

"""Everything closes: however a run ends, its span ends, nothing stays current and nothing is kept."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased
from opentelemetry.trace import StatusCode

from lstm_trace import LangChainInstrumentor, trace_chain
from lstm_trace.upstream import live
from tests.langchain.conftest import attributes
from tests.langchain.models import Scripted, Shelf, Streaming
from tests.tracing import Traced


def status(span: Any) -> tuple[StatusCode, str | None]:
    return span.status.status_code, attributes(span).get("error.type")


FAILED = (StatusCode.ERROR, "ConnectionError")
FINE = (StatusCode.UNSET, None)


async def test_an_exception_marks_every_span_it_passes_and_is_the_same_object(langchain: Traced) -> None:
    raised = ConnectionError("secret")

    def fail(_: Any) -> None:
        raise raised

    chain = RunnableLambda(fail) | Scripted()
    for call in (lambda: chain.invoke(1), lambda: list(chain.stream(1)), lambda: chain.batch([1])):
        with pytest.raises(ConnectionError) as caught:
            call()
        assert caught.value is raised
    with pytest.raises(ConnectionError) as caught:
        await chain.ainvoke(1)
    assert caught.value is raised
    assert {status(span) for span in langchain.spans} == {FAILED}
    assert not any("secret" in str(event.attributes) + str(span.status.description) for span in langchain.spans for event in span.events)


def test_each_attempt_of_a_retry_is_numbered(langchain: Traced) -> None:
    model = Scripted(failures=2)
    chain = RunnableLambda(str) | model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    chain.invoke(1)

    attempts = [span for span in langchain.spans if span.name.startswith("chat")]
    assert [attributes(span)["agent.trajectory.attempt"] for span in attempts] == [1, 2, 3]
    assert [attributes(span)["agent.trajectory.step"] for span in attempts] == [2, 2, 2]
    assert [status(span) for span in attempts] == [FAILED, FAILED, FINE]


async def test_each_attempt_of_fallbacks_is_numbered(langchain: Traced) -> None:
    def chain() -> Any:
        first, second = Scripted(failures=9, model="first"), Scripted(model="second")
        return RunnableLambda(str) | first.with_fallbacks([second])

    chain().invoke(1)
    await chain().ainvoke(1)
    list(chain().stream(1))
    [_ async for _ in chain().astream(1)]
    chain().batch([1])
    await chain().abatch([1])
    found = [(span.name, attributes(span)["agent.trajectory.attempt"]) for span in langchain.spans if span.name.startswith("chat")]
    assert found == [("chat first", 1), ("chat second", 2)] * 6


def test_fallbacks_outermost_are_one_step(langchain: Traced) -> None:
    Scripted(failures=9, model="first").with_fallbacks([Scripted(model="second")]).invoke("x")
    found = [
        (span.name, attributes(span)["agent.trajectory.step"], attributes(span)["agent.trajectory.attempt"])
        for span in langchain.spans
        if span.name.startswith("chat")
    ]
    assert found == [("chat first", 1, 1), ("chat second", 1, 2)]


class State(TypedDict, total=False):
    seen: Annotated[list[str], lambda a, b: (a or []) + (b or [])]


def graph_of(*nodes: Any, **given: Any) -> Any:
    builder: Any = StateGraph(State)
    for node in nodes:
        builder.add_node(node.__name__, node, **given)
    builder.add_edge(START, nodes[0].__name__)
    for one, next_one in itertools.pairwise(nodes):
        builder.add_edge(one.__name__, next_one.__name__)
    builder.add_edge(nodes[-1].__name__, END)
    return builder


def test_each_attempt_of_a_nodes_retry_policy_is_numbered(langchain: Traced) -> None:
    left = [2]

    def shaky(_: State) -> State:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionError("secret")
        return {"seen": ["shaky"]}

    policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=ConnectionError)
    graph_of(shaky, retry_policy=policy).compile(name="agent").invoke({})
    nodes = [attributes(span) for span in langchain.spans if span.name == "chain shaky"]
    assert [(node["agent.trajectory.step"], node["agent.trajectory.attempt"]) for node in nodes] == [(1, 1), (1, 2), (1, 3)]
    (event,) = langchain.named("invoke_agent agent").events
    assert dict(event.attributes or {})["agent.trajectory.attempt"] == 3


async def test_streams_that_are_left_early_close(langchain: Traced) -> None:
    chain = RunnableLambda(str) | Streaming()
    for _ in chain.stream("x"):
        break
    gc.collect()
    for _ in Streaming().stream("x"):
        break
    gc.collect()
    stream = Streaming().stream("x")
    next(stream)
    stream.close()
    astream = Streaming().astream("x")
    await anext(astream)
    await astream.aclose()
    achain = chain.astream("x")
    await anext(achain)
    await achain.aclose()
    async for _ in chain.astream("x"):
        break
    gc.collect()
    for _ in range(100):  # the event loop closes what was dropped, a task at a time
        await asyncio.sleep(0)

    assert LangChainInstrumentor().live_runs() == 0
    assert {status(span) for span in langchain.spans} == {FINE}
    assert len([span for span in langchain.spans if span.name.startswith("chat")]) == 6
    assert getattr(trace.get_current_span(), "name", "nothing") == "nothing"


def test_a_stream_that_is_only_dropped_closes(langchain: Traced) -> None:
    def letters(_: Any) -> Iterator[str]:
        yield from "abc"

    graph = graph_of(lambda_node).compile()
    streams = [
        RunnableLambda(letters).stream("x"),
        Streaming().stream("x"),
        graph.stream({}),
        (RunnableLambda(str) | Streaming()).stream("x"),
    ]
    for stream in streams:
        next(stream)
    streams.clear()
    del stream
    gc.collect()
    assert LangChainInstrumentor().live_runs() == 0
    assert len(live) == 0


def lambda_node(_: State) -> State:
    return {"seen": ["x"]}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is new in 3.11")
async def test_a_timeout_closes_every_span_as_cancelled(langchain: Traced) -> None:
    model = Scripted(seconds=60)

    @tool
    async def slow(q: str) -> str:
        """Sleep."""
        await asyncio.sleep(60)
        return q

    class SlowShelf(Shelf):
        async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> Any:
            await asyncio.sleep(60)

    async def node(_: State) -> State:
        await model.ainvoke("x")
        return {}

    graph = graph_of(node).compile(name="agent")
    for call in (
        lambda: model.ainvoke("x"),
        lambda: model.abatch(["x", "y"]),
        lambda: (RunnableLambda(str) | model).ainvoke("x"),
        lambda: slow.ainvoke({"q": "x"}),
        lambda: SlowShelf().ainvoke("x"),
        lambda: graph.ainvoke({}),
        lambda: drain(Streaming(seconds=60).astream("x")),
        lambda: drain((RunnableLambda(str) | Streaming(seconds=60)).astream("x")),
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await call()
        assert LangChainInstrumentor().live_runs() == 0, langchain.tree()
    cancelled = "asyncio.exceptions.CancelledError"
    assert {status(span)[1] for span in langchain.spans if span.name != "chain str"} == {cancelled}
    assert {status(span)[1] for span in langchain.spans if span.name.startswith("chat")} == {cancelled}


async def drain(stream: Any) -> None:
    async for _ in stream:
        pass


@pytest.mark.parametrize("form", ["model", "chain", "fallbacks", "completion", "several"])
async def test_a_cancellation_at_any_turn_of_the_loop_closes_the_model_at_once(langchain: Traced, form: str) -> None:
    model: Any = Scripted(seconds=60)
    called = {
        "model": lambda: model.ainvoke("x"),
        "chain": lambda: (RunnablePassthrough() | model).ainvoke("x"),
        "fallbacks": lambda: model.with_fallbacks([Scripted()]).ainvoke("x"),
        "completion": lambda: SlowCompletion().ainvoke("x"),
        "several": lambda: model.agenerate([[HumanMessage("x")], [HumanMessage("y")]]),
    }[form]
    for turns in range(1, 24):
        task = asyncio.create_task(called())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert LangChainInstrumentor().live_runs() == 0, turns
    models = [span for span in langchain.spans if span.name.startswith(("chat", "text_completion"))]
    assert len(models) > 3
    assert {status(span)[1] for span in models} == {"asyncio.exceptions.CancelledError"}


class SlowCompletion(FakeListLLM):
    responses: list[str] = ["yes"]  # noqa: RUF012  pydantic copies it

    async def _acall(self, *_: Any, **__: Any) -> str:
        await asyncio.sleep(60)
        return "yes"


async def test_a_cancelled_gather_closes_all_of_its_agents(langchain: Traced) -> None:
    model = Scripted(seconds=60)
    tasks = [asyncio.create_task((RunnableLambda(str) | model).ainvoke(str(number))) for number in range(8)]
    # until every first step has ended and every agent and its model are open
    while len(langchain.spans) < 8 or LangChainInstrumentor().live_runs() < 16:
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert LangChainInstrumentor().live_runs() == 0
    assert len([span for span in langchain.spans if span.name.startswith("chat")]) == 8


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, KeyboardInterrupt])
async def test_a_tool_that_langchain_itself_lets_fall_closes_at_once(langchain: Traced, error: type[BaseException]) -> None:
    @tool
    def leave(q: str) -> str:
        """Leave."""
        raise error

    with pytest.raises(error) as caught:  # kept, with every frame that the exception passed
        leave.invoke({"q": "x"})
    assert LangChainInstrumentor().live_runs() == 0
    assert (attributes(langchain.named("execute_tool leave"))["error.type"]).endswith(error.__name__)
    del caught


@pytest.mark.parametrize("nested", [False, True])
async def test_an_interrupt_is_no_error_and_the_resumed_run_links_to_the_paused_one(langchain: Traced, nested: bool) -> None:
    def ask(_: State) -> State:
        return {"seen": [interrupt("may I?")]}

    inner = graph_of(lambda_node, ask)
    builder = inner
    if nested:
        builder = StateGraph(State)
        builder.add_node("inner", inner.compile(name="inner"))
        builder.add_edge(START, "inner")
    graph = builder.compile(checkpointer=InMemorySaver(), name="agent")
    config = {"configurable": {"thread_id": "thread-1"}}
    graph.invoke({}, config)
    (paused,) = [span for span in langchain.spans if span.name == "invoke_agent agent"]
    assert attributes(paused)["langgraph.interrupted"] is True
    assert attributes(paused)["gen_ai.conversation.id"] == "thread-1"
    assert {status(span) for span in langchain.spans} == {FINE}

    if sys.version_info >= (3, 11):
        await graph.ainvoke(Command(resume="yes"), config)
    else:  # LangGraph's interrupt() needs 3.11 in async code
        graph.invoke(Command(resume="yes"), config)
    resumed = [span for span in langchain.spans if span.name == "invoke_agent agent"][1]
    assert [(link.context.span_id, dict(link.attributes or {})) for link in resumed.links] == [
        (paused.context.span_id, {"lstm.link.kind": "resume"})
    ]
    assert "langgraph.interrupted" not in attributes(resumed)


def test_a_breakpoint_is_an_interrupt_too(langchain: Traced) -> None:
    graph = graph_of(lambda_node, other_node).compile(checkpointer=InMemorySaver(), name="agent", interrupt_before=["other_node"])
    config = {"configurable": {"thread_id": "thread-1"}}
    graph.invoke({}, config)
    paused = langchain.named("invoke_agent agent")
    assert attributes(paused).get("langgraph.interrupted") is True
    graph.invoke(None, config)
    resumed = [span for span in langchain.spans if span.name == "invoke_agent agent"][1]
    assert [link.context.span_id for link in resumed.links] == [paused.context.span_id]


def other_node(_: State) -> State:
    return {"seen": ["other"]}


def test_a_run_whose_manager_is_dropped_closes_and_says_so(langchain: Traced) -> None:
    from langchain_core.callbacks.manager import CallbackManager

    manager = CallbackManager([]).on_chain_start(None, {}, name="forgotten")
    assert LangChainInstrumentor().live_runs() == 1
    del manager
    gc.collect()
    assert LangChainInstrumentor().live_runs() == 0
    assert attributes(langchain.named("chain forgotten"))["lstm.run.abandoned"] is True


def test_an_abandoned_run_closes_without_anybody_asking(langchain: Traced) -> None:
    import time

    from langchain_core.callbacks.manager import CallbackManager

    CallbackManager([]).on_chain_start(None, {}, name="forgotten")
    deadline = time.monotonic() + 10
    while not langchain.spans and time.monotonic() < deadline:
        time.sleep(0.01)
    assert attributes(langchain.named("chain forgotten"))["lstm.run.abandoned"] is True


def test_of_several_chats_one_fails_and_the_others_close(langchain: Traced) -> None:
    questions: Any = [[HumanMessage(text)] for text in ("one", "two", "three")]
    with pytest.raises(ConnectionError) as caught:  # kept, with every frame that the exception passed
        Scripted(failures=1).generate(questions)
    assert LangChainInstrumentor().live_runs() == 0
    assert [(status(span), bool(attributes(span).get("lstm.run.abandoned"))) for span in langchain.spans] == [
        (FAILED, False),
        (FINE, True),
        (FINE, True),
    ]
    del caught


def test_switched_off_inside_a_run_every_span_ends(traced: Traced) -> None:
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=traced.provider)

    @trace_chain(name="outermost")
    def call() -> Any:
        def step(x: Any) -> Any:
            instrumentor.uninstrument()
            return x

        return (RunnableLambda(step) | RunnableLambda(str)).invoke(1)

    assert call() == "1"
    assert [(span.name, bool(attributes(span).get("lstm.run.abandoned"))) for span in traced.spans] == [
        ("chain step", True),
        ("chain RunnableSequence", True),
        ("chain outermost", False),
    ]
    assert instrumentor.live_runs() == 0
    assert len(live) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_child_of_a_fork_starts_with_no_runs_and_can_trace(langchain: Traced) -> None:
    def step(_: Any) -> int:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                none = LangChainInstrumentor().live_runs() == 0
                RunnableLambda(str).invoke(1)
                code = 0 if none and LangChainInstrumentor().live_runs() == 0 else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert RunnableLambda(step).invoke(1) == 0
    assert LangChainInstrumentor().live_runs() == 0


@pytest.mark.parametrize("sampler", [None, ALWAYS_OFF, TraceIdRatioBased(0.0)])
def test_memory_is_flat_over_many_runs(sampler: Any) -> None:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False) if sampler is not None else TracerProvider(shutdown_on_exit=False)
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    chain = RunnableLambda(str) | RunnableLambda(str)
    try:
        for _ in range(50):
            chain.invoke(1)
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(500):
            chain.invoke(1)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        assert instrumentor.live_runs() == 0
        assert after - before < 64_000
    finally:
        tracemalloc.stop()
        instrumentor.uninstrument()


def test_below_a_root_that_the_sampler_dropped_everything_is_dropped() -> None:
    provider = TracerProvider(sampler=TraceIdRatioBased(0.0), shutdown_on_exit=False)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        seen: list[bool] = []
        chain = RunnableLambda(lambda _: seen.append(trace.get_current_span().get_span_context().is_valid)) | RunnableLambda(str)
        chain.invoke(1)
        assert seen == [True]
        assert exporter.get_finished_spans() == ()
        assert instrumentor.live_runs() == 0
    finally:
        instrumentor.uninstrument()

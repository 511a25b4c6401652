"""A stream that its reader leaves is no error: for chains, graphs and models, sync and async, and for what is cancelled because of it."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from json import JSONDecodeError
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langgraph.graph import START, StateGraph
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import StatusCode

from lstm_trace import LangChainInstrumentor, Settings
from tests.langchain.conftest import attributes
from tests.langchain.models import Streaming
from tests.tracing import Traced

NODES = pytest.mark.skipif(sys.version_info < (3, 11), reason="LangGraph hands no context to its async nodes before 3.11")
CANCELLED = "asyncio.exceptions.CancelledError"


class State(TypedDict, total=False):
    seen: Annotated[list[str], lambda a, b: a + b]


class Halting(Streaming):
    """Says one letter, and the next a minute later where a loop waits for it."""

    async def _astream(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            yield chunk
            await asyncio.sleep(60)


def model() -> Streaming:
    return Halting(reply=AIMessage("abc"))


def chain() -> Any:
    return RunnableLambda(str) | model()


def graph() -> Any:
    async def quick(_: State) -> State:
        await asyncio.sleep(0.001)
        return {"seen": ["quick"]}

    async def slow(_: State) -> State:
        await model().ainvoke("x", stream=True)
        return {"seen": ["slow"]}

    builder: Any = StateGraph(State)
    for node in (quick, slow):
        builder.add_node(node.__name__, node)
        builder.add_edge(START, node.__name__)
    return builder.compile(name="agent")


async def settle() -> None:
    """Let the event loop close what was dropped, a task at a time."""
    gc.collect()
    deadline = time.monotonic() + 5
    while LangChainInstrumentor().live_runs() and time.monotonic() < deadline:
        await asyncio.sleep(0.001)


async def broken_off(stream: Any) -> None:
    async for _ in stream:
        break
    del stream
    await settle()


async def closed(stream: Any) -> None:
    await anext(stream)
    await stream.aclose()
    await settle()


async def timed_out_between_chunks(stream: Any) -> None:
    async def read() -> None:
        async for _ in stream:
            await asyncio.sleep(60)

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(read(), 0.1)
    await stream.aclose()
    await settle()


LEAVE = [broken_off, closed, timed_out_between_chunks]


def left(traced: Traced) -> set[str]:
    assert {span.status.status_code for span in traced.spans} == {StatusCode.UNSET}, traced.tree()
    assert not [span.name for span in traced.spans for event in span.events if event.name == "exception"]
    assert LangChainInstrumentor().live_runs() == 0
    return {span.name for span in traced.spans if attributes(span).get("lstm.run.left_early")}


@pytest.mark.parametrize("leave", LEAVE)
async def test_a_chain(langchain: Traced, leave: Callable[[Any], Awaitable[None]]) -> None:
    await leave(chain().astream("x"))
    assert "chain RunnableSequence" in left(langchain)


@pytest.mark.parametrize("leave", LEAVE)
async def test_a_parallel_whose_branches_langchain_lets_run_on(langchain: Traced, leave: Callable[[Any], Awaitable[None]]) -> None:
    slow = Streaming(reply=AIMessage("abc"), seconds=0.05)
    await leave(RunnableParallel(left=slow, right=RunnableLambda(str) | slow).astream("x"))
    assert "chain RunnableParallel<left,right>" in left(langchain)


@NODES
@pytest.mark.parametrize("leave", LEAVE)
async def test_a_graph_and_the_nodes_that_it_cancels(langchain: Traced, leave: Callable[[Any], Awaitable[None]]) -> None:
    await leave(graph().astream({}, stream_mode="updates"))
    assert left(langchain) == {"invoke_agent agent", "chain slow", "chat scripted-1"}


@pytest.mark.parametrize("leave", LEAVE)
async def test_a_model(langchain: Traced, leave: Callable[[Any], Awaitable[None]]) -> None:
    await leave(model().astream("x"))
    assert left(langchain) == {"chat scripted-1"}


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("make", [chain, pytest.param(graph, marks=NODES), model])
async def test_events(langchain: Traced, leave: Callable[[Any], Awaitable[None]], make: Callable[[], Any]) -> None:
    async def from_the_first_chunk() -> Any:
        events = make().astream_events({} if make is graph else "x", version="v2")
        try:
            async for event in events:
                if event["event"].endswith("_stream"):
                    yield event
        finally:
            await events.aclose()

    await leave(from_the_first_chunk())
    assert {"chain RunnableSequence", "invoke_agent agent", "chat scripted-1"} & left(langchain)


async def test_the_newer_streaming_protocol_of_a_model(langchain: Traced) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LangChain calls it a beta
        stream = await model().astream_events("x", version="v3")
    async for event in stream:
        if event["event"] == "content-block-delta":
            break
    await stream.aclose()
    assert left(langchain) == {"chat scripted-1"}
    assert attributes(langchain.named("chat scripted-1"))["gen_ai.response.time_to_first_chunk"] > 0


def test_without_a_loop(langchain: Traced) -> None:
    for _ in chain().stream("x"):
        break
    for _ in model().stream("x"):
        break
    gc.collect()
    assert "chat scripted-1" in left(langchain)


async def test_what_is_read_to_its_end_was_not_left(langchain: Traced) -> None:
    stream = Streaming().astream("x")
    async for _ in stream:
        pass
    await stream.aclose()
    async for _ in (RunnableLambda(str) | Streaming()).astream_events("x", version="v2"):
        pass
    assert left(langchain) == set()


@NODES
async def test_a_timeout_while_somebody_waits_for_a_chunk_is_an_error_still(langchain: Traced) -> None:
    async def read() -> None:
        async for _ in graph().astream({}, stream_mode="updates"):
            pass

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(read(), 0.1)
    assert {span.name for span in langchain.spans if attributes(span).get("error.type") == CANCELLED} == {
        "invoke_agent agent",
        "chain slow",
        "chat scripted-1",
    }


async def test_the_metric_says_the_same_as_the_span(traced: Traced) -> None:
    reader = InMemoryMetricReader()
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(
        tracer_provider=traced.provider, meter_provider=MeterProvider([reader], shutdown_on_exit=False), settings=Settings(strict=True)
    )
    try:
        await closed(model().astream("x"))
        with pytest.raises(ConnectionError):
            Streaming(failures=1).invoke("x")
        with pytest.raises(JSONDecodeError):
            Broken().invoke("x")
    finally:
        instrumentor.uninstrument()
    (metric,) = [
        metric
        for each in reader.get_metrics_data().resource_metrics  # type: ignore[union-attr]
        for scope in each.scope_metrics
        for metric in scope.metrics
        if metric.name == "gen_ai.client.operation.duration"
    ]
    said = {dict(point.attributes or {}).get("error.type") for point in metric.data.data_points}
    assert (
        said == {attributes(span).get("error.type") for span in traced.spans} == {None, "ConnectionError", "json.decoder.JSONDecodeError"}
    )


class Broken(Streaming):
    """Raises an error of a module."""

    def _note(self) -> None:
        raise JSONDecodeError("secret", "", 0)

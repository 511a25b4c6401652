"""One trace: spans of ours, of the user and of others stand where they belong, whoever runs side by side."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from opentelemetry import baggage, context, trace

from tests.langchain.conftest import attributes, parent_of
from tests.langchain.models import Scripted, Shelf, Streaming, ToolCaller, predict
from tests.tracing import Traced


def current() -> str:
    return getattr(trace.get_current_span(), "name", "nothing")


def classify(label: str) -> str:
    predict(label)
    return label


async def run(way: str, chain: Any, value: Any) -> Any:
    """Run a chain in each of the ways that LangChain offers."""
    if way == "invoke":
        return chain.invoke(value)
    if way == "batch":
        return chain.batch([value])[0]
    if way == "stream":
        return "".join(str(getattr(each, "content", each)) for each in chain.stream(value))
    if way == "ainvoke":
        return await chain.ainvoke(value)
    if way == "abatch":
        return (await chain.abatch([value]))[0]
    if way == "astream_events":
        return [event async for event in chain.astream_events(value, version="v2")]
    return "".join([str(getattr(each, "content", each)) async for each in chain.astream(value)])


WAYS = ["invoke", "batch", "stream", "ainvoke", "abatch", "astream", "astream_events"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_classifier_in_one_step_and_a_model_in_the_next_are_one_trace(langchain: Traced, way: str) -> None:
    model = Streaming()
    chain = RunnableLambda(classify) | model

    await run(way, chain, "refund")

    component, answer = langchain.named("lstm intent"), langchain.named("chat scripted-1")
    assert component.context.trace_id == answer.context.trace_id
    assert answer.attributes is not None
    assert answer.attributes["lstm.upstream.label"] == "refund"
    assert [(link.context.span_id, dict(link.attributes or {})) for link in answer.links] == [
        (component.context.span_id, {"lstm.link.kind": "upstream"})
    ]
    assert parent_of(langchain, "lstm intent") == "chain classify"
    assert parent_of(langchain, "chat scripted-1") == "chain RunnableSequence"
    assert set(model.seen) == {"chat scripted-1"}


@pytest.mark.parametrize("way", WAYS)
async def test_a_model_called_inside_a_users_own_span_is_that_spans_child(langchain: Traced, way: str) -> None:
    tracer = langchain.provider.get_tracer("mine")
    model = Scripted()

    def step(value: str) -> str:
        with tracer.start_as_current_span("mine"):
            return str(model.invoke(value).content)

    await run(way, RunnableLambda(step) | RunnableLambda(str.upper), "hello")

    assert parent_of(langchain, "mine") == "chain step"
    assert parent_of(langchain, "chat scripted-1") == "mine"


async def test_code_of_tools_models_and_retrievers_sees_its_own_span(langchain: Traced) -> None:
    seen: list[str] = []

    @tool
    def look(q: str) -> str:
        """Look."""
        seen.append(current())
        return q

    @tool
    async def alook(q: str) -> str:
        """Look."""
        seen.append(current())
        return q

    shelf, model, streaming = Shelf(), Scripted(), Streaming()
    look.invoke({"q": "x"})
    await alook.ainvoke({"q": "x"})
    shelf.invoke("x")
    await shelf.ainvoke("x")
    model.invoke("x")
    await model.ainvoke("x")
    list(streaming.stream("x"))
    [_ async for _ in streaming.astream("x")]

    assert seen == ["execute_tool look", "execute_tool alook"]
    assert shelf.seen == ["retrieval Shelf"] * 2
    assert model.seen == ["chat scripted-1"] * 2
    assert set(streaming.seen) == {"chat scripted-1"}
    assert current() == "nothing"


def test_a_config_carried_into_a_thread_by_hand_still_names_the_parent(langchain: Traced) -> None:
    model = Scripted()

    def step(value: str, config: RunnableConfig) -> str:
        with ThreadPoolExecutor(1) as pool:
            return str(pool.submit(model.invoke, value, config).result().content)

    RunnableLambda(step).invoke("x")
    assert parent_of(langchain, "chat scripted-1") == "chain step"


def test_a_users_span_in_a_thread_without_our_context_still_wins(langchain: Traced) -> None:
    tracer = langchain.provider.get_tracer("mine")
    model = Scripted()

    def step(value: str, config: RunnableConfig) -> None:
        with tracer.start_as_current_span("mine") as span:

            def work() -> None:
                with trace.use_span(span):
                    model.invoke(value, config)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    RunnableLambda(step).invoke("x")
    assert parent_of(langchain, "chat scripted-1") == "mine"


def test_a_batch_of_eight_without_a_callers_span_is_eight_traces(langchain: Traced) -> None:
    chain = RunnableLambda(classify) | Scripted()
    chain.batch([f"label-{number}" for number in range(8)])
    RunnableLambda(classify).batch([f"label-{number}" for number in range(8)])

    roots = [span for span in langchain.spans if span.parent is None]
    assert len(roots) == 16
    assert len({span.context.trace_id for span in roots}) == 16


async def agent(label: str, model: Scripted) -> None:
    async def first(value: str) -> str:
        await asyncio.sleep(0)
        predict(value)
        await asyncio.sleep(0)
        return value

    await (RunnableLambda(first) | model).ainvoke(label)


def assert_own_predictions(traced: Traced, count: int) -> None:
    spans = {span.context.span_id: span for span in traced.spans}
    answers = [span for span in traced.spans if span.name == "chat scripted-1"]
    assert len(answers) == count
    for answer in answers:
        (link,) = answer.links
        component = spans[link.context.span_id]
        assert component.context.trace_id == answer.context.trace_id
        assert (component.attributes or {})["lstm.prediction.label"] == (answer.attributes or {})["lstm.upstream.label"]
        assert answer.parent is not None
        classified = component.parent
        assert classified is not None
        above = spans[classified.span_id].parent
        assert above is not None
        assert above.span_id == answer.parent.span_id


@pytest.mark.parametrize("callers_span", [False, True])
async def test_eight_agents_in_parallel_each_see_their_own_prediction(langchain: Traced, callers_span: bool) -> None:
    model = Scripted()
    tracer = langchain.provider.get_tracer("mine")
    if callers_span:
        with tracer.start_as_current_span("request"):
            await asyncio.gather(*(agent(f"label-{number}", model) for number in range(8)))
    else:
        await asyncio.gather(*(agent(f"label-{number}", model) for number in range(8)))

    assert_own_predictions(langchain, 8)
    for span in langchain.spans:
        if span.name == "chain first":
            assert not attributes(span, "lstm.upstream")


def test_sixty_four_threads_do_not_mix(langchain: Traced) -> None:
    chain = RunnableLambda(classify) | Scripted()
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda number: chain.invoke(f"label-{number}"), range(64)))

    assert_own_predictions(langchain, 64)
    assert len({span.context.trace_id for span in langchain.spans}) == 64


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_branches_of_a_parallel_see_their_own_predictions_only(langchain: Traced, way: str) -> None:
    model = Scripted()
    chain = RunnableLambda(classify) | RunnableParallel(
        left=RunnableLambda(lambda _: classify("left")).with_config(run_name="l") | model,
        right=RunnableLambda(lambda _: classify("right")).with_config(run_name="r") | model,
    )
    await run(way, chain, "before")

    labels = {}
    for span in langchain.spans:
        found = attributes(span)
        if span.name == "chat scripted-1":
            labels[found["agent.trajectory.branch"]] = found["lstm.upstream.label"]
        if span.name in ("chain l", "chain r"):
            assert found["lstm.upstream.label"] == "before"
    assert labels == {"left": "left", "right": "right"}


def test_interleaved_streams_do_not_mix(langchain: Traced) -> None:
    tracer = langchain.provider.get_tracer("mine")
    chain = RunnableLambda(classify) | Streaming()
    with tracer.start_as_current_span("caller"):
        first, second = chain.stream("one"), chain.stream("two")
        for _ in range(3):
            next(first)
            assert current() == "caller"
            next(second)
            assert current() == "caller"
        list(second)
        list(first)
        assert current() == "caller"
    assert_own_predictions(langchain, 2)


async def test_the_callers_span_and_baggage_are_current_between_chunks_and_after_every_await(langchain: Traced) -> None:
    tracer = langchain.provider.get_tracer("mine")
    seen: list[Any] = []

    def step(value: str) -> str:
        seen.append(baggage.get_baggage("tenant"))
        return value

    chain = RunnableLambda(step) | Streaming()
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        with tracer.start_as_current_span("caller"):
            async for _ in chain.astream("x"):
                assert current() == "caller"
                assert baggage.get_baggage("tenant") == "acme"
            await chain.ainvoke("x")
            assert current() == "caller"
            for _ in Streaming().stream("x"):
                assert current() == "caller"
            async for _ in chain.astream_events("x", version="v2"):
                assert current() == "caller"
    finally:
        context.detach(token)
    assert seen == ["acme"] * 3
    assert {span.context.trace_id for span in langchain.spans} == {langchain.named("caller").context.trace_id}


def test_baggage_that_a_step_sets_reaches_what_it_calls(langchain: Traced) -> None:
    seen: list[Any] = []

    def inner(value: str) -> str:
        seen.append(baggage.get_baggage("tenant"))
        return value

    def outer(value: str) -> str:
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        try:
            return str(RunnableLambda(inner).invoke(value))
        finally:
            context.detach(token)

    RunnableLambda(outer).invoke("x")
    assert seen == ["acme"]


def test_the_tool_of_an_agent_stands_below_its_node(langchain: Traced) -> None:
    from langchain.agents import create_agent
    from langchain_core.messages import AIMessage

    @tool
    def look(q: str) -> str:
        """Look."""
        predict("inside the tool")
        return current()

    calls = [{"name": "look", "args": {"q": "x"}, "id": "call-1"}]
    model = ToolCaller(messages=iter([AIMessage("", tool_calls=calls), AIMessage("done")]))
    result = create_agent(model, [look], name="helper").invoke({"messages": [("user", "hi")]})

    assert result["messages"][2].content == "execute_tool look"
    assert parent_of(langchain, "execute_tool look") == "chain tools"
    assert parent_of(langchain, "lstm intent") == "execute_tool look"
    assert parent_of(langchain, "chain tools") == "invoke_agent helper"
    assert attributes(langchain.named("execute_tool look"))["gen_ai.tool.call.id"] == "call-1"

    assert max((span for span in langchain.spans if span.name.startswith("chat")), key=lambda span: span.start_time or 0).links


async def test_a_sibling_that_is_open_still_keeps_its_prediction_to_itself(langchain: Traced) -> None:
    tracer = langchain.provider.get_tracer("mine")
    model = Scripted(seconds=0.01)

    async def helper(label: str) -> None:
        await (RunnableLambda(classify).with_config(run_name=f"first {label}") | model).ainvoke(label)

    with tracer.start_as_current_span("request"):
        await asyncio.gather(*(helper(f"{number}") for number in range(4)))
        assert_own_predictions(langchain, 4)
        for span in langchain.spans:
            if span.name.startswith(("chain first", "chain RunnableSequence")):
                assert not attributes(span, "lstm.upstream"), span.name
        Scripted(model="after").invoke("x")
    assert attributes(langchain.named("chat after"))["lstm.upstream.label"] == "3"


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_the_newer_streaming_protocol(langchain: Traced) -> None:
    model = Streaming()
    assert str(model.stream_events("x", version="v3").text) == "yes"
    stream = await model.astream_events("x", version="v3")
    assert await stream.text == "yes"
    assert set(model.seen) == {"chat scripted-1"}
    for span in langchain.spans:
        assert attributes(span)["gen_ai.usage.input_tokens"] == 4
    failing = Streaming(failures=1)
    with pytest.raises(ConnectionError):
        str(failing.stream_events("x", version="v3").text)
    assert attributes(langchain.spans[-1])["error.type"] == "ConnectionError"

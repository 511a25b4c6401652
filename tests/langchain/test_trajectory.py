"""Trajectories: steps are contiguous, what runs side by side shares a number, and every span inside a step says which."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

import lstm_trace
from tests.langchain.conftest import attributes
from tests.langchain.models import Scripted, ToolCaller, predict
from tests.tracing import Traced


def steps(traced: Traced) -> dict[str, list[tuple[Any, ...]]]:
    """Name -> (step, branch, path) of each span of that name, in the order of their starts."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for span in sorted(traced.spans, key=lambda span: span.start_time or 0):
        place = tuple(attributes(span).get(f"agent.trajectory.{name}") for name in ("step", "branch", "path"))
        found.setdefault(span.name, []).append(place)
    return found


def events(traced: Traced, name: str) -> list[tuple[Any, ...]]:
    found = [dict(event.attributes or {}) for event in traced.named(name).events if event.name == "agent.trajectory.step"]
    return [(each["agent.trajectory.step"], each.get("agent.trajectory.branch"), each["agent.trajectory.path"]) for each in found]


class State(TypedDict, total=False):
    seen: Annotated[list[str], lambda a, b: (a or []) + (b or [])]


def node(name: str, *, model: Any = None) -> Any:
    def run(_: State) -> State:
        if model is not None:
            model.invoke(name)
        return {"seen": [name]}

    run.__name__ = name
    return run


def parallel_graph(model: Any = None) -> Any:
    builder: Any = StateGraph(State)
    for name in ("a", "b", "c", "d"):
        builder.add_node(name, node(name, model=model))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("a", "c")
    builder.add_edge("b", "d")
    builder.add_edge("c", "d")
    builder.add_edge("d", END)
    return builder


async def test_a_graph_with_parallel_nodes(langchain: Traced) -> None:
    graph = parallel_graph(Scripted()).compile(name="agent")
    for call in (lambda: graph.invoke({}), lambda: list(graph.stream({}))):
        call()
        assert steps(langchain) == {
            "invoke_agent agent": [(None, None, None)],
            "chain a": [(1, "a", "1")],
            "chain b": [(2, "b", "2")],
            "chain c": [(2, "c", "2")],
            "chain d": [(3, "d", "3")],
            "chat scripted-1": steps(langchain)["chat scripted-1"],
        }
        assert sorted(steps(langchain)["chat scripted-1"]) == [(1, "a", "1"), (2, "b", "2"), (2, "c", "2"), (3, "d", "3")]
        assert events(langchain, "invoke_agent agent") == [(1, "a", "1"), (2, "b,c", "2"), (3, "d", "3")]
        langchain.memory.clear()
    await graph.ainvoke({})
    assert [each[0] for each in events(langchain, "invoke_agent agent")] == [1, 2, 3]


def test_tasks_sent_to_one_node_are_one_step_and_no_retries(langchain: Traced) -> None:
    builder: Any = StateGraph(State)
    builder.add_node("work", node("work"))
    builder.add_conditional_edges(START, lambda _: [Send("work", {}), Send("work", {}), Send("work", {})], ["work"])
    builder.compile(name="agent").invoke({})
    assert steps(langchain)["chain work"] == [(1, "work", "1")] * 3
    assert {attributes(span)["agent.trajectory.attempt"] for span in langchain.spans if span.name == "chain work"} == {1}


def test_nested_agents(langchain: Traced) -> None:
    builder: Any = StateGraph(State)
    builder.add_node("first", node("first"))
    builder.add_node("inner", parallel_graph(Scripted()).compile(name="inner"))
    builder.add_edge(START, "first")
    builder.add_edge("first", "inner")
    builder.compile(name="outer").invoke({})

    found = steps(langchain)
    assert found["invoke_agent inner"] == [(2, "inner", "2")]
    assert found["chain d"] == [(3, "d", "2.3")]
    assert sorted(found["chat scripted-1"]) == [(1, "a", "2.1"), (2, "b", "2.2"), (2, "c", "2.2"), (3, "d", "2.3")]
    assert [each[2] for each in events(langchain, "invoke_agent inner")] == ["2.1", "2.2", "2.3"]
    assert [each[2] for each in events(langchain, "invoke_agent outer")] == ["1", "2"]


def test_create_agent(langchain: Traced) -> None:
    from langchain.agents import create_agent

    @tool
    def look(q: str) -> str:
        """Look."""
        step = lstm_trace.current_step()
        return f"{step.number if step else None}"

    calls = [{"name": "look", "args": {"q": "x"}, "id": f"call-{number}"} for number in range(2)]
    model = ToolCaller(messages=iter([AIMessage("", tool_calls=calls), AIMessage("done")]))
    result = create_agent(model, [look], name="helper").invoke({"messages": [("user", "hi")]})
    assert [message.content for message in result["messages"][2:4]] == ["2", "2"]
    assert events(langchain, "invoke_agent helper") == [(1, "model", "1"), (2, "tools", "2"), (3, "model", "3")]
    assert steps(langchain)["execute_tool look"] == [(2, "tools", "2")] * 2


def test_a_sequence_a_branch_and_a_parallel(langchain: Traced) -> None:
    def refund(x: int) -> int:
        return Scripted().invoke("x") and x  # type: ignore[return-value]

    chain = (
        RunnableLambda(lambda x: x).with_config(run_name="classify")
        | RunnableBranch((lambda x: x > 5, lambda x: x), (lambda x: x > 0, RunnableLambda(refund)), lambda x: x)
        | RunnableParallel(left=RunnableLambda(lambda x: x).with_config(run_name="l"), right=RunnableLambda(str))
    )
    chain.invoke(1)
    found = steps(langchain)
    assert found["chain classify"] == [(1, None, "1")]
    assert found["chain RunnableBranch"] == [(2, None, "2")]
    assert found["chain refund"] == [(2, "refund", "2")]
    assert found["chat scripted-1"] == [(2, "refund", "2")]
    assert found["chain l"] == [(3, "left", "3")]
    assert found["chain str"] == [(3, "right", "3")]
    assert [each[0] for each in events(langchain, "chain RunnableSequence")] == [1, 2, 3]


def test_a_parallel_outermost_is_one_step(langchain: Traced) -> None:
    RunnableParallel(left=RunnableLambda(str), right=RunnableLambda(repr)).invoke(1)
    found = steps(langchain)
    assert found["chain str"] == [(1, "left", "1")]
    assert found["chain repr"] == [(1, "right", "1")]


async def test_calls_of_a_function_are_its_steps_and_overlapping_ones_share_a_number(langchain: Traced) -> None:
    model = Scripted(seconds=0.02)

    @lstm_trace.trace_chain(name="claims")
    async def answer() -> None:
        predict("refund")
        await model.ainvoke("one")
        await asyncio.gather(model.ainvoke("two"), model.ainvoke("three"))
        await model.ainvoke("four")

    await answer()
    assert [place[0] for place in steps(langchain)["chat scripted-1"]] == [1, 2, 2, 3]
    assert [each[0] for each in events(langchain, "chain claims")] == [1, 2, 3]

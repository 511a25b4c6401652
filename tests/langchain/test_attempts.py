"""What an agent's middleware tries again is numbered; a branch stands below the run that chose it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableBranch, RunnableLambda
from langchain_core.tools import tool

from tests.langchain.conftest import attributes, parent_of
from tests.langchain.models import ToolCaller
from tests.tracing import Traced

agents = pytest.importorskip("langchain.agents")
middleware = pytest.importorskip("langchain.agents.middleware")

CALL = AIMessage("", tool_calls=[{"name": "look", "args": {"q": "x"}, "id": "call-1"}])


class Flaky(ToolCaller):
    """Fails so many times first."""

    failures: int = 0

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("away")
        return super()._generate(*args, **kwargs)


def flaky_tool(failures: int) -> Any:
    left = [failures]

    @tool
    def look(q: str) -> str:
        """Look."""
        if left[0]:
            left[0] -= 1
            raise ConnectionError("away")
        return q

    return look


def attempts(traced: Traced, start: str) -> list[tuple[Any, Any]]:
    spans = sorted((span for span in traced.spans if span.name.startswith(start)), key=lambda span: span.start_time or 0)
    return [(attributes(span)["agent.trajectory.step"], attributes(span)["agent.trajectory.attempt"]) for span in spans]


ASK = {"messages": [("user", "hi")]}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_models_retries(langchain: Traced, asynchronous: bool) -> None:
    retry = middleware.ModelRetryMiddleware(max_retries=3, initial_delay=0.0, jitter=False)
    agent = agents.create_agent(Flaky(messages=iter([CALL, AIMessage("done")]), failures=2), [flaky_tool(0)], middleware=[retry])
    await agent.ainvoke(ASK) if asynchronous else agent.invoke(ASK)
    assert attempts(langchain, "chat Flaky") == [(1, 1), (1, 2), (1, 3), (3, 1)]


def test_a_models_fallbacks(langchain: Traced) -> None:
    fallback = middleware.ModelFallbackMiddleware(ToolCaller(messages=iter([AIMessage("done")])))
    agents.create_agent(Flaky(messages=iter([]), failures=1), [], middleware=[fallback]).invoke(ASK)
    assert attempts(langchain, "chat ") == [(1, 1), (1, 2)]


def test_a_tools_retries(langchain: Traced) -> None:
    retry = middleware.ToolRetryMiddleware(max_retries=2, initial_delay=0.0, jitter=False)
    agent = agents.create_agent(ToolCaller(messages=iter([CALL, AIMessage("done")])), [flaky_tool(1)], middleware=[retry])
    agent.invoke(ASK)
    assert attempts(langchain, "execute_tool look") == [(2, 1), (2, 2)]


async def test_a_chosen_branch_with_a_name_of_its_own_is_below_the_branch(langchain: Traced) -> None:
    one = RunnableLambda(lambda x: x).with_config(run_name="one")
    chain = RunnableLambda(lambda x: x).with_config(run_name="first") | RunnableBranch((lambda x: True, one), lambda x: x)
    chain.invoke(1)
    await chain.ainvoke(1)
    list(chain.stream(1))
    assert [span.name for span in langchain.spans].count("chain one") == 3
    for span in langchain.spans:
        if span.name == "chain one":
            assert attributes(span, "agent.trajectory.path") == {"agent.trajectory.path": "2"}
            assert attributes(span)["agent.trajectory.branch"] == "one"
    langchain.memory.clear()
    chain.invoke(1)
    assert parent_of(langchain, "chain one") == "chain RunnableBranch"

"""Private by default: with content off no word of anybody leaves; with content on it is redacted and bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.callbacks import dispatch_custom_event
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from lstm_trace import Settings
from tests.langchain.conftest import attributes
from tests.langchain.models import Scripted, Shelf, Streaming
from tests.tracing import Traced


@tool
def look(q: str) -> str:
    """Look."""
    return f"secret result of {q}"


@tool
def breaks(q: str) -> str:
    """Break."""
    raise ConnectionError(f"secret error of {q}")


class Unreadable(HumanMessage):
    """Breaks whoever turns it into text."""

    def __str__(self) -> str:
        raise AssertionError("somebody made text of a message")

    __repr__ = __str__

    def model_dump(self, **_: Any) -> Any:
        raise AssertionError("somebody serialised a message")

    def model_dump_json(self, **_: Any) -> Any:
        raise AssertionError("somebody serialised a message")


def work() -> None:
    def step(value: str) -> str:
        dispatch_custom_event("progress", {"secret": value})
        look.invoke({"q": value})
        with pytest.raises(ConnectionError):
            breaks.invoke({"q": value})
        Shelf().invoke(value)
        return value

    prompt = ChatPromptTemplate.from_template("say secret {q}")
    chain = RunnableLambda(step) | (lambda q: {"q": q}) | prompt | Scripted(reply=AIMessage("secret answer"))
    chain.invoke("secret question", {"metadata": {"customer": "secret customer"}, "tags": ["secret tag"], "configurable": {"x": "secret"}})


def everything(traced: Traced) -> str:
    return "\n".join(span.to_json() for span in traced.spans)


def test_with_content_off_nothing_leaves(langchain: Traced) -> None:
    work()
    assert "secret" not in everything(langchain)
    (event,) = langchain.named("chain step").events
    assert (event.name, dict(event.attributes or {})) == ("progress", {})


def test_with_content_off_nothing_is_serialised(langchain: Traced) -> None:
    Scripted().invoke([Unreadable("x")])
    RunnableLambda(lambda x: x).invoke(Unreadable("x"))
    list(Streaming().stream([Unreadable("x")]))
    assert len(langchain.spans) == 3


class TestContentOn:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(strict=True, content=True, content_limit=200, redact=lambda text: text.replace("secret", "█"))

    def test_everything_is_there_redacted_and_bounded(self, langchain: Traced) -> None:
        work()
        assert "secret" not in everything(langchain)
        model, found = attributes(langchain.named("chat scripted-1")), attributes(langchain.named("execute_tool look"))
        assert json.loads(model["gen_ai.input.messages"]) == [{"role": "user", "parts": [{"type": "text", "content": "say █ █ question"}]}]
        assert json.loads(model["gen_ai.output.messages"]) == [{"role": "assistant", "parts": [{"type": "text", "content": "█ answer"}]}]
        assert model["input.value"] == model["gen_ai.input.messages"]
        assert json.loads(found["gen_ai.tool.call.arguments"]) == {"q": "█ question"}
        assert found["gen_ai.tool.call.result"] == "█ result of █ question"
        assert attributes(langchain.named("retrieval Shelf"))["retrieval.documents.0.document.content"] == "the █ of the shelf"
        assert attributes(langchain.named("chain step"))["input.value"] == "█ question"
        (event,) = [event for event in langchain.named("execute_tool breaks").events if event.name == "exception"]
        assert (event.attributes or {})["exception.message"] == "█ error of █ question"
        (progress,) = langchain.named("chain step").events
        assert json.loads(str((progress.attributes or {})["langchain.event.data"])) == {"█": "█ question"}

    def test_a_long_text_is_cut(self, langchain: Traced) -> None:
        RunnableLambda(lambda x: x).invoke("x" * 10_000)
        assert len(langchain.spans[0].attributes["input.value"]) == 200  # type: ignore[index]

"""Private by default: with content off no word of anybody leaves; with content on it is redacted and bounded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.callbacks import dispatch_custom_event
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from lstm_trace import LangChainInstrumentor, Settings, trace_chain
from lstm_trace.redact import WITHHELD
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

    async def test_a_named_chain_shows_what_it_was_given_and_what_it_answered(self, langchain: Traced) -> None:
        class Desk:
            @trace_chain(name="method")
            def answer(self, question: str) -> str:
                return question.upper()

            @trace_chain(name="stream")
            def stream(self, question: str) -> Iterator[str]:
                yield from question.split()

        @trace_chain(name="several")
        async def several(ticket: str, question: str = "why?", *more: int) -> int:
            return len(ticket)

        Desk().answer("a secret")
        list(Desk().stream("two words"))
        await several("t-1", "how?", 3)
        trace_chain(RunnableLambda(lambda said: said + "!"), name="runnable").invoke("stop")
        assert {span.name: (attributes(span)["input.value"], attributes(span)["output.value"]) for span in langchain.spans} == {
            "chain method": ("a █", "A SECRET"),
            "chain stream": ("two words", "twowords"),
            "chain several": ('{"ticket": "t-1", "question": "how?", "args": [3]}', "3"),
            "chain runnable": ("stop", "stop!"),
        }

    def test_a_long_text_is_cut(self, langchain: Traced) -> None:
        RunnableLambda(lambda x: x).invoke("x" * 10_000)
        assert len(langchain.spans[0].attributes["input.value"]) == 200  # type: ignore[index]

    def test_a_text_is_redacted_before_json_escapes_it(self, langchain: Traced) -> None:
        found = content_of(langchain, {"note": 'first\nsecret "quoted" secret', ("odd", "secret"): [secret_number, 7, True, None]})
        assert json.loads(found) == {"note": 'first\n█ "quoted" █', "('odd', '█')": [secret_number, 7, True, None]}

    @pytest.mark.parametrize("value", ["loop", "many", "deep", "unreadable"])
    def test_whatever_the_value_is_the_span_stays_and_the_text_is_bounded(self, langchain: Traced, value: str) -> None:
        assert len(content_of(langchain, strange(value))) <= 200


secret_number = 4111111111111111


def strange(which: str) -> Any:
    if which == "loop":
        loop: dict[str, Any] = {}
        loop.update({str(number): [loop] * 10 for number in range(10)})
        return loop
    if which == "many":
        return [[] for _ in range(1_000_000)]
    if which == "deep":
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        return deep

    class Unreadable:
        def __str__(self) -> str:
            raise RuntimeError("secret")

    return {"q": Unreadable()}


def content_of(traced: Traced, value: Any) -> str:
    RunnableLambda(lambda x: 1).invoke(value)
    return str(attributes(traced.spans[-1])["input.value"])


class TestTheRedactorFails:
    """What cannot be redacted is withheld; the span and everything else on it stays."""

    @pytest.fixture
    def settings(self) -> Settings:
        def fails(text: str) -> str:
            raise ValueError(f"cannot read {text}")

        return Settings(strict=True, content=True, redact=fails)

    def test_the_text_is_lost_and_nothing_else(self, langchain: Traced) -> None:
        work()
        assert "secret" not in everything(langchain)
        model = attributes(langchain.named("chat scripted-1"))
        assert model["gen_ai.request.model"] == "scripted-1"
        assert json.loads(model["gen_ai.input.messages"]) == [{"role": "user", "parts": [{"type": "text", "content": WITHHELD}]}]
        (event,) = [event for event in langchain.named("execute_tool breaks").events if event.name == "exception"]
        assert (event.attributes or {})["exception.message"] == WITHHELD


def test_the_ready_redactors_by_environment(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("presidio_analyzer")
    pytest.importorskip("detect_secrets")
    monkeypatch.setenv("LSTM_TRACE_CONTENT", "on")
    monkeypatch.setenv("LSTM_TRACE_REDACT", "pii,secrets")
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=traced.provider, settings=Settings.from_env())
    try:
        RunnableLambda(lambda x: "sent to\nbob@example.com").with_config(run_name="step").invoke(
            {"card": secret_number, "password": ["hunter22"], "said": "pay\n4111 1111 1111 1111", "count": 3}
        )
    finally:
        instrumentor.uninstrument()
    found = attributes(traced.named("chain step"))
    assert json.loads(found["input.value"]) == {"card": "<CREDIT_CARD>", "password": WITHHELD, "said": "pay\n<CREDIT_CARD>", "count": 3}
    assert found["output.value"] == "sent to\n<EMAIL_ADDRESS>"

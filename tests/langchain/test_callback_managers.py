"""Callback managers called as their signatures allow: by place, by keyword, with what a version of LangChain adds."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.messages import HumanMessage
from langchain_core.outputs import LLMResult

from tests.tracing import Traced


class Heard(BaseCallbackHandler):
    """Notes what LangChain hands a user's own handler."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        kwargs.pop("run_id")
        self.said.append(("start", serialized, inputs, kwargs))

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.said.append(("end", outputs))

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.said.append(("error", error))


def calls(manager: CallbackManager) -> None:
    manager.on_chain_start({"name": "a"}, 1).on_chain_end(2)
    manager.on_chain_start({"name": "b"}, 1, uuid4(), name="b").on_chain_end(2, more=3)
    manager.on_chain_start({"name": "c"}, 1, name="c", run_id=uuid4(), run_type="tool").on_chain_end(outputs=2)
    manager.on_chain_start(serialized={"name": "d"}, inputs=1).on_chain_end(outputs=2)
    manager.on_chain_start(inputs=1, serialized=None, name=None, run_id=None).on_chain_error(error=KeyError("x"))


def test_a_users_handler_hears_the_same_with_us_and_without(traced: Traced, request: pytest.FixtureRequest) -> None:
    without, with_us = Heard(), Heard()
    calls(CallbackManager([without]))
    request.getfixturevalue("langchain")
    calls(CallbackManager([with_us]))
    assert [str(each) for each in with_us.said] == [str(each) for each in without.said]
    assert [span.name for span in traced.spans] == ["chain a", "chain b", "chain c", "chain d", "chain chain"]
    assert (traced.spans[-1].attributes or {})["error.type"] == "KeyError"


def test_every_kind_of_start_takes_keywords(langchain: Traced) -> None:
    manager = CallbackManager([])
    (model,) = manager.on_chat_model_start(serialized={"name": "m"}, messages=[[HumanMessage("x")]])
    model.on_llm_end(response=LLMResult(generations=[]))
    (prompt,) = manager.on_llm_start(serialized={"name": "p"}, prompts=["x"])
    prompt.on_llm_end(LLMResult(generations=[]))
    manager.on_tool_start(serialized={"name": "t"}, input_str="x").on_tool_end(output="y")
    manager.on_retriever_start(serialized={"name": "r"}, query="x").on_retriever_end(documents=[])
    assert [span.name for span in langchain.spans] == ["chat m", "text_completion p", "execute_tool t", "retrieval r"]


def test_what_langchain_refuses_it_refuses_with_us_too(langchain: Traced) -> None:
    with pytest.raises(TypeError):
        CallbackManager([]).on_chain_start({"name": "a"})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert langchain.spans == []

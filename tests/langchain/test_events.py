"""``astream_events``, ``astream_log``, ``transform`` and ``batch_as_completed`` give the same one trace as ``invoke``."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from opentelemetry import trace

from tests.langchain.models import Streaming, predict
from tests.tracing import Traced

TREE = """\
chain RunnableSequence
  chain classify
    lstm intent
  chain RunnableLambda
  chat scripted-1
  chain StrOutputParser"""


def classify(x: str) -> str:
    predict(x)
    return x


def make() -> Any:
    return RunnableLambda(classify) | (lambda x: x) | Streaming(reply=AIMessage("abc")) | StrOutputParser()


async def all_of(stream: Any) -> None:
    async for _ in stream:
        pass


async def source() -> Any:
    yield "refund"


async def events_1(chain: Any) -> None:
    await all_of(chain.astream_events("refund", version="v1"))


async def events_2(chain: Any) -> None:
    await all_of(chain.astream_events("refund", version="v2"))


async def log(chain: Any) -> None:
    await all_of(chain.astream_log("refund"))


async def transform(chain: Any) -> None:
    list(chain.transform(iter(["refund"])))


async def atransform(chain: Any) -> None:
    await all_of(chain.atransform(source()))


async def as_completed(chain: Any) -> None:
    list(chain.batch_as_completed(["refund"]))


async def as_acompleted(chain: Any) -> None:
    await all_of(chain.abatch_as_completed(["refund"]))


@pytest.mark.parametrize("call", [events_1, events_2, log, transform, atransform, as_completed, as_acompleted])
async def test_one_trace(langchain: Traced, call: Callable[[Any], Awaitable[None]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LangChain deprecates the older ones
        await call(make())
    assert langchain.tree() == TREE
    model = langchain.named("chat scripted-1")
    assert (model.attributes or {})["lstm.upstream.label"] == "refund"
    assert [link.context.span_id for link in model.links] == [langchain.named("lstm intent").context.span_id]


async def test_the_callers_span_between_events(langchain: Traced) -> None:
    with langchain.provider.get_tracer("user").start_as_current_span("caller") as caller:
        events = make().astream_events("refund", version="v2")
        async for event in events:
            assert trace.get_current_span() is caller
            if event["event"] == "on_chat_model_stream":
                break
        await events.aclose()
        assert trace.get_current_span() is caller


def test_a_loop_that_ends_with_an_open_stream_has_nothing_to_complain_about(langchain: Traced, caplog: Any) -> None:
    async def leave() -> None:
        async for event in make().astream_events("refund", version="v2"):
            if event["event"] == "on_chat_model_stream":
                break

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        asyncio.run(leave())
    assert caplog.text == ""
    assert "chat scripted-1" in langchain.tree()

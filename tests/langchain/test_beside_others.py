"""Others wrap the functions that we replace, before us and after us: each keeps working, and each can be switched off first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import wrapt
from langchain_core.callbacks import CallbackManager
from langchain_core.embeddings import FakeEmbeddings
from langchain_core.runnables import RunnableLambda

from lstm_trace import LangChainInstrumentor, Settings
from tests.langchain.models import Scripted
from tests.tracing import Traced


class Others:
    """An instrumentation as OpenTelemetry's own are made: wrapt's wrappers, which need the instance that they are called on."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._put = [(CallbackManager, "on_chain_start"), (FakeEmbeddings, "embed_query")]

    def instrument(self) -> None:
        for owner, name in self._put:
            wrapt.wrap_function_wrapper(owner, name, self._note)

    def _note(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        self.seen.append(type(instance).__name__)
        return wrapped(*args, **kwargs)

    def uninstrument(self) -> None:
        for owner, name in self._put:
            found = vars(owner)[name]
            if isinstance(found, wrapt.FunctionWrapper):
                setattr(owner, name, found.__wrapped__)


@pytest.fixture
def originals() -> Iterator[dict[str, Any]]:
    found = {"on_chain_start": vars(CallbackManager)["on_chain_start"], "embed_query": vars(FakeEmbeddings)["embed_query"]}
    yield found
    CallbackManager.on_chain_start = found["on_chain_start"]  # type: ignore[method-assign]
    FakeEmbeddings.embed_query = found["embed_query"]  # type: ignore[method-assign]


def work() -> None:
    RunnableLambda(str).invoke(1)
    FakeEmbeddings(size=2).embed_query("x")


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("off_first", ["ours", "theirs"])
def test_whoever_comes_first_and_goes_first(traced: Traced, originals: dict[str, Any], first: str, off_first: str) -> None:
    theirs, ours = Others(), LangChainInstrumentor()

    def switch_on(which: str) -> None:
        if which == "ours":
            ours.instrument(tracer_provider=traced.provider, settings=Settings(strict=True))
        else:
            theirs.instrument()

    both = ["ours", "theirs"]
    try:
        for which in both if first == "ours" else both[::-1]:
            switch_on(which)
        work()
        assert sorted(span.name for span in traced.spans) == ["chain str", "embeddings FakeEmbeddings"]
        assert theirs.seen == ["CallbackManager", "FakeEmbeddings"]
        for which in both if off_first == "ours" else both[::-1]:
            ours.uninstrument() if which == "ours" else theirs.uninstrument()
        traced.memory.clear()
        work()
        assert traced.spans == []
        # And once more: what still stood below the other's wrapper is not put in a second time.
        ours.instrument(tracer_provider=traced.provider, settings=Settings(strict=True))
        work()
        assert sorted(span.name for span in traced.spans) == ["chain str", "embeddings FakeEmbeddings"]
    finally:
        if ours.is_instrumented_by_opentelemetry:
            ours.uninstrument()
    if first != off_first:
        assert vars(CallbackManager)["on_chain_start"] is originals["on_chain_start"]


def test_beside_the_official_instrumentor(traced: Traced) -> None:
    official = pytest.importorskip("opentelemetry.instrumentation.genai.langchain").LangChainInstrumentor()
    ours = LangChainInstrumentor()
    official.instrument(tracer_provider=traced.provider)
    ours.instrument(tracer_provider=traced.provider)
    try:
        (RunnableLambda(str) | Scripted()).invoke("x")
    finally:
        ours.uninstrument()
        official.uninstrument()
    assert sorted(span.name for span in traced.spans) == ["chain RunnableSequence", "chain str", "chat scripted-1"]

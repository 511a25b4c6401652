"""A guest: suppression is honoured and set, other instrumentations and callbacks keep working, and everything can be undone."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda
from opentelemetry import context, trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY

import lstm_trace
from lstm_trace import LangChainInstrumentor, Settings
from lstm_trace.guard import shield
from lstm_trace.instrument.langchain.sites import sites
from tests.langchain.conftest import parent_of
from tests.langchain.models import Scripted, Streaming
from tests.tracing import Traced

MODEL_KEY = "suppress_language_model_instrumentation"


@pytest.mark.parametrize("key", [_SUPPRESS_INSTRUMENTATION_KEY, "suppress_instrumentation"], ids=["api", "plain"])
def test_suppression_is_honoured(langchain: Traced, key: str) -> None:
    token = context.attach(context.set_value(key, True))
    try:
        (RunnableLambda(str) | Streaming()).invoke("x")
        list((RunnableLambda(str) | Streaming()).stream("x"))
    finally:
        context.detach(token)
    with lstm_trace.suppress():
        Scripted().invoke("x")
    assert langchain.spans == []


def test_model_suppression_takes_only_the_model_span(langchain: Traced) -> None:
    token = context.attach(context.set_value(MODEL_KEY, True))
    try:
        (RunnableLambda(str) | Scripted()).invoke("x")
    finally:
        context.detach(token)
    assert sorted(span.name for span in langchain.spans) == ["chain RunnableSequence", "chain str"]


def provider_call(traced: Traced) -> type[Scripted]:
    """A model whose provider has an instrumentation of its own, which honours the key as the public ones do."""

    class Provider(Scripted):
        def _note(self) -> None:
            if not context.get_value(MODEL_KEY):
                traced.provider.get_tracer("provider").start_span("chat by the provider").end()

    return Provider


def test_our_model_span_wins_by_default(langchain: Traced) -> None:
    provider_call(langchain)().invoke("x")
    assert [span.name for span in langchain.spans] == ["chat scripted-1"]


class TestProviderWins:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(strict=True, model_spans="provider")

    def test_the_providers_span_stands_below_the_step(self, langchain: Traced) -> None:
        model = provider_call(langchain)()
        RunnableLambda(lambda x: str(model.invoke(x).content)).with_config(run_name="step").invoke("x")
        assert parent_of(langchain, "chat by the provider") == "chain step"
        assert len(langchain.spans) == 2


def test_a_users_callbacks_see_what_they_saw_without_us(langchain: Traced) -> None:
    class Listener(BaseCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            self.heard.append(f"start {kwargs['name']} {inputs}")

        def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
            self.heard.append(f"end {outputs}")

        def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
            raise RuntimeError("a broken callback")

    def heard() -> list[str]:
        listener = Listener()
        (RunnableLambda(str) | RunnableLambda(str.upper)).invoke("x", {"callbacks": [listener]})
        return listener.heard

    with_us = heard()
    LangChainInstrumentor().uninstrument()
    without_us = heard()
    LangChainInstrumentor().instrument(tracer_provider=langchain.provider)
    assert with_us == without_us


def _functions() -> dict[str, Any]:
    found = {}
    for site in sites():
        try:
            module = importlib.import_module(site.module)
        except ImportError:
            continue
        owner = module if site.owner is None else getattr(module, site.owner)
        found[f"{site.module}.{site.owner}.{site.name}"] = vars(owner).get(site.name)
    return found


def test_uninstrument_puts_back_the_very_same_functions(traced: Traced) -> None:
    before = _functions()
    assert all(before.values()), [name for name, value in before.items() if value is None]
    instrumentor = LangChainInstrumentor()
    for _ in range(2):
        instrumentor.instrument(tracer_provider=traced.provider)
        during = _functions()
        assert all(during[name] is not before[name] for name in before)
        instrumentor.uninstrument()
        after = _functions()
        assert all(after[name] is before[name] for name in before)
    Scripted().invoke("x")
    assert traced.spans == []


def test_needs_only_langchain_core_and_loads_nothing_of_it_by_itself() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("langchain", "langgraph"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import lstm_trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
memory, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
lstm_trace.LangChainInstrumentor().instrument(tracer_provider=provider)
assert "langchain_core" not in sys.modules
from langchain_core.runnables import RunnableLambda
RunnableLambda(str).invoke(1)
print([span.name for span in memory.get_finished_spans()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "['chain str']", done.stderr


@pytest.mark.parametrize("wins", ["ours", "theirs"])
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_beside_openinference_one_writes_the_spans(traced: Traced, caplog: Any, wins: str, first: str) -> None:
    other = pytest.importorskip("openinference.instrumentation.langchain").LangChainInstrumentor()
    from lstm_trace.instrument.langchain.others import said

    said.clear()
    ours = LangChainInstrumentor()

    def switch_ours_on() -> None:
        ours.instrument(tracer_provider=traced.provider, settings=Settings(langchain_spans=wins))

    try:
        if first == "ours":
            switch_ours_on()
            other.instrument(tracer_provider=traced.provider)
        else:
            other.instrument(tracer_provider=traced.provider)
            switch_ours_on()
        with caplog.at_level(logging.WARNING, logger="lstm_trace"):
            for _ in range(3):
                (RunnableLambda(str) | Scripted()).invoke("x")
    finally:
        ours.uninstrument()
        other.uninstrument()
    assert len(traced.spans) == 9
    names = {span.name for span in traced.spans}
    assert ("chat scripted-1" in names) is (wins == "ours")
    assert len([record for record in caplog.records if "openinference" in record.message]) == 1


def test_metrics_carry_the_model_spans_exemplar(traced: Traced) -> None:
    from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(
        tracer_provider=traced.provider,
        meter_provider=MeterProvider([reader], exemplar_filter=AlwaysOnExemplarFilter(), shutdown_on_exit=False),
    )
    try:
        list(Streaming().stream("x"))
    finally:
        instrumentor.uninstrument()
    data: Any = reader.get_metrics_data()
    found = {metric.name: metric.data.data_points for scope in data.resource_metrics[0].scope_metrics for metric in scope.metrics}
    (duration,) = found["gen_ai.client.operation.duration"]
    assert duration.exemplars[0].span_id == traced.named("chat scripted-1").context.span_id
    assert dict(duration.attributes)["gen_ai.request.model"] == "scripted-1"
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in found["gen_ai.client.token.usage"]}
    assert tokens == {"input": 4, "output": 3}


def test_a_run_without_any_provider_is_left_alone() -> None:
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=trace.NoOpTracerProvider())
    try:
        assert (RunnableLambda(str) | Streaming()).invoke(1).content == "yes"
        assert "".join(str(chunk.content) for chunk in Streaming().stream("x")) == "yes"
    finally:
        instrumentor.uninstrument()


def test_a_provider_that_raises_costs_the_spans_and_not_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shield, "strict", False)

    class Raising(trace.TracerProvider):
        def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
            raise OSError("no tracer")

    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=Raising())
    try:
        chain = RunnableLambda(str) | Streaming()
        assert chain.invoke(1).content == "yes"
        assert "".join(str(chunk.content) for chunk in chain.stream(1)) == "yes"
    finally:
        instrumentor.uninstrument()


def test_the_first_call_looks_for_no_resource_of_its_own() -> None:
    """Detectors run in threads and may ask the network: that is the application's to start, and not on its event loop."""
    code = """
from langchain_core.runnables import RunnableLambda
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
def refuse(*_):
    raise SystemExit("a resource was looked for")
Resource.create = refuse
import lstm_trace
lstm_trace.LangChainInstrumentor().instrument(tracer_provider=provider)
RunnableLambda(str).invoke(1)
print([span.name for span in exporter.get_finished_spans()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("['chain str']", 0), done.stderr


def test_embedding_models_are_put_back_too(traced: Traced) -> None:
    from langchain_core.embeddings import Embeddings, FakeEmbeddings

    before = dict(vars(Embeddings)), dict(vars(FakeEmbeddings))
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=traced.provider)

    class Mine(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [self.embed_query(text) for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return [1.0]

    assert Mine().embed_documents(["x", "y"]) == [[1.0], [1.0]]
    instrumentor.uninstrument()
    assert (dict(vars(Embeddings)), dict(vars(FakeEmbeddings))) == before
    Mine().embed_query("x")
    assert [span.name for span in traced.spans] == ["embeddings Mine"]

"""What the public instrumentors of LangChain get right: each failure that this project was built against, tried on each of them.

Every instrumentor runs in a process of its own, ``--peer NAME=PYTHON`` in a virtual environment of its own (see bench_langchain.py);
one line a question, yes or no. The questions are asked of finished spans only, whatever they are called and whoever made them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import contextvars
import gc
import importlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_langchain import PEERS, REPOSITORY, peers

QUESTIONS: dict[str, Callable[[Any], bool]] = {}


def question(text: str) -> Callable[[Callable[[Any], bool]], Callable[[Any], bool]]:
    def note(ask: Callable[[Any], bool]) -> Callable[[Any], bool]:
        QUESTIONS[text] = ask
        return ask

    return note


class Watched:
    """A provider that records in memory and counts the spans that are open."""

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        watched = self

        class Counting(SpanProcessor):
            def on_start(self, span: Any, parent_context: Any = None) -> None:
                watched.open += 1

            def on_end(self, span: Any) -> None:
                watched.open -= 1

        self.open = 0
        self.memory = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(Counting())
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))
        trace.set_tracer_provider(self.provider)
        self.tracer = self.provider.get_tracer("user")

    @property
    def spans(self) -> list[Any]:
        gc.collect()
        return list(self.memory.get_finished_spans())

    def traces(self) -> int:
        return len({span.context.trace_id for span in self.spans})

    def parent(self, span: Any) -> Any:
        return next((each for each in self.spans if span.parent is not None and each.context.span_id == span.parent.span_id), None)

    def mine(self, name: str) -> Any:
        return next(span for span in self.spans if span.name == name)

    def everything(self) -> str:
        return "\n".join(span.to_json() for span in self.spans)


def model(reply: str = "hello", kind: Any = None) -> Any:
    from langchain_core.messages import AIMessage

    return (kind or named_model())(messages=iter([AIMessage(reply)] * 100))


def named_model() -> Any:
    """A model class with a name: one instrumentor passes over those that have none."""
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel

    class Fake(GenericFakeChatModel):
        model_name: str = "fake-1"

    return Fake


def is_model(span: Any) -> bool:
    said = dict(span.attributes or {})
    kinds = {str(said.get(name)).lower() for name in ("openinference.span.kind", "gen_ai.operation.name", "llm.request.type")}
    return bool(kinds & {"llm", "chat"})


def step(work: Callable[[Any], Any], name: str = "step") -> Any:
    from langchain_core.runnables import RunnableLambda

    return RunnableLambda(work).with_config(run_name=name)


@question("a span made in one step and the model of the next are one trace, without a span of the caller")
def one_trace(at: Watched) -> bool:
    def classify(value: str) -> str:
        with at.tracer.start_as_current_span("classifier"):
            return value

    (step(classify) | step(str) | model()).invoke("x")
    return at.traces() == 1


@question("a model called inside a user's span inside a step is that span's child")
def inside(at: Watched) -> bool:
    called = model()

    def work(value: str) -> str:
        with at.tracer.start_as_current_span("mine"):
            return str(called.invoke(value).content)

    step(work).invoke("x")
    (found,) = [span for span in at.spans if is_model(span)]
    parent = at.parent(found)
    return parent is not None and parent.name == "mine"


@question("a tool's code sees the tool's span as current")
def tool_current(at: Watched) -> bool:
    from langchain_core.tools import tool
    from opentelemetry import trace

    seen: list[int] = []

    @tool
    def look(q: str) -> str:
        """Look."""
        seen.append(trace.get_current_span().get_span_context().span_id)
        return q

    look.invoke({"q": "x"})
    return seen == [span.context.span_id for span in at.spans if "look" in span.name]


@question(".batch of 8 without a span of the caller is 8 traces")
def batch(at: Watched) -> bool:
    (step(str) | step(str)).batch(list(range(8)))
    return at.traces() == 8


@question("the caller's span is current between the chunks of a stream")
def between(at: Watched) -> bool:
    from opentelemetry import trace

    with at.tracer.start_as_current_span("caller") as caller:
        return all(trace.get_current_span() is caller for _ in (step(str) | model("a b c")).stream("x"))


@question("a cancelled agenerate closes the model's span")
def cancelled(at: Watched) -> bool:
    base: Any = named_model()

    class Slow(base):  # type: ignore[misc]
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(5)

    async def work() -> None:
        try:
            await asyncio.wait_for(model(kind=Slow).ainvoke("x"), 0.1)
        except asyncio.TimeoutError:
            return

    asyncio.run(work())
    return at.open == 0 and len(at.spans) == 1


@question("a model's stream that is left early closes its span")
def left(at: Watched) -> bool:
    stream = model("a b c").stream("x")
    next(stream)
    stream.close()
    return at.open == 0 and len(at.spans) == 1


def paused(at: Watched) -> tuple[Any, Any, Any]:
    from typing import TypedDict

    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, StateGraph
    from langgraph.types import interrupt

    class State(TypedDict):
        q: str

    graph = StateGraph(State)
    graph.add_node("ask", lambda state: {"q": interrupt("?")})
    graph.add_edge(START, "ask")
    compiled = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    compiled.invoke({"q": "x"}, config)
    return compiled, config, at.spans


@question("an interrupt() is no error")
def interrupted(at: Watched) -> bool:
    _, _, spans = paused(at)
    return bool(spans) and not any(str(span.status.status_code).endswith("ERROR") for span in spans)


@question("the run that resumes is linked to the paused one, or in its trace")
def resumed(at: Watched) -> bool:
    from langgraph.types import Command

    compiled, config, before = paused(at)
    compiled.invoke(Command(resume="y"), config)
    ids = {span.context.trace_id for span in before}
    after = at.spans[len(before) :]
    return any(span.context.trace_id in ids or any(link.context.trace_id in ids for link in span.links) for span in after)


@question("each attempt of a retry has a number")
def attempts(at: Watched) -> bool:
    failures = [1]

    def work(value: Any) -> Any:
        if failures:
            failures.pop()
            raise ConnectionError
        return value

    step(work).with_retry(wait_exponential_jitter=False).invoke(1)
    return any("attempt" in name or "retry" in name for span in at.spans for name in span.attributes or ())


@question("the user's baggage reaches the step")
def baggage_stays(at: Watched) -> bool:
    from opentelemetry import baggage, context

    token = context.attach(baggage.set_baggage("user", "x"))
    try:
        return (step(str) | step(lambda value: baggage.get_baggage("user"))).invoke("x") == "x"
    finally:
        context.detach(token)


@question("with content off no prompt, answer, document or exception text is recorded")
def private(at: Watched) -> bool:
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    class Shelf(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [Document("secret document")]

    def fails(value: Any) -> Any:
        raise ValueError("secret error")

    (step(lambda value: "secret prompt") | model("secret answer")).invoke("secret input", {"metadata": {"customer": "secret customer"}})
    Shelf().invoke("secret query")
    with contextlib.suppress(ValueError):
        step(fails).invoke("x")
    return bool(at.spans) and "secret" not in at.everything()


@question("a stream's tokens are counted")
def tokens(at: Watched) -> bool:
    list(model(kind=counting_model()).stream("x"))
    (found,) = [span for span in at.spans if is_model(span)]
    return {4, 3} <= {value for name, value in (found.attributes or {}).items() if "token" in name}


@question("a stream's time to first chunk is recorded")
def first_chunk(at: Watched) -> bool:
    list(model(kind=counting_model()).stream("x"))
    (found,) = [span for span in at.spans if is_model(span)]
    return any("first" in name for name in (*(found.attributes or ()), *(event.name for event in found.events)))


def counting_model() -> Any:
    from langchain_core.messages import AIMessageChunk
    from langchain_core.outputs import ChatGenerationChunk

    base: Any = named_model()

    class Counting(base):  # type: ignore[misc]
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            yield ChatGenerationChunk(message=AIMessageChunk("a"))
            usage: Any = {"input_tokens": 4, "output_tokens": 3, "total_tokens": 7}
            yield ChatGenerationChunk(message=AIMessageChunk("", usage_metadata=usage))

    return Counting


@question("uninstrument() leaves nothing patched: no span any more")
def undone(at: Watched) -> bool:
    instrumentors[0].uninstrument()
    (step(str) | model()).invoke("x")
    return at.spans == []


instrumentors: list[Any] = []


def work(mode: str) -> None:
    """Answer every question, one JSON object on the last line."""
    warnings.simplefilter("ignore")
    os.environ["TRACELOOP_TRACE_CONTENT"] = "false"
    for hidden in ("INPUTS", "OUTPUTS", "INPUT_MESSAGES", "OUTPUT_MESSAGES"):
        os.environ[f"OPENINFERENCE_HIDE_{hidden}"] = "true"
    at = Watched()
    if mode == "ours":
        from lstm_trace import LangChainInstrumentor

        instrumentors.append(LangChainInstrumentor())
    else:
        module = importlib.import_module(PEERS[mode])
        instrumentors.append(getattr(module, "LangChainInstrumentor", None) or module.LangchainInstrumentor)
        instrumentors[0] = instrumentors[0]()
    instrumentors[0].instrument(tracer_provider=at.provider, skip_dep_check=True)
    answers: dict[str, bool | str] = {}
    for text, ask in QUESTIONS.items():
        at.memory.clear()
        at.open = 0
        try:
            answers[text] = contextvars.copy_context().run(ask, at)  # who leaves a span attached does not spoil the next answer
        except Exception as error:  # noqa: BLE001
            answers[text] = type(error).__name__
    print(json.dumps(answers), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", metavar="MODE")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    given = parser.parse_args()
    if given.worker:
        work(given.worker)
        return
    found: dict[str, dict[str, Any]] = {}
    for mode, python in [("ours", sys.executable), *peers(given.peer)]:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run([python, __file__, "--worker", mode], capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            print(f"{mode}: did not run, left out ({(done.stderr.strip().splitlines() or ['no reason given'])[-1]})")
            continue
        found[mode] = json.loads(done.stdout.strip().splitlines()[-1])
    print("| | " + " | ".join(found) + " |\n|---|" + "---|" * len(found))
    for text in QUESTIONS:
        cells = ({True: "yes", False: "**no**"}.get(answers[text], f"**{answers[text]}**") for answers in found.values())
        print(f"| {text} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

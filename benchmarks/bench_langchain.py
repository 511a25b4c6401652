"""What tracing adds to one invoke: process CPU, against a minimal hand-written callback handler, plain spans and public instrumentors.

Every mode runs in a process of its own that lives through the whole benchmark, so that nobody's patches or caches disturb another's;
the parent lets them take turns, batch by batch, and takes medians. ``--peer NAME=PYTHON`` runs a public instrumentor in its own
virtual environment (they pin each other's dependencies); without it the ones importable here take part and the others are named.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
WORKLOADS = {"lambda": 200, "prompt|model|parser": 60, "prompt|model|parser 32 KB": 60, "agent, 3 tool steps": 8}
SPANS = {"lambda": 1, "prompt|model|parser": 4, "prompt|model|parser 32 KB": 4, "agent, 3 tool steps": 15}
SAMPLING = ("sampled", "unsampled", "off", "no-op")
"""Every trace; none, by a sampler that is asked for each; none, by one that drops everything; no SDK."""

PEERS = {
    "openinference": "openinference.instrumentation.langchain",
    "traceloop": "opentelemetry.instrumentation.langchain",
    "official": "opentelemetry.instrumentation.genai.langchain",
}
GOALS = {"sampled": 1.2, "off": 0.4}


# --- Workloads: invoke(config) ---------------------------------------------------------------------------------------------------


def workloads() -> dict[str, Callable[[Any], Any]]:
    from langchain_core.language_models.fake_chat_models import FakeListChatModel, FakeMessagesListChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda
    from langchain_core.tools import tool

    one = RunnableLambda(lambda x: x)
    chain = ChatPromptTemplate.from_template("say {q}") | FakeListChatModel(responses=["hello"]) | StrOutputParser()
    short, long = {"q": "x" * 8}, {"q": "x" * 32_768}
    made: dict[str, Callable[[Any], Any]] = {
        "lambda": lambda config: one.invoke(1, config),
        "prompt|model|parser": lambda config: chain.invoke(short, config),
        "prompt|model|parser 32 KB": lambda config: chain.invoke(long, config),
    }
    try:
        from langchain.agents import create_agent
    except ImportError:
        return made

    @tool
    def look(q: str) -> str:
        """Look something up."""
        return q

    class Model(FakeMessagesListChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

    def call(number: int) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": "look", "args": {"q": "x"}, "id": f"call-{number}"}])

    model = Model(responses=[call(1), call(2), call(3), AIMessage("done")])
    agent = create_agent(model, [look])

    def ask(config: Any) -> Any:
        model.i = 0
        return agent.invoke({"messages": [("user", "hi")]}, config)

    made["agent, 3 tool steps"] = ask
    return made


# --- Modes: a config for every invoke, and what is switched on for the whole process ---------------------------------------------


def provider(sampling: str) -> Any:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBasedTraceIdRatio

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            written.append(len(spans))
            return SpanExportResult.SUCCESS

    if sampling == "no-op":
        return trace.NoOpTracerProvider()
    sampler = {"sampled": ALWAYS_ON, "unsampled": ParentBasedTraceIdRatio(0.0), "off": ALWAYS_OFF}[sampling]
    made = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(Nowhere()))
    providers.append(made)
    return made


written: list[int] = []
"""How many spans each export of this process held."""

providers: list[Any] = []


def spans_of(call: Callable[[], Any]) -> int:
    """Count the spans that one call writes."""
    for each in providers:
        each.force_flush()
    before = sum(written)
    call()
    for each in providers:
        each.force_flush()
    return sum(written) - before


def minimal_handler(tracer: Any) -> Any:
    """The floor: what an engineer would write in an afternoon to get the same spans, and nothing that they would leave out.

    A span for each run, below its parent's, closed with its error; the kind; the model's name and its tokens where the answer has
    them; the tool's name and the call's id; the graph's node. Written with OpenTelemetry's public API and LangChain's own callbacks, each
    fact read in the one place where LangChain puts it, attributes given at the start where they are known. It makes no span current,
    numbers no steps, carries no upstream facts, loses runs that are cancelled and grows with runs that never end: that is what is saved.
    It makes as many spans as we do: 1, 4, 4 and 15.
    """
    from langchain_core.callbacks import BaseCallbackHandler
    from opentelemetry import trace

    class Minimal(BaseCallbackHandler):
        run_inline = True

        def __init__(self) -> None:
            self.spans: dict[Any, Any] = {}

        def begin(self, name: str, run_id: Any, parent_run_id: Any, attributes: dict[str, Any]) -> None:
            parent = self.spans.get(parent_run_id)
            context = trace.set_span_in_context(parent) if parent is not None else None
            self.spans[run_id] = tracer.start_span(name, context=context, attributes=attributes)

        def finish(self, run_id: Any, attributes: dict[str, Any] | None = None) -> None:
            span = self.spans.pop(run_id, None)
            if span is not None:
                if attributes:
                    span.set_attributes(attributes)
                span.end()

        def on_chain_start(
            self, serialized: Any, inputs: Any, *, run_id: Any, parent_run_id: Any = None, metadata: Any = None, **kwargs: Any
        ) -> None:
            attributes = {"openinference.span.kind": "CHAIN"}
            if metadata and "langgraph_node" in metadata:
                attributes["langgraph.node"] = metadata["langgraph_node"]
            self.begin(f"chain {kwargs.get('name') or 'chain'}", run_id, parent_run_id, attributes)

        def on_chat_model_start(
            self, serialized: Any, messages: Any, *, run_id: Any, parent_run_id: Any = None, metadata: Any = None, **kwargs: Any
        ) -> None:
            model = (metadata or {}).get("ls_model_name") or serialized["id"][-1]
            self.begin(f"chat {model}", run_id, parent_run_id, {"openinference.span.kind": "LLM", "llm.model_name": model})

        def on_tool_start(self, serialized: Any, input_str: Any, *, run_id: Any, parent_run_id: Any = None, **kwargs: Any) -> None:
            attributes = {"openinference.span.kind": "TOOL", "tool.name": serialized["name"]}
            if kwargs.get("tool_call_id"):
                attributes["gen_ai.tool.call.id"] = kwargs["tool_call_id"]
            self.begin(f"tool {serialized['name']}", run_id, parent_run_id, attributes)

        def on_llm_end(self, response: Any, *, run_id: Any, **kwargs: Any) -> None:
            usage = response.generations[0][0].message.usage_metadata
            tokens = usage and {"llm.token_count.prompt": usage["input_tokens"], "llm.token_count.completion": usage["output_tokens"]}
            self.finish(run_id, tokens)

        def on_chain_end(self, outputs: Any, *, run_id: Any, **kwargs: Any) -> None:
            self.finish(run_id)

        def on_tool_end(self, output: Any, *, run_id: Any, **kwargs: Any) -> None:
            self.finish(run_id)

        def on_chain_error(self, error: BaseException, *, run_id: Any, **kwargs: Any) -> None:
            if run_id in self.spans:
                self.spans[run_id].set_status(trace.StatusCode.ERROR, type(error).__name__)
            self.finish(run_id)

        on_llm_error = on_tool_error = on_chain_error

    return Minimal()


def plain_spans(tracer: Any, count: int, invoke: Callable[[Any], Any]) -> Callable[[Any], Any]:
    from opentelemetry import trace

    def call(config: Any) -> Any:
        spans: list[Any] = []
        for _ in range(count):
            context = trace.set_span_in_context(spans[-1]) if spans else None
            spans.append(tracer.start_span("chain step", context=context, attributes={"openinference.span.kind": "CHAIN"}))
        result = invoke(config)
        for span in reversed(spans):
            span.end()
        return result

    return call


def prepare(mode: str, sampling: str) -> dict[str, Callable[[], Any]]:
    made = workloads()
    given: Any = None
    if mode == "handler":
        given = minimal_handler(provider(sampling).get_tracer("bench"))
    elif mode == "plain spans":
        tracer = provider(sampling).get_tracer("bench")
        made = {name: plain_spans(tracer, SPANS[name], invoke) for name, invoke in made.items()}
    elif mode == "ours":
        from lstm_trace import LangChainInstrumentor

        LangChainInstrumentor().instrument(tracer_provider=provider(sampling))
    elif mode in PEERS:
        os.environ["TRACELOOP_TRACE_CONTENT"] = "false"
        os.environ["OPENINFERENCE_HIDE_INPUTS"] = os.environ["OPENINFERENCE_HIDE_OUTPUTS"] = "true"
        module = importlib.import_module(PEERS[mode])
        instrumentor = getattr(module, "LangChainInstrumentor", None) or module.LangchainInstrumentor
        instrumentor().instrument(tracer_provider=provider(sampling), skip_dep_check=True)

    def bound(invoke: Callable[[Any], Any]) -> Callable[[], Any]:
        return lambda: invoke(None if given is None else {"callbacks": [given]})

    return {name: bound(invoke) for name, invoke in made.items()}


# --- Turns -----------------------------------------------------------------------------------------------------------------------


def work(mode: str, sampling: str) -> None:
    """Answer ``{"workload", "count"}`` lines with the microseconds of process CPU that one invoke took."""
    calls = prepare(mode, sampling)
    for name, call in calls.items():
        for _ in range(max(3, WORKLOADS[name] // 2)):
            call()
    print(json.dumps({name: spans_of(call) for name, call in calls.items()}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        call = calls[asked["workload"]]
        call()
        gc.collect()
        began = time.process_time()
        for _ in range(asked["count"]):
            call()
        print((time.process_time() - began) / asked["count"] * 1e6, flush=True)


class Worker:
    def __init__(self, mode: str, sampling: str, python: str) -> None:
        self.mode, self.sampling = mode, sampling
        self.process = subprocess.Popen(
            [python, __file__, "--worker", mode, sampling],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if mode in PEERS else None,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        self.workloads: dict[str, int] = json.loads(first) if first else {}
        """Each with the spans that one invoke writes."""

    def measure(self, workload: str, count: int) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"workload": workload, "count": count}) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def measured(workers: list[Worker], workload: str, rounds: int, quantile: Callable[[list[float]], float]) -> dict[str, float]:
    taken: dict[str, list[float]] = {worker.mode: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            taken[worker.mode].append(worker.measure(workload, WORKLOADS[workload]))
    floor = quantile(taken["nothing"])
    return {mode: quantile(values) - floor for mode, values in taken.items()}


def peers(given: list[str]) -> Iterator[tuple[str, str]]:
    pythons = dict(each.split("=", 1) for each in given)
    for name, module in PEERS.items():
        try:
            here = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            here = False
        if name in pythons or here:
            yield name, pythons.get(name, sys.executable)
        else:
            print(f"{name}: {module} is not installed here, left out (give --peer {name}=PYTHON)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", nargs=2, metavar=("MODE", "SAMPLING"))
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quartile", action="store_true", help="lower quartiles instead of medians: for a machine that is shared")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS))
    parser.add_argument("--sampling", action="append", choices=SAMPLING)
    given = parser.parse_args()
    if given.worker:
        work(*given.worker)
        return
    here = sys.executable
    others = list(peers(given.peer))
    what = "lower quartiles" if given.quartile else "medians"
    quantile = (lambda values: statistics.quantiles(values, n=4)[0]) if given.quartile else statistics.median
    print(
        f"added microseconds of process CPU an invoke (× the minimal handler, spans written); {what} of {given.rounds} interleaved rounds\n"
    )
    for sampling in given.sampling or SAMPLING:
        modes = [("nothing", here), ("handler", here), ("plain spans", here), ("ours", here), *others]
        workers = [Worker(mode, sampling, python) for mode, python in modes]
        for worker in [each for each in workers if not each.workloads]:
            print(f"{worker.mode}: did not start, left out")
            workers.remove(worker)
        for workload in given.workload or WORKLOADS:
            able = [worker for worker in workers if workload in worker.workloads]
            added = measured(able, workload, given.rounds, quantile)
            handler = added["handler"]
            spans = {worker.mode: worker.workloads[workload] for worker in able}
            parts = [
                f"{mode} {value:8.1f} (×{value / handler:.2f}{f', {spans[mode]} spans' if spans[mode] else ''})"
                for mode, value in added.items()
                if mode != "nothing"
            ]
            goal = GOALS.get(sampling)
            met = "" if goal is None else "  goal met" if added["ours"] <= goal * handler else f"  goal ×{goal} MISSED"
            print(f"{sampling:8s} {workload:26s} " + "  ".join(parts) + met, flush=True)
        for worker in workers:
            worker.close()


if __name__ == "__main__":
    main()

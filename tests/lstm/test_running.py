"""Every way in which a component is run stays what it was, and every call is seen."""

from __future__ import annotations

import asyncio
import copy
import inspect
import io
import os
import pickle
import subprocess
import sys
import threading
import traceback
import warnings
from typing import Any

import pytest
import torch
from opentelemetry import trace
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from lstm_trace import LSTMInstrumentor, trace_lstm
from lstm_trace.instrument.lstm import switch
from tests.lstm.models import Intent, Padded
from tests.tracing import Traced

IDS = torch.tensor([[1, 2, 3, 4]])


def decorated_class() -> type[Intent]:
    return trace_lstm(type("Decorated", (Intent,), {}), name="it")


def names(seen: Traced) -> list[str]:
    return [span.name for span in seen.spans]


# --- Forms ----------------------------------------------------------------------------------------------------------------


def test_a_class(seen: Traced) -> None:
    cls = trace_lstm(Plain)
    assert cls is Plain
    model = cls()
    assert isinstance(model, nn.Module)
    model(IDS)
    assert names(seen) == ["lstm Plain"]


class Plain(Intent):
    """At module level, so that it pickles."""


@pytest.mark.parametrize("use", ["bare", "called", "with target"])
def test_every_spelling(seen: Traced, use: str) -> None:
    def score(x: torch.Tensor) -> torch.Tensor:
        """Score."""
        return x

    traced = {
        "bare": lambda: trace_lstm(score),
        "called": lambda: trace_lstm(name="score")(score),
        "with target": lambda: trace_lstm(score, name="score"),
    }
    component = traced[use]()
    assert (component.__name__, component.__doc__) == ("score", "Score.")
    component(torch.zeros(1, 3))
    assert names(seen) == ["lstm score"]


def test_an_instance_stays_the_same_object(seen: Traced) -> None:
    model = Intent()
    before = (set(model.state_dict()), repr(model), model.__class__.__name__)
    traced = trace_lstm(model, name="it")
    assert traced is model
    assert isinstance(model, Intent)
    assert (set(model.state_dict()), repr(model), model.__class__.__name__) == before
    model(IDS)
    Intent()(IDS)
    assert names(seen) == ["lstm it"], "other instances of its class are left alone"


def test_decorated_once_more_the_last_decoration_counts(seen: Traced) -> None:
    model = trace_lstm(trace_lstm(Intent(), name="first"), name="second")
    model(IDS)
    assert names(seen) == ["lstm second"]


def test_a_decorated_subclass_of_a_decorated_class_is_one_span(seen: Traced) -> None:
    parent = trace_lstm(type("Parent", (Intent,), {}), name="parent")
    child = trace_lstm(type("Child", (parent,), {}), name="child")
    child()(IDS)
    trace_lstm(child(), name="instance")(IDS)
    assert names(seen) == ["lstm child", "lstm instance"]


def test_a_class_with_a_call_of_its_own(seen: Traced) -> None:
    class Own:
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    cls = trace_lstm(Own, name="own")
    assert cls()(torch.zeros(1, 3)).tolist() == [[1, 1, 1]]
    switch.turn(False)
    assert cls()(torch.zeros(1, 3)).tolist() == [[1, 1, 1]]
    assert names(seen) == ["lstm own"]


def test_a_class_that_is_not_called_but_its_forward(seen: Traced) -> None:
    class Plain:
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    assert trace_lstm(Plain, name="plain")().forward(torch.zeros(1, 3)).tolist() == [[1, 1, 1]]
    assert names(seen) == ["lstm plain"]
    assert seen.spans[0].attributes["lstm.prediction.confidence"] == pytest.approx(1 / 3)


def test_a_callable_object_of_any_class_gets_a_proxy(seen: Traced) -> None:
    class Remote:
        url = "http://model"

        def __call__(self, x: Any) -> Any:
            return x

    remote = trace_lstm(Remote(), name="remote", output="none")
    assert remote([1, 2]) == [1, 2]
    assert (remote.url, isinstance(remote, Remote)) == ("http://model", True)
    assert names(seen) == ["lstm remote"]


@pytest.mark.parametrize("first", ["parametrized", "decorated"])
def test_parametrizations_come_and_go(seen: Traced, first: str) -> None:
    bare = nn.LSTM(4, 8)
    if first == "decorated":
        bare = trace_lstm(bare, name="it")
    layer = parametrizations.weight_norm(bare, "weight_hh_l0")
    if first == "parametrized":
        layer = trace_lstm(layer, name="it")
    copied = copy.deepcopy(layer)
    layer(torch.zeros(3, 2, 4))
    copied(torch.zeros(4, 2, 4))
    nn.utils.parametrize.remove_parametrizations(layer, "weight_hh_l0")
    layer(torch.zeros(5, 2, 4))
    assert [span.attributes["lstm.sequence.length"] for span in seen.spans] == [3, 4, 5]
    assert isinstance(layer.weight_hh_l0, nn.Parameter)


class _Scorer:
    """Scores."""

    def __call__(self, x: torch.Tensor, steps: Any = None, *, who: str | None = None) -> Any:
        return torch.zeros(2, 3)


class _ScoringModule(nn.Module):
    def __call__(self, x: torch.Tensor, steps: Any = None, *, who: str | None = None) -> Any:
        return super().__call__(x)

    def forward(self, x: torch.Tensor) -> Any:
        return torch.zeros(2, 3)


@pytest.mark.parametrize("cls", [_Scorer, _ScoringModule])
@pytest.mark.parametrize("is_class", [True, False])
def test_arguments_of_a_call_of_ones_own_are_known_by_name(seen: Traced, cls: Any, is_class: bool) -> None:
    made: Any = type(cls.__name__, (cls,), {"__doc__": cls.__doc__})
    said = {"name": "it", "lengths": "steps", "session": "who"}
    component = trace_lstm(made, **said)() if is_class else trace_lstm(made(), **said)
    component(torch.zeros(2, 5, 4), [3, 2], who="s-1")
    attributes = seen.spans[-1].attributes
    assert (attributes["lstm.sequence.length_source"], attributes["lstm.sequence.length_max"]) == ("lengths", 3)
    assert attributes["session.id"] == "s-1"
    assert list(inspect.signature(component).parameters) == ["x", "steps", "who"]  # frameworks ask a callable object for it


class _Slotted:
    __slots__ = ("layer",)

    def __init__(self) -> None:
        self.layer = nn.LSTM(4, 8, batch_first=True)

    def __call__(self, x: torch.Tensor, lengths: Any = None) -> Any:
        return self.layer(x)[0][:, -1, :3]


def test_instances_that_cannot_be_referred_to_weakly_are_traced(seen: Traced) -> None:
    cls = trace_lstm(name="it")(_Slotted)
    for steps in (3, 2):
        cls()(torch.zeros(2, 5, 4), [steps, 1])
    assert [span.attributes["lstm.sequence.length_max"] for span in seen.spans] == [3, 2]
    assert all("lstm.prediction.confidence_mean" in span.attributes for span in seen.spans)


def test_methods(seen: Traced) -> None:
    class Service:
        def __init__(self) -> None:
            self.model = Padded()

        @trace_lstm(name="method")
        def predict(self, ids: torch.Tensor) -> torch.Tensor:
            return self.model(ids)

    Service().predict(IDS)
    model = Padded()
    trace_lstm(model.forward, name="bound")(torch.tensor([[1, 2, 0, 0]]))
    assert names(seen) == ["lstm method", "lstm bound"]
    assert seen.spans[0].attributes["lstm.sequence.length"] == 4
    assert seen.spans[1].attributes["lstm.sequence.length"] == 2


async def test_coroutine_functions(seen: Traced) -> None:
    @trace_lstm(name="remote")
    async def predict(x: torch.Tensor) -> torch.Tensor:
        await asyncio.sleep(0)
        return x

    assert asyncio.iscoroutinefunction(predict)
    rows = [torch.full((1, 3), float(number)) for number in range(8)]
    found = await asyncio.gather(*(predict(row) for row in rows))
    assert [each[0, 0].item() for each in found] == list(range(8))
    assert names(seen) == ["lstm remote"] * 8
    assert len({span.context.trace_id for span in seen.spans}) == 8


class AsyncForward(Padded):
    async def forward(self, ids: torch.Tensor) -> torch.Tensor:
        await asyncio.sleep(0.02)
        return super().forward(ids)


class AsyncCall:
    async def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        await asyncio.sleep(0.02)
        return torch.tensor([[0.0, 1.0, 2.0]])


@pytest.mark.parametrize("cls", [AsyncForward, AsyncCall])
@pytest.mark.parametrize("form", ["class", "instance"])
async def test_what_is_awaited_is_traced_until_its_answer(seen: Traced, cls: type, form: str) -> None:
    own = type(cls.__name__, (cls,), {})
    model = trace_lstm(own, name="remote")() if form == "class" else trace_lstm(own(), name="remote")
    await asyncio.gather(*(model(torch.ones(1, 2, dtype=torch.long)) for _ in range(3)))
    assert names(seen) == ["lstm remote"] * 3
    for span in seen.spans:
        assert span.end_time - span.start_time >= 15e6
        assert span.attributes["lstm.prediction.confidence"] > 1 / 3
        assert span.parent is None


@pytest.mark.parametrize("kind", ["generator", "async generator", "forward", "call"])
def test_a_generator_is_refused_where_it_is_decorated(kind: str) -> None:
    def generator(ids: Any) -> Any:
        yield ids

    async def async_generator(ids: Any) -> Any:
        yield ids

    def method(self: Any, ids: Any) -> Any:
        yield ids

    targets = {
        "generator": generator,
        "async generator": async_generator,
        "forward": type("Net", (nn.Module,), {"forward": method}),
        "call": type("Remote", (), {"__call__": method})(),
    }
    with pytest.raises(TypeError, match="a generator returns before it has run"):
        trace_lstm(targets[kind])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_script(seen: Traced) -> None:
    model = trace_lstm(type("Scriptable", (Padded,), {}), name="it")()
    scripted = torch.jit.script(model)
    assert torch.equal(scripted(IDS), model(IDS))
    trace_lstm(scripted, name="scripted")
    assert isinstance(scripted, torch.jit.RecursiveScriptModule)
    scripted(IDS)
    stored = io.BytesIO()
    torch.jit.save(scripted, stored)
    stored.seek(0)
    assert torch.equal(torch.jit.load(stored)(IDS), model(IDS))
    assert names(seen) == ["lstm it", "lstm scripted", "lstm it"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_recording_the_code_is_no_inference(seen: Traced) -> None:
    model = trace_lstm(type("Exportable", (Padded,), {}), name="it")().eval()
    torch.jit.trace(model, (IDS,), check_trace=False)
    torch.export.export(model, (IDS,))
    assert names(seen) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("how", ["decorated", "auto"])
def test_nothing_of_ours_is_in_a_graph_that_torch_fx_makes(seen: Traced, how: str) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    bare = Padded().eval()
    expected = [str(torch.fx.symbolic_trace(nn.Sequential(bare)).graph), str(make_fx(lambda ids: bare(ids))(IDS).graph)]
    model = trace_lstm(copy.deepcopy(bare), name="it") if how == "decorated" else bare
    instrumentor = LSTMInstrumentor(auto=how == "auto")
    instrumentor.instrument(tracer_provider=seen.provider)
    try:
        traced = torch.fx.symbolic_trace(nn.Sequential(model))
        found = [str(traced.graph), str(make_fx(lambda ids: model(ids))(IDS).graph)]
        assert (names(seen), found) == ([], expected)
        assert torch.equal(traced(IDS), bare(IDS))
    finally:
        instrumentor.uninstrument()


def test_a_fake_run_reads_no_numbers(seen: Traced) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = trace_lstm(Padded(), name="it")
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(IDS)
    assert names(seen) == ["lstm it"]
    assert not any("prediction" in name for name in seen.spans[0].attributes)


def test_functions_are_transformed_as_before(seen: Traced) -> None:
    net = trace_lstm(nn.Sequential(nn.Linear(2, 3)), name="it")
    graph = torch.fx.symbolic_trace(net)
    x = torch.randn(4, 2)
    assert torch.equal(graph(x), net(x))
    assert torch.equal(torch.vmap(net)(x), net(x))
    assert torch.func.grad(lambda row: net(row).sum())(x[0]).shape == (2,)
    assert net.to("meta")(torch.zeros(4, 2, device="meta")).shape == (4, 3)


# --- Copies and files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["class", "instance"])
def test_copies_are_traced_and_run_their_own_weights(seen: Traced, form: str) -> None:
    model = trace_lstm(Plain)() if form == "class" else trace_lstm(Intent(), name="it")
    for other in (copy.deepcopy(model), copy.copy(model)):
        assert type(other) is type(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.bias.add_(1)
    assert not torch.equal(other(IDS), model(IDS))
    assert len(seen.spans) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("form", ["scripted", "jit.trace", "exported", "compiled", "quantised"])
def test_artifacts_are_traced_and_so_are_their_copies(seen: Traced, form: str) -> None:
    from torch.ao.quantization import quantize_dynamic

    bare = Padded().eval()
    make = {
        "scripted": lambda: torch.jit.script(bare),
        "jit.trace": lambda: torch.jit.trace(bare, IDS),
        "exported": lambda: torch.export.export(bare, (IDS,)).module(),
        "compiled": lambda: torch.compile(bare, backend="eager"),
        "quantised": lambda: quantize_dynamic(bare, {nn.GRU, nn.Linear}),
    }
    given = make[form]()
    expected, cls = given(IDS), type(given)
    model = trace_lstm(given, name="it")
    assert model is given
    assert isinstance(model, cls)
    for each in (model, copy.deepcopy(model), copy.copy(model)):
        seen.memory.clear()
        assert torch.equal(each(IDS), expected)
        assert names(seen) == ["lstm it"]
    torch._dynamo.reset()


@pytest.mark.parametrize("form", ["class", "instance"])
def test_pickle_and_torch_save(form: str) -> None:
    model = trace_lstm(Plain)() if form == "class" else trace_lstm(Intent(), name="it")
    cls = Plain if form == "class" else Intent
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    for loaded in (pickle.loads(pickle.dumps(model)), torch.load(stored, weights_only=False)):
        assert type(loaded) is cls
        assert torch.equal(loaded(IDS), model(IDS))
    if form == "instance":
        assert b"lstm_trace" not in pickle.dumps(trace_lstm(nn.LSTM(2, 3), name="it")), "what is saved loads without lstm-trace"
    weights = io.BytesIO()
    torch.save(model.state_dict(), weights)
    weights.seek(0)
    cls().load_state_dict(torch.load(weights, weights_only=True))


def test_a_data_parallel_replica_stands_in_the_callers_trace(seen: Traced) -> None:
    model = decorated_class()()
    tracer = seen.provider.get_tracer("app")
    with tracer.start_as_current_span("request") as request:
        replica = model._replicate_for_data_parallel()
        replica._parameters.update(model._parameters)
    thread = threading.Thread(target=replica, args=(IDS,))
    thread.start()
    thread.join()
    assert seen.named("lstm it").parent.span_id == request.get_span_context().span_id


def test_quantised(seen: Traced) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import quantize_dynamic

        small = quantize_dynamic(decorated_class()().eval(), {nn.LSTM, nn.Linear})
        small(IDS)
    assert type(small.layer).__module__.startswith("torch.ao.nn.quantized")
    assert names(seen) == ["lstm it"]


# --- Same results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_without_gradients(seen: Traced, mode: Any) -> None:
    model = Intent()
    with mode():
        expected = model(IDS)
        output = trace_lstm(model, name="it")(IDS)
    assert torch.equal(output, expected)
    assert output.is_inference() == expected.is_inference()
    assert len(seen.spans) == 1


def test_the_same_output_object_comes_back(seen: Traced) -> None:
    result = (torch.zeros(1, 3), {"extra": object()})
    assert trace_lstm(lambda x: result, name="it")(IDS) is result


def test_training_is_bit_identical(seen: Traced) -> None:
    def run(model: nn.Module) -> list[torch.Tensor]:
        torch.manual_seed(5)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(torch.randint(0, 20, (4, 6))), torch.tensor([0, 1, 2, 0]))
            loss.backward()
            optimizer.step()
        return [each.grad.clone() for each in model.parameters()] + [each.detach().clone() for each in model.parameters()]

    torch.manual_seed(1)
    bare = Intent(dropout=0.3, num_layers=2)
    traced = trace_lstm(copy.deepcopy(bare), name="it")
    for one, other in zip(run(bare), run(traced), strict=True):
        assert torch.equal(one, other)
    assert len(seen.spans) == 3


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_runs_twice_and_is_seen_once(seen: Traced, use_reentrant: bool) -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin()

    net = trace_lstm(Net(), name="it")
    x = torch.ones(1, 3, requires_grad=True)
    checkpoint(net, x, use_reentrant=use_reentrant).sum().backward()
    assert torch.equal(x.grad, torch.ones(1, 3).cos())
    assert names(seen) == ["lstm it"]


# --- torch.compile ----------------------------------------------------------------------------------------------------------


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("allow_rnn", [False, True])
@pytest.mark.parametrize(
    ("how", "breaks"), [("before", 0), ("after", 0), ("in place before", 0), ("in place after", 0), ("inside a larger model", 1)]
)
def test_compiled_every_call_is_seen(seen: Traced, how: str, breaks: int, allow_rnn: bool) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    def graphs_of(model: Any) -> tuple[int, torch.Tensor]:
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("eager")
        if how.startswith("in place"):
            if isinstance(model, tuple):
                model = model[0]
                model.compile(backend=counter)
                model = trace_lstm(model, name="it")
            else:
                model.compile(backend=counter)
        else:
            model = torch.compile(model if not isinstance(model, tuple) else model[0], backend=counter)
            if how == "after" and isinstance(given, tuple):
                model = trace_lstm(model, name="it")
        for _ in range(3):
            output = model(IDS)
        return counter.frame_count, output

    torch._dynamo.config.allow_rnn = allow_rnn
    try:
        torch.manual_seed(0)
        bare = Intent()
        given: Any = Around(bare) if "inside" in how else bare
        expected, output = graphs_of(given)
        switch.turn(True)
        mine = copy.deepcopy(bare)
        if how in ("after", "in place after"):
            given = (mine,)
        else:
            given = trace_lstm(mine, name="it")
            given = Around(given) if "inside" in how else given
        found, again = graphs_of(given)
    finally:
        torch._dynamo.config.allow_rnn = False
        torch._dynamo.reset()
    assert torch.equal(output, again)
    assert names(seen) == ["lstm it"] * 3
    assert all(span.attributes["lstm.code.compiled"] is True for span in seen.spans)
    assert found <= expected + breaks


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_function_decorated_once_it_is_compiled(seen: Traced) -> None:
    torch._dynamo.reset()
    component = trace_lstm(torch.compile(lambda x: x * 2, backend="eager"), name="it")
    component(torch.zeros(1, 3))
    component(torch.zeros(1, 3))
    assert [span.attributes["lstm.code.compiled"] for span in seen.spans] == [True, True]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_inside_a_full_graph_it_says_that_it_is_not_seen(seen: Traced, caplog: pytest.LogCaptureFixture) -> None:
    torch._dynamo.reset()
    inner = trace_lstm(nn.Linear(3, 3), name="inside")
    with caplog.at_level("WARNING", "lstm_trace"):
        torch.compile(Around(inner), backend="eager", fullgraph=True)(torch.zeros(1, 3))
    torch._dynamo.reset()
    assert "component inside is part of a larger graph compiled with fullgraph=True: its calls are not traced" in caplog.text
    assert names(seen) == []


# --- What goes wrong --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, asyncio.CancelledError, SystemExit])
@pytest.mark.parametrize("form", ["module", "function", "object", "coroutine"])
def test_the_same_exception_with_one_frame_of_ours(seen: Traced, kind: type[BaseException], form: str) -> None:
    error = kind("secret")

    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error

    def fails(x: torch.Tensor) -> torch.Tensor:
        raise error

    async def fails_later(x: torch.Tensor) -> torch.Tensor:
        raise error

    if form == "module":
        call = lambda: trace_lstm(Fails(), name="it")(torch.zeros(1, 3))  # noqa: E731
    elif form == "function":
        call = lambda: trace_lstm(fails, name="it")(torch.zeros(1, 3))  # noqa: E731
    elif form == "object":
        call = lambda: trace_lstm(type("Any", (), {"__call__": lambda self, x: fails(x)})(), name="it")(torch.zeros(1, 3))  # noqa: E731
    else:

        def call() -> Any:
            trace_lstm(fails_later, name="it")(torch.zeros(1, 3)).send(None)

    with pytest.raises(kind) as caught:
        call()
    assert caught.value is error
    ours = [frame for frame in traceback.extract_tb(caught.value.__traceback__) if "/lstm_trace/" in frame.filename]
    assert len(ours) == 1
    span = seen.named("lstm it")
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.attributes["error.type"].endswith(kind.__qualname__)
    assert span.attributes["lstm.sequence.length"] == 3
    assert "secret" not in span.to_json()
    assert LSTMInstrumentor().live_runs() == 0


def test_what_the_reader_cannot_read_costs_the_call_nothing(seen: Traced, caplog: pytest.LogCaptureFixture) -> None:
    from lstm_trace.guard import shield

    shield.strict = False
    component = trace_lstm(lambda x: "result", name="it", lengths=lambda args, kwargs: 1 / 0, prediction=lambda out: out.nothing)
    assert component(torch.zeros(1, 3)) == "result"
    assert names(seen) == ["lstm it"]


# --- Side by side -----------------------------------------------------------------------------------------------------------


def test_eight_threads(seen: Traced) -> None:
    model = trace_lstm(Padded(), name="it")
    tracer = seen.provider.get_tracer("app")
    wrong: list[str] = []

    def work(number: int) -> None:
        ids = torch.ones(1, number + 1, dtype=torch.long)
        for _ in range(25):
            with tracer.start_as_current_span(f"request {number}"):
                model(ids)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    requests = {span.context.span_id: span.name for span in seen.spans if span.name.startswith("request")}
    for span in seen.spans:
        if span.name == "lstm it":
            number = int(requests[span.parent.span_id].split()[1])
            if span.attributes["lstm.sequence.length"] != number + 1:
                wrong.append(span.name)
    assert len(requests) == 200
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_goes_on() -> None:
    code = """
import os, sys, torch
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from lstm_trace import trace_lstm
memory = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
trace.set_tracer_provider(provider)
model = trace_lstm(torch.nn.LSTM(2, 3), name="it")
model(torch.zeros(4, 2))
child = os.fork()
if child == 0:
    model(torch.zeros(4, 2))
    os._exit(0 if len(memory.get_finished_spans()) == 2 else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


# --- On and off -------------------------------------------------------------------------------------------------------------


def test_uninstrument_gives_the_class_its_own_call_back(seen: Traced) -> None:
    cls = decorated_class()
    instrumentor = LSTMInstrumentor()
    instrumentor.instrument(tracer_provider=seen.provider)
    cls()(IDS)
    instrumentor.uninstrument()
    assert cls.__call__ is nn.Module.__call__
    assert nn.LSTM.__call__ is nn.Module.__call__
    later = trace_lstm(lambda x: x, name="later")
    cls()(IDS)
    later(torch.zeros(1, 3))
    assert names(seen) == ["lstm it"]
    instrumentor.instrument(tracer_provider=seen.provider)
    cls()(IDS)
    later(torch.zeros(1, 3))
    assert names(seen) == ["lstm it", "lstm it", "lstm later"]
    instrumentor.uninstrument()


def test_nothing_is_read_where_nothing_records() -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    from lstm_trace.recorder import Recorder, set_default_recorder

    read: list[Any] = []
    component = trace_lstm(lambda x: x, name="it", lengths=lambda args, kwargs: read.append(args), prediction=lambda out: read.append(out))
    for provider in (TracerProvider(sampler=ALWAYS_OFF), trace.NoOpTracerProvider()):
        set_default_recorder(Recorder(tracer_provider=provider))
        component(torch.zeros(1, 3))
    assert not read


@pytest.mark.parametrize("around", ["nothing", "a component", "a function", "an unsampled request"])
@pytest.mark.parametrize("how", ["decorated", "auto"])
def test_one_frame_of_ours_however_many_of_us_stand_around_what_failed(seen: Traced, around: str, how: str) -> None:
    layer: Any = nn.LSTM(4, 8)
    instrumentor = LSTMInstrumentor(auto=how == "auto")
    instrumentor.instrument(tracer_provider=seen.provider)
    if how == "decorated":
        layer = trace_lstm(layer, name="inner")
    call: Any = layer
    if around in ("a component", "an unsampled request"):
        call = trace_lstm(Through(layer), name="outer")
    elif around == "a function":
        call = trace_lstm(lambda x: layer(x), name="outer")
    parent = trace.NonRecordingSpan(trace.SpanContext(1, 1, True, trace.TraceFlags(around != "an unsampled request")))
    try:
        with trace.use_span(parent), pytest.raises(RuntimeError) as caught:
            call(torch.zeros(3, 2, 5))
    finally:
        instrumentor.uninstrument()
    frames = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert len([name for name in frames if "/lstm_trace/" in name]) == 1
    assert frames[-1].endswith("rnn.py"), "the user's own frames are all there"


class Through(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x)

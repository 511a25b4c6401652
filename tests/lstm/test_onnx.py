"""ONNX Runtime: the same session, traced."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from lstm_trace import wrap_onnx
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import switch
from tests.tracing import Traced

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def make_session() -> Any:
    """Mean over the steps, then a linear head: (batch, time, 4) and lengths (batch,) to (batch, 3)."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
            helper.make_node("Identity", ["lengths"], ["kept"]),
        ],
        "head",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", 4]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]),
        ],
        [
            helper.make_tensor_value_info("kept", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3]),
        ],
        [
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("weights", TensorProto.FLOAT, [4, 3], WEIGHTS.flatten()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


FEED = {"x": np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32), "lengths": np.array([5, 3])}


def confidences() -> list[float]:
    logits = (FEED["x"].mean(1) @ WEIGHTS).astype(np.float64)
    chances = np.exp(logits - logits.max(1, keepdims=True))
    return list((chances / chances.sum(1, keepdims=True)).max(1))


def check(seen: Traced, *, lengths: bool = True) -> None:
    (span,) = seen.spans
    assert span.name == "lstm intent"
    assert span.attributes["lstm.batch.size"] == 2
    if lengths:
        assert (span.attributes["lstm.sequence.length_min"], span.attributes["lstm.sequence.length_source"]) == (3, "lengths")
    found = [event.attributes["lstm.prediction.confidence"] for event in span.events]
    assert found == pytest.approx(confidences(), abs=1e-6)
    assert span.events[0].attributes["lstm.prediction.label"] in "abc"


def test_run(seen: Traced) -> None:
    session = make_session()
    expected = session.run(None, FEED)
    traced = wrap_onnx(session, name="intent", labels=["a", "b", "c"])
    assert traced is session
    assert isinstance(session, ort.InferenceSession)
    found = session.run(None, FEED)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    check(seen)


def test_run_of_one_output_by_name(seen: Traced) -> None:
    wrap_onnx(make_session(), name="intent", labels=["a", "b", "c"], output_name="logits").run(["logits"], FEED)
    check(seen)


def test_run_with_iobinding(seen: Traced) -> None:
    session = wrap_onnx(make_session(), name="intent", labels=["a", "b", "c"])
    binding = session.io_binding()
    for name, value in FEED.items():
        binding.bind_cpu_input(name, value)
    binding.bind_output("kept")
    binding.bind_output("logits")
    session.run_with_iobinding(binding)
    check(seen, lengths=False)


@pytest.mark.parametrize("bound", [["logits"], ["logits", "kept"], ["kept", "logits"]])
def test_a_named_output_is_found_among_what_is_bound(seen: Traced, bound: list[str]) -> None:
    session = wrap_onnx(make_session(), name="intent", labels=["a", "b", "c"], output_name="logits")
    binding = session.io_binding()
    for name, value in FEED.items():
        binding.bind_cpu_input(name, value)
    for name in bound:
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    check(seen, lengths=False)


def test_a_named_output_that_is_not_bound_has_no_prediction(seen: Traced) -> None:
    session = wrap_onnx(make_session(), name="intent", output_name="logits")
    binding = session.io_binding()
    for name, value in FEED.items():
        binding.bind_cpu_input(name, value)
    binding.bind_output("kept")
    session.run_with_iobinding(binding)
    assert binding.copy_outputs_to_cpu()[0].tolist() == [5, 3]
    assert not any(name.startswith("lstm.prediction") for name in seen.spans[0].attributes)


def test_what_is_no_feed_is_the_runtimes_own_error(seen: Traced) -> None:
    messages: list[str] = []
    for session in (make_session(), wrap_onnx(make_session(), name="intent")):
        with pytest.raises(AttributeError) as error:
            session.run(None, None)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_the_callback_is_called_whatever_a_reader_does(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shield, "strict", False)

    def failing(outputs: Any) -> Any:
        raise KeyError

    session = wrap_onnx(make_session(), name="intent", prediction=failing)
    answered = threading.Event()
    session.run_async(None, FEED, lambda found, data, error: answered.set(), None)
    assert answered.wait(20)


def test_run_with_ort_values(seen: Traced) -> None:
    session = wrap_onnx(make_session(), name="intent", labels=["a", "b", "c"])
    found = session.run_with_ort_values(["logits"], {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in FEED.items()})
    assert np.array_equal(found[0].numpy(), make_session().run(["logits"], FEED)[0])
    check(seen)


def test_an_output_that_is_no_tensor_is_left_alone(seen: Traced) -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0, keepdims=0)],
        "parts",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, [3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = wrap_onnx(ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]), name="parts")
    x = np.ones((2, 3), np.float32)
    assert len(session.run(None, {"x": x})[0]) == 2
    assert len(session.run_with_ort_values(None, {"x": ort.OrtValue.ortvalue_from_numpy(x)})) == 1
    assert [span.name for span in seen.spans] == ["lstm parts"] * 2


def test_run_async(seen: Traced) -> None:
    session = wrap_onnx(make_session(), name="intent", labels=["a", "b", "c"])
    answered = threading.Event()
    got: list[Any] = []

    def callback(found: Any, data: Any, error: str) -> None:
        got.append((len(found), data, error))
        answered.set()

    session.run_async(None, FEED, callback, "mine")
    assert answered.wait(20)
    assert got == [(2, "mine", "")]
    check(seen)


def test_an_error_is_the_runtimes_own(seen: Traced) -> None:
    session = wrap_onnx(make_session(), name="intent")
    with pytest.raises(Exception, match="missing from input feed") as caught:
        session.run(None, {"x": FEED["x"]})
    assert seen.spans[0].attributes["error.type"].endswith(type(caught.value).__qualname__)


def test_switched_off(seen: Traced) -> None:
    session = wrap_onnx(make_session(), name="intent")
    switch.turn(False)
    session.run(None, FEED)
    assert not seen.spans


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lengths": "lens"}, "lengths='lens' is not an input of the model: it has x, lengths"),
        ({"output_name": "out"}, "output_name='out' is not an output of the model: it has kept, logits"),
    ],
)
def test_a_wrong_name_is_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrap_onnx(make_session(), name="intent", **given)


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="accepted is an onnxruntime"):
        wrap_onnx(object(), name="intent")

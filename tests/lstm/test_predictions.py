"""Confidence, margin and entropy against an independent computation in double precision."""

from __future__ import annotations

import enum
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lstm_trace import Prediction, trace_lstm
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import device, large, prediction
from lstm_trace.instrument.lstm.options import Options
from tests.lstm.models import Intent, Wrapped
from tests.tracing import Traced


def reference(row: Any, kind: str, temperature: float = 1.0) -> tuple[int, float, float, float]:
    """Compute index, confidence, margin and entropy with numpy alone."""
    row = np.asarray(row, dtype=np.float64)
    if kind == "probs":
        chances = row
        logs = np.log(np.where(row > 0, row, 1.0))
        if temperature != 1.0:
            chances = np.where(row > 0, row, 0.0) ** (1 / temperature)
            chances = chances / chances.sum()
            logs = np.log(np.where(chances > 0, chances, 1.0))
    else:
        scaled = row / temperature
        logs = scaled - scaled.max() - np.log(np.exp(scaled - scaled.max()).sum())
        chances = np.exp(logs)
    order = np.sort(chances)
    return int(np.argmax(row)), float(order[-1]), float(order[-1] - order[-2]), float(-(chances * np.where(chances > 0, logs, 0.0)).sum())


def same(found: Any, expected: tuple[int, float, float, float]) -> None:
    assert found.index == expected[0]
    assert found.confidence == pytest.approx(expected[1], abs=1e-6)
    assert found.margin == pytest.approx(expected[2], abs=1e-6)
    assert found.entropy == pytest.approx(expected[3], abs=1e-6)


NUMBERS = st.floats(-60, 60, width=32)


@given(st.integers(1, 40), st.integers(2, 90), st.sampled_from([1.0, 0.5, 2.5]), st.integers(0, 2**31))
@settings(deadline=None, max_examples=80)
def test_logits(rows: int, classes: int, temperature: float, seed: int) -> None:
    values = torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 8
    for row, found in zip(values, prediction.read(values, "logits", None, temperature), strict=True):
        same(found, reference(row.numpy(), "logits", temperature))


@given(st.integers(1, 40), st.integers(2, 90), st.sampled_from([1.0, 2.0]), st.integers(0, 2**31), st.sampled_from(["probs", "log_probs"]))
@settings(deadline=None, max_examples=80)
def test_probabilities(rows: int, classes: int, temperature: float, seed: int, kind: str) -> None:
    logits = torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 4
    values = logits.softmax(-1) if kind == "probs" else logits.log_softmax(-1)
    for row, found in zip(values, prediction.read(values, kind, None, temperature), strict=True):
        expected = reference(row.double().numpy() if kind == "probs" else row.double().exp().numpy(), "probs", temperature)
        same(found, expected)


@pytest.mark.parametrize("shape", [(1, 10), (10,), (32, 10), (3, 200), (700, 200), (1024, 1000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_size_takes_the_same_values(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 5
    found = prediction.read(values, "logits", None, 1.0)
    for row, each in zip(values.reshape(-1, shape[-1]), found, strict=True):
        expected = reference(row.double().numpy(), "logits")
        assert each.confidence == pytest.approx(expected[1], abs=1e-6)
        if each.index is not None:
            same(each, expected)


@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs"])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_summary_of_a_large_batch(seen: Traced, kind: str, temperature: float, dtype: torch.dtype) -> None:
    logits = torch.randn(700, 90, generator=torch.Generator().manual_seed(2)) * 5
    values = {"logits": logits, "log_probs": logits.log_softmax(1), "probs": logits.softmax(1)}[kind].to(dtype)
    rows = values.double().numpy()
    rows = np.exp(rows) if kind == "log_probs" else rows
    confidences = [reference(row, "probs" if kind != "logits" else "logits", temperature)[1] for row in rows]
    trace_lstm(lambda x: values, name="it", output=kind, temperature=temperature)(torch.zeros(700, 5, 2))
    span = seen.spans[-1]
    assert span.attributes["lstm.prediction.confidence_min"] == pytest.approx(min(confidences), abs=1e-6)
    assert span.attributes["lstm.prediction.confidence_mean"] == pytest.approx(np.mean(confidences), abs=1e-6)
    assert span.attributes["lstm.batch.size"] == 700
    assert len(span.events) == 8, "the least confident rows"
    lowest = sorted(range(700), key=lambda row: confidences[row])[:8]
    for event, row in zip(span.events, lowest, strict=True):
        assert event.attributes["lstm.prediction.confidence"] == pytest.approx(confidences[row], abs=1e-6)
        assert confidences[event.attributes["lstm.batch.index"]] == pytest.approx(confidences[row], abs=1e-6)


ODD = {
    "NaN": [math.nan, 0.5, 0.5],
    "infinity": [math.inf, 0.5, 0.5],
    "minus infinity": [-math.inf, 0.5, 0.5],
    "nothing but minus infinity": [-math.inf] * 3,
    "nothing but zeros": [0.0] * 3,
    "below 0": [-0.5, 0.5, 1.0],
    "above 1": [1.5, 0.0, 0.0],
    "beyond any exponential": [1e300, -1e300, 0.0],
    "next to nothing": [1e-320, 0.0, 0.0],
    "rounded": [-1e-9, 0.4, 0.6],
    "certain": [1.0, 0.0, 0.0],
}


@pytest.mark.parametrize("kind", ["logits", "probs", "log_probs", "multilabel"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("row", ODD.values(), ids=ODD)
def test_odd_numbers_are_read_alike_in_a_batch_of_any_size(seen: Traced, kind: str, temperature: float, row: list[float]) -> None:
    read: set[tuple[Any, ...]] = set()
    for shape in ((3,), (1, 3), (30, 3), (12_000, 3)):
        output = torch.tensor(row, dtype=torch.float64).expand(shape).contiguous()
        trace_lstm(lambda x, output=output: output, name="it", output=kind, temperature=temperature)(torch.zeros(*shape[:-1], 5, 2))
        found = seen.spans[-1].attributes
        confidence = found.get("lstm.prediction.confidence", found.get("lstm.prediction.confidence_mean"))
        read.add((found.get("lstm.prediction.nonfinite"), confidence if confidence is None else round(confidence, 9)))
        if kind in prediction.ROWS and len(shape) > 1 and shape[0] > 1:
            reduced = prediction.reduce(output, kind, temperature)
            on_device = large.many_of(reduced, None, 8).summary
            mean = on_device.confidence_mean
            read.add((on_device.nonfinite or None, mean if mean is None else round(mean, 9)))
    assert len(read) == 1, read


@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_a_few_rows_that_are_no_probabilities_are_left_out_of_a_large_batch(
    seen: Traced, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    chances = torch.randn(12_000, 3, generator=torch.Generator().manual_seed(6)).softmax(1)
    sound = chances[2:].double().amax(1)
    values = chances.clone() if kind == "probs" else chances.log()
    values[:2] = 3.0
    trace_lstm(lambda x: values, name="it", output=kind)(torch.zeros(12_000, 5, 2))
    attributes = seen.spans[-1].attributes
    assert attributes["lstm.prediction.confidence_mean"] == pytest.approx(sound.mean().item(), abs=1e-6)
    assert attributes["lstm.prediction.confidence_min"] == pytest.approx(sound.min().item(), abs=1e-6)
    assert f"no output={kind!r}" in caplog.text


@pytest.mark.parametrize("shift", [0.0, 500.0, -500.0])
def test_the_size_of_the_logits_does_not_matter(shift: float) -> None:
    logits = torch.randn(700, 90, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 5
    _, _, summary = large.read(logits + shift, "logits", None, 1.0, 8)
    confidences = [reference(row, "logits")[1] for row in logits.numpy()]
    assert summary.confidence_mean == pytest.approx(np.mean(confidences), abs=1e-9)


@pytest.mark.parametrize("classes", [90, 5000])
def test_a_large_batch_in_inference_mode_and_out_of_it(classes: int) -> None:
    logits = torch.randn(400, classes, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        inside = large.read(logits * 1.0, "logits", None, 1.0, 8)
    assert inside == large.read(logits, "logits", None, 1.0, 8)
    confidences = [reference(row, "logits")[1] for row in logits.double().numpy()]
    assert inside.summary.confidence_mean == pytest.approx(np.mean(confidences), abs=1e-6)
    logits[7, :2] = torch.finfo(torch.float32).max  # finite, but not their sum
    assert not large.read(logits, "logits", None, 1.0, 8).summary.nonfinite


@pytest.mark.parametrize("masked", [-1e4, -1e9, -3e38])
def test_classes_masked_by_very_small_logits_are_no_minus_infinity(masked: float) -> None:
    logits = torch.randn(700, 90, generator=torch.Generator().manual_seed(4))
    logits[:, 80:] = masked
    _, _, summary = large.read(logits, "logits", None, 1.0, 8)
    assert not summary.nonfinite
    assert summary.confidence_mean == pytest.approx(logits.double().softmax(1).amax(1).mean().item(), abs=1e-6)
    logits[5, 85] = -math.inf
    assert large.read(logits, "logits", None, 1.0, 8).summary.nonfinite


def test_large_batches_of_many_shapes_on_several_threads_at_once() -> None:
    shapes = [(2000, 40), (700, 90), (65, 6000), (700, 90), (130, 1009), (1024, 1000)]
    batches = [torch.randn(shape, generator=torch.Generator().manual_seed(number)) * 3 for number, shape in enumerate(shapes)]
    batches.append(batches[0].double())
    batches.append(batches[-1][::2].t().contiguous().t())
    expected = [values.double().softmax(1).amax(1) for values in batches]

    def read(number: int) -> None:
        for turn in range(40):
            which = (number + turn) % len(batches)
            _, rows, summary = large.read(batches[which], "logits", None, 1.0, 8)
            assert summary.confidence_min == pytest.approx(expected[which].min().item(), abs=1e-6)
            assert summary.confidence_mean == pytest.approx(expected[which].mean().item(), abs=1e-6)
            assert expected[which][list(rows)].tolist() == pytest.approx(expected[which].sort().values[:8].tolist(), abs=1e-6)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))


@pytest.mark.parametrize("row", [[1000.0, math.nan, 5.0], [math.nan, 1000.0], [5.0, math.nan, -1000.0, 2000.0], [3.0, -math.nan]])
def test_nan_beside_a_large_number(row: list[float]) -> None:
    assert prediction.of_logits(row).nonfinite


@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs"])
@pytest.mark.parametrize("bad", [math.nan, math.copysign(math.nan, -1.0), math.inf, -math.inf])
def test_a_broken_row_of_a_large_batch(seen: Traced, kind: str, bad: float) -> None:
    logits = torch.randn(700, 90)
    values = {"logits": logits, "log_probs": logits.log_softmax(1), "probs": logits.softmax(1)}[kind]
    if bad == -math.inf and kind == "log_probs":
        return
    values[600, 3] = bad
    trace_lstm(lambda x: values, name="it", output=kind)(torch.zeros(700, 5, 2))
    attributes = seen.spans[-1].attributes
    assert attributes["lstm.prediction.nonfinite"] is True
    assert 0 < attributes["lstm.prediction.confidence_min"] <= attributes["lstm.prediction.confidence_mean"] < 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rows", [1, 50])
@pytest.mark.parametrize("classes", [10, 200])
def test_not_finite_is_flagged_and_never_emitted(seen: Traced, bad: float, rows: int, classes: int) -> None:
    values = torch.zeros(rows, classes)
    values[0, 3] = bad
    component = trace_lstm(lambda x: values, name="it")
    component(torch.zeros(rows, 5, 2))
    span = seen.spans[-1]
    assert span.attributes["lstm.prediction.nonfinite"] is True
    first = span.events[0].attributes
    assert first["lstm.prediction.nonfinite"] is True
    assert "lstm.prediction.confidence" not in first
    assert "lstm.prediction.label" not in first
    for numbers in (span.attributes, *(event.attributes for event in span.events)):
        assert all(math.isfinite(each) for each in numbers.values() if isinstance(each, float))
    if rows > 1:
        assert span.events[1].attributes["lstm.prediction.confidence"] == pytest.approx(1 / classes)


def test_minus_infinity_is_a_probability_of_zero() -> None:
    (found,) = prediction.read(torch.tensor([[0.0, -math.inf]]), "log_probs", None, 1.0)
    assert (found.confidence, found.margin, found.entropy, found.nonfinite) == (1.0, 1.0, 0.0, False)


def test_one_column_is_the_second_of_two_classes() -> None:
    (found,) = prediction.read(torch.tensor([[math.log(3.0)]]), "logits", {0: "no", 1: "yes"}, 1.0)
    assert (found.label, found.confidence) == ("yes", pytest.approx(0.75))
    (found,) = prediction.read(torch.tensor([[0.2]], dtype=torch.float64), "probs", {0: "no", 1: "yes"}, 1.0)
    assert (found.label, found.confidence) == ("no", pytest.approx(0.8))


def test_multilabel() -> None:
    values = torch.tensor([[2.0, -1.0, 0.5]])
    (found,) = prediction.read(values, "multilabel", {0: "a", 1: "b", 2: "c"}, 1.0)
    chances = 1 / (1 + np.exp(-np.array([2.0, -1.0, 0.5])))
    assert (found.label, found.index) == ("a", 0)
    assert found.confidence == pytest.approx(chances[0], abs=1e-9)
    assert found.margin == pytest.approx(chances[0] - chances[2], abs=1e-9)
    assert found.entropy == pytest.approx(float(-(chances * np.log(chances) + (1 - chances) * np.log(1 - chances)).sum()), abs=1e-9)


def test_tagging_means_over_the_true_steps() -> None:
    values = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(3))
    found = prediction.read(values, "tagging", None, 1.0, [6, 2])
    for row, length, each in zip(values, (6, 2), found, strict=True):
        steps = [reference(step.numpy(), "logits") for step in row[:length]]
        assert each.confidence == pytest.approx(np.mean([step[1] for step in steps]), abs=1e-6)
        assert each.margin == pytest.approx(np.mean([step[2] for step in steps]), abs=1e-6)
        assert each.entropy == pytest.approx(np.mean([step[3] for step in steps]), abs=1e-6)
        assert each.index is None


@pytest.mark.parametrize("given_as", ["log_probs", "logits"])
def test_ctc_is_the_mean_log_probability_of_the_best_path(given_as: str) -> None:
    logits = torch.randn(7, 2, 5, generator=torch.Generator().manual_seed(4))  # (time, batch, classes), as nn.CTCLoss takes it
    found = prediction.read(logits.log_softmax(-1) if given_as == "log_probs" else logits, "ctc", None, 1.0, [7, 3])
    for row, length, each in zip(logits.transpose(0, 1), (7, 3), found, strict=True):
        best = [math.log(reference(step.numpy(), "logits")[1]) for step in row[:length]]
        assert each.confidence == pytest.approx(math.exp(np.mean(best)), abs=1e-6)


@pytest.mark.parametrize(
    ("output", "values"),
    [
        (torch.tensor([[0.5, 2.0], [1.5, math.nan], [math.inf, 1.0]]), [0.5, None, None]),
        (torch.tensor([[0.5, 2.0], [1.5, 3.0], [2.5, 1.0]], dtype=torch.bfloat16), [0.5, 1.5, 2.5]),
        (torch.tensor([[[0.5], [math.nan]], [[1.5], [2.0]], [[2.5], [1.0]]]), [None, 1.5, 2.5]),
        (torch.tensor([1 << 40, 2, 3]), [float(1 << 40), 2.0, 3.0]),
        (np.array([[0.5, math.nan], [1.5, 2.0], [2.5, 1.0]]), [None, 1.5, 2.5]),
        (torch.zeros(3, 0), []),
    ],
)
@pytest.mark.parametrize("deferred", [False, True])
def test_of_several_targets_the_first_speaks_where_all_are_finite(
    seen: Traced, monkeypatch: pytest.MonkeyPatch, output: Any, values: list[float | None], deferred: bool
) -> None:
    monkeypatch.setattr(device, "on_cpu_too", deferred)
    trace_lstm(lambda x: output, name="risk", output="regression")(torch.zeros(3, 4, 2))
    device.flush()
    events = [event.attributes for event in seen.spans[0].events if "lstm.batch.index" in event.attributes]
    assert [event.get("lstm.prediction.value") for event in events][: len(values)] == values
    assert [event.get("lstm.prediction.nonfinite", False) for event in events][: len(values)] == [each is None for each in values]


def test_of_one_sequence_without_a_batch_the_first_target_speaks(seen: Traced) -> None:
    found = trace_lstm(Intent(classes=2), name="risk", output="regression")(torch.ones(4, dtype=torch.long))
    assert [event.attributes["lstm.prediction.value"] for event in seen.spans[0].events] == [found[0].item()]


def test_regression(seen: Traced) -> None:
    trace_lstm(lambda x: torch.tensor([[3.5]]), name="risk", output="regression")(torch.zeros(1, 4, 2))
    attributes = seen.spans[-1].attributes
    assert attributes["lstm.prediction.value"] == 3.5
    assert "lstm.prediction.confidence" not in attributes


def test_none_says_nothing(seen: Traced) -> None:
    trace_lstm(Intent(), name="it", output="none")(torch.tensor([[1, 2]]))
    assert not any(name.startswith("lstm.prediction") for name in seen.spans[-1].attributes)
    assert not seen.spans[-1].events


def test_a_callable_finds_the_logits(seen: Traced) -> None:
    trace_lstm(lambda x: {"heads": [torch.tensor([[0.0, math.log(4.0)]])]}, name="it", output=lambda out: out["heads"][0])(
        torch.zeros(1, 4, 2)
    )
    assert seen.spans[-1].attributes["lstm.prediction.confidence"] == pytest.approx(0.8)


def test_a_component_that_says_it_itself(seen: Traced) -> None:
    said = Prediction(label="refund", confidence=0.75)
    trace_lstm(lambda x: "refund (75 %)", name="it", prediction=lambda out: said)(torch.zeros(1, 4, 2))
    attributes = seen.spans[-1].attributes
    assert (attributes["lstm.prediction.label"], attributes["lstm.prediction.confidence"]) == ("refund", 0.75)


@pytest.mark.parametrize("shape", ["tuple", "loss first", "dict", "dict without a known name", "dataclass", "dataclass without loss"])
def test_logits_inside_something(seen: Traced, shape: str) -> None:
    model = Wrapped(shape)
    ids = torch.tensor([[1, 2, 3]])
    expected = reference(model.inner(ids)[0].detach().numpy(), "logits")
    output = trace_lstm(model, name="it")(ids)
    assert type(output) is type(model(ids))
    assert seen.spans[0].attributes["lstm.prediction.confidence"] == pytest.approx(expected[1], abs=1e-6)


LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
STATE = (torch.zeros(1, 2, 8), torch.zeros(1, 2, 8))


@pytest.mark.parametrize(
    "output",
    [
        ((LOGITS, torch.ones(2, 7)), STATE),
        ({"logits": LOGITS}, STATE),
        (torch.tensor(0.3), {"loss": torch.tensor(0.3), "logits": LOGITS}),
        ((torch.tensor(0.3), LOGITS),),
        [{"logits": LOGITS}],
        {"out": {"logits": LOGITS}},
        (None, {"logits": LOGITS}),
        [LOGITS[0], LOGITS[1]],
        {"logits": [LOGITS[0], LOGITS[1]]},
    ],
)
def test_logits_that_stand_in_front_inside_something(seen: Traced, output: Any) -> None:
    assert trace_lstm(lambda x: output, name="it")(torch.zeros(2, 4, 2)) is output
    found = [event.attributes["lstm.prediction.confidence"] for event in seen.spans[0].events]
    assert found == pytest.approx([reference(row.numpy(), "logits")[1] for row in LOGITS], abs=1e-6)


@pytest.mark.parametrize("output", [(STATE, None), (STATE, {"attention": "of the secret"}), ("text", (LOGITS,)), (None, STATE), ((), ())])
def test_a_state_in_front_is_no_prediction(seen: Traced, output: Any) -> None:
    trace_lstm(lambda x: output, name="it")(torch.zeros(2, 4, 2))
    assert not any(name.startswith("lstm.prediction") for name in seen.spans[0].attributes)


def test_temperature_and_labels(seen: Traced) -> None:
    trace_lstm(lambda x: torch.tensor([[0.0, 2.0]]), name="it", temperature=2.0, labels=["a", "b"])(torch.zeros(1, 4, 2))
    attributes = seen.spans[-1].attributes
    assert attributes["lstm.prediction.label"] == "b"
    assert attributes["lstm.prediction.confidence"] == pytest.approx(math.e / (1 + math.e))


def test_labels_that_do_not_fit_are_said_once_and_nothing_is_lost(seen: Traced, caplog: pytest.LogCaptureFixture) -> None:
    component = trace_lstm(lambda x: torch.tensor([[0.0, 0.0, 5.0]]), name="it", labels=["a", "b"])
    with caplog.at_level(logging.WARNING, "lstm_trace"):
        component(torch.zeros(1, 4, 2))
        component(torch.zeros(1, 4, 2))
    assert [record.getMessage() for record in caplog.records] == [
        "component it: labels name 2 classes, the component returned 3: an index without a name stands alone"
    ]
    for span in seen.spans:
        assert span.attributes["lstm.prediction.index"] == 2
        assert "lstm.prediction.label" not in span.attributes


def test_labels_that_cannot_fit_are_refused_where_it_is_known() -> None:
    with pytest.raises(ValueError, match="name 2 classes, Intent has 3"):
        trace_lstm(Intent(), labels=["a", "b"])


@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs"])
def test_one_number_a_sequence_is_the_second_of_two_classes(seen: Traced, kind: str) -> None:
    logits = torch.tensor([0.3, -1.0, 2.0])
    output = {"logits": logits, "probs": logits.sigmoid(), "log_probs": nn.functional.logsigmoid(logits)}[kind]
    trace_lstm(lambda x: output, name="it", output=kind)(torch.zeros(3, 5, 2))
    chances = logits.double().sigmoid()
    found = [event.attributes["lstm.prediction.confidence"] for event in seen.spans[0].events]
    assert found == pytest.approx(torch.maximum(chances, 1 - chances).tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("output", "events"), [([0.1, 2.3], 1), ([[0.1, 2.3], [1.0, 0.0]], 2), ({"logits": [0.1, 2.3]}, 1), ({"logits": [[0.1, 2.3]]}, 1)]
)
def test_lists_of_floats(seen: Traced, output: Any, events: int) -> None:
    trace_lstm(lambda x: output, name="it", labels=["a", "b"])([7, 8, 9])
    rows = output["logits"] if isinstance(output, dict) else output
    row = rows[0] if isinstance(rows[0], list) else rows
    said = seen.spans[0].events[0].attributes
    assert said["lstm.prediction.label"] == "b"
    assert said["lstm.prediction.confidence"] == pytest.approx(reference(row, "logits")[1], abs=1e-12)
    assert len(seen.spans[0].events) == events


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["sparse", "nested", "complex", "meta"])
def test_tensors_that_cannot_be_read_have_a_span_without_a_prediction(seen: Traced, kind: str) -> None:
    rows = torch.randn(2, 3)
    output = {
        "sparse": rows.to_sparse(),
        "nested": torch.nested.nested_tensor([torch.randn(2), torch.randn(3)]),
        "complex": rows.to(torch.complex64),
        "meta": rows.to("meta"),
    }[kind]
    assert trace_lstm(lambda x: output, name="it")(torch.zeros(2, 5, 2)) is output
    (span,) = seen.spans
    assert span.attributes["lstm.sequence.length"] == 5
    assert not any(name.startswith("lstm.prediction") for name in span.attributes)


def test_whole_numbers_are_no_logits(seen: Traced, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "lstm_trace"):
        model = trace_lstm(lambda x: torch.tensor([1, 2]), name="it")
        model(torch.zeros(2, 5, 2))
        model(torch.zeros(2, 5, 2))
    assert [record.getMessage() for record in caplog.records] == [
        "component it: it returned whole numbers, which are no logits: no prediction is recorded; see output= and prediction="
    ]
    assert not any(name.startswith("lstm.prediction") for name in seen.spans[0].attributes)


def test_a_mapping_that_answers_every_attribute(seen: Traced) -> None:
    class Answers(dict):  # type: ignore[type-arg]
        __getattr__ = dict.get

    logits = torch.tensor([[0.0, math.log(3.0)]])
    trace_lstm(lambda x: Answers(loss=None, logits=logits), name="it")([1, 2])
    assert seen.spans[0].attributes["lstm.prediction.confidence"] == pytest.approx(0.75, abs=1e-6)


def test_three_axes_of_logits_are_not_guessed_at(seen: Traced, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "lstm_trace"):
        trace_lstm(nn.Sequential(nn.Linear(2, 3)), name="it")(torch.zeros(2, 4, 2))
    assert "output='tagging'" in caplog.text
    assert not any(name.startswith("lstm.prediction") for name in seen.spans[-1].attributes)


@pytest.mark.parametrize(
    ("given_wrong", "message"),
    [
        ({"output": "softmax"}, "output='softmax': accepted are logits"),
        ({"temperature": 0.0}, "temperature=0.0: accepted is a number above 0"),
        ({"temperature": "hot"}, "temperature='hot': accepted is a number above 0"),
        ({"labels": "abc"}, "labels='abc': accepted are a list of names"),
        ({"labels": []}, "accepted is at least one name"),
        ({"lengths": 3}, "lengths=3: accepted are the name of an argument, or a callable"),
        ({"lengths": "lens"}, "lengths='lens' is not an argument of .*: it has self, ids, lengths"),
        ({"padding_idx": "0"}, "padding_idx='0': accepted is a whole number"),
        ({"prediction": 1}, "prediction=1: accepted is a callable"),
        ({"name": ""}, "name='': accepted is a name that is not empty"),
        ({"version": 2}, "version=2: accepted is a str"),
    ],
)
def test_a_wrong_argument_is_named_when_decorating(given_wrong: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        trace_lstm(Intent, **given_wrong)


@pytest.mark.parametrize("target", [3, "model", None.__class__, staticmethod(len)])
def test_a_target_that_is_no_component_is_refused(target: Any) -> None:
    with pytest.raises(TypeError, match="trace_lstm"):
        trace_lstm(target)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("logits", (700, 90)), ("probs", (700, 90)), ("logits", (3, 200)), ("tagging", (3, 5, 6)), ("ctc", (5, 3, 6)), ("logits", None)],
)
def test_the_callers_default_device_is_not_ours(seen: Traced, kind: str, shape: tuple[int, ...] | None) -> None:
    values: Any = [0.1, 0.9] if shape is None else torch.rand(shape)
    x = torch.zeros(1 if shape is None else shape[1 if kind == "ctc" else 0], 5, 2)
    component = trace_lstm(lambda x: values, name="it", output=kind)
    with torch.device("meta"):
        component(x)
    assert any(name.startswith("lstm.prediction.confidence") for name in seen.spans[0].attributes)


@pytest.mark.parametrize("temperature", [1.0, 2.3])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_large_batch_of_large_logits_is_as_exact(seen: Traced, temperature: float, scale: float) -> None:
    values = torch.randn(600, 300, generator=torch.Generator().manual_seed(5)) * scale
    trace_lstm(lambda x: values, name="it", temperature=temperature)(torch.zeros(600, 5, 2))
    largest = (values.double() / temperature).softmax(1).amax(1)
    found = seen.spans[0].attributes
    assert found["lstm.prediction.confidence_min"] == pytest.approx(largest.min().item(), abs=1e-6)
    assert found["lstm.prediction.confidence_mean"] == pytest.approx(largest.mean().item(), abs=1e-6)


class _Encoder(nn.Module):
    """Returns hidden states: of the last step, of all, or what the layer itself returns."""

    def __init__(self, returns: str, embedded: int = 6, head: Any = None, **layer: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, embedded)
        self.layer = nn.LSTM(embedded, 8, batch_first=True, **layer)
        self.returns = returns
        self.dropout = nn.Dropout(0.0)
        if isinstance(head, nn.Parameter):
            self.weight = head
        self.hidden_away = [head]

    def forward(self, ids: torch.Tensor) -> Any:
        out, (h, c) = self.layer(self.embedding(ids))
        return {
            "last": lambda: self.dropout(torch.cat(list(h), -1)),
            "all": lambda: out,
            "as the layer": lambda: (out, (h, c)),
            "scores of ids": lambda: h[-1] @ self.embedding.weight.T,
            "logits": lambda: h[-1] @ self.hidden_away[0],
        }[self.returns]()


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("returns", ["last", "all", "as the layer"])
@pytest.mark.parametrize("layer", [{}, {"bidirectional": True}, {"proj_size": 5}])
def test_an_encoder_has_no_prediction(seen: Traced, caplog: pytest.LogCaptureFixture, returns: str, layer: dict[str, Any]) -> None:
    model = trace_lstm(_Encoder(returns, **layer), name="it")
    for _ in range(2):
        model(torch.ones(2, 4, dtype=torch.long))
    assert not any("prediction" in name for span in seen.spans for name in span.attributes)
    assert [record.getMessage() for record in caplog.records] == [
        "component it: what it returned is taken for hidden states: no prediction is recorded; where these are logits, say labels="
    ]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: _Encoder("scores of ids", embedded=8), {}),
        (lambda: _Encoder("logits", head=torch.ones(8, 3)), {}),
        (lambda: _Encoder("logits", head=nn.Parameter(torch.ones(8, 8))), {}),
        (lambda: _Encoder("last"), {"labels": list("abcdefgh")}),
    ],
    ids=["tied embedding", "a head that is no module", "a parameter of its own", "labels"],
)
def test_where_logits_may_come_from_they_are_read(seen: Traced, model: Any, said: dict[str, Any]) -> None:
    trace_lstm(model(), name="it", **said)(torch.ones(1, 4, dtype=torch.long))
    assert 0.0 < seen.spans[0].attributes["lstm.prediction.confidence"] <= 1.0


@pytest.mark.parametrize("rows", [1, 3, 40, 200])
@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_logits_declared_as_probabilities_have_no_confidence(
    seen: Traced, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, rows: int, deferred: bool, kind: str
) -> None:
    monkeypatch.setattr(device, "on_cpu_too", deferred)
    output = torch.tensor([5.0, -2.0, 1.0]).repeat(rows, 67)
    model = trace_lstm(lambda x: output, name="it", output=kind, labels=[str(each) for each in range(201)])
    for _ in range(2):
        model(torch.zeros(rows, 4, 2))
    device.flush()
    found = [dict(each.attributes) for span in seen.spans for each in (span, *span.events)]
    assert not any("confidence" in name or "margin" in name for each in found for name in each)
    assert [record.getMessage() for record in caplog.records] == [
        f"component it: it returned numbers that are no output='{kind}': they have no confidence"
    ]


def test_every_call_of_one_sequence_says_the_same_of_what_is_no_probability(seen: Traced) -> None:
    model = trace_lstm(Intent(), name="it", output="probs")
    with torch.no_grad():
        model.head.bias.fill_(3.0)
        for _ in range(6):  # the first calls go another way than later ones
            model(torch.ones(1, 4, dtype=torch.long))
    assert len({tuple(sorted(span.attributes.items())) for span in seen.spans}) == 1
    assert "lstm.prediction.confidence" not in seen.spans[0].attributes


@pytest.mark.parametrize(("softmax", "rows", "said"), [(True, 1, True), (True, 3, True), (True, 200, True), (False, 1, False)])
def test_probabilities_read_as_logits_are_said_once(
    seen: Traced, caplog: pytest.LogCaptureFixture, softmax: bool, rows: int, said: bool
) -> None:
    logits = torch.randn(rows, 300, generator=torch.Generator().manual_seed(0))
    model = trace_lstm(lambda x: logits.softmax(1) if softmax else logits, name="it")
    for _ in range(6):
        model(torch.zeros(rows, 4, 2))
    assert [record.getMessage() for record in caplog.records] == [
        "component it: each row that it returned adds up to 1, as probabilities do, and is read as logits: see output='probs'"
    ] * said


@pytest.mark.parametrize("rows", [1, 30])
def test_of_saturated_labels_the_largest_logit_wins(seen: Traced, rows: int) -> None:
    output = torch.tensor([50.0, 60.0, 45.0]).repeat(rows, 1)
    trace_lstm(lambda x: output, name="it", output="multilabel")(torch.zeros(rows, 4, 2))
    assert {event.attributes["lstm.prediction.index"] for event in seen.spans[0].events} == {1}


@pytest.mark.parametrize("rows", [1, 30])
@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_probabilities_that_are_all_zero_are_not_made_nan_by_a_temperature(seen: Traced, rows: int, kind: str) -> None:
    output = torch.full((rows, 3), 0.0 if kind == "probs" else -math.inf)
    trace_lstm(lambda x: output, name="it", output=kind, temperature=2.0)(torch.zeros(rows, 4, 2))
    assert {event.attributes["lstm.prediction.confidence"] for event in seen.spans[0].events} == {0.0}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (3, "prediction= returned int: accepted is a Prediction or a list of them"),
        (["a"], "prediction= returned str: accepted is a Prediction or a list of them"),
        (Prediction(index="a"), "prediction= returned a Prediction with what is no number"),  # type: ignore[arg-type]
        (Prediction(confidence=7.0), "prediction= returned index 0, confidence 7: accepted are 0 or more, and 0 to 1"),
        (None, None),
    ],
)
def test_what_a_reader_of_the_users_returned_wrongly_costs_the_prediction_alone(
    seen: Traced, caplog: pytest.LogCaptureFixture, said: Any, line: str | None
) -> None:
    model = trace_lstm(Intent(), name="it", prediction=lambda output: said)
    for _ in range(2):
        model(torch.ones(1, 4, dtype=torch.long))
    assert [span.attributes["lstm.sequence.length"] for span in seen.spans] == [4, 4]
    assert not any("prediction" in name for span in seen.spans for name in span.attributes)
    assert [record.getMessage() for record in caplog.records] == ([f"component it: {line}: no prediction is recorded"] if line else [])


@pytest.mark.parametrize("said", [Prediction("b", 1, math.nan), Prediction("b", value=math.nan)])
def test_a_reader_of_the_users_that_found_no_number_says_so(seen: Traced, said: Prediction) -> None:
    for answer in (said, [said, said]):
        trace_lstm(Intent(), name="it", prediction=lambda output, answer=answer: answer)(torch.ones(len(np.atleast_1d(answer)), 4).long())
        span = seen.spans[-1]
        assert span.attributes["lstm.prediction.nonfinite"] is True
        assert not any(name.startswith("lstm.prediction.confidence") for name in span.attributes)
        assert all(event.attributes["lstm.prediction.label"] == "b" for event in span.events)


@pytest.mark.parametrize("option", ["session", "time_gap"])
def test_a_callable_that_fails_costs_the_span_nothing_else(seen: Traced, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    def failing(args: Any, kwargs: Any) -> Any:
        raise KeyError

    monkeypatch.setattr(shield, "strict", False)
    for said in (failing, lambda args, kwargs: "no number"):
        trace_lstm(Intent(), name="it", **{option: said})(torch.ones(1, 4, dtype=torch.long))
    assert [span.attributes["lstm.sequence.length"] for span in seen.spans] == [4, 4]
    assert all(0.0 < span.attributes["lstm.prediction.confidence"] <= 1.0 for span in seen.spans)


class _Auto(enum.Enum):
    REFUND = enum.auto()
    STATUS = enum.auto()


class _Turned(enum.IntEnum):
    REFUND = 1
    STATUS = 0


class _FromOne(enum.IntEnum):
    REFUND = 1
    STATUS = 2


@pytest.mark.parametrize(
    ("labels", "label", "lines"),
    [
        (["REFUND", "STATUS"], "STATUS", 0),
        (np.array(["REFUND", "STATUS"]), "STATUS", 0),
        (_Auto, "STATUS", 0),
        (_Turned, "REFUND", 0),
        (_FromOne, "REFUND", 1),
        ({1: "STATUS", 2: "OTHER"}, "STATUS", 1),
    ],
)
def test_names_of_classes(seen: Traced, caplog: pytest.LogCaptureFixture, labels: Any, label: str, lines: int) -> None:
    component = trace_lstm(lambda x: [[0.0, 1.0]], name="it", labels=labels)
    for _ in range(2):
        component(torch.zeros(1, 4, 2))
    assert seen.spans[-1].attributes["lstm.prediction.label"] == label
    assert len(caplog.records) == lines, "a class that is counted from 1 is said once"


def test_numbers_of_numpys_are_accepted_where_a_component_is_decorated() -> None:
    options = Options(temperature=np.float32(2.0), padding_idx=np.int64(3))
    assert (options.temperature, type(options.temperature)) == (2.0, float)
    assert (options.padding_idx, type(options.padding_idx)) == (3, int)


def test_an_output_that_refuses_to_be_looked_at_costs_the_prediction_alone(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses:
        @property
        def logits(self) -> Any:
            raise RuntimeError

    monkeypatch.setattr(shield, "strict", False)
    output = Refuses()
    assert trace_lstm(lambda x: output, name="it")(torch.zeros(1, 4, 2)) is output
    assert seen.spans[-1].attributes["lstm.sequence.length"] == 4

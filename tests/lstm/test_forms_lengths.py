"""True lengths and where they were read, for every way in which a sequence reaches a recurrent layer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

from lstm_trace import trace_lstm
from lstm_trace.guard import shield
from lstm_trace.instrument.lstm import lengths as read
from lstm_trace.instrument.lstm import sequence
from tests.lstm.models import CellLoop, Intent, Masked, PacksInside, Padded
from tests.tracing import Traced


def lengths_of(seen: Traced) -> tuple[list[int], str | None]:
    span = seen.spans[-1]
    found = span.attributes
    lengths = [event.attributes["lstm.sequence.length"] for event in span.events]
    if "lstm.sequence.length" in found:
        lengths = lengths or [found["lstm.sequence.length"]] * found["lstm.batch.size"]
        assert set(lengths) == {found["lstm.sequence.length"]}
    else:
        assert (min(lengths), max(lengths)) == (found["lstm.sequence.length_min"], found["lstm.sequence.length_max"])
        assert found["lstm.sequence.length_mean"] == pytest.approx(sum(lengths) / len(lengths))
    assert found["lstm.batch.size"] == len(lengths)
    return lengths, found.get("lstm.sequence.length_source")


IDS = torch.tensor([[3, 4, 5, 6, 0], [7, 8, 0, 0, 0], [1, 2, 3, 4, 5]])


def on_packed(kind: type[nn.RNNBase] = nn.LSTM, **layer: Any) -> Any:
    class OnPacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(4, 8, **layer)
            self.head = nn.Linear(8, 3)

        def forward(self, packed: PackedSequence) -> torch.Tensor:
            state = self.layer(packed)[1]
            return self.head((state[0] if isinstance(state, tuple) else state)[-1])

    return OnPacked()


CASES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], list[int], str]] = {
    "packed, sorted": (on_packed(), (pack_sequence([torch.zeros(n, 4) for n in (5, 3, 2)]),), {}, [5, 3, 2], "packed"),
    "packed, not sorted": (
        on_packed(nn.GRU),
        (pack_sequence([torch.zeros(n, 4) for n in (2, 5, 3)], enforce_sorted=False),),
        {},
        [2, 5, 3],
        "packed",
    ),
    "packed inside": (PacksInside(), (IDS,), {}, [4, 2, 5], "packed"),
    "lengths": (Intent(), (IDS, torch.tensor([4, 2, 5])), {}, [4, 2, 5], "lengths"),
    "lengths by keyword": (Intent(), (IDS,), {"lengths": torch.tensor([4, 2, 5])}, [4, 2, 5], "lengths"),
    "lengths left out": (Intent(), (IDS,), {}, [5, 5, 5], "shape"),
    "bool mask": (
        Masked(),
        (torch.zeros(2, 4, 4), torch.tensor([[True, True, True, False], [True, False, False, False]])),
        {},
        [3, 1],
        "mask",
    ),
    "int mask": (Masked(), (torch.zeros(2, 4, 4),), {"attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])}, [3, 4], "mask"),
    "padding": (Padded(), (IDS,), {}, [4, 2, 5], "padding"),
    "padding inside a sequence counts": (Padded(), (torch.tensor([[3, 0, 5, 6, 0], [0, 8, 0, 0, 0]]),), {}, [4, 2], "padding"),
    "padding, time first": (Padded(batch_first=False), (IDS.T.contiguous(),), {}, [4, 2, 5], "padding"),
    "shape only": (Intent(), (IDS,), {}, [5, 5, 5], "shape"),
    "time first": (Intent(batch_first=False), (IDS.T.contiguous(),), {}, [5, 5, 5], "shape"),
    "unbatched": (Intent(), (IDS[0],), {}, [5], "shape"),
    "bidirectional": (Intent(bidirectional=True), (IDS, torch.tensor([4, 2, 5])), {}, [4, 2, 5], "lengths"),
    "layers and projection": (Intent(num_layers=3, proj_size=5), (IDS,), {}, [5, 5, 5], "shape"),
    "GRU": (Intent(nn.GRU), (IDS,), {}, [5, 5, 5], "shape"),
    "RNN": (Intent(nn.RNN), (IDS,), {}, [5, 5, 5], "shape"),
    "a loop over LSTMCell": (CellLoop(), (torch.zeros(2, 7, 4),), {}, [7, 7], "shape"),
    "a loop over GRUCell": (CellLoop(nn.GRUCell), (torch.zeros(2, 6, 4),), {}, [6, 6], "shape"),
    "one row": (Padded(), (torch.tensor([[3, 4, 0]]),), {}, [2], "padding"),
    "half": (Masked().half(), (torch.zeros(2, 4, 4).half(), torch.ones(2, 4).half()), {}, [4, 4], "mask"),
    "bfloat16": (Intent().bfloat16(), (IDS,), {}, [5, 5, 5], "shape"),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("case", CASES)
def test_lengths(seen: Traced, case: str) -> None:
    module, args, kwargs, expected, source = CASES[case]
    trace_lstm(module, name="it")(*args, **kwargs)
    assert lengths_of(seen) == (expected, source)


@pytest.mark.parametrize("args", [(torch.zeros(3, 7, 4),), (torch.zeros(7, 4),), (torch.zeros(3, 7, 4), None)])
def test_a_bare_layer_returns_no_prediction(seen: Traced, args: tuple[Any, ...]) -> None:
    trace_lstm(nn.LSTM(4, 8, batch_first=True), name="layer")(*args)
    attributes = seen.spans[-1].attributes
    assert attributes["lstm.sequence.length"] == 7
    assert attributes["lstm.batch.size"] == (3 if args[0].ndim == 3 else 1)
    assert not any(name.startswith("lstm.prediction") for name in attributes)


def test_declared(seen: Traced) -> None:
    model = trace_lstm(Intent(), name="it", lengths=lambda args, kwargs: [1, 2, 3])
    model(IDS)
    assert lengths_of(seen) == ([1, 2, 3], "declared")


def test_of_what_the_component_cuts_off_no_padding_is_told(seen: Traced) -> None:
    class Cuts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Intent()

        def forward(self, windows: list[list[int]]) -> torch.Tensor:
            return self.inner(torch.tensor([window[-8:] for window in windows]))

    model = trace_lstm(Cuts(), name="it", lengths=lambda args, kwargs: [len(window) for window in args[0]])
    model([[1] * 19])
    model([[1] * 19, [2] * 12])
    assert seen.spans[0].attributes["lstm.sequence.length"] == 19
    assert lengths_of(seen) == ([19, 12], "declared")
    assert not any("lstm.sequence.padding_ratio" in span.attributes for span in seen.spans)


@pytest.mark.parametrize("lengths", [[4, 2], [4, 2, 5, 1], [-4, 2, 5], torch.tensor([1.0, 0.4, 0.8]), [0.4, 0.4, 0.4], 4])
def test_lengths_of_another_batch_and_what_is_no_length_are_not_taken(seen: Traced, lengths: Any) -> None:
    class Ignores(Intent):
        def forward(self, ids: torch.Tensor, lengths: Any = None) -> torch.Tensor:
            return super().forward(ids)

    trace_lstm(Ignores(), name="it")(IDS, lengths)
    assert lengths_of(seen) == ([5, 5, 5], "shape")


def test_lengths_of_sentences_whose_first_layer_reads_characters(seen: Traced) -> None:
    class Hierarchy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.characters = nn.LSTM(4, 6, batch_first=True)
            self.words = nn.LSTM(6, 8, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            sentences, words = x.shape[:2]
            read_ = self.characters(x.flatten(0, 1))[1][0][-1]
            return self.head(self.words(read_.view(sentences, words, -1))[1][0][-1])

    model = trace_lstm(Hierarchy(), name="it")
    model(torch.randn(1, 5, 7, 4), torch.tensor([3]))
    assert lengths_of(seen) == ([3], "lengths")
    model(torch.randn(2, 5, 7, 4), torch.tensor([3, 5]))
    assert lengths_of(seen) == ([3, 5], "lengths")


@pytest.mark.parametrize(
    ("passed", "source"),
    [
        ({"lengths": torch.tensor([4, 2, 5])}, "lengths"),
        ({"attention_mask": torch.arange(5)[None] < torch.tensor([[4], [2], [5]])}, "mask"),
        ({"attention_mask": [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1] * 5]}, "mask"),
        ({"padding_mask": torch.arange(5)[None] >= torch.tensor([[4], [2], [5]])}, "mask"),
    ],
)
def test_what_a_component_takes_as_any_keyword(seen: Traced, passed: dict[str, Any], source: str) -> None:
    class Anything(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Intent()

        def forward(self, **given: Any) -> torch.Tensor:
            return self.inner(given["ids"])

    trace_lstm(Anything(), name="it")(ids=IDS, **passed)
    assert lengths_of(seen) == ([4, 2, 5], source)


@pytest.mark.parametrize("wrapped", [lambda model: torch.compile(model, backend="eager"), nn.DataParallel])
@pytest.mark.parametrize("lengths", [None, "lengths"])
def test_the_arguments_of_what_torch_wraps(seen: Traced, wrapped: Any, lengths: str | None) -> None:
    torch._dynamo.reset()
    trace_lstm(wrapped(Intent()), name="it", lengths=lengths)(IDS, torch.tensor([4, 2, 5]))
    assert lengths_of(seen) == ([4, 2, 5], "lengths")


def test_a_callable_that_raises_leaves_what_else_there_is(seen: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shield, "strict", False)
    trace_lstm(PacksInside(), name="it", lengths=lambda args, kwargs: args[7])(IDS)
    assert lengths_of(seen) == ([4, 2, 5], "packed")


def test_a_declared_padding_id_wins_over_the_embeddings(seen: Traced) -> None:
    trace_lstm(Padded(), name="it", padding_idx=5)(torch.tensor([[3, 4, 5, 5]]))
    assert lengths_of(seen) == ([2], "padding")


def test_padding_ratio_and_time_gap(seen: Traced) -> None:
    trace_lstm(Padded(), name="it", time_gap=lambda args, kwargs: torch.tensor([[1.0, 90.5, 3.0]]))(IDS)
    attributes = seen.spans[-1].attributes
    assert attributes["lstm.sequence.padding_ratio"] == pytest.approx(4 / 15)
    assert attributes["lstm.sequence.time_gap"] == 90.5


def test_empty_batch(seen: Traced) -> None:
    class Empty(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(x.shape[0], 3)

    trace_lstm(Empty(), name="it")(torch.zeros(0, 5, 4))
    attributes = seen.spans[-1].attributes
    assert attributes["lstm.batch.size"] == 0
    assert not any(name.startswith("lstm.prediction") for name in attributes)


def test_quantised_dynamic_lstm(seen: Traced) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import quantize_dynamic

        small = quantize_dynamic(Intent().eval(), {nn.LSTM, nn.Linear})
        trace_lstm(small, name="small")(IDS, torch.tensor([4, 2, 5]))
    assert lengths_of(seen) == ([4, 2, 5], "lengths")
    assert seen.spans[-1].attributes["lstm.cell"] == "LSTM"
    assert seen.spans[-1].attributes["lstm.state.origin"] == "none"


def test_the_layers_facts_come_from_the_tree(seen: Traced) -> None:
    trace_lstm(Intent(nn.GRU, num_layers=2, bidirectional=True), name="it")(IDS)
    attributes = seen.spans[-1].attributes
    found = {name: attributes[name] for name in ("lstm.cell", "lstm.layers", "lstm.hidden_size", "lstm.bidirectional")}
    assert found == {"lstm.cell": "GRU", "lstm.layers": 2, "lstm.hidden_size": 8, "lstm.bidirectional": True}


def test_a_function_over_a_list_of_events(seen: Traced) -> None:
    @trace_lstm(output="none")
    def classify(events: list[str]) -> str:
        return "refund"

    classify(["a", "b", "c"])
    assert seen.spans[-1].attributes["lstm.sequence.length"] == 3
    assert seen.spans[-1].attributes["lstm.sequence.length_source"] == "shape"


class RowByRow(nn.Module):
    """Calls its layer once for every row: a list of tensors, or ids cut to what is not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.layer = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, rows: Any) -> torch.Tensor:
        cut = [row[: int((row != 0).sum())] for row in rows]
        return torch.stack([self.head(self.layer(self.embedding(row)[None])[0][0, -1]) for row in cut])


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("given_as", ["a tensor", "a list"])
def test_a_layer_that_is_called_once_a_row(seen: Traced, rows: int, given_as: str) -> None:
    lengths = [1 + row % 5 for row in range(rows)]
    ids = [torch.ones(length, dtype=torch.long) for length in lengths]
    trace_lstm(RowByRow(), name="it")(nn.utils.rnn.pad_sequence(ids, batch_first=True) if given_as == "a tensor" else ids)
    (span,) = seen.spans
    assert span.attributes["lstm.batch.size"] == rows
    assert [event.attributes["lstm.sequence.length"] for event in span.events] == lengths


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("at_once", [1, 4])
def test_a_layer_that_is_called_step_by_step_or_in_chunks(seen: Traced, kind: type[nn.RNNBase], at_once: int) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(4, 8, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor, state: Any = None, session: str | None = None) -> Any:
            for chunk in x.split(at_once, 1):
                out, state = self.layer(chunk, state)
            return self.head(out[:, -1]), state

    model = trace_lstm(Steps(), name="it", session="session")
    _, state = model(torch.randn(2, 22, 4), None, "a")
    _, state = model(torch.randn(2, 22, 4), state, "a")
    model(torch.randn(2, 22, 4), state, "b")
    assert [span.attributes["lstm.sequence.length"] for span in seen.spans] == [22, 22, 22]
    assert [span.attributes["lstm.state.origin"] for span in seen.spans] == ["none", "carried", "foreign"]


def test_one_sequence_step_by_step(seen: Traced) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(4, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = None
            for step in x:
                _, state = self.layer(step[None], state)
            return self.head(state[-1])

    trace_lstm(Steps(), name="it")(torch.randn(9, 1, 4))
    assert seen.spans[0].attributes["lstm.sequence.length"] == 9


def test_sequences_given_as_a_list_of_tensors_and_padded_inside(seen: Traced) -> None:
    class Pads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(4, 8, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, rows: list[torch.Tensor]) -> torch.Tensor:
            return self.head(self.layer(nn.utils.rnn.pad_sequence(rows, batch_first=True))[0][:, -1])

    trace_lstm(Pads(), name="it")([torch.randn(steps, 4) for steps in (3, 5, 2)])
    assert [event.attributes["lstm.sequence.length"] for event in seen.spans[0].events] == [3, 5, 2]


@pytest.mark.parametrize("rows", [[[0, 0, 3, 1], [4, 5, 6, 3]], [[0, 0, 3, 1]]])
def test_padding_in_front_is_said_once_and_a_mask_settles_it(
    seen: Traced, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, rows: list[list[int]]
) -> None:
    monkeypatch.setattr(sequence, "_told", set())
    ids = torch.tensor(rows)
    model = trace_lstm(Padded(), name="it")
    with caplog.at_level("WARNING", "lstm_trace"):
        model(ids)
        model(ids)
        trace_lstm(Padded(), name="it", mask=lambda args, kwargs: args[0] != 0)(ids)
    assert len(caplog.records) == 1
    assert "ids begin with padding_idx=0" in caplog.text
    assert [event.attributes["lstm.sequence.length"] for event in seen.spans[-1].events] == [sum(map(bool, row)) for row in rows]


@pytest.mark.parametrize("padding", [-1e9, float("-inf"), torch.finfo(torch.float32).min])
def test_a_mask_that_is_added_to_scores(seen: Traced, padding: float) -> None:
    mask = torch.tensor([[0.0, 0.0, padding, padding], [0.0, 0.0, 0.0, padding]])
    assert read.from_mask(mask) == [2, 3]


def test_lengths_with_an_axis_of_one() -> None:
    assert read.from_lengths(torch.tensor([[3], [2]])) == [3, 2]


# --- Pure readers ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.booleans())
@settings(deadline=None, max_examples=60)
def test_from_packed_keeps_the_users_order(lengths: list[int], batch_first: bool) -> None:
    padded = torch.zeros(len(lengths), max(lengths), 2)
    padded = padded if batch_first else padded.transpose(0, 1)
    packed = pack_padded_sequence(padded, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=False)
    assert read.from_packed(packed) == lengths


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=60))
@settings(deadline=None, max_examples=60)
def test_from_padding_is_the_last_real_id(rows: list[list[int]]) -> None:
    expected = [max((place + 1 for place, each in enumerate(row) if each != 0), default=0) for row in rows]
    assert read.from_padding(torch.tensor(rows), 0) == expected
    assert read.from_padding(torch.tensor(rows).T, 0, batch_first=False) == expected


@pytest.mark.parametrize("inverted", [False, True])
def test_from_mask(inverted: bool) -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    assert read.from_mask(~mask if inverted else mask, inverted=inverted) == [2, 1]
    assert read.from_mask((~mask if inverted else mask).T, batch_first=False, inverted=inverted) == [2, 1]
    assert read.from_mask("no mask") is None


class _MasksOfBothKinds(nn.Module):
    """Names its masks as ``nn.Transformer`` does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, attention_mask: Any = None, src_key_padding_mask: Any = None) -> torch.Tensor:
        return self.head(self.layer(x)[0][:, -1])


REAL = torch.arange(5)[None] < torch.tensor([4, 2, 5])[:, None]


@pytest.mark.parametrize(
    "masked",
    [
        {"src_key_padding_mask": ~REAL},
        {"src_key_padding_mask": torch.zeros(3, 5).masked_fill(~REAL, -math.inf)},
        {"attention_mask": REAL},
        {"attention_mask": REAL.int()},
        {"attention_mask": torch.zeros(3, 5).masked_fill(~REAL, -math.inf)},
        {"attention_mask": torch.zeros(3, 5).masked_fill(~REAL, -1e9)[:, None, None]},
        {"attention_mask": REAL[..., None]},
    ],
)
def test_the_mask_that_is_passed_is_read_whichever_else_there_could_be(seen: Traced, masked: dict[str, Any]) -> None:
    trace_lstm(_MasksOfBothKinds(), name="it")(torch.randn(3, 5, 4), **masked)
    (span,) = seen.spans
    assert [event.attributes["lstm.sequence.length"] for event in span.events] == [4, 2, 5]
    assert span.attributes["lstm.sequence.length_source"] == "mask"
    assert span.attributes["lstm.sequence.padding_ratio"] == pytest.approx(4 / 15)


class _Turns(nn.Module):
    """Is given (batch, time) and turns it round for a layer that has time in front."""

    def __init__(self, padding_idx: int | None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6, padding_idx=padding_idx)
        self.layer = nn.LSTM(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.head(self.layer(self.embedding(ids).transpose(0, 1))[1][0][-1])


@pytest.mark.parametrize("source", ["padding", "mask"])
def test_as_many_sequences_as_steps_are_read_the_way_other_batches_were(seen: Traced, source: str) -> None:
    def read_of(lengths: list[int]) -> tuple[list[int], str | None]:
        ids = torch.tensor([[1] * each + [0] * (4 - each) for each in lengths])
        model(ids, ids != 0) if source == "mask" else model(ids)
        return lengths_of(seen)

    model = trace_lstm(_Turns(0 if source == "padding" else None), name="it")
    assert read_of([3, 1, 4, 2]) == ([4, 4, 4, 4], "shape")  # nothing tells which axis is time
    assert read_of([4, 4, 4, 4]) == ([4, 4, 4, 4], source)  # either way the same
    assert read_of([3, 1, 4]) == ([3, 1, 4], source)
    assert read_of([3, 1, 4, 2]) == ([3, 1, 4, 2], source)

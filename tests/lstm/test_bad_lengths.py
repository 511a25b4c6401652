"""What the user passes as lengths, or as the gaps between steps, and is not usable: it is left out, one line says so, the rest stands."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lstm_trace import trace_lstm
from lstm_trace.instrument.lstm.gaps import largest_gap
from tests.tracing import Traced

X = torch.zeros(2, 5, 4)


class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, lengths: Any = None, gaps: Any = None) -> torch.Tensor:
        return self.head(self.layer(x)[0][:, -1])


UNUSABLE: dict[str, Any] = {
    "truth values": [True, False],
    "a tensor of truth values": torch.tensor([True, False]),
    "numpy's truth values": [np.True_, np.False_],
    "below 0": [-1, 3],
    "not whole": [2.5, 3.0],
    "NaN": [math.nan, 2.0],
    "more than an attribute has room for": [10**30, 1],
    "words": ["3", "2"],
}


@pytest.mark.parametrize("given", UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("is_declared", [True, False])
def test_what_is_no_length_is_left_out_and_said_once(seen: Traced, caplog: pytest.LogCaptureFixture, given: Any, is_declared: bool) -> None:
    model = trace_lstm(Sequences(), name="it", **({"lengths": lambda args, kwargs: given} if is_declared else {}))
    for _ in range(2):
        model(X) if is_declared else model(X, given)
    attributes = seen.spans[-1].attributes
    assert (attributes["lstm.batch.size"], attributes["lstm.sequence.length"]) == (2, 5)
    assert attributes["lstm.sequence.length_source"] == "shape"
    assert [each.getMessage() for each in caplog.records] == [
        f"component it: what was passed as lengths ({type(given).__name__}) is left out: accepted are whole numbers from 0, one a row"
    ]


@pytest.mark.parametrize("given", [5, [1], [2, 3, 4], [1, 2, 3, 4, 5], []])
def test_declared_lengths_of_another_batch_are_left_out(seen: Traced, caplog: pytest.LogCaptureFixture, given: Any) -> None:
    trace_lstm(Sequences(), name="it", lengths=lambda args, kwargs: given)(X)
    attributes = seen.spans[-1].attributes
    assert (attributes["lstm.batch.size"], attributes["lstm.sequence.length_source"]) == (2, "shape")
    assert len(seen.spans[-1].events) == 2
    assert "not one a row" in caplog.text


def test_a_word_or_a_single_number_that_is_merely_called_length_is_passed_over(seen: Traced, caplog: pytest.LogCaptureFixture) -> None:
    model = trace_lstm(Sequences(), name="it")
    for given in ("all", 5, None, object()):
        model(X, given)
        assert seen.spans[-1].attributes["lstm.sequence.length_source"] == "shape"
    assert not caplog.records


def test_lengths_of_words_stand_where_the_first_layer_reads_characters(seen: Traced) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.characters, self.words = nn.LSTM(4, 6, batch_first=True), nn.LSTM(6, 8, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor, counts: Any) -> torch.Tensor:
            of_words = self.characters(x)[1][0][-1].reshape(len(counts), -1, 6)
            return self.head(self.words(of_words)[0][:, -1])

    trace_lstm(Words(), name="it", lengths="counts")(torch.zeros(12, 7, 4), [4, 2, 3])
    attributes = seen.spans[-1].attributes
    assert (attributes["lstm.batch.size"], attributes["lstm.sequence.length_max"]) == (3, 4)


@pytest.mark.parametrize("given", [range(2, 4), (2, 3), np.array([2, 3], dtype=np.uint8), [np.int32(2), torch.tensor(3)]])
def test_whole_numbers_in_any_dress_are_lengths(seen: Traced, given: Any) -> None:
    trace_lstm(Sequences(), name="it")(X, given)
    assert [each.attributes["lstm.sequence.length"] for each in seen.spans[-1].events] == [2, 3]


GAPS: dict[str, tuple[Any, float | None]] = {
    "a number": (3.5, 3.5),
    "none at all": (0, 0.0),
    "a batch": (torch.tensor([[1.0, 9.5], [2.0, 3.0]]), 9.5),
    "rows of several lengths": ([[1], [2, 3]], 3.0),
    "the first is not known": (np.array([math.nan, 3.0, 2.0]), 3.0),
    "a time difference": (timedelta(minutes=1), 60.0),
    "time differences": ([timedelta(seconds=2), timedelta(seconds=5)], 5.0),
    "an array of time differences": (np.array([1500, 2500], dtype="timedelta64[ms]"), 2.5),
    "an array in nanoseconds": (np.array(["NaT", 4 * 10**9], dtype="timedelta64[ns]"), 4.0),
    "nothing given": (None, None),
    "an empty list": ([], None),
    "not known at all": (math.nan, None),
}


@pytest.mark.parametrize(("given", "seconds"), GAPS.values(), ids=GAPS)
def test_the_largest_gap_is_told_in_seconds(given: Any, seconds: float | None) -> None:
    assert largest_gap(given) == seconds


@pytest.mark.parametrize("given", [-1, [-3, -4], math.inf, 10**400, "3", {"a": 1}, True, timedelta(seconds=-1), object()])
def test_a_gap_that_is_none_is_left_out_and_said_once(seen: Traced, caplog: pytest.LogCaptureFixture, given: Any) -> None:
    model = trace_lstm(Sequences(), name="it", time_gap="gaps")
    for _ in range(2):
        model(X, gaps=given)
    attributes = seen.spans[-1].attributes
    assert "lstm.sequence.time_gap" not in attributes
    assert attributes["lstm.sequence.length"] == 5
    assert len(caplog.records) == 1
    assert "component it: time_gap= is left out" in caplog.text

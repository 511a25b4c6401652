"""PyTorch's own module inputs for LSTM, GRU and RNN and their cells: bit-identical outputs and gradients with us and without."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from lstm_trace import LSTMInstrumentor, trace_lstm
from tests.tracing import Traced

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        from torch.testing._internal.common_modules import module_db
    except ImportError:  # needs expecttest, which torch does not install
        module_db = []

KINDS = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)


def _cases() -> list[Any]:
    found = []
    for info in module_db:
        if info.module_cls not in KINDS:
            continue
        for training in (False, True):
            made = info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=True, training=training)
            for number, one in enumerate(made):
                found.append(pytest.param(info.module_cls, one, training, id=f"{info.module_cls.__name__}-{number}-{training}"))
    return found


def _flat(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    return [each for part in output if part is not None for each in _flat(part)]


def _run(module: nn.Module, one: Any) -> list[torch.Tensor]:
    torch.manual_seed(3)
    args = copy.deepcopy(one.forward_input.args)
    kwargs = copy.deepcopy(one.forward_input.kwargs)
    found = _flat(module(*args, **kwargs))
    sum(each.sum() for each in found).backward()
    given = [each for each in _flat([value for value in (*args, *kwargs.values()) if value is not None]) if each.requires_grad]
    return found + [each.grad for each in module.parameters()] + [each.grad for each in given]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.skipif(not module_db, reason="torch.testing._internal.common_modules does not import here")
@pytest.mark.parametrize("how", ["decorated", "auto"])
@pytest.mark.parametrize(("cls", "one", "training"), _cases())
def test_bit_identical(seen: Traced, cls: type[nn.Module], one: Any, training: bool, how: str) -> None:
    torch.manual_seed(2)
    bare = cls(*one.constructor_input.args, **one.constructor_input.kwargs).train(training)
    mine = copy.deepcopy(bare)
    expected = _run(bare, one)
    if how == "auto":
        instrumentor = LSTMInstrumentor(auto=True)
        instrumentor.instrument(tracer_provider=seen.provider)
        found = _run(mine, one)
        instrumentor.uninstrument()
        assert len(seen.spans) == (0 if "Cell" in cls.__name__ else 1)
    else:
        found = _run(trace_lstm(mine, name="it"), one)
        assert len(seen.spans) == 1
    assert len(found) == len(expected)
    for one_, other in zip(found, expected, strict=True):
        assert (one_ is None and other is None) or torch.equal(one_, other)


def test_there_are_cases() -> None:
    if module_db:
        assert len(_cases()) > 20

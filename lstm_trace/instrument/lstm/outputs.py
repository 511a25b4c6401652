"""Find the tensor that holds the prediction in whatever a component returns."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from lstm_trace.instrument.lstm.lengths import is_floating, is_packed
from lstm_trace.instrument.lstm.lengths import is_tensor as reads_like_tensor

NAMES: Final = ("logits", "log_probs", "logprobs", "probs", "probabilities", "scores", "prediction", "predictions", "output", "y")


_LITTLE: Final = 1024
_tensor: Any = None
_is_wrapped: Any = None


def is_tensor(output: Any) -> bool:
    """Tell whether an output is one torch tensor and nothing else."""
    global _tensor, _is_wrapped
    if _tensor is None:
        torch = sys.modules.get("torch")
        if torch is None:
            return False
        _tensor, _is_wrapped = torch.Tensor, torch._C._functorch.is_functorch_wrapped_tensor
    return isinstance(output, _tensor)


def is_small(output: Any) -> bool:
    """Tell whether an output is a plain tensor on the CPU whose few numbers are read fastest one by one."""
    if _tensor is None and not is_tensor(output):
        return False
    return type(output) is _tensor and output.is_cpu and output.numel() <= _LITTLE and not _is_wrapped(output)


def as_tensor(value: Any) -> Any:
    """Return what a user's callable made of an output, where it can be read."""
    return value if reads_like_tensor(value) else tensor_of(value)


def tensor_of(output: Any) -> Any | None:
    """Return the tensor of an output, or None: a tensor, a HF ModelOutput, a tuple, a mapping, a dataclass or an object with ``logits``.

    A loss in front (a number without axes) is passed over: ``(loss, logits)`` gives the logits. A list of floats, of rows of them, or of
    one tensor a row, is read as an array where torch or numpy is loaded. What has no tensor of its own is looked into where it stands
    in front: ``((logits, aux), (h, c))``.
    """
    if reads_like_tensor(output):
        return output
    for candidate in _named(output):
        if reads_like_tensor(candidate):
            return candidate
        if type(candidate) is list and _are_floats(candidate):
            return _array(candidate)
        if type(candidate) is list and _are_rows(candidate):
            return _stacked(candidate)
    if is_packed(output):
        return None
    if isinstance(output, Mapping):
        output = tuple(output.values())
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        output = tuple(getattr(output, each.name) for each in dataclasses.fields(output))
    if type(output) is list and _are_floats(output):
        return _array(output)
    if type(output) is list and _are_rows(output):
        return _stacked(output)
    if isinstance(output, (tuple, list)):
        found = next((each for each in output if reads_like_tensor(each) and each.ndim > 0 and is_floating(each)), None)
        return found if found is not None else _inside(output)
    return None


def unless_hidden(widths: Sequence[int], tell: Callable[[], None]) -> Callable[[Any], Any]:
    """Return a reader of outputs that passes over a tensor as wide as hidden states, or as several of them side by side."""

    def read(output: Any) -> Any:
        found = tensor_of(output)
        if found is None or not found.ndim or all(found.shape[-1] % width for width in widths):
            return found
        tell()
        return None

    return read


def _inside(parts: Any) -> Any | None:
    """Return the tensor of what stands in front among parts none of which is one: of ``((logits, aux), (h, c))`` the logits.

    A loss, or None, is passed over. Two tensors of one shape in front are taken for a state, h and c, which holds no prediction.
    """
    first = next((each for each in parts if each is not None and not (reads_like_tensor(each) and each.ndim == 0)), None)
    if not isinstance(first, (tuple, list, Mapping)) and not dataclasses.is_dataclass(first):
        return None
    pair: Any = first
    if type(first) is tuple and len(pair) == 2 and all(map(reads_like_tensor, pair)) and pair[0].shape == pair[1].shape:
        return None
    return tensor_of(first)


def _named(output: Any) -> Iterator[Any]:
    if isinstance(output, Mapping):
        yield from (output[name] for name in NAMES if name in output)
    elif not isinstance(output, list):
        # A named tuple, a dataclass, a HF ModelOutput: HF puts the loss at [0] when labels are given, so the name comes first.
        for name in NAMES:
            value = getattr(output, name, None)
            if value is not None:
                yield value


def _are_floats(values: Any) -> bool:
    rows = values if values and type(values[0]) is list else [values]
    return bool(rows[0]) and all(
        type(row) is list and len(row) == len(rows[0]) and all(type(each) is float for each in row) for row in rows
    )


def _are_rows(values: Any) -> bool:
    """Tell a list of one tensor (classes,) a sequence."""
    return len(values) > 1 and all(is_tensor(each) and each.ndim == 1 and each.shape == values[0].shape for each in values)


def _stacked(rows: Any) -> Any:
    torch: Any = sys.modules["torch"]
    return torch.stack([each.detach() for each in rows])


def _array(values: Any) -> Any:
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        return torch.tensor(values, dtype=torch.float64, device="cpu")
    numpy: Any = sys.modules.get("numpy")
    return numpy.array(values) if numpy is not None else None

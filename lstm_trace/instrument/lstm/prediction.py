"""Confidence, margin and entropy of what a component said, in double precision, from one read of its output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from math import exp, isfinite, log
from operator import mul
from typing import Any, Final, NamedTuple

from lstm_trace.facts import Prediction, Summary
from lstm_trace.recorder.calls import Single

Names = Mapping[int, str]

_BROKEN: Final = Single(nonfinite=True)
_LARGE: Final = 1 << 15
_BLOCK: Final = 1 << 18
"""Numbers of a block: 1 MiB in float32, so that it is read from memory once."""
_DETAILED: Final = 8
"""Rows of a large batch of which every number is read: the least confident."""
_UNSHIFTED: Final = 300.0
"""Below this logit exp() needs no shift: neither it nor the sum over any row of ours leaves the range of a double."""
_SMALL: Final = 75
"""Below this many numbers, plain Python over ``tolist()`` beats every tensor operation."""


class Many(NamedTuple):
    """A large batch: its least confident rows, where they stand, and what holds for all."""

    least: Sequence[Single | Prediction]
    rows: Sequence[int]
    summary: Summary


def read(
    tensor: Any, output: str, names: Names | None, temperature: float, lengths: Sequence[int] | None = None
) -> Sequence[Single | Prediction]:
    """Return one prediction a sequence.

    ``tensor`` is (classes,) or (batch, classes); for ``tagging`` (time, classes) or (batch, time, classes); for ``ctc`` (time, batch,
    classes) as ``nn.CTCLoss`` takes it. One column alone is the logit, or the probability, of the second of two classes; so is one number
    for each of several sequences (``squeeze(-1)``).
    Raises ValueError where the shape does not fit ``output``.
    """
    if output in ("tagging", "ctc"):
        return _over_time(tensor, output, temperature, lengths)
    tensor = tensor.detach() if hasattr(tensor, "detach") else tensor
    if output == "regression":
        return [_value(each) for each in _column(tensor)]
    if tensor.ndim == 0 or (tensor.ndim == 1 and lengths is not None and len(lengths) == tensor.shape[0] > 1):
        tensor = tensor.reshape(-1, 1)
    if tensor.ndim > 2:
        raise ValueError(f"output={output!r} needs (batch, classes), the component returned {tuple(tensor.shape)}: see output='tagging'")
    of_row = ROWS[output]
    single = tensor.ndim == 1
    if single or tensor.shape[0] * tensor.shape[1] <= _SMALL:
        rows = tensor.tolist()
        return [of_row(row, names, temperature) for row in ((rows,) if single else rows)]
    return _batch(tensor, output, names, temperature)


# --- One row, plain Python ------------------------------------------------------------------------------------------------


def of_logits(row: list[float], names: Names | None = None, temperature: float = 1.0) -> Single:
    """Read the logits of one sequence.

    >>> round(of_logits([0.0, math.log(3.0)]).confidence, 12)
    0.75
    >>> of_logits([float("nan"), 0.0]).nonfinite
    True
    """
    if len(row) < 2:
        return _binary_logit(row, names, temperature)
    if not isfinite(sum(row)):
        return _BROKEN
    if temperature != 1.0:
        row = [each / temperature for each in row]
    top = max(row)
    index = row.index(top)
    if -_UNSHIFTED < top < _UNSHIFTED:
        weights, shift = list(map(exp, row)), 0.0
    else:
        weights, shift = [exp(each - top) for each in row], top
    total = sum(weights)
    # -sum p log p with log p = x - shift - log total
    entropy = log(total) + shift - sum(map(mul, weights, row)) / total
    largest = weights[index]
    weights[index] = 0.0
    # Single(…) without its constructor, which is Python
    return tuple.__new__(
        Single,
        (
            names.get(index) if names is not None else None,
            index,
            largest / total,
            (largest - max(weights)) / total,
            entropy if entropy > 0.0 else 0.0,
            False,
        ),
    )


def of_log_probs(row: list[float], names: Names | None = None, temperature: float = 1.0) -> Single:
    """Read the log-probabilities of one sequence; minus infinity is the probability 0."""
    if len(row) < 2:
        return of_probs([math.exp(each) if each < 1.0 else math.nan for each in row], names, temperature)
    return of_probs([math.exp(each) if each <= 700.0 else math.inf for each in row], names, temperature)


def of_probs(row: list[float], names: Names | None = None, temperature: float = 1.0) -> Single:
    """Read the probabilities of one sequence. One number is the probability of the second of two classes.

    >>> of_probs([0.2, 0.5, 0.3]).index, round(of_probs([0.2, 0.5, 0.3]).margin, 12)
    (1, 0.2)
    """
    if not row or not math.isfinite(sum(row)):
        return _broken(row)
    if len(row) == 1:
        row = [1.0 - row[0], row[0]]
    if temperature != 1.0:
        powers = [each ** (1.0 / temperature) if each > 0.0 else 0.0 for each in row]
        total = sum(powers)
        row = [each / total for each in powers] if total > 0.0 else row
    top = max(row)
    index = row.index(top)
    second = max(row[:index] + row[index + 1 :])
    entropy = -sum(each * math.log(each) for each in row if each > 0.0)
    return Single(_label(names, index), index, top, top - second, entropy if entropy > 0.0 else 0.0)


def of_multilabel(row: list[float], names: Names | None = None, temperature: float = 1.0) -> Single:
    """Read independent logits, one a label: the likeliest label, its lead over the next, and the entropy of all labels together."""
    if not row or not math.isfinite(sum(row)):
        return _broken(row)
    chances = [_sigmoid(each / temperature) for each in row]
    index = row.index(max(row))
    top = chances[index]
    second = max(chances[:index] + chances[index + 1 :], default=None)
    entropy = -sum(part * math.log(part) for each in chances for part in (each, 1.0 - each) if part > 0.0)
    return Single(_label(names, index), index, top, None if second is None else top - second, entropy)


def _binary_logit(row: list[float], names: Names | None, temperature: float) -> Single:
    if not row or not math.isfinite(row[0]):
        return _broken(row)
    return of_probs([_sigmoid(row[0] / temperature)], names)


def _broken(row: list[float]) -> Single:
    return _BROKEN if row else Single()


def _sigmoid(value: float) -> float:
    if value >= 0.0:
        return 1.0 / (1.0 + math.exp(-value))
    weight = math.exp(value)
    return weight / (1.0 + weight)


def _label(names: Names | None, index: int) -> str | None:
    return names.get(index) if names is not None else None


def _value(value: float) -> Prediction:
    return Prediction(value=float(value)) if math.isfinite(value) else Prediction(nonfinite=True)


def _column(tensor: Any) -> list[float]:
    # (batch, 1), (batch,), () or (batch, targets): of several targets the first speaks
    if tensor.ndim == 0:
        return [tensor.item()]
    flat = tensor.reshape(tensor.shape[0], -1)
    return flat[:, 0].tolist() if flat.shape[1] else []


ROWS: Final[Mapping[str, Callable[[list[float], Names | None, float], Single]]] = {
    "logits": of_logits,
    "log_probs": of_log_probs,
    "probs": of_probs,
    "multilabel": of_multilabel,
}


# --- Many rows, on the tensor's own device --------------------------------------------------------------------------------


def _batch(tensor: Any, output: str, names: Names | None, temperature: float) -> list[Single]:
    if not hasattr(tensor, "detach"):
        return _batch_of_array(tensor, output, names, temperature)
    if tensor.shape[1] < 2:
        return [ROWS[output](row, names, temperature) for row in tensor.tolist()]
    return rows_of(reduce(tensor, output, temperature), names)


def reduce(tensor: Any, output: str, temperature: float) -> Any:
    """Return index, confidence, margin, entropy and brokenness of each row as a (rows, 5) tensor on the tensor's own device."""
    import torch

    rows = tensor.detach().double()
    finite = torch.isfinite(rows)
    bad = ~(finite | (rows == -math.inf)).all(1) if output == "log_probs" else ~finite.all(1)
    if output == "multilabel":
        chances = torch.sigmoid(rows / temperature)
        entropy = (torch.special.entr(chances) + torch.special.entr(1.0 - chances)).sum(1)
    else:
        if output == "probs":
            rows = rows.log()
        if temperature != 1.0 or output == "logits":
            rows = torch.log_softmax(rows / temperature, 1)
        chances = rows.exp()
        # torch.special.entr is ten times as slow; a probability of zero has a logarithm that must not make it NaN
        entropy = -(chances * rows.clamp(min=-1e4)).sum(1)
    top = chances.topk(2, 1)
    return torch.stack((top.indices[:, 0].double(), top.values[:, 0], top.values[:, 0] - top.values[:, 1], entropy, bad.double()), 1)


def rows_of(reduced: Any, names: Names | None) -> list[Single]:
    """Return the predictions of what ``reduce`` made, once it is on the CPU."""
    return [
        _BROKEN if broken else Single(_label(names, int(index)), int(index), confidence, margin, entropy if entropy > 0.0 else 0.0)
        for index, confidence, margin, entropy, broken in reduced.tolist()
    ]


def is_large(tensor: Any, output: str, rows: int) -> bool:
    """Tell whether all rows are worth one pass for their confidence, and only the least confident the other numbers."""
    return (
        output in ("logits", "log_probs", "probs")
        and hasattr(tensor, "detach")
        and tensor.ndim == 2
        and tensor.shape[0] > rows
        and tensor.shape[1] > 1
        and tensor.numel() > _LARGE
    )


def summarise(tensor: Any, output: str, temperature: float) -> tuple[Summary, list[int]]:
    """Return lowest and mean confidence over all rows of a large (batch, classes) tensor, and the least confident rows.

    The largest probability is exp(max) / sum(exp(x)): no softmax is written down, and no logarithm taken. In blocks that stay in the cache,
    in the tensor's own precision (float32 at least): within 1e-6 of double precision.
    """
    import torch

    values = tensor.detach()
    if values.element_size() < 4:
        values = values.float()
    with torch.no_grad():
        if temperature == 1.0 and output != "logits":
            low, top = values.amin(1), values.amax(1)  # torch.aminmax is ten times as slow
            found = top if output == "probs" else top.exp()
            found = found + (low - low if output == "probs" else torch.where(torch.isnan(low), low, 0.0))
        else:
            found = _largest_probability(values.log() if output == "probs" else values, temperature, may_be_zero=output != "logits")
        mean = found.mean(dtype=torch.float64).item()
        broken = not isfinite(mean)
        kept = found[torch.isfinite(found)] if broken else found
        if not kept.numel():
            return Summary(None, None, broken), []
        least = (torch.where(torch.isfinite(found), found, 2.0) if broken else found).topk(min(_DETAILED, kept.numel()), largest=False)
        return Summary(least.values[0].item(), kept.mean(dtype=torch.float64).item() if broken else mean, broken), least.indices.tolist()


def _largest_probability(values: Any, temperature: float, *, may_be_zero: bool) -> Any:
    import torch

    rows, classes = values.shape
    block = max(1, _BLOCK // classes)
    buffer = torch.empty(block, classes, dtype=values.dtype)
    sums, top, low = (torch.empty(rows, dtype=values.dtype) for _ in range(3))
    for first in range(0, rows, block):
        part = values[first : first + block]
        work, highest = buffer[: len(part)], top[first : first + block]
        torch.amax(part, 1, out=highest)
        torch.amin(part, 1, out=low[first : first + block])
        bounds = torch.aminmax(highest)
        if temperature == 1.0 and bounds.min.item() > -60.0 and bounds.max.item() < 60.0:
            torch.exp(part, out=work)  # numbers of this size need no shift by the row's maximum
            torch.sum(work, 1, out=sums[first : first + block])
            sums[first : first + block].div_(highest.exp())
        else:
            torch.sub(part, highest[:, None], out=work)
            work.div_(temperature).exp_()
            torch.sum(work, 1, out=sums[first : first + block])
    found = sums.reciprocal_()
    # minus infinity vanishes in exp(): a logit is broken by it, a probability is zero
    return found if may_be_zero else found.add_(low.sub_(low))


def _batch_of_array(array: Any, output: str, names: Names | None, temperature: float) -> list[Single]:
    import numpy as np

    if output != "logits" or array.shape[1] < 2:
        return [ROWS[output](row, names, temperature) for row in array.tolist()]
    rows = array.astype(np.float64) / temperature
    finite = np.isfinite(rows).all(1)
    with np.errstate(invalid="ignore"):
        rows = rows - rows.max(1, keepdims=True)
        weights = np.exp(rows)
        total = weights.sum(1)
        entropy = np.log(total) - (weights * rows).sum(1) / total
    index = np.argmax(rows, 1)
    weights[np.arange(len(rows)), index] = 0.0
    margin = (1.0 - weights.max(1)) / total
    return [
        Single(_label(names, each), each, 1.0 / sum_, lead, max(0.0, spread)) if fine else _BROKEN
        for each, sum_, lead, spread, fine in zip(
            index.tolist(), total.tolist(), margin.tolist(), entropy.tolist(), finite.tolist(), strict=True
        )
    ]


def _over_time(tensor: Any, output: str, temperature: float, lengths: Sequence[int] | None) -> list[Single]:
    import torch

    steps = tensor.detach().double()
    if steps.ndim == 2:
        steps = steps.unsqueeze(0)
    elif steps.ndim != 3:
        raise ValueError(f"output={output!r} needs (time, classes) or three axes, the component returned {tuple(tensor.shape)}")
    elif output == "ctc" and not (lengths is not None and steps.shape[0] == len(lengths) != steps.shape[1]):
        steps = steps.transpose(0, 1)
    batch, time = steps.shape[:2]
    real = torch.full((batch,), time) if lengths is None or len(lengths) != batch else torch.tensor(list(lengths)).clamp(0, time)
    within = (torch.arange(time) < real[:, None]).to(steps.device)
    bad = (~torch.isfinite(steps).all(2) & within).any(1)
    # log_softmax of log-probabilities is the same log-probabilities, so CTC takes either
    logs = torch.log_softmax(steps / temperature, 2)
    chances = logs.exp()
    top = chances.topk(min(2, chances.shape[2]), 2).values
    count = within.sum(1).clamp(min=1)

    def mean(values: Any) -> Any:
        return torch.where(within, values, 0.0).sum(1) / count

    confidence = mean(logs.amax(2)).exp() if output == "ctc" else mean(top[..., 0])
    margin = mean(top[..., 0] - top[..., 1]) if top.shape[2] > 1 else torch.full_like(confidence, math.nan)
    entropy = mean(torch.special.entr(chances).sum(2))
    found = torch.stack((confidence, margin, entropy, bad.double(), real.to(steps.device).double()), 1).tolist()
    return [
        (_BROKEN if broken else Single()) if broken or not length else Single(None, None, confidence, margin, entropy)
        for confidence, margin, entropy, broken, length in found
    ]

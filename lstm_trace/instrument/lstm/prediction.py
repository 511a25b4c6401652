"""Confidence, margin and entropy of what a component said, in double precision, from one read of its output."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp, isfinite, log
from operator import mul
from typing import Any, Final

from lstm_trace.facts import Prediction, Single
from lstm_trace.instrument.lstm import over_time
from lstm_trace.instrument.lstm.lengths import is_floating

Names = Mapping[int, str]

_BROKEN: Final = Single(nonfinite=True)
UNSHIFTED: Final = 300.0
"""Below this logit exp() needs no shift: neither it nor the sum over any row of ours leaves the range of a double."""
MOST: Final = 1.01
LEAST: Final = -0.01
"""What half precision may make of a probability of 1 or 0; numbers beyond are none."""
_SMALL: Final = 75
"""Below this many numbers, plain Python over ``tolist()`` beats every tensor operation."""


def read(
    tensor: Any, output: str, names: Names | None, temperature: float, lengths: Sequence[int] | None = None
) -> Sequence[Single | Prediction]:
    """Return one prediction a sequence.

    ``tensor`` is (classes,) or (batch, classes); for ``tagging`` (time, classes) or (batch, time, classes); for ``ctc`` (time, batch,
    classes) as ``nn.CTCLoss`` takes it. One column alone is the logit, or the probability, of the second of two classes; so is one number
    for each of several sequences (``squeeze(-1)``). For ``regression`` (batch,), or (batch, targets): the first speaks.
    Raises ValueError where the shape does not fit ``output``.
    """
    if output in ("tagging", "ctc"):
        return over_time.means(over_time.steps_of(tensor, output, temperature), output, lengths)
    tensor = tensor.detach() if hasattr(tensor, "detach") else tensor
    if output == "regression":
        return [_value(each) for each in _column(tensor, lengths)]
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


def of_reader(said: Any) -> list[Prediction]:
    """Return what a user's own ``prediction=`` made of an output: one prediction, several, or None.

    One whose confidence or value is NaN or infinity says so, and has no number. Raises ValueError where that is something else, or holds
    what is no index, no number or no probability.
    """
    if said is None:
        return []
    rows: list[Any] = [said] if isinstance(said, (Prediction, Single)) else list(said) if isinstance(said, Iterable) else [said]
    for place, each in enumerate(rows):
        if not isinstance(each, (Prediction, Single)):
            raise ValueError(f"prediction= returned {type(each).__name__}: accepted is a Prediction or a list of them")
        try:
            whole, chance = int(each.index or 0), float(each.confidence or 0.0)
            value, _ = float(each.value or 0.0), (float(each.margin or 0.0), float(each.entropy or 0.0))
        except (TypeError, ValueError, OverflowError):
            raise ValueError("prediction= returned a Prediction with what is no number") from None
        if not (isfinite(chance) and isfinite(value)):
            rows[place] = Prediction(each.label, each.index, nonfinite=True)
        elif whole < 0 or chance < LEAST or chance > MOST:
            raise ValueError(f"prediction= returned index {whole}, confidence {chance:g}: accepted are 0 or more, and 0 to 1")
    return rows


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
    if temperature != 1.0:
        row = [each / temperature for each in row]
    ordered = sorted(row)  # less than two searches for a largest
    top, second = ordered[-1], ordered[-2]
    index = row.index(top)
    try:
        if -UNSHIFTED < top < UNSHIFTED:
            weights, shift = list(map(exp, row)), 0.0
        else:
            weights, shift = [exp(each - top) for each in row], top
    except OverflowError:
        return _BROKEN  # nothing is larger than the largest, but NaN puts them in any order
    total = sum(weights)
    # -sum p log p with log p = x - shift - log total
    entropy = log(total) + shift - sum(map(mul, weights, row)) / total
    if not isfinite(entropy):
        return _BROKEN  # any number that is not finite makes it NaN
    largest = weights[index]
    # Single(…) without its constructor, which is Python
    return tuple.__new__(
        Single,
        (
            names.get(index) if names is not None else None,
            index,
            largest / total,
            (largest - exp(second - shift)) / total,
            entropy if entropy > 0.0 else 0.0,
            False,
        ),
    )


def of_log_probs(row: list[float], names: Names | None = None, temperature: float = 1.0) -> Single:
    """Read the log-probabilities of one sequence; minus infinity is the probability 0."""
    return of_probs([exp(each) if each <= 700.0 else _beyond(each) for each in row], names, temperature)


def _beyond(value: float) -> float:
    # finite, and no logarithm of a probability; NaN and infinity are what of_probs calls broken
    return 1e300 if value < math.inf else math.inf


def of_probs(row: list[float], names: Names | None = None, temperature: float = 1.0) -> Single:
    """Read the probabilities of one sequence. One number is the probability of the second of two classes. Numbers that are none have an
    index and no confidence.

    >>> of_probs([0.2, 0.5, 0.3]).index, round(of_probs([0.2, 0.5, 0.3]).margin, 12)
    (1, 0.2)
    """
    if not row or not math.isfinite(sum(row)):
        return _broken(row)
    if len(row) == 1:
        row = [1.0 - row[0], row[0]]
    top = max(row)
    if top > MOST or min(row) < LEAST:
        index = row.index(top)
        return Single(label_of(names, index), index)
    if temperature != 1.0:
        powers = [each ** (1.0 / temperature) if each > 0.0 else 0.0 for each in row]
        total = sum(powers)
        row = [each / total for each in powers] if total > 0.0 else row
        top = max(row)
    index = row.index(top)
    second = max(row[:index] + row[index + 1 :])
    entropy = -sum(each * math.log(each) for each in row if each > 0.0)
    return Single(label_of(names, index), index, top, top - second, entropy if entropy > 0.0 else 0.0)


def of_multilabel(row: list[float], names: Names | None = None, temperature: float = 1.0) -> Single:
    """Read independent logits, one a label: the likeliest label, its lead over the next, and the entropy of all labels together."""
    if not row or not math.isfinite(sum(row)):
        return _broken(row)
    chances = [_sigmoid(each / temperature) for each in row]
    index = row.index(max(row))
    top = chances[index]
    second = max(chances[:index] + chances[index + 1 :], default=None)
    entropy = -sum(part * math.log(part) for each in chances for part in (each, 1.0 - each) if part > 0.0)
    return Single(label_of(names, index), index, top, None if second is None else top - second, entropy)


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


def are_probabilities(tensor: Any) -> bool:
    """Tell whether the first rows of a (batch, classes) tensor add up to 1 each, as probabilities do and logits hardly ever."""
    if tensor.ndim not in (1, 2) or tensor.shape[-1] < 2:
        return False
    rows = tensor[:4].tolist() if tensor.ndim == 2 else [tensor.tolist()]
    return all(min(row) >= 0.0 and abs(sum(row) - 1.0) < 1e-2 for row in rows)


def label_of(names: Names | None, index: int) -> str | None:
    """Return the name of a class, where it has one."""
    return names.get(index) if names is not None else None


def _value(value: float) -> Prediction:
    return Prediction(value=float(value)) if math.isfinite(value) else Prediction(nonfinite=True)


def _column(tensor: Any, lengths: Sequence[int] | None) -> list[float]:
    # (batch, targets …), (batch,), () or, of one sequence, (targets,)
    if tensor.ndim == 0:
        return [tensor.item()]
    if tensor.ndim == 1 and not (lengths is not None and len(lengths) == 1 < tensor.shape[0]):
        return tensor.tolist()  # type: ignore[no-any-return]
    rows = tensor.reshape(tensor.shape[0] if tensor.ndim > 1 else 1, -1)
    return first_target(rows).tolist() if rows.shape[1] else []


def first_target(rows: Any) -> Any:
    """Return what speaks for each row of (batch, targets), on the tensor's own device: its first number, NaN where any is not finite."""
    if not is_floating(rows):
        return rows[:, 0]
    if not hasattr(rows, "detach"):
        import numpy as np

        return np.where(np.isfinite(rows).all(1), rows[:, 0], math.nan)
    import torch

    return torch.where(torch.isfinite(rows).all(1), rows[:, 0], math.nan)


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
    """Return index, confidence, margin, entropy and brokenness of each row as a (rows, 5) tensor on the tensor's own device.

    Where a row holds no probabilities although that was declared, its confidence is 2.
    """
    import torch

    rows = tensor.detach()
    if output == "logits":
        logs = torch.log_softmax(rows if temperature == 1.0 else rows.double() / temperature, 1, dtype=torch.float64)
        chances = logs.exp()
        entropy = -torch.linalg.vecdot(chances, logs)
        bad = ~torch.isfinite(entropy)  # any number that is not finite makes it NaN
        top = chances.topk(2, 1)
        return _reduced(top.values, top.indices, entropy, bad)
    rows = rows.double()
    finite = torch.isfinite(rows)
    bad = ~(finite | (rows == -math.inf)).all(1) if output == "log_probs" else ~finite.all(1)
    if output == "multilabel":
        chances = torch.sigmoid(rows / temperature)
        entropy = (torch.special.entr(chances) + torch.special.entr(1.0 - chances)).sum(1)
        order = rows.topk(2, 1).indices  # several chances may be 1, and only one logit the largest
        return _reduced(chances.gather(1, order), order, entropy, bad)
    none = (rows < LEAST).any(1) | (rows > MOST).any(1) if output == "probs" else (rows > math.log(MOST)).any(1)
    if output == "probs":
        rows = rows.clamp(min=0.0).log()
    if temperature != 1.0:
        rows = torch.log_softmax(rows / temperature, 1)
        rows = torch.where(torch.isnan(rows), -math.inf, rows)  # of probabilities that are all zero
    chances = rows.exp()
    # torch.special.entr is ten times as slow; a probability of zero has a logarithm that must not make it NaN
    entropy = -(chances * rows.clamp(min=-1e4)).sum(1)
    top = chances.topk(2, 1)
    return _reduced(top.values.masked_fill(none.unsqueeze(1), 2.0), top.indices, entropy, bad)


def _reduced(values: Any, indices: Any, entropy: Any, bad: Any) -> Any:
    import torch

    first, second = values.unbind(1)
    return torch.stack((indices[:, 0], first, first - second, entropy, bad), 1)


def rows_of(reduced: Any, names: Names | None) -> list[Single]:
    """Return the predictions of what ``reduce`` made, once it is on the CPU."""
    return [
        _BROKEN
        if broken
        else Single(label_of(names, int(index)), int(index), confidence, margin, entropy if entropy > 0.0 else 0.0)
        if confidence <= MOST
        else Single(label_of(names, int(index)), int(index))
        for index, confidence, margin, entropy, broken in reduced.tolist()
    ]


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
        Single(label_of(names, each), each, 1.0 / sum_, lead, max(0.0, spread)) if fine else _BROKEN
        for each, sum_, lead, spread, fine in zip(
            index.tolist(), total.tolist(), margin.tolist(), entropy.tolist(), finite.tolist(), strict=True
        )
    ]

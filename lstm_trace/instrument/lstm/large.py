"""Large batches: every row is read for its confidence, in one pass, and only the least confident rows for the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import exp, isfinite, log
from typing import Any, Final, NamedTuple

from lstm_trace.facts import Prediction, Single, Summary
from lstm_trace.instrument.lstm import prediction
from lstm_trace.instrument.lstm.prediction import Names

_LARGE: Final = 1 << 15
"""Numbers above which a batch is large."""
_BLOCK: Final = 1 << 17
"""Numbers of a block: 512 KiB in float32, so that it and what is made of it stay in a core's own cache."""
_KEPT_BLOCKS: Final = 64
"""Blocks of a batch at most whose bench is kept for the next batch of that shape; its rows must have room in one block as well."""
_ADDED: Final = 4096
"""Numbers of a row at most that one matrix product adds to within 1e-6."""
_DETAILED: Final = 8
"""Rows of which every number is read: the least confident."""


class Many(NamedTuple):
    """A large batch: its least confident rows, where they stand, and what holds for all."""

    least: Sequence[Single | Prediction]
    rows: Sequence[int]
    summary: Summary


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


def read(tensor: Any, output: str, names: Names | None, temperature: float, at_most: int) -> Many:
    """Return lowest and mean confidence over all rows of a (batch, classes) tensor on the CPU, and ``at_most`` of the least confident.

    Confidences are computed in the tensor's own precision (float32 at least), within 1e-6 of double precision. A quotient of large logits
    is not exact enough in float32: with a temperature they are read in double precision.
    """
    import torch

    values = tensor.detach()
    if values.element_size() < 4 or temperature != 1.0:
        values = values.float() if temperature == 1.0 else values.double()
    none = None
    if output == "logits":
        found = _of_logits(values, temperature)
    else:
        found, none = _declared(values, output, temperature)
    total, count = found.sum().item(), len(found)
    broken, outside = not isfinite(total), none is not None and bool(none.any())
    if broken or outside:
        sound = torch.isfinite(found)
        broken = not bool(sound.all())
        if none is not None:
            sound &= ~none
        count = int(sound.sum())
        if not count:
            return Many((), (), Summary(None, None, broken, outside))
        total, found = found[sound].sum().item(), torch.where(sound, found, 2.0)
    lowest, least = found.topk(min(max(1, at_most), _DETAILED, count), largest=False)
    rows: list[int] = least.tolist()
    summary = Summary(lowest.tolist()[0], total / count, broken, outside)
    if not at_most:
        return Many((), (), summary)
    chosen = values.index_select(0, least)
    said = _detailed(chosen, names, temperature) if output == "logits" else prediction.read(chosen, output, names, temperature)
    return Many(said, rows, summary)


def many_of(reduced: Any, names: Names | None, at_most: int) -> Many:
    """Return what ``prediction.reduce`` made of a large batch as ``read`` would say it, once it is on the CPU."""
    confidence, is_broken = reduced[:, 1], reduced[:, 4] != 0
    none = (confidence > prediction.MOST) & ~is_broken
    outside = bool(none.any())
    sound = confidence[~(is_broken | none)]
    if not len(sound):
        return Many((), (), Summary(None, None, bool(is_broken.any()), outside))
    filled = confidence.masked_fill(is_broken | none, 2.0)
    least = filled.topk(min(_DETAILED, at_most, len(sound)), largest=False).indices
    summary = Summary(sound.min().item(), sound.mean().item(), bool(is_broken.any()), outside)
    return Many(prediction.rows_of(reduced[least], names), least.tolist(), summary)


def _declared(values: Any, output: str, temperature: float) -> tuple[Any, Any]:
    """Return the largest of each row of probabilities, or their logarithms, and which rows hold none; a broken row has a number that is
    not finite, and one of nothing but zeros the confidence 0.
    """
    import torch

    low, top = values.amin(1), values.amax(1)  # torch.aminmax is ten times as slow
    if output == "probs":
        found, none, least = top + (low - low), ((low < prediction.LEAST) | (top > prediction.MOST)) & (low > -math.inf), 0.0
    else:
        found, none, least = top.exp() + torch.where(torch.isnan(low), low, 0.0), top > math.log(prediction.MOST), -math.inf
    none &= top < math.inf
    if temperature != 1.0:
        cooled = _shifted(values.clamp(min=0.0).log() + (low - low)[:, None] if output == "probs" else values, temperature)
        found = torch.where(top <= least, found, cooled)
    return torch.where(none, 2.0, found), none


def _of_logits(values: Any, temperature: float) -> Any:
    """Return max(exp(x)) / sum(exp(x)) of each row, NaN where a logit is not finite: no softmax is written down, no logarithm taken."""
    import torch

    key = (values.shape[0], values.shape[1], values.dtype)
    bench = _benches.pop(key, None) or _Bench(*key)
    for part, (work, bits, tops, sums, least) in zip(values.split(bench.step), bench.blocks, strict=True):
        if temperature == 1.0:
            torch.exp(part, out=work)
        else:
            torch.div(part, temperature, out=work).exp_()
        torch.amax(bits, 1, out=tops)
        torch.amin(bits, 1, out=least)
        if bench.ones is not None:
            torch.mv(work, bench.ones, out=sums)
        else:
            torch.sum(work, 1, out=sums)
    bench.tops.div_(bench.sums)
    lowest, smallest, zero = bench.rows.amin(1).tolist()
    found = bench.tops.clone()
    if len(bench.blocks) <= _KEPT_BLOCKS and bench.rows.numel() <= _BLOCK:
        _benches.clear()
        _benches[key] = bench
    # The first is 0 where a sum overflowed, and NaN where any number is one; a sum below the second is not exact. exp() makes 0 of minus
    # infinity, and of what is merely very small: then the plain sum tells.
    if lowest > 0.0 and smallest > 1e-20 and (zero > 0.0 or isfinite(values.sum().item())):
        return found
    return torch.where(torch.isfinite(values).all(1), _shifted(values, temperature), math.nan)


def _shifted(values: Any, temperature: float) -> Any:
    """Return the same for numbers of any size, minus infinity being a probability of zero: each row is shifted by its largest."""
    import torch

    return torch.softmax(values / temperature, 1).amax(1)


def _detailed(rows: Any, names: Names | None, temperature: float) -> list[Single]:
    """Read a few rows of finite logits, in double precision: ``prediction.of_logits`` with the sums over a row made by torch."""
    import torch

    rows = rows.double() if temperature == 1.0 else rows.double() / temperature
    top = rows.topk(2, 1)
    pairs = top.values.tolist()
    if not all(-prediction.UNSHIFTED < first < prediction.UNSHIFTED for first, _ in pairs):
        rows, pairs = rows - top.values[:, :1], [(0.0, second - first) for first, second in pairs]
    weights = rows.exp()
    totals, weighted = weights.sum(1).tolist(), torch.linalg.vecdot(weights, rows).tolist()
    return [
        Single(
            prediction.label_of(names, index),
            index,
            exp(first) / total,
            (exp(first) - exp(second)) / total,
            max(0.0, log(total) - dot / total),
        )
        for (first, second), (index, _), total, dot in zip(pairs, top.indices.tolist(), totals, weighted, strict=True)
    ]


class _Bench:
    """Where batches of one shape are read: a block's worth of exponentials, three numbers a row, and these cut into blocks once."""

    __slots__ = ("blocks", "ones", "rows", "step", "sums", "tops")

    def __init__(self, rows: int, classes: int, dtype: Any) -> None:
        import torch

        whole = torch.int64 if dtype == torch.float64 else torch.int32
        self.step = step = max(1, _BLOCK // classes)
        with torch.inference_mode(mode=False):  # else nothing outside of inference mode could write into it
            work = torch.empty(min(step, rows), classes, dtype=dtype, device="cpu")  # whatever the caller's default device is
            self.rows = torch.empty(3, rows, dtype=dtype, device="cpu")
            self.ones = torch.ones(classes, dtype=dtype, device="cpu") if classes <= _ADDED else None
            self.tops, self.sums, least = self.rows
            self.blocks: list[Sequence[Any]] = []
            for tops, sums, low in zip(self.tops.split(step), self.sums.split(step), least.split(step), strict=True):
                part = work[: len(tops)]
                # as whole numbers exponentials have the same order, and nobody looks for NaN among them: the sum shows it
                self.blocks.append((part, part.view(whole), tops.view(whole), sums, low.view(whole)))


_benches: dict[tuple[int, int, Any], _Bench] = {}
"""The bench that was used last, unless somebody works at it: page by page from the system, it would cost as much as a pass over it."""

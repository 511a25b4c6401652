"""Read the true length of each sequence from what the user passed."""

from __future__ import annotations

import sys
from typing import Any, Final

from lstm_trace.facts import SequenceFacts

LENGTH_NAMES: Final = frozenset(
    {
        "input_lengths",
        "length",
        "lengths",
        "lens",
        "seq_len",
        "seq_lengths",
        "seq_lens",
        "sequence_lengths",
        "src_lengths",
        "x_lengths",
        "x_lens",
    }
)
MASK_NAMES: Final = frozenset({"mask", "attention_mask", "seq_mask", "sequence_mask", "src_mask"})
PAD_MASK_NAMES: Final = frozenset({"padding_mask", "pad_mask", "key_padding_mask", "src_key_padding_mask"})


def is_packed(value: Any) -> bool:
    """Tell a PackedSequence without importing torch.

    >>> is_packed((1, 2))
    False
    """
    return isinstance(value, tuple) and hasattr(value, "batch_sizes") and hasattr(value, "unsorted_indices")


def is_tensor(value: Any) -> bool:
    """Tell a tensor (or array) that has a shape and can be read."""
    # A mapping that answers every attribute with something (addict, easydict) has no number of axes; a nested tensor has no shape to ask.
    if not isinstance(getattr(value, "ndim", None), int) or getattr(value, "is_nested", False):
        return False
    return hasattr(value, "shape") and hasattr(value, "tolist")


def has_values(value: Any) -> bool:
    """Tell whether the numbers of a tensor can be read: not on the meta device, of a fake or a sparse tensor, or inside ``torch.func``.

    In a ``FakeTensorMode`` nothing can, not even of a tensor that has them.
    """
    if getattr(value, "is_meta", False) or type(value).__name__ == "FakeTensor":
        return False
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return True
    if torch._C._len_torch_dispatch_stack() and torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
        return False
    return value.layout is torch.strided and not torch._C._functorch.is_functorch_wrapped_tensor(value)


def from_packed(packed: Any) -> list[int]:
    """Return the lengths of a PackedSequence in the user's own order. ``batch_sizes`` is always on the CPU."""
    sizes: list[int] = packed.batch_sizes.tolist()
    if not sizes:
        return []
    lengths = [0] * sizes[0]
    # batch_sizes falls: rows alive[t+1] … alive[t] end after step t
    alive = sizes[0]
    for step, size in enumerate(sizes):
        while alive > size:
            alive -= 1
            lengths[alive] = step
    for row in range(alive):
        lengths[row] = len(sizes)
    order = packed.unsorted_indices
    return lengths if order is None else [lengths[row] for row in order.tolist()]


def from_lengths(value: Any) -> list[int] | None:
    """Return the lengths that the user passed: a tensor, an array, a list of whole numbers, or one. None for anything else: numbers
    below 0, True and False, and shares of the longest sequence (0 to 1), as some speech toolkits have them.

    >>> from_lengths([3, 2]), from_lengths(5), from_lengths("many"), from_lengths([1.0, 0.5]), from_lengths([True, False])
    ([3, 2], [5], None, None, None)
    """
    if is_tensor(value) and not has_values(value):
        return None
    found: Any = value.tolist() if is_tensor(value) else value
    if isinstance(found, (int, float)):
        found = [found]
    if not isinstance(found, (list, tuple, range)):
        return None
    rows: list[Any] | None = list(found)
    if rows and all(type(each) is list and len(each) == 1 for each in rows):
        rows = [each[0] for each in rows]
    if rows and set(map(type, rows)) != _WHOLE:
        rows = _as_whole(rows)
    if rows is None or (rows and not 0 <= min(rows) <= max(rows) < _TOO_LONG):
        return None
    return rows


_WHOLE: Final = {int}
_TOO_LONG: Final = 1 << 63
"""No attribute has room for it."""


def _as_whole(rows: list[Any]) -> list[int] | None:
    try:
        plain = [each.item() if hasattr(each, "item") else each for each in rows]
        if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in plain):
            return None
        counts = [int(each) for each in plain]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None  # NaN, infinity, more than one number
    return None if any(type(each) is float for each in plain) and (counts != plain or max(counts) <= 1) else counts


def rows_of_mask(mask: Any) -> Any:
    """Return a mask of (batch, 1, 1, time), as it is added to the scores of several heads, as (batch, time); lists as an array."""
    mask = _as_array(mask)
    while is_tensor(mask) and mask.ndim > 2 and mask.shape[1] == 1 != mask.shape[-1]:
        mask = mask[:, 0]
    return mask


def _as_array(mask: Any) -> Any:
    torch: Any = sys.modules.get("torch")
    if not isinstance(mask, list) or not mask or torch is None:
        return mask
    try:
        return torch.tensor(mask, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        return None  # rows of several lengths, or no numbers


def from_mask(mask: Any, *, batch_first: bool = True, inverted: bool = False) -> list[int] | None:
    """Return how many steps of each row are real. ``mask``: (batch, time), or (time, batch) with ``batch_first=False``, or (time,).

    Real is True, or anything but 0; ``inverted`` for a padding mask (``src_key_padding_mask``), where True marks padding. A mask with
    numbers below 0 is one that is added to scores: 0 is real there, and padding far below.
    """
    if not is_tensor(mask) or not has_values(mask):
        return None
    real = mask == 0 if inverted or _is_added(mask) else mask != 0
    if real.ndim == 1:
        return [int(real.sum())]
    if real.ndim == 3 and real.shape[-1] == 1:
        real = real[..., 0]
    if real.ndim != 2:
        return None
    return [int(each) for each in real.sum(1 if batch_first else 0).tolist()]


def _is_added(mask: Any) -> bool:
    return is_floating(mask) and bool((mask < 0).any())


def is_floating(value: Any) -> bool:
    """Tell whether a tensor or array holds numbers of floating point."""
    is_floating_point = getattr(value, "is_floating_point", None)
    return bool(is_floating_point()) if is_floating_point is not None else getattr(value.dtype, "kind", "f") == "f"


def from_padding(ids: Any, padding_idx: int, *, batch_first: bool = True) -> list[int] | None:
    """Return the length of each row up to its last id that is not ``padding_idx``: pads inside a sequence count as steps.

    ``ids``: (batch, time), or (time, batch) with ``batch_first=False``, or (time,).
    """
    if not is_tensor(ids) or ids.ndim not in (1, 2) or not has_values(ids):
        return None
    if ids.ndim == 1:
        return [_trailing(ids.tolist(), padding_idx)]
    rows = ids if batch_first else ids.T
    if rows.shape[0] * rows.shape[1] <= 256:
        return [_trailing(row, padding_idx) for row in rows.tolist()]
    import torch

    steps = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    return ((rows != padding_idx) * steps).amax(1).tolist() if rows.shape[1] else [0] * rows.shape[0]


def is_padded_in_front(ids: Any, padding_idx: int, *, batch_first: bool = True) -> bool:
    """Tell whether some row begins with padding and none ends with it: the padding stands in front, or it is no padding.

    >>> import torch
    >>> is_padded_in_front(torch.tensor([[0, 7, 8], [4, 5, 6]]), 0), is_padded_in_front(torch.tensor([[0, 7, 8], [4, 5, 0]]), 0)
    (True, False)
    """
    rows = ids if batch_first or ids.ndim == 1 else ids.T
    if 0 in rows.shape:
        return False
    return bool((rows[..., 0] == padding_idx).any()) and not bool((rows[..., -1] == padding_idx).any())


def _trailing(row: list[int], padding_idx: int) -> int:
    length = len(row)
    while length and row[length - 1] == padding_idx:
        length -= 1
    return length


def from_shape(shape: tuple[int, ...], *, batch_first: bool, features: bool) -> SequenceFacts:
    """Return the padded length for every row: all that a shape can say, and its source says so.

    ``features``: the last axis holds features, (batch, time, feature); else (batch, time) holds ids. One axis less is one sequence.

    >>> from_shape((2, 5, 8), batch_first=True, features=True).lengths
    (5, 5)
    """
    axes = shape[:-1] if features else shape
    if len(axes) == 0:
        return SequenceFacts((1,), "shape", 1)
    if len(axes) == 1:
        return SequenceFacts((int(axes[0]),), "shape", int(axes[0]))
    batch, time = (axes[0], axes[1]) if batch_first else (axes[1], axes[0])
    return SequenceFacts((int(time),) * int(batch), "shape", int(time))

"""Tagging and CTC: what was said at each step, and its mean over the true steps of each sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from lstm_trace.facts import Single

_BROKEN: Final = Single(nonfinite=True)


def steps_of(tensor: Any, output: str, temperature: float) -> Any:
    """Return what was said at each step, on the tensor's own device: largest probability, margin, entropy, and whether it is broken.

    ``tensor``: (time, classes), (batch, time, classes) or (time, batch, classes); the last axis becomes those four. For ``ctc`` the first
    is the logarithm of the probability. Raises ValueError for another number of axes.
    """
    import torch

    if not 2 <= tensor.ndim <= 3:
        raise ValueError(f"output={output!r} needs (time, classes) or three axes, the component returned {tuple(tensor.shape)}")
    steps = tensor.detach().double()
    bad = ~torch.isfinite(steps).all(-1)
    # log_softmax of log-probabilities is the same log-probabilities, so CTC takes either
    logs = torch.log_softmax(steps / temperature, -1)
    chances = logs.exp()
    top = chances.topk(min(2, chances.shape[-1]), -1).values
    largest = logs.amax(-1) if output == "ctc" else top[..., 0]
    margin = top[..., 0] - top[..., 1] if top.shape[-1] > 1 else torch.full_like(largest, math.nan)
    entropy = torch.special.entr(chances).sum(-1)
    return torch.stack((largest, margin, entropy, bad.double()), -1)


def means(steps: Any, output: str, lengths: Sequence[int] | None) -> list[Single]:
    """Return one prediction a sequence from what ``steps_of`` found, in the tensor's layout, once it is on the CPU."""
    import torch

    if steps.ndim == 2:
        steps = steps.unsqueeze(0)
    elif output == "ctc" and not (lengths is not None and steps.shape[0] == len(lengths) != steps.shape[1]):
        steps = steps.transpose(0, 1)
    batch, time = steps.shape[:2]
    each = list(lengths) if lengths is not None and len(lengths) == batch else [time] * batch
    real = torch.tensor(each, device="cpu").clamp(0, time)
    within = torch.arange(time, device="cpu") < real[:, None]
    bad = ((steps[..., 3] != 0) & within).any(1).tolist()
    means = (torch.where(within[..., None], steps[..., :3], 0.0).sum(1) / real.clamp(min=1)[:, None]).tolist()
    found: list[Single] = []
    for broken, length, (largest, margin, entropy) in zip(bad, real.tolist(), means, strict=True):
        if broken or not length:
            found.append(_BROKEN if broken else Single())
            continue
        confidence = math.exp(largest) if output == "ctc" else largest
        found.append(Single(None, None, confidence, None if margin != margin else margin, entropy))
    return found

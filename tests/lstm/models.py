"""Sequence models as people write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence


class Intent(nn.Module):
    """Embedding, recurrent layer, head; lengths optional."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, classes: int = 3, **layer: Any) -> None:
        super().__init__()
        layer = {"batch_first": True, **layer}
        self.embedding = nn.Embedding(20, 6)
        self.layer = kind(6, 8, **layer)
        width = layer.get("proj_size") or 8
        self.head = nn.Linear(width * (2 if layer.get("bidirectional") else 1), classes)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        embedded = self.embedding(ids)
        if lengths is not None:
            embedded = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
            hidden = self.layer(embedded)[1]
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            return self.head(torch.cat(list(hidden[-2:]), -1) if self.layer.bidirectional else hidden[-1])
        out = self.layer(embedded)[0]
        last = out[:, -1] if self.layer.batch_first and out.ndim == 3 else out[-1]
        return self.head(last)


class Padded(nn.Module):
    """Says with its embedding which id is padding, and packs nothing."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6, padding_idx=0)
        self.layer = nn.GRU(6, 8, batch_first=batch_first)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embedding(ids))[1][-1])


class PacksInside(nn.Module):
    """Finds the lengths itself and packs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.layer = nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        lengths = (ids != 0).sum(1)
        packed = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.layer(packed)[1][0][-1])


class Masked(nn.Module):
    """Takes a mask and multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        out = self.layer(x)[0] * attention_mask.unsqueeze(-1)
        return self.head(out.sum(1))


class CellLoop(nn.Module):
    """Steps a cell itself."""

    def __init__(self, kind: type[nn.RNNCellBase] = nn.LSTMCell) -> None:
        super().__init__()
        self.cell = kind(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state: Any = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


@dataclass
class Answer:
    loss: torch.Tensor | None
    logits: torch.Tensor


class Wrapped(nn.Module):
    """Returns its logits inside something."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.inner = Intent()
        self.shape = shape

    def forward(self, ids: torch.Tensor) -> Any:
        logits = self.inner(ids)
        loss = logits.sum()
        return {
            "tuple": (logits, torch.zeros(2, 2)),
            "loss first": (loss, logits),
            "dict": {"loss": loss, "logits": logits},
            "dict without a known name": {"intent": logits},
            "dataclass": Answer(loss, logits),
            "dataclass without loss": Answer(None, logits),
        }[self.shape]


class Keeps(nn.Module):
    """Keeps its state between calls, whoever calls."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.layer = kind(4, 8, batch_first=True)
        self.head = nn.Linear(8, 3)
        self.state: Any = None

    def forward(self, x: torch.Tensor, session: str | None = None) -> torch.Tensor:
        out, state = self.layer(x, self.state)
        self.state = tuple(each.detach() for each in state) if isinstance(state, tuple) else state.detach()
        return self.head(out[:, -1])


class Given(nn.Module):
    """Is given its state and hands the next one back."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.layer = kind(4, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, state: Any = None, session: Any = None) -> tuple[torch.Tensor, Any]:
        out, state = self.layer(x, state)
        return self.head(out[:, -1]), state

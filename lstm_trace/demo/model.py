"""The intent classifier: embedding, LSTM, head; trained here in seconds on generated sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from lstm_trace.demo.sessions import EVENTS, INTENTS, WINDOW, Session

_INDEX = {event: index for index, event in enumerate(EVENTS)}


class IntentClassifier(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy here
    """Read windows of events, give logits of shape (batch, intents).

    ``keep`` is its preprocessing: only the last ``keep`` events of a window reach the LSTM.
    """

    def __init__(self, keep: int = WINDOW, hidden: int = 48) -> None:
        super().__init__()
        self.keep = keep
        self.embed = nn.Embedding(len(EVENTS), 24)
        self.lstm = nn.LSTM(24, hidden, batch_first=True)
        self.head = nn.Linear(hidden, len(INTENTS))

    def forward(self, windows: Sequence[Sequence[str]]) -> Tensor:
        rows = [torch.tensor([_INDEX[event] for event in window[-self.keep :]]) for window in windows]
        lengths = torch.tensor([len(row) for row in rows])
        packed = pack_padded_sequence(self.embed(pad_sequence(rows, batch_first=True)), lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)
        return self.head(hidden[-1])


def train(
    sessions: Sequence[Session], *, epochs: int = 5, batch: int = 64, seed: int = 7, on_step: Callable[[], None] = lambda: None
) -> IntentClassifier:
    """Train on whole windows; ``on_step`` is called after each of the ``steps(...)`` optimiser steps. Equal seeds train equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = IntentClassifier()
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.01, total_steps=steps(len(sessions), epochs, batch))
        for _ in range(epochs):
            for chosen in torch.randperm(len(sessions)).split(batch):
                rows = [sessions[index] for index in chosen.tolist()]
                loss = nn.functional.cross_entropy(
                    model([row.window for row in rows]), torch.tensor([INTENTS.index(row.intent) for row in rows])
                )
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                on_step()
    model.eval()
    return model


def steps(sessions: int, epochs: int = 5, batch: int = 64) -> int:
    """Count the optimiser steps of ``train``."""
    return epochs * -(-sessions // batch)


def load(weights: Path, *, keep: int) -> IntentClassifier:
    """Load trained weights behind a preprocessing that keeps the last ``keep`` events."""
    model = IntentClassifier(keep)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    return model


def predict(model: IntentClassifier, sessions: Iterable[Session]) -> list[tuple[str, float]]:
    """Give (intent, confidence 0 to 1) for each session."""
    with torch.inference_mode():
        confidence, index = model([session.window for session in sessions]).softmax(-1).max(-1)
    return [(INTENTS[i], c) for i, c in zip(index.tolist(), confidence.tolist(), strict=True)]

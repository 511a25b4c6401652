"""The classifier of the demo, trained once for every test of this room."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    from lstm_trace.demo.model import train
    from lstm_trace.demo.run import TRAINING
    from lstm_trace.demo.sessions import make_sessions

    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("demo") / "intent.pt"
    torch.save(train(make_sessions(TRAINING, seed=1)).state_dict(), path)
    return path

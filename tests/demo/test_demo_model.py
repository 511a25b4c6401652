"""The classifier learns the sessions, and cutting its window hurts the long ones only."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from lstm_trace.demo.model import IntentClassifier, load, predict, steps, train  # noqa: E402
from lstm_trace.demo.sessions import INTENTS, make_sessions  # noqa: E402

HELD_OUT = make_sessions(2000, seed=11)


def _by_length(weights: Path, keep: int, low: int, high: int) -> tuple[float, float]:
    """Accuracy and mean confidence of the sessions of ``low`` to ``high`` events."""
    chosen = [session for session in HELD_OUT if low <= len(session.window) <= high]
    said = predict(load(weights, keep=keep), chosen)
    right = [intent == session.intent for session, (intent, _) in zip(chosen, said, strict=True)]
    return sum(right) / len(right), sum(confidence for _, confidence in said) / len(said)


@pytest.mark.parametrize(("low", "high"), [(1, 4), (5, 8), (9, 12), (13, 20)])
def test_the_whole_window_is_read_well_at_every_length(weights, low, high):
    accuracy, confidence = _by_length(weights, 20, low, high)
    assert accuracy > 0.9
    assert confidence > 0.9


@pytest.mark.parametrize(("low", "high"), [(1, 4), (5, 8), (9, 12)])
def test_the_last_eight_events_are_enough_up_to_twelve(weights, low, high):
    assert abs(_by_length(weights, 8, low, high)[0] - _by_length(weights, 20, low, high)[0]) < 0.02


def test_beyond_twelve_events_the_cut_costs_accuracy_and_confidence(weights):
    (whole, sure), (cut, unsure) = _by_length(weights, 20, 13, 20), _by_length(weights, 8, 13, 20)
    assert whole - cut > 0.3
    assert sure - unsure > 0.15


def test_a_session_is_read_alike_alone_and_in_a_batch(weights):
    model = load(weights, keep=20)
    alone = predict(model, HELD_OUT[:1])[0]
    among = predict(model, HELD_OUT[:32])[0]
    assert among[0] == alone[0]
    assert among[1] == pytest.approx(alone[1], abs=1e-5)


def test_equal_seeds_train_equal_weights_and_leave_torchs_random_state_alone():
    sessions = make_sessions(64, seed=2)
    before = torch.get_rng_state()
    first, second = (train(sessions, epochs=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_progress_is_told_once_a_step():
    told: list[int] = []
    train(make_sessions(100, seed=2), epochs=2, batch=32, on_step=lambda: told.append(1))
    assert len(told) == steps(100, epochs=2, batch=32) == 8


def test_logits_have_one_column_an_intent():
    assert IntentClassifier()([("login",), ("login", "on_hold")]).shape == (2, len(INTENTS))

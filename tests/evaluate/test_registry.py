"""Evaluators by name: ours, one of the user's, and every way in which a name can lead nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from lstm_trace.errors import BadInput
from lstm_trace.evaluate import EvaluationResult, Evaluator, Groundedness, available, evaluator_named
from tests.evaluate.scripted import ScriptedChatModel


class Mine:
    name = "mine"

    def evaluate(self, **_: Any) -> EvaluationResult:
        return EvaluationResult(1.0)


class NeedsMore(Mine):
    def __init__(self, threshold: float) -> None:
        self.threshold = threshold


class Elsewhere(Mine):
    subject = "weather"


NAMELESS = object()
READY = Mine()


@pytest.mark.parametrize("name", ["Mine", "READY"])
def test_one_of_the_users_own_is_found(name: str) -> None:
    found = evaluator_named(f"python:tests.evaluate.test_registry:{name}")
    assert isinstance(found, Evaluator)
    assert found.evaluate().score == 1.0


def test_options_reach_those_that_take_them() -> None:
    judge = ScriptedChatModel()
    grounded: Any = evaluator_named("groundedness", judge=judge, embeddings=None)
    assert isinstance(grounded, Groundedness)
    assert grounded.judge is judge
    assert evaluator_named("branch_match", judge=judge).name == "branch_match"


def test_every_one_of_ours_can_be_made() -> None:
    for name in available():
        assert isinstance(evaluator_named(name), Evaluator)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("groundednes", "evaluator 'groundednes': accepted are answer_correctness, branch_match, context_relevance"),
        ("python:nowhere:Mine", "No module named 'nowhere'"),
        ("python:tests.evaluate.test_registry:Yours", "has no attribute 'Yours'"),
        ("python:tests.evaluate.test_registry", "accepted is python:pkg.mod:name"),
        ("python:tests.evaluate.test_registry:NAMELESS", "object has no name or no evaluate()"),
        ("python:tests.evaluate.test_registry:NeedsMore", "missing 1 required positional argument: 'threshold'"),
        ("python:tests.evaluate.test_registry:Elsewhere", "its subject is 'weather'; accepted are prediction, branch, retrieval, answer"),
    ],
)
def test_a_name_that_leads_nowhere_says_so_in_one_line(name: str, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        evaluator_named(name)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)

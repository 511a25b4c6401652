"""Labels, numbers and structures against gold; branches against the expected one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from pydantic import BaseModel

from lstm_trace.evaluate import BranchMatch, EvaluationResult, GroundTruthMatch


def test_the_published_call_works_with_only_the_import_changed(capsys: pytest.CaptureFixture[str]) -> None:
    predicted_intent, gold_intent = "claim_status", "claim_status"
    evaluator = GroundTruthMatch()
    result = evaluator.evaluate(response=predicted_intent, expected_response=gold_intent)
    print(result.score)
    assert capsys.readouterr().out == "1.0\n"


class Intent(Enum):
    REFUND = "refund"


class Ticket(BaseModel):
    intent: Intent
    amount: float


@dataclass
class Amount:
    value: float


CASES: list[tuple[dict[str, Any], Any, Any, bool]] = [
    ({}, "refund", "refund", True),
    ({}, " Refund.\n", "refund", True),
    ({}, "ＲＥＦＵＮＤ", "refund", True),
    ({}, "Straße", "STRASSE", True),
    ({}, "book  a\trepair", "Book a repair", True),
    ({}, "book_repair", "book repair", False),
    ({}, "cancel", "refund", False),
    ({}, "", "refund", False),
    ({}, "?", "!", False),
    ({}, True, True, True),
    ({}, 1, True, False),
    ({}, np.str_("refund"), "refund", True),
    ({}, np.int64(3), 3, True),
    ({}, np.bool_(True), True, True),
    ({}, "12.0", 12, True),
    ({}, "12.01", 12, False),
    ({}, "1,200", 1200, False),
    ({}, "about 12", 12, False),
    ({}, float("nan"), 12, False),
    ({}, 9007199254740993, 9007199254740992, False),
    ({"tolerance": 0.5}, "12.5", 12, True),
    ({"tolerance": 0.5}, 12.51, 12, False),
    ({"relative": 0.01}, 101, 100, True),
    ({"relative": 0.01}, 102, 100, False),
    ({"relative": 0.01}, 0.001, 0, False),
    ({"match": "exact"}, "Refund", "refund", False),
    ({"match": "exact"}, "1", 1, False),
    ({"match": "normalised"}, 12, "12", True),
    ({"match": "numeric"}, "3e2", "300", True),
    ({}, '{"b": 2, "a": 1}', {"a": 1, "b": 2}, True),
    ({}, '```json\n{"a": 1}\n```', {"a": 1}, True),
    ({}, '{"a": 1, "c": 3}', {"a": 1}, False),
    ({}, '{"a": null}', {"a": None}, True),
    ({}, '{"a": "1"}', {"a": 1}, False),
    ({}, '{"a": true}', {"a": 1}, False),
    ({}, "[1, 2]", [2, 1], False),
    ({}, "[1, 2", [1, 2], False),
    ({"tolerance": 0.1}, {"a": [1.05, "x"]}, {"a": [1, "x"]}, True),
    ({"match": "json"}, '{"a": 1}', '{"a": 1.0}', True),
    ({"match": "json"}, '"refund"', '"Refund"', False),
    ({}, Intent.REFUND, "refund", True),
    ({}, "cancel", Intent.REFUND, False),
    ({}, AIMessage("Refund."), "refund", True),
    ({}, Ticket(intent=Intent.REFUND, amount=10), {"intent": "refund", "amount": 10}, True),
    ({}, Ticket(intent=Intent.REFUND, amount=10), {"intent": "refund", "amount": 11}, False),
    ({}, [Amount(1.0)], [{"value": 1}], True),
    ({}, np.array([1.0, 2.0]), [1, 2], True),
    ({}, [1, 3], np.array([1, 2]), False),
    ({}, {1: "a"}, '{"1": "a"}', False),
    ({"match": "json"}, {1: "a"}, '{"1": "a"}', True),
    ({}, "True", True, True),
    ({}, "false", True, False),
    ({}, 10**400, 5, False),
    ({}, 10**400, 10**400, True),
    ({}, "9" * 5000, 5, False),
    ({}, "1_000", 1000, False),
]


@pytest.mark.parametrize(("options", "response", "expected", "same"), CASES)
def test_a_response_matches_gold_or_not(options: dict[str, Any], response: Any, expected: Any, same: bool) -> None:
    result = GroundTruthMatch(**options).evaluate(response=response, expected_response=expected)
    assert (result.score, result.label, result.status) == (float(same), "pass" if same else "fail", "ok")
    assert (result.explanation is None) == same


@pytest.mark.parametrize(("options", "expected"), [({"match": "numeric"}, "many"), ({"match": "json"}, "{")])
def test_gold_that_cannot_be_read_is_an_error_and_not_a_wrong_answer(options: dict[str, Any], expected: str) -> None:
    result = GroundTruthMatch(**options).evaluate(response="3", expected_response=expected)
    assert (result.status, result.error_type, result.score) == ("error", "ValueError", None)


@pytest.mark.parametrize("evaluator", [GroundTruthMatch(), BranchMatch()])
@pytest.mark.parametrize("material", [{"response": "refund"}, {"expected_response": "refund"}, {}])
def test_without_gold_or_response_it_is_skipped(evaluator: Any, material: dict[str, Any]) -> None:
    result = evaluator.evaluate(**material)
    assert (result.status, result.score, result.label) == ("skipped", None, None)
    assert result.explanation


@pytest.mark.parametrize(
    ("options", "said"), [({"match": "fuzzy"}, "match='fuzzy': accepted are auto, exact"), ({"tolerance": -1}, "tolerance=-1: accepted is")]
)
def test_a_wrong_argument_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GroundTruthMatch(**options)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(JSON)
def test_every_structure_matches_itself_as_json(value: Any) -> None:
    result = GroundTruthMatch(match="json").evaluate(response=json.dumps(value), expected_response=json.dumps(value))
    assert result.score == 1.0


@given(JSON | st.binary(), JSON | st.binary(), st.sampled_from(["auto", "exact", "normalised", "numeric", "json"]))
def test_whatever_is_compared_the_answer_is_a_result(response: Any, expected: Any, match: Any) -> None:
    result = GroundTruthMatch(match=match).evaluate(response=response, expected_response=expected)
    assert isinstance(result, EvaluationResult)
    assert (result.score is None) == (result.status != "ok")


@pytest.mark.parametrize(
    ("taken", "expected", "same"),
    [
        ("refunds", "refunds", True),
        ("Refunds", "refunds", False),
        (["classify", "refunds"], "refunds", True),
        (["classify", "repairs"], "refunds", False),
        (["classify", "refunds"], ["classify", "refunds"], True),
        (["refunds", "classify"], ["classify", "refunds"], False),
        (["classify", "refunds"], ["refunds"], False),
        ([Intent.REFUND], "refund", True),
        (Intent.REFUND, Intent.REFUND, True),
    ],
)
def test_a_branch_matches_or_not(taken: Any, expected: Any, same: bool) -> None:
    result = BranchMatch().evaluate(response=taken, expected_response=expected)
    assert (result.score, result.label) == (float(same), "pass" if same else "fail")


@pytest.mark.parametrize(
    "claim",
    [{"status": "error", "score": 0.0}, {"status": "skipped", "label": "fail"}, {}, {"score": float("nan")}],
)
def test_a_result_cannot_claim_a_score_that_nobody_gave(claim: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="score="):
        EvaluationResult(**claim)

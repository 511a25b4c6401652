"""What is checked after every answer, each against the session's own truth: no judge model, no threshold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lstm_trace.demo.knowledge import ARTICLES, BRANCH_OF
from lstm_trace.demo.sessions import Session

OUTCOME = "answer_quality"
"""The evaluation that says whether the answer failed."""

_GOLD = {(article.intent, article.topic): article for article in ARTICLES}


@dataclass(frozen=True, slots=True)
class Judgement:
    """One check of one answered session: of the ``step`` that it judges, or of the whole trace."""

    name: str
    passed: bool
    step: str | None = None


def judge(session: Session, intent: str, branch: str, document_ids: Sequence[str], answer: str) -> tuple[Judgement, ...]:
    """Check each stage against the truth; the outcome, ``answer_quality``, stands last.

    >>> session = Session("s", ("login",), "Is there a fee?", "cost", "book_repair")
    >>> [check.passed for check in judge(session, "book_repair", "repairs", ["book_repair/cost"], "There is no fee.")]
    [True, True, True, False]
    """
    gold = _GOLD[session.intent, session.topic]
    return (
        Judgement("ground_truth_match", intent == session.intent, "classify"),
        Judgement("branch_match", branch == BRANCH_OF[session.intent], "route"),
        Judgement("context_relevance", gold.id in document_ids, "retrieve"),
        Judgement(OUTCOME, gold.fact.casefold() in " ".join(answer.split()).casefold()),
    )


@dataclass(frozen=True, slots=True)
class Reaction:
    """What the customer did after the answer: a rating (``up``, ``down`` or none) and perhaps a call for a person."""

    rating: str | None
    escalated: bool


def react(session: Session, right: bool) -> Reaction:
    """Draw the customer's reaction: few rate, and a wrong answer draws a bad rating or an escalation more often.

    The draw hangs on the session alone, so both releases meet the same customers.
    """
    rng = random.Random(session.id)
    rating, escalation = rng.random(), rng.random()
    if right:
        return Reaction("up" if rating < 0.10 else "down" if rating > 0.99 else None, escalation < 0.01)
    return Reaction("down" if rating < 0.30 else "up" if rating > 0.99 else None, escalation < 0.20)

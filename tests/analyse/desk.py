"""A third simulator, as somebody would write it who only knows the traces: a help desk whose tickets become spans, read back from a store.

A ticket has a true intent, a length and a gap in time; the classifier has a margin that falls with all of them, its router follows the
predicted intent, the retriever the branch, and the model answers with a score. An incident turns right decisions of one stage into wrong
ones, by so many percentage points, in one group of tickets. ``python -m tests.analyse.desk_table`` prints how often the verdict is right.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Array = Any
INTENTS = ("refund", "status", "address", "complaint", "other")
HARDNESS = np.array([-0.6, -0.3, 0.0, 0.6, 1.2])
STAGES = ("classifier", "routing", "retrieval", "generation")
EDGES, COHORTS = (5, 9, 13, 21), ("1-4", "5-8", "9-12", "13-20", "21+")


@dataclass(frozen=True)
class Hurt:
    """One stage made ``points`` worse (0.1: ten percentage points) in one group of tickets."""

    stage: str
    points: float
    group: str = "all"


@dataclass(frozen=True)
class Desk:
    """How one release behaves, and on what tickets."""

    skill: float = 3.4
    intents: tuple[float, ...] = (0.35, 0.3, 0.15, 0.12, 0.08)
    length: float = 5.0
    gap_h: float = 1.5
    by_gap: float = 0.5
    by_length: float = 0.03
    router: float = 0.02
    retriever: float = 0.05
    llm: float = 0.06
    turns: float = 1.0
    customer: float = 0.0
    hurt: tuple[Hurt, ...] = ()
    temperature: float = 1.0
    latency: float = 0.02
    judge: str = "1"


@dataclass(frozen=True)
class Tickets:
    """What happened, one entry a ticket; ``wrong`` by stage."""

    session: Array
    turn: Array
    intent: Array
    predicted: Array
    length: Array
    gap_s: Array
    confidence: Array
    branch: Array
    steps: Array
    wrong: dict[str, Array] = field(default_factory=dict)
    score: Array = None


def work(desk: Desk, n: int, random: np.random.Generator) -> Tickets:
    size = random.geometric(1.0 / desk.turns, n)
    session = np.repeat(np.arange(n), size)[:n]
    turn = np.arange(n) - np.maximum.accumulate(np.where(np.r_[True, session[1:] != session[:-1]], np.arange(n), 0))
    trait = random.normal(0.0, desk.customer, n)[session]
    intent = random.choice(5, n, p=np.array(desk.intents) / sum(desk.intents))
    length = np.clip(1 + random.gamma(2.0, desk.length, n) + 2 * turn, 1, 60).astype(int)
    gap_h = random.exponential(desk.gap_h, n)
    hidden = random.random(n) < 0.3
    steps = 3 + random.poisson(2.0, n)
    margin = (
        desk.skill - HARDNESS[intent] - desk.by_length * (length - 10) - desk.by_gap * np.log1p(gap_h) - trait + random.logistic(size=n)
    )
    groups = {
        "all": np.ones(n, bool), "short": length <= 4, "long": length > 12, "intent": intent == 1, "carried": turn > 0, "hidden": hidden,
        "late": steps >= 6,
    }  # fmt: skip

    def spoilt(stage: str) -> Array:
        found = np.zeros(n, bool)
        for hurt in desk.hurt:
            if hurt.stage == stage:
                found |= groups[hurt.group] & (random.random(n) < hurt.points)
        return found

    mistaken = (margin < 0) | spoilt("classifier")
    predicted = np.where(mistaken, (intent + 1 + random.integers(0, 4, n)) % 5, intent)
    confidence = 1.0 / (1.0 + np.exp(-np.clip(np.abs(margin), 0.1, 8) * desk.temperature))
    astray = (mistaken & (random.random(n) < 0.7)) | (random.random(n) < desk.router) | spoilt("routing")
    branch = np.where(astray, predicted + 1, predicted) % 3
    groups["branch"] = branch == 0
    missed = (random.random(n) < np.where(astray, 0.75, desk.retriever)) | spoilt("retrieval")
    failed = random.random(n) < np.clip(desk.llm * np.exp(0.5 * trait), 0, 1)
    failed |= spoilt("generation") | (missed & (random.random(n) < 0.7)) | (astray & ~missed & (random.random(n) < 0.4))
    failed |= mistaken & ~astray & ~missed & (random.random(n) < 0.3)
    score = np.where(failed, random.uniform(0, 0.49, n), random.beta(5, 2, n) * 0.49 + 0.51)
    wrong = {"classifier": mistaken, "routing": astray, "retrieval": missed, "generation": failed}
    return Tickets(session, turn, intent, predicted, length, gap_h * 3600, confidence, branch, steps, wrong, score)


@dataclass(frozen=True)
class Recorded:
    """What of it was written down: share of tickets with each label, whether scores are graded, whether gold labels stand beside theirs."""

    gold: float = 1.0
    every: float = 1.0
    graded: bool = False
    expected: bool = True
    measured: tuple[str, ...] = STAGES


# --- Incidents -------------------------------------------------------------------------------------------------------------------

CAUSES = frozenset({"mix", "classifier", "routing", "retrieval", "generation"})
QUIET = frozenset({"none", "insufficient_evidence"})


@dataclass(frozen=True)
class Case:
    """One incident: two desks, what was recorded, and the verdicts that are right (any of them)."""

    before: Desk
    after: Desk
    recorded: Recorded
    right: tuple[frozenset[str], ...]
    labelled: float = 1.0
    """Share of the tickets asked for that there are."""


def _one(*names: str) -> tuple[frozenset[str], ...]:
    return (frozenset(names),)


NOTHING = (frozenset({"none"}), frozenset({"insufficient_evidence"}))
HURTS = {
    "classifier, all": ("classifier", "all"),
    "classifier, short": ("classifier", "short"),
    "classifier, long": ("classifier", "long"),
    "classifier, one intent": ("classifier", "intent"),
    "classifier, state carried over": ("classifier", "carried"),
    "router": ("routing", "all"),
    "router, long": ("routing", "long"),
    "retriever": ("retrieval", "all"),
    "retriever, one branch": ("retrieval", "branch"),
    "model, all": ("generation", "all"),
    "model, one branch": ("generation", "branch"),
    "model, long": ("generation", "long"),
    "model, late steps": ("generation", "late"),
}
KINDS = (
    *HURTS, "mix, longer", "mix, intents", "mix, gaps", "classifier and model", "mix and model", "router and retriever",
    "better classifier, worse model", "calibration", "latency", "judge changed", "few labels", "hidden difficulty", "better", "quiet",
    "quiet, sessions", "quiet, longer without harm",
)  # fmt: skip
NO_ALARM = ("calibration", "latency", "better", "quiet", "quiet, sessions", "quiet, longer without harm")


def case(kind: str, random: np.random.Generator) -> Case:
    """Draw one incident of a kind: its size, the fail rate before it, and what was recorded."""
    base = Desk(skill=random.uniform(2.6, 4.2), llm=random.uniform(0.02, 0.16), retriever=random.uniform(0.02, 0.08))
    if kind in ("classifier, state carried over", "quiet, sessions") or random.random() < 0.25:
        base = replace(base, turns=random.uniform(2.0, 4.0), customer=random.uniform(0.2, 0.8))
    recorded = Recorded(gold=random.choice([1.0, 1.0, 0.3]), graded=bool(random.random() < 0.5))
    points = random.uniform(0.08, 0.25)

    def hurt(*hurts: Hurt) -> Desk:
        return replace(base, hurt=hurts)

    if kind in HURTS:
        stage, group = HURTS[kind]
        return Case(base, hurt(Hurt(stage, points, group)), recorded, _one(stage))
    steep = replace(base, by_length=0.1, skill=4.0)
    other = random.uniform(0.08, 0.25)
    longer = random.uniform(1.6, 2.2)
    made: dict[str, tuple[Desk, Desk, tuple[frozenset[str], ...]]] = {
        "mix, longer": (steep, replace(steep, length=5.0 * longer), _one("mix")),
        "mix, intents": (replace(base, skill=2.6), replace(base, skill=2.6, intents=(0.15, 0.15, 0.15, 0.25, 0.3)), _one("mix")),
        "mix, gaps": (replace(base, by_gap=1.2), replace(base, by_gap=1.2, gap_h=24.0), _one("mix")),
        "classifier and model": (
            base, hurt(Hurt("classifier", points), Hurt("generation", other)), _one("classifier", "generation"),
        ),
        "mix and model": (
            steep, replace(steep, length=5.0 * longer, hurt=(Hurt("generation", other),)), _one("mix", "generation"),
        ),
        "router and retriever": (base, hurt(Hurt("routing", points), Hurt("retrieval", other)), _one("routing", "retrieval")),
        "better classifier, worse model": (
            replace(base, skill=2.2), replace(base, skill=3.4, hurt=(Hurt("generation", points),)), _one("generation"),
        ),
        "calibration": (base, replace(base, temperature=3.0), NOTHING),
        "latency": (base, replace(base, latency=0.2), NOTHING),
        "judge changed": (base, replace(hurt(Hurt("generation", points)), judge="2"), _one("insufficient_evidence")),
        "few labels": (base, hurt(Hurt("classifier", 0.08)), _one("insufficient_evidence")),
        "hidden difficulty": (base, hurt(Hurt("classifier", points, "hidden"), Hurt("generation", other, "hidden")), ()),
        "better": (replace(base, skill=2.2, llm=0.15), replace(base, skill=3.6, llm=0.1), NOTHING),
        "quiet": (base, base, NOTHING),
        "quiet, sessions": (base, base, NOTHING),
        "quiet, longer without harm": (replace(base, by_length=0.0), replace(base, by_length=0.0, length=5.0 * longer), NOTHING),
    }  # fmt: skip
    before, after, right = made[kind]
    if kind == "few labels":
        recorded = replace(recorded, gold=1.0, every=0.03)
    return Case(before, after, recorded, right)

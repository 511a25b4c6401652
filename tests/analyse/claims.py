"""A fourth simulator, written from the issue and the public pages alone: a claims desk whose spans are OTLP JSON lines, made by hand.

A wrong class leads to a wrong branch, a wrong branch to irrelevant documents (or no stage hangs on another), and every wrong stage fails
the answer with some chance. An incident adds so many percentage points to one stage's errors in one group of traces, or moves the traffic.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from lstm_trace.analyse.facets import GAPS_S, LENGTHS
from lstm_trace.analyse.slices import POSITIONS, STEPS

Array = Any
INTENTS = ("claim", "refund", "cancel", "address", "status")
HARDNESS = np.array([0.0, 0.12, 0.02, 0.0, 0.01])
COHORTS = ("1-4", "5-8", "9-12", "13-20", "21+")
FIRST, LAST = np.array([1, 5, 9, 13, 21]), np.array([4, 8, 12, 20, 40])


@dataclass(frozen=True)
class World:
    """Error rates of the stages, and what is written down of them. ``coupling``: how often one wrong stage fails the answer."""

    uniform: bool = True
    classifier: float = 0.05
    by_length: float = 0.04
    routing: float = 0.03
    retrieval: float = 0.06
    generation: float = 0.05
    chained: bool = True
    coupling: float = 0.6
    turns: int = 1
    customer: float = 0.0
    hidden: float = 0.0
    by_gap: float = 0.0
    branches_with_documents: int = 5
    noise: float = 0.0
    gold: float = 1.0
    judged: float = 1.0
    expected: bool = False


@dataclass(frozen=True)
class Incident:
    """What changes from v1 to v2: ``hurts`` are (stage, group, points), ``traffic`` how many times as often a cohort or intent comes."""

    name: str
    truth: frozenset[str]
    hurts: tuple[tuple[str, str, float], ...] = ()
    traffic: dict[str, float] = field(default_factory=dict)
    world: dict[str, Any] = field(default_factory=dict)
    share: tuple[float, float] = (1.0, 1.0)


def _of(name: str, truth: str, *hurts: tuple[str, str, float], **given: Any) -> Incident:
    return Incident(name, frozenset(truth.split()), hurts, **given)


LONGER = {"13-20": 3.0, "21+": 4.0}
RARE = {"classifier": 0.01, "by_length": 0.0, "routing": 0.005, "retrieval": 0.01, "generation": 0.01}
INCIDENTS = (
    _of("the example of the API", "classifier", ("classifier", "21+", 0.13), world={"classifier": 0.04, "by_length": 0.0}),
    _of("classifier, everywhere", "classifier", ("classifier", "all", 0.06)),
    _of("classifier, longest", "classifier", ("classifier", "21+", 0.2)),
    _of("classifier, long", "classifier", ("classifier", "13+", 0.12)),
    _of("classifier, one intent", "classifier", ("classifier", "refund", 0.25)),
    _of("classifier, after a gap", "classifier", ("classifier", "gap", 0.2)),
    _of("classifier, and all that follows", "classifier", ("classifier", "13+", 0.15), world={"coupling": 1.0, "routing": 0.0}),
    _of("classifier, gold for a third", "classifier", ("classifier", "all", 0.12), world={"gold": 0.3}),
    _of("classifier, four in ten fail", "classifier", ("classifier", "all", 0.14), world={"generation": 0.35}),
    _of("classifier, no chain", "classifier", ("classifier", "13+", 0.15), world={"chained": False}),
    _of("classifier, sessions", "classifier", ("classifier", "21+", 0.2), world={"turns": 4, "customer": 0.7}),
    _of("classifier, canary", "classifier", ("classifier", "13+", 0.25), share=(1.6, 0.3)),
    _of("router, everywhere", "routing", ("routing", "all", 0.08)),
    _of("router, one label", "routing", ("routing", "cancel", 0.3)),
    _of("router that never erred", "routing", ("routing", "all", 0.06), world={"routing": 0.0}),
    _of("retriever, everywhere", "retrieval", ("retrieval", "all", 0.1)),
    _of("retriever, one branch", "retrieval", ("retrieval", "status", 0.3)),
    _of("retriever, long", "retrieval", ("retrieval", "13+", 0.18)),
    _of("retriever, judged with noise", "retrieval", ("retrieval", "all", 0.15), world={"noise": 0.08}),
    _of("retriever, three branches have one", "retrieval", ("retrieval", "all", 0.18), world={"branches_with_documents": 3}),
    _of("model, everywhere", "generation", ("generation", "all", 0.06)),
    _of("model, long", "generation", ("generation", "13+", 0.12)),
    _of("model, late steps", "generation", ("generation", "late", 0.12)),
    _of("model, one in fifty fails", "generation", ("generation", "all", 0.04), world=RARE),
    _of("model, half judged", "generation", ("generation", "all", 0.12), world={"judged": 0.5}),
    _of("model, unequal releases", "generation", ("generation", "all", 0.1), share=(1.4, 0.4)),
    _of("model, hidden difficulty", "generation", ("generation", "all", 0.1), world={"hidden": 1.0}),
    _of("model, better classifier", "generation", ("generation", "all", 0.09), ("classifier", "all", -0.04)),
    _of("mix, longer", "mix", traffic=LONGER, world={"by_length": 0.15}),
    _of("mix, longest twice", "mix", traffic={"21+": 2.0}, world={"by_length": 0.15}),
    _of("mix, a harder intent", "mix", traffic={"refund": 4.0}, world={"expected": True}),
    _of("mix, longer gaps", "mix", traffic={"gap": 4.0}, world={"by_gap": 0.3}),
    _of("classifier and model", "classifier generation", ("classifier", "all", 0.12), ("generation", "all", 0.08)),
    _of("router and retriever", "routing retrieval", ("routing", "all", 0.1), ("retrieval", "all", 0.12)),
    _of("retriever and model", "retrieval generation", ("retrieval", "13+", 0.2), ("generation", "all", 0.08)),
    _of("mix and classifier", "mix classifier", ("classifier", "all", 0.1), traffic=LONGER, world={"by_length": 0.2}),
    _of("mix and model", "mix generation", ("generation", "all", 0.08), traffic=LONGER, world={"by_length": 0.2}),
    _of("quiet", ""),
    _of("quiet, no chain", "", world={"chained": False}),
    _of("quiet, sessions", "", world={"turns": 5, "customer": 1.0}),
    _of("quiet, one in fifty fails", "", world=RARE),
    _of("quiet, four in ten fail", "", world={"generation": 0.35}),
    _of("quiet, gold for a third", "", world={"gold": 0.3}),
    _of("quiet, three branches have documents", "", world={"branches_with_documents": 3}),
    _of("quiet, better", "", ("generation", "all", -0.03), ("retrieval", "all", -0.03)),
    _of("quiet, longer without harm", "", traffic={"21+": 2.5}, world={"by_length": 0.0}),
    _of("quiet, other intents", "", traffic={"status": 2.0}),
    _of("quiet, canary", "", share=(1.6, 0.2)),
)  # fmt: skip


def release(incident: Incident, world: World, n: int, random: np.random.Generator, *, after: bool) -> dict[str, Array]:
    """What happened to ``n`` claims, and what of it was written down: a column each."""
    more = incident.traffic if after else {}
    by_cohort = np.array((0.2,) * 5 if world.uniform else (0.38, 0.27, 0.18, 0.12, 0.05)) * [more.get(name, 1.0) for name in COHORTS]
    by_intent = np.array((0.3, 0.15, 0.2, 0.15, 0.2)) * [more.get(name, 1.0) for name in INTENTS]
    cohort, intent = (random.choice(5, n, p=share / share.sum()) for share in (by_cohort, by_intent))
    length = random.integers(FIRST[cohort], LAST[cohort] + 1)
    gap = random.exponential(600.0, n) * np.where(random.random(n) < 0.2 * more.get("gap", 1.0), 20.0, 1.0)
    session = np.arange(n) // world.turns
    trait = random.normal(0.0, world.customer, n)[session] + random.normal(0.0, world.hidden, n)
    step = random.integers(1, 6, n)
    groups = {"all": length > 0, "21+": length > 20, "13+": length > 12, "gap": gap > 3600, "late": step >= 4}

    def errs(stage: str, base: Array, kind: Array) -> Array:
        for of, group, points in incident.hurts if after else ():
            base = base + points * (of == stage) * (kind == INTENTS.index(group) if group in INTENTS else groups[group])
        odds = np.clip(base, 0.0, 0.97) / (1.0 - np.clip(base, 0.0, 0.97)) * np.exp(trait)
        return random.random(n) < odds / (1.0 + odds)

    hard = world.by_length * (1.0 * groups["13+"] + groups["21+"]) + world.by_gap * groups["gap"]
    wrong = errs("classifier", world.classifier + hard + HARDNESS[intent] * (world.classifier > 0.02), intent)
    label = np.where(wrong, (intent + random.integers(1, 5, n)) % 5, intent)
    ideal = label if world.chained else intent
    branch = np.where(errs("routing", np.full(n, world.routing), label), (ideal + random.integers(1, 5, n)) % 5, ideal)
    astray, looked_up = branch != intent, branch < world.branches_with_documents
    irrelevant = looked_up & errs("retrieval", world.retrieval + 0.6 * (astray & world.chained), branch)
    failed = errs("generation", np.full(n, world.generation), intent)
    failed |= ((random.random((3, n)) < world.coupling) & np.array([wrong, astray, irrelevant])).any(axis=0)
    with_gold, judged = random.random(n) < world.gold, random.random(n) < world.judged
    return {
        "length": length, "cohort": np.array(COHORTS)[cohort], "gap": gap, "session": session, "step": step, "label": label,
        "intent": intent,
        "classifier": np.where(with_gold, wrong, -1), "routing": np.where(with_gold, astray, -1), "failed": np.where(judged, failed, -1),
        "retrieval": np.where(looked_up, irrelevant ^ (random.random(n) < world.noise), -1),
        "expected": with_gold & world.expected,
    }  # fmt: skip


def simulate(incident: Incident, n: int, seed: int) -> tuple[World, tuple[dict[str, Array], dict[str, Array]]]:
    """Draw the world of an incident and both its releases, ``n`` traces each where its shares are 1."""
    random = np.random.default_rng([zlib.crc32(incident.name.encode()), n, seed])
    drawn: dict[str, Any] = {
        "uniform": bool(random.random() < 0.7), "classifier": random.uniform(0.03, 0.09), "by_length": random.uniform(0.0, 0.05),
        "routing": random.uniform(0.01, 0.05), "retrieval": random.uniform(0.04, 0.1), "generation": random.uniform(0.03, 0.1),
        "coupling": random.uniform(0.45, 0.9),
    }  # fmt: skip
    if random.random() < 0.2:
        drawn |= {"turns": 3, "customer": 0.5}
    if any(group == "21+" for _, group, _ in incident.hurts) or incident.traffic:
        drawn["uniform"] = True
    world = World(**(drawn | incident.world))
    before, after = (release(incident, world, int(n * share), random, after=k == 1) for k, share in enumerate(incident.share))
    return world, (before, after)


def rows_of(side: dict[str, Array], name: str) -> list[dict[str, Any]]:
    """One row a trace, as a query of its spans would give them."""
    gap, steps = np.searchsorted(GAPS_S, side["gap"]), np.searchsorted(LENGTHS, side["length"])
    step, session = np.searchsorted(STEPS, side["step"]), side["session"]
    position = np.searchsorted(POSITIONS, np.arange(session.size) - np.searchsorted(session, session) + 1)
    labels = ("classifier", "routing", "retrieval", "failed")
    return [
        {"release": name, "session": int(session[k]), "cohort": str(side["cohort"][k]), "gap": str(gap[k]), "steps": str(steps[k]),
         "label": INTENTS[side["label"][k]], "position": str(position[k]), "step": str(step[k]),
         "expected": INTENTS[side["intent"][k]] if side["expected"][k] else None, "weight": 1.0, "n": 1,
         **{label: None if side[label][k] < 0 else int(side[label][k]) for label in labels}}
        for k in range(side["length"].size)
    ]  # fmt: skip


def write(folder: Path, sides: tuple[dict[str, Array], dict[str, Array]], *, child: bool = False, score: bool = True) -> None:
    """Write both releases as OTLP JSON lines; evaluations as children of what they judge or traces of their own, with scores or labels."""
    for number, side in enumerate(sides, 1):
        spans = [span for k in range(side["length"].size) for span in _trace(side, k, f"v{number}", child=child, score=score)]
        scope = [{"scope": {"name": "by hand"}, "spans": spans}]
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "claims"}}]}
        (folder / f"v{number}.jsonl").write_bytes(orjson.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": scope}]}) + b"\n")


def _trace(side: dict[str, Array], k: int, name: str, *, child: bool, score: bool) -> list[dict[str, Any]]:
    trace, root, call, fetch = f"{int(name[1:]):08x}{k:024x}", f"{1:016x}", f"{2:016x}", f"{3:016x}"
    start = 1_795_000_000_000_000_000 + (name == "v2") * 10**16 + k * 10**9
    shared = {"lstm.release": name, "session.id": f"{name}-{side['session'][k]}"}
    made = [
        _span(trace, root, "", "chain claims", start, {"openinference.span.kind": "CHAIN", **shared}),
        _span(trace, call, root, "lstm intent", start, shared | {
            "openinference.span.kind": "CHAIN", "lstm.component.name": "intent", "lstm.sequence.length": int(side["length"][k]),
            "lstm.sequence.cohort": str(side["cohort"][k]), "lstm.sequence.time_gap": float(side["gap"][k]),
            "lstm.prediction.label": INTENTS[side["label"][k]],
        }),
        _span(trace, fetch, root, "retrieval kb", start, {
            "openinference.span.kind": "RETRIEVER", "agent.trajectory.step": int(side["step"][k]), **shared,
        }),
    ]  # fmt: skip
    judged = {"classifier": ("ground_truth_match", call), "routing": ("branch_match", root), "retrieval": ("context_relevance", fetch)}
    for number, (stage, (evaluation, target)) in enumerate({**judged, "failed": ("answer_quality", root)}.items(), 4):
        if side[stage][k] < 0:
            continue
        given: dict[str, Any] = {
            "openinference.span.kind": "EVALUATOR", "gen_ai.evaluation.name": evaluation, "lstm.evaluation.target.trace_id": trace,
            "lstm.evaluation.target.span_id": target, "lstm.evaluation.evaluator_version": "1", "lstm.evaluation.status": "ok",
            "lstm.evaluation.identifier": f"{trace}{number}", "lstm.release": name,
        }  # fmt: skip
        given |= {"gen_ai.evaluation.score.value": 1.0 - int(side[stage][k])} if score else {}
        given |= {} if score else {"gen_ai.evaluation.score.label": "fail" if side[stage][k] else "pass"}
        given |= {"lstm.evaluation.metadata.expected": INTENTS[side["intent"][k]]} if side["expected"][k] and number == 4 else {}
        own = trace if child else f"{number}{trace[1:]}"
        made.append(_span(own, f"{number:016x}", target if child else "", f"evaluate {evaluation}", start + 10**8, given))
    return made


def _span(trace: str, span: str, parent: str, name: str, start: int, given: dict[str, Any]) -> dict[str, Any]:
    kinds = {str: "stringValue", int: "intValue", float: "doubleValue"}
    told = [{"key": key, "value": {kinds[type(value)]: str(value) if type(value) is int else value}} for key, value in given.items()]
    return {
        "traceId": trace, "spanId": span, "parentSpanId": parent, "name": name, "kind": 1, "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 10**7), "attributes": told, "status": {},
    }  # fmt: skip

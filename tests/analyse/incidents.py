"""Simulated claims-support agents with a known cause of failure: what went wrong a trace, and the canonical rows it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

COHORTS = ("1-4", "5-8", "9-12", "13-20", "21+")
LENGTHS = ((1, 5), (5, 9), (9, 13), (13, 21), (21, 41))


@dataclass(frozen=True)
class World:
    """How one release behaves. Rates are of going wrong; a pair is (given that the step before went right, given that it went wrong)."""

    mix: tuple[float, ...] = (0.15, 0.25, 0.25, 0.22, 0.13)
    classifier: tuple[float, ...] = (0.03, 0.03, 0.03, 0.04, 0.04)
    routing: tuple[float, float] = (0.02, 0.6)
    retrieval: tuple[float, float] = (0.05, 0.7)
    generation: tuple[float, float] = (0.04, 0.8)
    wrong_anyway: float = 0.35
    evaluator: str = "1"
    hidden: float = 0.0


@dataclass(frozen=True)
class Outcomes:
    """What happened, one entry a trace."""

    cohort: np.ndarray
    length: np.ndarray
    classifier: np.ndarray
    routing: np.ndarray
    retrieval: np.ndarray
    failed: np.ndarray
    confidence: np.ndarray

    def counts(self) -> np.ndarray:
        table = np.zeros((len(COHORTS), 2, 2, 2, 2))
        np.add.at(table, (self.cohort, self.classifier, self.routing, self.retrieval, self.failed), 1.0)
        return table


def simulate(world: World, n: int, random: np.random.Generator) -> Outcomes:
    cohort = random.choice(len(COHORTS), n, p=np.array(world.mix) / sum(world.mix))
    harder = random.random(n) < world.hidden
    lift = np.where(harder, 0.25, 0.0)
    wrong = (random.random(n) < np.clip(np.array(world.classifier)[cohort] + lift, 0, 1)).astype(int)
    routed = (random.random(n) < np.array(world.routing)[wrong]).astype(int)
    missed = (random.random(n) < np.array(world.retrieval)[routed]).astype(int)
    base = np.array(world.generation)[missed]
    base = np.where((wrong == 1) & (missed == 0), np.maximum(base, world.wrong_anyway), base)
    failed = (random.random(n) < np.clip(base + lift, 0, 1)).astype(int)
    low, high = np.array(LENGTHS).T
    length = random.integers(low[cohort], high[cohort])
    confidence = np.clip(random.beta(9, 1.5, n) - 0.25 * wrong, 0.21, 0.999)
    return Outcomes(cohort, length, wrong, routed, missed, failed, confidence)


MECHANISMS = {"classifier": "ground_truth_match", "routing": "branch_match", "retrieval": "context_relevance"}


@dataclass
class Ids:
    """Counted ids."""

    trace: int = 0
    span: int = 0

    def of_trace(self) -> str:
        self.trace += 1
        return f"{self.trace:032x}"

    def of_span(self) -> str:
        self.span += 1
        return f"{self.span:016x}"


START_NS = 1_760_000_000_000_000_000
MINUTE_NS = 60_000_000_000


def rows(
    outcomes: Outcomes,
    release: str,
    ids: Ids,
    *,
    evaluator: str = "1",
    evaluations: Mapping[str, str] | None = None,
    labelled: Callable[[str, int], bool] = lambda name, index: True,
    start_ns: int = START_NS,
) -> Iterator[dict[str, Any]]:
    """The canonical spans of every trace: root, classifier, model call, and an evaluation span a judgement in a trace of its own."""
    evaluations = MECHANISMS if evaluations is None else evaluations
    for index in range(outcomes.failed.size):
        trace, at = ids.of_trace(), start_ns + index * MINUTE_NS
        root, lstm, chat = ids.of_span(), ids.of_span(), ids.of_span()
        common = {"trace_id": trace, "release": release, "session_id": f"s{index // 3}", "service": "claims"}
        facts = {"cohort": COHORTS[outcomes.cohort[index]], "length": int(outcomes.length[index])}
        label = ("refund", "status")[int(outcomes.classifier[index])]
        confidence = float(outcomes.confidence[index])
        yield common | span(root, None, "chain claims", "CHAIN", at, 400)
        yield common | span(lstm, root, "lstm intent", "CHAIN", at, 5 + index % 7) | facts | {
            "component": "intent", "state_origin": "none", "label": label, "confidence": confidence, "step": 1, "branch": "classify",
            "attributes": {"app.channel": ("web", "phone")[index % 2]},
        }  # fmt: skip
        yield common | span(chat, root, "chat local", "LLM", at + 20_000_000, 300) | {
            "model": "local", "input_tokens": 800 + index % 5, "output_tokens": 90, "step": 3, "branch": f"answer_{label}",
            "upstream_component": "intent", "upstream_cohort": facts["cohort"], "upstream_length": facts["length"],
        }  # fmt: skip
        judged = {"answer_quality": ("", outcomes.failed)} | {
            name: (mechanism, getattr(outcomes, mechanism)) for mechanism, name in evaluations.items()
        }
        for name, (mechanism, wrong) in judged.items():
            if labelled(name, index):
                target = lstm if mechanism == "classifier" else root
                version = evaluator if name == "answer_quality" else "1"
                yield judgement(ids, trace, target, name, bool(wrong[index]), version, at + 3_000_000_000, release)


def span(span_id: str, parent: str | None, name: str, kind: str, start_ns: int, ms: int) -> dict[str, Any]:
    return {
        "span_id": span_id, "parent_span_id": parent, "name": name, "kind": "internal", "span_kind": kind, "status": "unset",
        "start_ns": start_ns, "end_ns": start_ns + ms * 1_000_000, "duration_s": ms / 1000, "scope": "lstm_trace",
    }  # fmt: skip


def judgement(ids: Ids, trace: str, target: str, name: str, wrong: bool, version: str, at: int, release: str) -> dict[str, Any]:
    return span(ids.of_span(), None, f"evaluate {name}", "EVALUATOR", at, 1) | {
        "trace_id": ids.of_trace(), "release": release, "evaluation_name": name, "evaluation_score": float(not wrong),
        "evaluation_label": "fail" if wrong else "pass", "evaluation_status": "ok", "evaluation_version": version,
        "evaluation_identifier": f"{trace}:{target}:{name}:{version}", "evaluation_annotator": "CODE",
        "target_trace_id": trace, "target_span_id": target,
    }  # fmt: skip

"""What judges what: the evaluations of the outcome and of each mechanism, on which versions, and what the labels there are limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse.values import fetched
from lstm_trace.errors import BadInput
from lstm_trace.store import Store

MECHANISMS: Final[Mapping[str, str]] = {
    "classifier": "ground_truth_match",
    "routing": "branch_match",
    "retrieval": "context_relevance",
}
"""Mechanisms in causal order, and the evaluation that says whether each went wrong."""
NOT_AN_OUTCOME: Final = ("escalation", "feedback")
FEW: Final = 50
"""Judged traces a release below which a mechanism is left out rather than measured."""


def seen_in(judged: Any, names: tuple[str, str]) -> dict[str, dict[str, dict[tuple[str | None, str | None], int]]]:
    """Count judgements: evaluation → release → (evaluator version, annotator) → n."""
    counted = judged.group_by("evaluation_name", "release", "version", "annotator").aggregate(n=judged.count())
    seen: dict[str, dict[str, dict[tuple[str | None, str | None], int]]] = {}
    for row in fetched(counted):
        sides = seen.setdefault(row["evaluation_name"], {name: {} for name in names})
        sides[row["release"]][row["version"], row["annotator"]] = row["n"]
    return seen


def outcome_in(store: Store, seen: Mapping[str, Any], given: str | None, mechanisms: Mapping[str, str]) -> str:
    """The outcome: the one given, else `answer_quality`, else the evaluation with the most judgements. Raises BadInput without any."""
    taken = {*MECHANISMS.values(), *mechanisms.values(), *NOT_AN_OUTCOME}
    free = {name: min(sum(side.values()) for side in sides.values()) for name, sides in seen.items() if name not in taken}
    if given is None and not free:
        raise BadInput(
            f"{store.address} holds no evaluation of the two releases that could be the outcome; name one with --outcome, "
            f"out of {', '.join(map(repr, sorted(seen))) or 'none'}{store.left_out}"
        )
    if given is not None and given not in seen:
        known = ", ".join(map(repr, sorted(seen))) or "none"
        raise BadInput(f"outcome {given!r} is not an evaluation of the two releases in {store.address}; it holds {known}{store.left_out}")
    return given or min(free, key=lambda name: (name != "answer_quality", -free[name], name))


def used_in(store: Store, seen: Mapping[str, Any], outcome: str, given: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    """The evaluation of each mechanism that both releases have, in causal order. Raises BadInput for one given that is not there."""
    used: dict[str, str] = {}
    for mechanism, name in {**MECHANISMS, **given}.items():
        if mechanism in given and name not in seen:
            raise BadInput(
                f"mechanism {mechanism}={name}: {store.address} holds no evaluation {name!r} of the two releases{store.left_out}"
            )
        if name == outcome:
            continue
        if name in seen and all(seen[name].values()):
            used[mechanism] = name
        else:
            notes.append(f"{mechanism} is not measured ({name} has no scores on both sides): its part stands under what comes after it")
    for mechanism, name in used.items():
        if any(annotator == "LLM" for side in seen[name].values() for _, annotator in side) and mechanism == "classifier":
            notes.append(f"gold of {mechanism} is not independent: {name} was judged by an LLM")
    return used


def common_versions(sides: Mapping[str, Mapping[tuple[str | None, str | None], int]], mechanism: str, name: str) -> tuple[Any, str | None]:
    """The evaluator versions to compare on, and what to say. No common version: (None, note); nothing to say: (…, None)."""
    versions = [{version for version, _ in side} for side in sides.values()]
    if versions[0] == versions[1] and len(versions[0]) == 1:
        return versions[0], None
    common = versions[0] & versions[1]
    shares = [sum(n for (v, _), n in side.items() if v in common) / max(sum(side.values()), 1) for side in sides.values()]
    spelled = " against ".join("/".join(sorted(str(version) for version in side)) for side in versions)
    if common and min(shares) >= 0.3 and None not in common:
        return common, f"evaluator version of {name} changed ({spelled}): compared on {'/'.join(sorted(map(str, common)))} only"
    if versions[0] == versions[1]:
        return versions[0], None
    return None, f"evaluator version of {name} changed ({spelled}): {mechanism} cannot be told from its evaluator"


def short(found: Sequence[Mapping[str, Any]], used: Mapping[str, str], names: tuple[str, str]) -> str | None:
    """The mechanism with the fewest labels, where too few traces of a release have every label."""

    def having(mechanisms: Sequence[str]) -> int:
        labelled = [row for row in found if all(row[mechanism] is not None for mechanism in (*mechanisms, "failed"))]
        return min(sum(int(row["n"]) for row in labelled if row["release"] == name) for name in names)

    outcomes = having(())
    if having(tuple(used)) >= min(FEW, outcomes):
        return None
    return min(used, key=lambda mechanism: having((mechanism,)))


def of_all(found: Sequence[Mapping[str, Any]], used: Mapping[str, str], names: tuple[str, str]) -> list[str]:
    """Say how many judged traces have every label, where some do not, and how the others count."""
    judged = [row for row in found if row["failed"] is not None]
    whole = [row for row in judged if all(row[mechanism] is not None for mechanism in used)]
    n = [[sum(row["n"] for row in rows if row["release"] == name) for name in names] for rows in (whole, judged)]
    if n[0] == n[1]:
        return []
    told = f"few labels: {n[0][0]} of {n[1][0]} and {n[0][1]} of {n[1][1]} judged traces have every label"
    even = all(row["weight"] == 1.0 for row in found)
    return [f"{told}; the others {'count as those that are like them in the labels they have' if even else 'are left out'}"]


def selection(found: Sequence[Mapping[str, Any]], used: Mapping[str, str]) -> dict[str, str]:
    """Say of which mechanisms labels were not drawn independently of the outcome: with and without one traces fail at different rates."""
    notes: dict[str, str] = {}
    for mechanism, name in used.items():
        table = np.zeros((2, 2), dtype=int)
        for row in found:
            if row["failed"] is not None:
                table[int(row[mechanism] is not None), row["failed"]] += row["n"]
        if table.sum(axis=1).min() > 0 and len({row["weight"] for row in found}) == 1 and _exact(table) < 0.001:
            rates = table[:, 1] / table.sum(axis=1)
            told = f"traces with {name} fail at {rates[1]:.1%}, those without at {rates[0]:.1%}"
            notes[mechanism] = f"gold of {mechanism} is not independent of the outcome: {told}"
    return notes


def _exact(table: NDArray[np.int64]) -> float:
    from scipy.stats import fisher_exact  # takes a second and more to import

    found: Any = fisher_exact(table)
    return float(found.pvalue)

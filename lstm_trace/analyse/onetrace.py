"""One trace as a tree: its spans in order with depth and offset, and the scores joined to each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lstm_trace.analyse.cases import EVALUATOR, failed
from lstm_trace.analyse.values import fetched, plain
from lstm_trace.errors import BadInput
from lstm_trace.store import Store

_TRACEPARENT: Final = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")
_PREFIX: Final = re.compile(r"^[0-9a-f]{1,32}$")
_SHOWN: Final = (
    "span_id", "parent_span_id", "name", "span_kind", "status", "error_type", "start_ns", "duration_s", "release", "component",
    "component_version", "preprocessing", "length", "length_source", "cohort", "time_gap", "label", "confidence", "margin",
    "state_origin", "step", "branch", "attempt", "model", "input_tokens", "output_tokens", "tool", "upstream_component",
    "upstream_label", "upstream_confidence", "upstream_cohort", "evaluation_name", "session_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Score:
    """One judgement of a span. ``failed`` is None where the evaluator gave neither score nor label."""

    name: str
    score: float | None
    label: str | None
    failed: bool | None
    status: str
    explanation: str | None
    target_span_id: str | None


@dataclass(frozen=True, slots=True)
class Placed:
    """One span of the tree: its columns, its depth from 0, its start in seconds after the trace's, and the scores that judge it."""

    facts: Mapping[str, Any]
    depth: int
    offset_s: float
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace's working spans, parents before children, earlier before later; ``scores`` that judge no span of it stand apart."""

    trace_id: str
    spans: tuple[Placed, ...]
    scores: tuple[Score, ...]

    @property
    def duration_s(self) -> float:
        """From the first start to the last end, seconds."""
        return max((span.offset_s + (span.facts["duration_s"] or 0.0) for span in self.spans), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """The trace as plain values, ready for JSON: what a span does not have is left out."""
        return {
            "trace_id": self.trace_id,
            "duration_s": self.duration_s,
            "spans": [
                {"depth": span.depth, "offset_s": span.offset_s}
                | {name: value for name, value in span.facts.items() if value is not None}
                | {"scores": [plain(score) for score in span.scores]}
                for span in self.spans
            ],
            "scores": [plain(score) for score in self.scores],
        }


def read_trace(store: Store, reference: str) -> Trace:
    """Read one trace by its id, a traceparent or an unambiguous prefix of the id. Raises BadInput that names it otherwise."""
    trace_id = _resolve(store, reference)
    rows = fetched(store.trace(trace_id).select(*_SHOWN, "target_trace_id"))
    own = [row for row in rows if row["span_kind"] != EVALUATOR and row["target_trace_id"] is None] or rows
    made = store.evaluations
    made = made.filter(made.target_trace_id == trace_id).mutate(failed=failed(made)).order_by("evaluation_name", "time_ns")
    scores = tuple(
        Score(
            row["evaluation_name"],
            row["score"],
            row["label"],
            None if row["failed"] is None else bool(row["failed"]),
            row["status"],
            row["explanation"],
            row["target_span_id"],
        )
        for row in fetched(made)
    )
    known = {row["span_id"] for row in own}
    return Trace(trace_id, tuple(_placed(own, scores)), tuple(score for score in scores if score.target_span_id not in known))


def _resolve(store: Store, reference: str) -> str:
    text = reference.strip().lower()
    match = _TRACEPARENT.match(text)
    text = match[1] if match else text
    if not _PREFIX.match(text):
        raise BadInput(f"trace {reference!r}: accepted is a trace id of 32 hex digits, the start of one, or a traceparent")
    spans = store.spans
    ids = spans.filter(spans.trace_id.startswith(text)).select("trace_id").distinct().order_by("trace_id").limit(2)
    found = ids.to_pyarrow().column(0).to_pylist()
    if not found:
        raise BadInput(f"trace {reference!r} is not in {store.address}{store.left_out}")
    if len(found) > 1:
        raise BadInput(
            f"trace {reference!r} is the start of several ids in {store.address}, such as {found[0]} and {found[1]}: give more digits"
        )
    return str(found[0])


def _placed(rows: Sequence[Mapping[str, Any]], scores: Sequence[Score]) -> list[Placed]:
    """Lay spans out depth first, without recursion: a trace may be thousands of spans deep, and its parents may form a ring."""
    begin = min((row["start_ns"] for row in rows if row["start_ns"] is not None), default=0)
    ids = {row["span_id"] for row in rows}
    children: dict[str | None, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["start_ns"] or 0, row["span_id"])):
        parent = row["parent_span_id"]
        children.setdefault(parent if parent in ids and parent != row["span_id"] else None, []).append(row)
    done: set[str] = set()
    made: list[Placed] = []

    def lay(roots: Sequence[Mapping[str, Any]]) -> None:
        stack = [(row, 0) for row in reversed(roots)]
        while stack:
            row, depth = stack.pop()
            if row["span_id"] in done:
                continue
            done.add(row["span_id"])
            facts = {name: row[name] for name in _SHOWN}
            offset = ((row["start_ns"] or begin) - begin) / 1e9
            made.append(Placed(facts, depth, offset, tuple(score for score in scores if score.target_span_id == row["span_id"])))
            stack += [(child, depth + 1) for child in reversed(children.get(row["span_id"], []))]

    lay(children.get(None, []))
    for row in rows:  # what is left hangs below a ring of parents
        if row["span_id"] not in done:
            lay([row])
    return made

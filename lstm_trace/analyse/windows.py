"""The calls of two components on the same input windows, side by side: one row a window that both saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstm_trace.analyse import cases
from lstm_trace.analyse.cases import View
from lstm_trace.analyse.shapley import Floats
from lstm_trace.analyse.values import fetched
from lstm_trace.errors import BadInput
from lstm_trace.store import Store

MOST_UNMATCHED: Final = 0.05
"""Share of the candidate's windows that may lack a partner, and of matched windows whose lengths may differ."""
DEEPEST: Final = 4
"""Levels below a component's span in which its model calls are looked for."""


@dataclass(frozen=True, slots=True)
class Who:
    """A component, of one release where it is named: ``intent`` or ``intent@v2``."""

    component: str
    release: str | None = None

    @classmethod
    def parse(cls, text: str) -> Who:
        """Read ``NAME`` or ``NAME@RELEASE``.

        >>> Who.parse("intent@v2")
        Who(component='intent', release='v2')
        """
        name, _, release = text.partition("@")
        return cls(name, release or None)

    def __str__(self) -> str:
        return self.component if self.release is None else f"{self.component}@{self.release}"


@dataclass(frozen=True, slots=True)
class Windows:
    """Matched windows. Arrays are (2, windows), primary first; a value that a call does not have is NaN (labels: None).

    ``session`` (windows,) numbers the session that a window was cut from: the primary's, else the candidate's, else the trace itself.
    """

    primary: Who
    candidate: Who
    cohort: tuple[str, ...]
    session: NDArray[np.int64]
    labels: tuple[tuple[str | None, ...], tuple[str | None, ...]]
    duration_s: Floats
    failed: Floats
    input_tokens: Floats
    output_tokens: Floats
    models: tuple[frozenset[str], frozenset[str]]
    unmatched: tuple[int, int]


def matched(store: Store, primary: Who, candidate: Who, *, gold: str, key: str | None, view: View) -> Windows:
    """Match calls by their place among their component's calls of one trace, or by the attribute ``key`` across traces.

    Raises BadInput, the refusal, where a component has no call, where windows do not match, or where they hold inputs of different length.
    """
    if primary == candidate:
        raise BadInput(f"primary and candidate are both {str(primary)!r}: give two components, or one under two releases, NAME@RELEASE")
    sides = [_side(store, who, gold, key, view) for who in (primary, candidate)]
    keyed = [{row["window"]: row for row in side} for side in sides]
    common = sorted(keyed[0].keys() & keyed[1].keys())
    unmatched = (len(sides[0]) - len(common), len(sides[1]) - len(common))
    how = f"the attribute {key}" if key else "their place in a trace"
    if not common:
        raise BadInput(f"no window of {primary} matches one of {candidate} by {how}: only calls on the same input can be compared")
    if min(unmatched[0] / len(sides[0]), unmatched[1] / len(sides[1])) > MOST_UNMATCHED:
        raise BadInput(
            f"windows do not match: by {how} {len(common)} of {len(sides[0])} calls of {primary} "
            f"and of {len(sides[1])} calls of {candidate}"
        )
    pairs = [(keyed[0][window], keyed[1][window]) for window in common]
    differing = sum(one["length"] != two["length"] for one, two in pairs if None not in (one["length"], two["length"]))
    if differing > MOST_UNMATCHED * len(pairs):
        raise BadInput(f"windows do not match: {differing} of {len(pairs)} matched windows of {primary} and {candidate} differ in length")
    pairs = [(one, two) for one, two in pairs if None in (one["length"], two["length"]) or one["length"] == two["length"]]

    def both(name: str) -> Floats:
        return np.array(
            [[np.nan if row[name] is None else row[name] for row in side] for side in zip(*pairs, strict=True)], dtype=np.float64
        )

    ones, twos = zip(*pairs, strict=True)
    return Windows(
        primary,
        candidate,
        tuple(row["cohort"] for row in ones),
        np.unique([one["session_id"] or two["session_id"] or f"/{one['trace_id']}" for one, two in pairs], return_inverse=True)[1],
        (tuple(row["label"] for row in ones), tuple(row["label"] for row in twos)),
        both("duration_s"),
        both("failed"),
        both("input_tokens"),
        both("output_tokens"),
        (_models(ones), _models(twos)),
        unmatched,
    )


def _models(rows: Any) -> frozenset[str]:
    return frozenset(row["model"] for row in rows if row["model"] is not None)


def _side(store: Store, who: Who, gold: str, key: str | None, view: View) -> list[dict[str, Any]]:
    """The calls of one component with their window, judgement and tokens."""
    import ibis

    calls = cases.calls(store, View(view.edges, view.since_ns, view.until_ns, who.component))
    if who.release is not None:
        calls = calls.filter(calls.release == who.release)
    if key is None:
        place = ibis.row_number().over(ibis.window(group_by="trace_id", order_by=["start_ns", "span_id"]))
        calls = calls.mutate(place=place)
        calls = calls.mutate(window=calls.trace_id.concat("/", calls.place.cast("string")))
    else:
        spans = store.spans.select("trace_id", "span_id", window=store.spans.attributes.get(key, ibis.null("string")))
        calls = calls.inner_join(spans.filter(spans.window.notnull()), ["trace_id", "span_id"])
    made = store.evaluations
    made = made.filter(made.evaluation_name == gold).mutate(failed=cases.failed(made))
    judged = made.group_by(trace_id=made.target_trace_id, span_id=made.target_span_id).aggregate(failed=made.failed.max())
    rows = calls.left_join(judged, ["trace_id", "span_id"]).left_join(_spent(store, calls), ["trace_id", "span_id"])
    found = rows.select(
        "window", "trace_id", "session_id", "cohort", "length", "label", "duration_s", "failed", "input_tokens", "output_tokens", "model"
    )
    listed = fetched(found.order_by("window"))
    if not listed:
        missing = f" with the attribute {key}" if key else ""
        raise BadInput(f"component {str(who)!r} has no call{missing} in {store.address}; it holds {_components(store)}{store.left_out}")
    return listed


def _spent(store: Store, calls: Any) -> Any:
    """Tokens and model of the model calls below each component call, down to ``DEEPEST`` levels."""
    import ibis

    spans = store.spans.select("trace_id", "span_id", "parent_span_id", "span_kind", "model", "input_tokens", "output_tokens")
    spans = spans.semi_join(calls, "trace_id")
    level = calls.select("trace_id", top="span_id", span_id="span_id")
    found: list[Any] = []
    for depth in range(DEEPEST + 1):
        here = level.inner_join(spans, ["trace_id", "span_id"]).filter(lambda t: (t.span_kind == "LLM") | t.input_tokens.notnull())
        found.append(here.select("trace_id", "top", "model", "input_tokens", "output_tokens"))
        if depth < DEEPEST:
            below = spans.select("trace_id", child="span_id", span_id="parent_span_id")
            level = level.inner_join(below, ["trace_id", "span_id"]).select("trace_id", "top", span_id="child")
    rows: Any = ibis.union(*found)
    return rows.group_by("trace_id", span_id="top").aggregate(
        model=rows.model.max(), input_tokens=rows.input_tokens.sum(), output_tokens=rows.output_tokens.sum()
    )


def _components(store: Store) -> str:
    calls = cases.calls(store)
    names = sorted(calls.select("component").distinct().to_pyarrow().column(0).to_pylist())
    return ", ".join(map(repr, names)) or "no component"

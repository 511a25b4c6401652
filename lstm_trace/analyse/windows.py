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
_MODELS: Final = ("min_model", "max_model")
_NAMED: Final = ("min_named", "max_named")


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

    Tokens are those of the model calls below a call: 0 where it made none, NaN where none of those it made recorded any.

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
    repeated: tuple[int, int] = (0, 0)
    """Calls of a window that the side has a later call of, which are left out."""


def matched(store: Store, primary: Who, candidate: Who, *, gold: str, key: str | None, view: View) -> Windows:
    """Match calls by their place among their component's calls of one trace, or by the attribute ``key`` across traces.

    Raises BadInput, the refusal, where a component has no call, where windows do not match, or where they hold inputs of different length.
    """
    if primary == candidate:
        raise BadInput(f"primary and candidate are both {str(primary)!r}: give two components, or one under two releases, NAME@RELEASE")
    sides = [_side(store, who, gold, key, view) for who in (primary, candidate)]
    if primary.component == candidate.component and None in (primary.release, candidate.release):
        raise BadInput(f"{str(primary)!r} and {str(candidate)!r} share calls: give two components, or one under two releases, NAME@RELEASE")
    keyed = [{row["window"]: row for row in side} for side in sides]  # of a window that comes again the latest call
    for who, side, windows in zip((primary, candidate), sides, keyed, strict=True):
        if len(side) - len(windows) > MOST_UNMATCHED * len(side):
            raise BadInput(f"windows do not match: the attribute {key} names {len(windows)} windows for {len(side)} calls of {who}")
    repeated = (len(sides[0]) - len(keyed[0]), len(sides[1]) - len(keyed[1]))
    sides = [list(windows.values()) for windows in keyed]
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
        repeated,
    )


def _models(rows: Any) -> frozenset[str]:
    """The models whose tokens count; where none of a window is named, those that any of its spans names."""
    found: set[str] = set()
    for row in rows:
        held = {row[name] for name in _MODELS} - {None}
        found |= held or {row[name] for name in _NAMED} - {None}
    return frozenset(found)


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
        "window", "start_ns", "span_id", "trace_id", "session_id", "cohort", "length", "label", "duration_s", "failed",
        "input_tokens", "output_tokens", "model_calls", *_MODELS, *_NAMED,
    )  # fmt: skip
    listed = fetched(found.order_by("window", "start_ns", "span_id"))
    for row in listed:
        if not row["model_calls"]:
            row |= {name: row[name] or 0 for name in ("input_tokens", "output_tokens")}
    if not listed:
        missing = f" with the attribute {key}" if key else ""
        raise BadInput(f"component {str(who)!r} has no call{missing} in {store.address}; it holds {_components(store)}{store.left_out}")
    return listed


def _spent(store: Store, calls: Any) -> Any:
    """Tokens and models of the model calls below each component call, down to ``DEEPEST`` levels.

    What lies below a span that recorded tokens is in them already: an agent's total, a call that two instrumentations saw.
    """
    import ibis

    # Up from each model call, one join a level: down from the component a level would stand in the query once for each that is below it.
    spans = store.spans.semi_join(calls, "trace_id")
    spent = spans.input_tokens.notnull() | spans.output_tokens.notnull()
    is_call = (spans.span_kind == "LLM").fill_null(False)
    rows: Any = spans.filter(is_call | spent).select(
        "trace_id", "model", "input_tokens", "output_tokens", is_call=is_call, spent=spent, at0="span_id", above0="parent_span_id"
    )
    for depth in range(1, DEEPEST + 1):
        above = spans.select(
            **{f"trace{depth}": "trace_id", f"at{depth}": "span_id", f"above{depth}": "parent_span_id", f"spent{depth}": spent}
        )
        rows = rows.left_join(above, [rows.trace_id == above[f"trace{depth}"], rows[f"above{depth - 1}"] == above[f"at{depth}"]])
    told: Any = ibis.literal(value=False)
    places = [ibis.struct({"top": rows.at0, "told": told})]
    for depth in range(1, DEEPEST + 1):
        told = told | rows[f"spent{depth}"].fill_null(False)
        places.append(ibis.struct({"top": rows[f"at{depth}"], "told": told}))
    rows = rows.select("trace_id", "model", "input_tokens", "output_tokens", "is_call", "spent", place=ibis.array(places).unnest())
    rows = rows.mutate(top=rows.place["top"], told=rows.place["told"])
    rows = rows.filter(rows.top.notnull()).select(
        "trace_id",
        "top",
        named=rows.model,
        is_call=rows.is_call.cast("int64"),
        model=(rows.told | ~rows.spent).ifelse(ibis.null("string"), rows.model),
        **{name: rows.told.ifelse(ibis.null("int64"), rows[name]) for name in ("input_tokens", "output_tokens")},
    )
    return rows.group_by("trace_id", span_id="top").aggregate(
        **{f"{end}_{name}": getattr(rows[name], end)() for name in ("model", "named") for end in ("min", "max")},
        model_calls=rows.is_call.sum(),
        input_tokens=rows.input_tokens.sum(),
        output_tokens=rows.output_tokens.sum(),
    )


def _components(store: Store) -> str:
    calls = cases.calls(store)
    names = sorted(calls.select("component").distinct().to_pyarrow().column(0).to_pylist())
    return ", ".join(map(repr, names)) or "no component"

"""Where each span of a trace stands in time, in percent of the trace: what a waterfall needs and no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lstm_trace.analyse.onetrace import Placed, Trace

SPANS_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Bar:
    """One span's bar: where it begins and how wide it is, percent of the trace's duration."""

    span: Placed
    left: float
    width: float


def bars(trace: Trace) -> tuple[tuple[Bar, ...], int]:
    """The bars of a trace's first spans, and how many more it has."""
    whole = trace.duration_s or 1.0
    shown = trace.spans[:SPANS_SHOWN]
    made = tuple(
        Bar(span, _percent(span.offset_s / whole, 99.5), max(0.5, _percent((span.facts["duration_s"] or 0.0) / whole, 100.0)))
        for span in shown
    )
    return made, len(trace.spans) - len(shown)


def _percent(part: float, most: float) -> float:
    return round(min(max(100.0 * part, 0.0), most), 2)

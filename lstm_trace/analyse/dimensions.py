"""What a table can be grouped by: each dimension is one ibis expression over a component call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lstm_trace import conventions as c
from lstm_trace.errors import BadInput

UNKNOWN: Final = "unknown"
"""The group of calls that do not say."""
DEFAULT_EDGES: Final = (4, 8, 12, 20)
GAP_EDGES_S: Final = ((60.0, "up to 1 min"), (3600.0, "1 min to 1 h"), (86400.0, "1 h to 1 d"))
"""Upper edges of the time-gap groups in seconds, and their names."""
POSITION_EDGES: Final = ((1, "1"), (3, "2-3"), (6, "4-6"))
"""Upper edges of the groups of a trace's place in its session, from 1."""


def cohort_names(edges: Sequence[int]) -> tuple[str, ...]:
    """Name the cohorts between upper ``edges``, shortest first.

    >>> cohort_names((4, 8))
    ('1-4', '5-8', '9+')
    """
    lows = [1, *(edge + 1 for edge in edges)]
    bounded = (f"{low}-{high}" if low != high else str(high) for low, high in zip(lows, edges, strict=False))
    return (*bounded, f"{lows[-1]}+")


def checked_edges(edges: Sequence[int]) -> tuple[int, ...]:
    """Return ``edges`` when they rise from 1; raises BadInput that names them otherwise."""
    rising = all(low < high for low, high in itertools.pairwise(edges))
    if not edges or edges[0] < 1 or not rising:
        raise BadInput(f"edges {','.join(map(str, edges))!r}: accepted are rising whole numbers from 1, such as 4,8,12,20")
    return tuple(edges)


def cohort_of(length: Any, recorded: Any, edges: Sequence[int] | None) -> Any:
    """The cohort of a length, as an expression. Without ``edges`` the recorded cohort stands where there is one."""
    import ibis

    known = checked_edges(edges if edges is not None else DEFAULT_EDGES)
    names = cohort_names(known)
    made = ibis.cases(
        (length < 1, "0"), *((length <= edge, name) for edge, name in zip(known, names, strict=False)), (length.notnull(), names[-1])
    )
    return ibis.coalesce(made, recorded, UNKNOWN) if edges is not None else ibis.coalesce(recorded, made, UNKNOWN)


def cohort_rank(cohort: str) -> tuple[float, str]:
    """Sort key: by the lowest length of a cohort, what is not a range of lengths last.

    >>> sorted(["21+", "unknown", "1-4", "13-20"], key=cohort_rank)
    ['1-4', '13-20', '21+', 'unknown']
    """
    digits = "".join(itertools.takewhile(str.isdigit, cohort))
    return (float(digits) if digits else float("inf"), cohort)


def longer_than(cohort: str, steps: int) -> bool:
    """Whether every sequence of ``cohort`` is longer than ``steps``.

    >>> [longer_than(name, 12) for name in ("9-12", "13-20", "unknown")]
    [False, True, False]
    """
    low = cohort_rank(cohort)[0]
    return steps < low < float("inf")


def _text(column: str) -> Callable[[Any], Any]:
    return lambda calls: calls[column].fill_null(UNKNOWN)


def _binned(column: str, edges: Sequence[tuple[float, str]], beyond: str) -> Callable[[Any], Any]:
    def expression(calls: Any) -> Any:
        import ibis

        value = calls[column]
        return ibis.cases(*((value <= edge, name) for edge, name in edges), (value.notnull(), beyond), else_=UNKNOWN)

    return expression


DIMENSIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "cohort": lambda calls: calls.cohort,
    "release": _text("release"),
    "label": _text("label"),
    "branch": _text("branch"),
    "component": _text("component"),
    "component_version": _text("component_version"),
    "preprocessing": _text("preprocessing"),
    "service": _text("service"),
    "state": _text("state_origin"),
    "time_gap": _binned("time_gap", GAP_EDGES_S, "over 1 d"),
    "position": _binned("position", POSITION_EDGES, "7+"),
    "step": lambda calls: calls.step,
}
"""Every named dimension; any other name with a dot in it is read as an attribute of the component's span or of its trace."""


ALIASES: Final[Mapping[str, str]] = {
    c.SEQUENCE_COHORT: "cohort",
    c.RELEASE: "release",
    c.PREDICTION_LABEL: "label",
    c.TRAJECTORY_BRANCH: "branch",
    c.TRAJECTORY_STEP: "step",
    c.COMPONENT_NAME: "component",
    c.COMPONENT_VERSION: "component_version",
    c.PREPROCESSING_VERSION: "preprocessing",
    c.STATE_ORIGIN: "state",
}
"""Attributes that are a named dimension."""


def dimension(name: str) -> Callable[[Any], Any] | None:
    """Return the expression of a named dimension, None for an attribute. Raises BadInput for a name that is neither."""
    if name in DIMENSIONS:
        return DIMENSIONS[name]
    if "." not in name or name in {c.OI_INPUT, c.OI_OUTPUT}:
        raise BadInput(f"cannot group by {name!r}: accepted are {', '.join(DIMENSIONS)}, or an attribute such as app.channel")
    return None


def rank(name: str, value: str) -> tuple[float, str]:
    """Sort key of one value of the dimension ``name``."""
    order = {"time_gap": [label for _, label in GAP_EDGES_S] + ["over 1 d"], "position": [label for _, label in POSITION_EDGES] + ["7+"]}
    if name in ("cohort", "step"):
        return cohort_rank(value)
    if name in order and value in order[name]:
        return (float(order[name].index(value)), value)
    return (float("inf") if value == UNKNOWN else 0.0, value)

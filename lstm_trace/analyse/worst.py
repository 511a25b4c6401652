"""Which of many failed traces to look at first: the lowest score, then the least sure prediction, then the longest sequence."""

from __future__ import annotations

from typing import Any


def worst_first(failed: Any, at_most: int) -> tuple[str, ...]:
    """The ids of the worst of ``failed``: rows with ``trace_id``, ``score``, ``confidence`` and ``length``, of which any may be null.

    A trace with several rows counts with the worst of each. What is not known comes last; equal ones stand in the order of their ids.
    """
    each = failed.group_by("trace_id").aggregate(score=failed.score.min(), confidence=failed.confidence.min(), length=failed.length.max())
    order = (
        each.score.asc(nulls_first=False), each.confidence.asc(nulls_first=False), each.length.desc(nulls_first=False), each.trace_id.asc(),
    )  # fmt: skip
    ids: list[str] = each.order_by(*order).limit(at_most).select("trace_id").to_pyarrow().column(0).to_pylist()
    return tuple(ids)

"""Whether a judgement passed: by its label where that says so, else by its score."""

from __future__ import annotations

from typing import Any, Final

FAILING: Final = (
    "fail", "failed", "down", "escalated",
    "false", "no", "incorrect", "wrong", "hallucinated", "ungrounded", "unsupported", "irrelevant", "unrelated", "not_relevant",
)  # fmt: skip
PASSING: Final = (
    "pass", "passed", "up",
    "true", "yes", "correct", "right", "factual", "grounded", "supported", "relevant",
)  # fmt: skip
"""Labels of ours, then those of other evaluators (Phoenix, openevals, OpenTelemetry's GenAI conventions); in lower case."""
PASS_SCORE: Final = 0.5
"""A judgement without a known label passes from this score on."""


def judged(evaluations: Any) -> Any:
    """Whether an evaluation carries a judgement: it ran, and gave a score or a label."""
    return (evaluations.status == "ok") & (evaluations.score.notnull() | evaluations.label.notnull())


def failed(evaluations: Any) -> Any:
    """1 where the judgement failed, 0 where it passed, null where there is none.

    A label of ``FAILING`` or ``PASSING`` decides. Any other leaves it to the score, below 0.5 fails; without a score it says nothing.
    """
    import ibis

    # Looked up once, outside of any branch: so DuckDB looks up each distinct label and not each row's.
    labels: Any = ibis.array([*FAILING, *PASSING])
    place = labels.index(evaluations.label.lower()).nullif(-1)
    said = ibis.coalesce((place < len(FAILING)).cast("int64"), (evaluations.score < PASS_SCORE).cast("int64"))
    return judged(evaluations).ifelse(said, ibis.null("int64"))

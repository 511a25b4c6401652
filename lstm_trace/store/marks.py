"""What `convert` works out once about every span, so that analyses of a large store need not: columns beside the canonical ones.

Each says what a query over the canonical columns says too; a test holds them to equal answers. They stand on the rows that an analysis
reads (component calls, evaluations, one span of a trace without a call, one span of a step), so that it joins nothing.
"""

from __future__ import annotations

from typing import Any, Final

from lstm_trace import conventions as c
from lstm_trace.store.schema import COLUMNS

ROW: Final = "row_number"
"""The place of a span in its file, from 0."""
SUPERSEDED: Final = "superseded"
"""True where a later evaluation has this span's identifier."""
JUDGED: Final = "judged"
"""True on a component call that an evaluation which counts judges itself."""
TRACE_CALLS: Final = "trace_calls"
"""On a component call: how many its trace has. 0 on the span that stands for a trace without any; nowhere else."""
LEADS_TRACE: Final = "leads_trace"
"""True on the first component call of a trace."""
GIVEN: Final = "trace_input_tokens"
"""Where ``TRACE_CALLS`` is: the sum of input tokens over the trace's model calls."""
MADE: Final = "trace_output_tokens"
"""Likewise of output tokens."""
LEADS_STEP: Final = "leads_step"
"""True on one of the spans of a trace's step: the one that stands for them."""
STEP_RELEASE: Final = "step_release"
"""Where ``LEADS_STEP`` is: the release of the step, ``""`` where none of its spans has one."""
STEP_FAILED: Final = "step_failed"
"""True where ``LEADS_STEP`` is and a span of the step ended in error."""
OF_STEP: Final = "of_step"
"""On an evaluation of a span within a step: the step."""
OF_STEP_RELEASE: Final = "of_step_release"
"""Likewise: the step's ``STEP_RELEASE``."""
OF_STEP_FAILED: Final = "of_step_failed"
"""Likewise: its ``STEP_FAILED``."""

WEIGHT: Final = "weight"
"""On an evaluation that carries one: how many traces it stands for, above 0."""
EXPECTED: Final = "expected"
"""On an evaluation that carries it: what would have been right."""

FACTS: Final = (
    "start_ns", "release", "session_id", "service", "component", "component_version", "preprocessing", "length", "cohort", "time_gap",
    "label", "confidence", "state_origin", "duration_s", "batch_size",
)  # fmt: skip
"""The facts of a component call besides its ids."""


def of(fact: str) -> str:
    """The mark that carries a fact of a component call to an evaluation of it (else of its trace's first call), or to ``stands_for``.

    >>> of("release")
    'of_release'
    """
    return f"of_{fact}"


_KINDS: Final = {column.name: column.type for column in COLUMNS}
MARKS: Final = {
    SUPERSEDED: "boolean",
    JUDGED: "boolean",
    TRACE_CALLS: "int64",
    LEADS_TRACE: "boolean",
    GIVEN: "int64",
    MADE: "int64",
    LEADS_STEP: "boolean",
    STEP_RELEASE: "string",
    STEP_FAILED: "boolean",
    OF_STEP: "int64",
    OF_STEP_RELEASE: "string",
    OF_STEP_FAILED: "boolean",
    WEIGHT: "float64",
    EXPECTED: "string",
    **{of(fact): _KINDS[fact] for fact in FACTS},
}
"""Every mark and its ibis type; null where it does not hold, so that whole row groups are passed over by their statistics."""

EVALUATOR: Final = "EVALUATOR"


def own_work(spans: Any) -> Any:
    """Which spans are the application's own work: neither an evaluator's span nor what ran for one."""
    return ((spans.span_kind != EVALUATOR) | spans.span_kind.isnull()) & spans.target_trace_id.isnull() & spans.judge.isnull()


def is_first(calls: Any) -> Any:
    """Which component calls are the first of their trace."""
    import ibis

    return ibis.row_number().over(ibis.window(group_by="trace_id", order_by=["start_ns", "span_id"])) == 0


def told(rest: Any) -> dict[str, Any]:
    """The facts of a trace without a component call, to be aggregated by ``trace_id`` over its own work: what stands upstream of it."""
    said = rest.upstream_component.notnull()
    return {
        "span_id": rest.span_id.argmin(rest.start_ns),
        "start_ns": rest.start_ns.min(),
        "release": rest.release.min(),
        "session_id": rest.session_id.min(),
        "service": rest.service.min(),
        "component": rest.upstream_component.min(),
        "length": rest.upstream_length.argmin(rest.start_ns, where=said),
        "cohort": rest.upstream_cohort.argmin(rest.start_ns, where=said),
        "label": rest.upstream_label.argmin(rest.start_ns, where=said),
        "confidence": rest.upstream_confidence.argmin(rest.start_ns, where=said),
    }


def noted(evaluations: Any) -> dict[str, Any]:
    """``WEIGHT`` and ``EXPECTED`` of spans that are evaluations: rare, so they stand among the attributes only."""
    import ibis

    said = evaluations.attributes
    weight = said.get(c.EVALUATION_WEIGHT, ibis.null("string")).try_cast("float64")
    return {
        WEIGHT: ((weight > 0) & (weight < float("inf"))).ifelse(weight, ibis.null("float64")),
        EXPECTED: said.get(c.EVALUATION_EXPECTED, ibis.null("string")).nullif(""),
    }


def spent(work: Any) -> Any:
    """One row a trace that called a model: ``given`` and ``made``, the sums of its input and output tokens."""
    models = work.filter(work.span_kind == "LLM")
    return models.group_by("trace_id").aggregate(given=models.input_tokens.sum(), made=models.output_tokens.sum())

"""Run an evaluator for a trace and record what it answered: its span stands open around it, so the judge's own spans hang below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import context

from lstm_trace import conventions as c
from lstm_trace.evaluate.result import EvaluationResult, Evaluator, answers_errors, stated
from lstm_trace.facts import Evaluation, TraceRef
from lstm_trace.recorder import Recorder, default_recorder

KEYS: Final = {
    "response": ("response", "answer", "output", "messages"),
    "context": ("context", "documents"),
    "query": ("query", "question", "input"),
}
"""Where a mapping that a chain takes or gives holds what evaluators are given: the first key that is there."""


@dataclass(frozen=True, slots=True)
class Material:
    """What an evaluator is given to judge; None where it is not known."""

    response: Any = None
    expected_response: Any = None
    context: Any = None
    query: Any = None


def run_evaluator(evaluator: Evaluator, material: Material) -> EvaluationResult:
    """Run any evaluator; what it raises, or answers that is no EvaluationResult, is a result with ``status=error``."""
    return _run(evaluator, material)


@answers_errors
def _run(evaluator: Evaluator, material: Material) -> EvaluationResult:
    result: Any = evaluator.evaluate(
        response=material.response, expected_response=material.expected_response, context=material.context, query=material.query
    )
    if not isinstance(result, EvaluationResult):
        raise TypeError(f"evaluator {evaluator.name!r} answered {type(result).__qualname__}, not an EvaluationResult")
    return result


def evaluate_and_record(
    ref: str | TraceRef,
    evaluator: Evaluator,
    *,
    response: Any = None,
    expected_response: Any = None,
    context: Any = None,
    query: Any = None,
    metadata: Mapping[str, str | int | float | bool] | None = None,
) -> EvaluationResult:
    """Judge an answer and join the result to the span that ``ref`` names (from ``trace_ref()``).

    The explanation quotes what was judged, so it is recorded with content capture on only. Of an answer that was not traced (``""``)
    nothing is recorded. Raises ValueError when ``ref`` is no W3C traceparent.

    >>> from lstm_trace.evaluate import GroundTruthMatch
    >>> ref = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    >>> evaluate_and_record(ref, GroundTruthMatch(), response="refund", expected_response="refund").label
    'pass'
    """
    material = Material(response, expected_response, context, query)
    if ref == "":  # trace_ref() where nothing was traced
        return run_evaluator(evaluator, material)
    target = ref if isinstance(ref, TraceRef) else TraceRef.parse(str(ref))
    return record_run(default_recorder(), target, evaluator, material, metadata=metadata)


def record_run(
    recorder: Recorder,
    target: TraceRef,
    evaluator: Evaluator,
    material: Material,
    *,
    copies: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str | int | float | bool] | None = None,
    weight: float | None = None,
    placement: str | None = None,
) -> EvaluationResult:
    """Run ``evaluator`` with its evaluation's span current, and end that span with what it answered.

    ``copies`` are facts of the target that the caller knows, ``weight`` the traces that it stands for; ``placement`` goes before the
    setting. An interrupt closes the span as an error and passes.
    """
    opened = recorder.evaluations.open(evaluator.name, target, placement=placement)
    token = context.attach(opened.context)
    result = EvaluationResult.error(KeyboardInterrupt("interrupted"))
    try:
        result = run_evaluator(evaluator, material)
    finally:
        context.detach(token)
        evaluation = evaluation_of(target, evaluator, result, recorder, metadata=metadata, weight=weight)
        recorder.evaluations.finish(opened, evaluation, {**(copies or {}), **_usage(result)})
    return result


def evaluation_of(
    target: TraceRef,
    evaluator: Evaluator,
    result: EvaluationResult,
    recorder: Recorder,
    *,
    metadata: Mapping[str, str | int | float | bool] | None = None,
    weight: float | None = None,
) -> Evaluation:
    """Build the fact that is recorded from what an evaluator answered."""
    about = stated(evaluator)
    # An explanation quotes the answer, and an error's text may; what was missing is said in our own words.
    tellable = result.explanation is not None and (recorder.settings.content or result.status == "skipped")
    return Evaluation(
        target,
        about.name,
        result.score,
        result.label,
        recorder.text(result.explanation or "") if tellable else None,
        result.status,
        result.error_type,
        about.annotator,
        about.version,
        metadata or {},
        weight,
    )


def _usage(result: EvaluationResult) -> dict[str, Any]:
    used = result.judge
    if used is None:
        return {}
    attributes: dict[str, Any] = {} if used.model is None else {c.EVALUATION_JUDGE_MODEL: used.model}
    if used.input_tokens or used.output_tokens:
        attributes[c.EVALUATION_JUDGE_INPUT_TOKENS] = used.input_tokens
        attributes[c.EVALUATION_JUDGE_OUTPUT_TOKENS] = used.output_tokens
    return attributes

"""`fi.evals` (the package ai-evaluation) in our call shape; its outages stay errors instead of becoming zeros."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from lstm_trace.evaluate.adapters.mapping import NoVerdict, verdict
from lstm_trace.evaluate.result import EvaluationResult, Subject, answers_errors
from lstm_trace.facts import Annotator

_KEYS: Final = {"response": "output", "expected_response": "expected_output", "context": "context", "query": "input"}

# How its metrics begin the reason of a 0.0 that nobody judged: metrics/base_metric.py, metrics/base_llm_metric.py, local/.
_BROKEN: Final = (
    "Input validation failed",
    "LLM provider failed",
    "Failed to parse or validate LLM response",
    "Evaluation failed:",
    "Local LLM error",
    "Cloud evaluation error",
    "Error: ",
)


class FiEvals:
    """Run the evaluation ``eval_name`` of fi.evals; ``options`` go to ``fi.evals.evaluate`` (model, engine, prompt, config, keys …).

    ``inputs`` renames our keywords to those that the evaluation reads, by default response → output, context → context, query → input,
    expected_response → expected_output. Polarity and range are the evaluation's own. fi.evals records a span of its own for each
    evaluation, in which an outage has the score 0.0: making this adapter switches that off for the process
    (``disable_auto_enrichment``). Raises ImportError where ai-evaluation is not installed. Tried with ai-evaluation 1.1.0.
    """

    subject: Subject = "answer"

    def __init__(
        self,
        eval_name: str,
        *,
        name: str | None = None,
        inputs: Mapping[str, str] | None = None,
        annotator: Annotator | None = None,
        run: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        unknown = set(inputs or ()) - set(_KEYS)
        if unknown:
            raise ValueError(f"inputs={dict(inputs or {})!r}: accepted keys are {', '.join(_KEYS)}")
        self.eval_name = eval_name
        self.name = name or eval_name
        self.annotator: Annotator = annotator or ("LLM" if options.get("model") or options.get("prompt") else "CODE")
        self._inputs = {**_KEYS, **(inputs or {})}
        self._options = options
        self._run = run or _evaluate()
        self.version = _version()
        self.model: str | None = options.get("model")

    @answers_errors
    def evaluate(self, **material: Any) -> EvaluationResult:
        """Run it on what is given; None is left out."""
        given = {self._inputs[key]: value for key, value in material.items() if value is not None}
        return from_fi(self._run(self.eval_name, **given, **self._options))


def from_fi(result: Any) -> EvaluationResult:
    """Map a result of ``fi.evals.evaluate`` or ``fi.evals.Evaluator.evaluate``. Raises NoVerdict for one that failed or has no score.

    A dead endpoint comes back as ``status="completed", score=None``, a judge that failed under ``augment=True`` as the heuristic's score
    with ``augment_error`` beside it, and input that a metric cannot read or a model that fails as 0.0 with a sentence: none is a verdict.
    """
    batch: Any = getattr(result, "eval_results", None)
    if batch is not None:
        result = batch[0] if batch else None
    if result is None:
        raise NoVerdict("fi.evals gave no result")
    status = getattr(result, "status", "completed")
    if status != "completed":
        raise NoVerdict(f"fi.evals: {status}: {getattr(result, 'error', None) or ''}".rstrip(": "))
    metadata: Mapping[str, Any] = getattr(result, "metadata", None) or {}
    if metadata.get("augment_error"):
        raise NoVerdict(f"fi.evals: its judge failed: {metadata['augment_error']}")
    score: Any = getattr(result, "output", None) if not hasattr(result, "score") else result.score
    reason: Any = getattr(result, "reason", None)
    if not score and str(reason).startswith(_BROKEN):
        raise NoVerdict(f"fi.evals: {reason}")
    return verdict(score, getattr(result, "passed", None), reason)


def _evaluate() -> Callable[..., Any]:
    from importlib import import_module

    import_module("fi.evals.otel.enrichment").disable_auto_enrichment()
    run: Callable[..., Any] = import_module("fi.evals").evaluate
    return run


def _version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"ai-evaluation-{version('ai-evaluation')}"
    except PackageNotFoundError:
        return None

"""MLflow assessments: feedback on the judged trace and span; a repeated identifier updates what is there."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from lstm_trace.evaluate.sinks.base import Sink, details, required
from lstm_trace.facts import Evaluation

_SOURCES: Final = {"CODE": "CODE", "LLM": "LLM_JUDGE", "HUMAN": "HUMAN"}
_IDENTIFIER: Final = "lstm.evaluation.identifier"


class MLflowSink(Sink):
    """Send evaluations to MLflow, which must hold the judged traces (it takes them over OTLP as ``tr-<trace id>``).

    The tracking server is MLflow's own setting (``MLFLOW_TRACKING_URI``) or ``tracking_uri``, which is then set for the process. The
    value is the score, or the label where there is no score; the label stands in the metadata too. An evaluation that failed is an
    assessment error. MLflow has no identifiers, so each one costs a look at the trace's assessments. Tried with mlflow 3.17. Raises
    BadInput without the extra ``mlflow``.
    """

    backend: ClassVar[str] = "MLflow"

    def __init__(self, tracking_uri: str | None = None) -> None:
        super().__init__()
        self._mlflow = required("mlflow", "mlflow")
        self._entities = required("mlflow.entities", "mlflow")
        if tracking_uri is not None:
            self._mlflow.set_tracking_uri(tracking_uri)

    def send(self, evaluation: Evaluation) -> None:
        """Log one assessment, or update the one with the same identifier. Fails for a trace that MLflow does not hold."""
        trace_id = f"tr-{evaluation.target.trace_id:032x}"
        feedback = self._feedback(evaluation)
        known = self._known(trace_id, evaluation.identifier)
        if known is None:
            self._mlflow.log_assessment(trace_id, feedback)
        else:
            self._mlflow.update_assessment(trace_id, known, feedback)

    def _known(self, trace_id: str, identifier: str) -> str | None:
        trace: Any = self._mlflow.get_trace(trace_id)
        if trace is None:
            raise LookupError(f"MLflow holds no trace {trace_id}")
        found = (each for each in trace.info.assessments or () if (each.metadata or {}).get(_IDENTIFIER) == identifier)
        return next((each.assessment_id for each in found), None)

    def _feedback(self, evaluation: Evaluation) -> Any:
        # MLflow keeps metadata as strings.
        metadata = {key: str(value) for key, value in details(evaluation).items()} | {_IDENTIFIER: evaluation.identifier}
        if evaluation.label is not None:
            metadata["label"] = evaluation.label
        error = None
        if evaluation.error_type is not None:
            error = self._entities.AssessmentError(error_code=evaluation.error_type, error_message=evaluation.explanation)
        source = self._entities.AssessmentSource(
            source_type=_SOURCES[evaluation.annotator], source_id=evaluation.evaluator_version or evaluation.name
        )
        return self._entities.Feedback(
            name=evaluation.name,
            value=evaluation.score if evaluation.score is not None else evaluation.label,
            error=error,
            source=source,
            rationale=evaluation.explanation,
            metadata=metadata,
            span_id=f"{evaluation.target.span_id:016x}",
        )

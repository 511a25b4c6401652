"""Langfuse scores: one on the judged observation, and a repeated identifier replaces it."""

from __future__ import annotations

from typing import Any, ClassVar

from opentelemetry.sdk.trace import TracerProvider

from lstm_trace.evaluate.sinks.base import Sink, details, required
from lstm_trace.facts import Evaluation


class NotAScore(ValueError):
    """Langfuse keeps scores only; an evaluation that failed or was skipped has none."""


class LangfuseSink(Sink):
    """Send evaluations to Langfuse, which must hold the judged traces.

    ``client`` is a ``langfuse.Langfuse``, by default made from its own variables (``LANGFUSE_PUBLIC_KEY``, ``LANGFUSE_SECRET_KEY``,
    ``LANGFUSE_BASE_URL``). A score is NUMERIC; one without a number is CATEGORICAL with its label. Langfuse has no place for an evaluation
    that failed: it is counted as refused instead of becoming a zero. Written against langfuse 5.0; tried against its real client and a
    local receiver, not against a Langfuse server. Raises BadInput without the extra ``langfuse``.
    """

    backend: ClassVar[str] = "Langfuse"

    def __init__(self, client: Any = None) -> None:
        super().__init__()
        # A provider of its own, else the client puts its span processor into the application's; with tracing off it drops scores as well.
        self._client = client if client is not None else required("langfuse", "langfuse").Langfuse(tracer_provider=TracerProvider())

    def send(self, evaluation: Evaluation) -> None:
        """Queue one score in Langfuse's client."""
        self._client.create_score(**score(evaluation))

    def flush(self) -> None:
        """Wait until the client has sent its queue."""
        self._client.flush()


def score(evaluation: Evaluation) -> dict[str, Any]:
    """Return the arguments of ``create_score``. Raises NotAScore where there is neither score nor label."""
    value = evaluation.score if evaluation.score is not None else evaluation.label
    if value is None:
        raise NotAScore(evaluation.status)
    metadata = details(evaluation) | {"annotator": evaluation.annotator}
    if evaluation.label is not None:
        metadata["label"] = evaluation.label
    return {
        "name": evaluation.name,
        "value": value,
        "data_type": "NUMERIC" if evaluation.score is not None else "CATEGORICAL",
        "trace_id": f"{evaluation.target.trace_id:032x}",
        "observation_id": f"{evaluation.target.span_id:016x}",
        "score_id": evaluation.identifier,
        "comment": evaluation.explanation,
        "metadata": metadata,
    }

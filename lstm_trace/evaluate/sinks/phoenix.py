"""Phoenix span annotations: the score stands beside the judged span in Phoenix, and the latest of equal identifiers replaces the rest."""

from __future__ import annotations

from typing import Any, ClassVar

from lstm_trace.evaluate.sinks.base import Sink, details, required
from lstm_trace.facts import Evaluation


class PhoenixSink(Sink):
    """Send evaluations to Phoenix, which must hold the judged spans (their OTLP endpoint is the same server's).

    ``endpoint`` and ``api_key`` are by default Phoenix's own variables (``PHOENIX_COLLECTOR_ENDPOINT``, ``PHOENIX_API_KEY``), or give a
    ``client`` (``phoenix.client.Client``). An evaluation that failed has no score there either: its explanation says so. Tried with
    arize-phoenix 20.26 and its client 3.5. Raises BadInput without the extra ``phoenix``.
    """

    backend: ClassVar[str] = "Phoenix"

    def __init__(self, endpoint: str | None = None, *, api_key: str | None = None, client: Any = None) -> None:
        super().__init__()
        if client is None:
            client = required("phoenix.client", "phoenix").Client(base_url=endpoint, api_key=api_key)
        self._client = client

    def send(self, evaluation: Evaluation) -> None:
        """Upsert one annotation; the request waits until Phoenix has stored it, and fails for a span that it does not hold."""
        self._client.spans.log_span_annotations(span_annotations=[annotation(evaluation)], sync=True)


def annotation(evaluation: Evaluation) -> dict[str, Any]:
    """Return the annotation as Phoenix's client takes it."""
    result: dict[str, Any] = {}
    if evaluation.score is not None:
        result["score"] = evaluation.score
    if evaluation.label is not None:
        result["label"] = evaluation.label
    explanation = evaluation.explanation or (evaluation.status if evaluation.status != "ok" else None)
    if evaluation.error_type is not None:
        explanation = f"{evaluation.status}: {evaluation.error_type}"
    if explanation is not None:
        result["explanation"] = explanation
    return {
        "span_id": f"{evaluation.target.span_id:016x}",
        "name": evaluation.name,
        "annotator_kind": evaluation.annotator,
        "identifier": evaluation.identifier,
        "result": result,
        "metadata": details(evaluation),
    }

"""What every sink shares: it takes evaluation spans as an exporter does, reads the evaluations off them, and hands those over."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from lstm_trace import conventions as c
from lstm_trace.errors import BadInput
from lstm_trace.facts import Evaluation, TraceRef

_log = logging.getLogger("lstm_trace")


class Sink(SpanExporter, ABC):
    """Sends evaluations to a backend that holds the judged traces already; every other span is passed over.

    Add it to a provider as any exporter: ``provider.add_span_processor(BatchSpanProcessor(PhoenixSink()))``. ``sent`` counts what the
    backend took, ``refused`` what it did not (one log line says why, the first time).
    """

    backend: ClassVar[str]

    def __init__(self) -> None:
        self.sent = 0
        self.refused = 0

    @abstractmethod
    def send(self, evaluation: Evaluation) -> None:
        """Hand over one evaluation; whatever this raises is a refusal."""

    def flush(self) -> None:
        """Wait until the backend has what was sent; for clients with a queue of their own."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the evaluations among ``spans``; never raises."""
        refused = 0
        for span in spans:
            evaluation = evaluation_of(span.attributes or {})
            if evaluation is None:
                continue
            try:
                self.send(evaluation)
                self.sent += 1
            except Exception as error:  # noqa: BLE001 - a client may raise anything; an exporter must not
                refused += 1
                self._refuse(error)
        try:
            self.flush()
        except Exception as error:  # noqa: BLE001
            refused += 1
            self._refuse(error)
        return SpanExportResult.FAILURE if refused else SpanExportResult.SUCCESS

    def _refuse(self, error: Exception) -> None:
        if not self.refused:
            # The type alone: a client's message may quote what it was sent.
            _log.warning(
                "%s did not take an evaluation (%s); further refusals are counted, not logged", self.backend, type(error).__qualname__
            )
        self.refused += 1

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return True: ``export`` waits for the backend."""
        return True

    def shutdown(self) -> None:
        """Release nothing: the client belongs to whoever made it."""


def evaluation_of(said: Mapping[str, Any]) -> Evaluation | None:
    """Read an evaluation of ours back from its span's attributes; None for any other span.

    >>> evaluation_of({"gen_ai.evaluation.name": "quality"}) is None
    True
    """
    name, trace_id, span_id = said.get(c.EVALUATION_NAME), said.get(c.EVALUATION_TARGET_TRACE_ID), said.get(c.EVALUATION_TARGET_SPAN_ID)
    if name is None or trace_id is None or span_id is None:
        return None
    kept = {c.RELEASE: "release", c.SEQUENCE_COHORT: "cohort", c.EVALUATION_JUDGE_MODEL: "judge_model"}
    metadata = {key: said[attribute] for attribute, key in kept.items() if attribute in said}
    metadata |= {key.removeprefix(c.EVALUATION_METADATA): value for key, value in said.items() if key.startswith(c.EVALUATION_METADATA)}
    return Evaluation(
        TraceRef(int(trace_id, 16), int(span_id, 16)),
        name,
        said.get(c.EVALUATION_SCORE),
        said.get(c.EVALUATION_LABEL),
        said.get(c.EVALUATION_EXPLANATION),
        said.get(c.EVALUATION_STATUS, "ok"),
        said.get(c.ERROR_TYPE),
        said.get(c.EVALUATION_ANNOTATOR, "CODE"),
        said.get(c.EVALUATION_EVALUATOR_VERSION),
        metadata,
        said.get(c.EVALUATION_WEIGHT),
    )


def required(module: str, extra: str) -> Any:
    """Import a backend's client. Raises BadInput that names the extra."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise BadInput(f"{error.name} is not installed: pip install 'lstm-trace[{extra}]'") from None


def details(evaluation: Evaluation) -> dict[str, Any]:
    """List what a backend has no field for: status, error, version, weight, and the caller's metadata."""
    more = {
        "status": evaluation.status,
        "error.type": evaluation.error_type,
        "evaluator_version": evaluation.evaluator_version,
        "weight": evaluation.weight,
    }
    return dict(evaluation.metadata) | {name: value for name, value in more.items() if value is not None}

"""LangSmith feedback on the judged trace; a repeated identifier replaces it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, ClassVar, Final

from lstm_trace.evaluate.sinks.base import Sink, details, required
from lstm_trace.facts import Evaluation, TraceRef

_OURS: Final = uuid.UUID("4d1f9a52-6a3e-4c1b-9a63-1f0d3f0a7c55")


class LangSmithSink(Sink):
    """Send evaluations to LangSmith, which must hold the judged traces.

    LangSmith names a run by a UUID. Its OpenTelemetry side reads a trace id as the UUID of the root run, so feedback goes to the root run
    by default; ``run_of`` names another one. ``session_id`` is the id of the project, which newer servers ask for. ``client`` is a
    ``langsmith.Client``, by default made from ``LANGSMITH_*``. An evaluation that failed is sent with ``error`` and without a score.
    Written against langsmith 0.14; tried against its real client and a local receiver, not against LangSmith. Raises BadInput without
    the extra ``langsmith``.
    """

    backend: ClassVar[str] = "LangSmith"

    def __init__(
        self, client: Any = None, *, session_id: uuid.UUID | str | None = None, run_of: Callable[[TraceRef], uuid.UUID] | None = None
    ) -> None:
        super().__init__()
        self._client = client if client is not None else required("langsmith", "langsmith").Client()
        self._session_id = session_id
        self._run_of = run_of or root_run

    def send(self, evaluation: Evaluation) -> None:
        """Create one feedback."""
        project = {} if self._session_id is None else {"session_id": self._session_id}
        # By itself the client tries ten times, which holds everything behind it up for minutes when LangSmith is away.
        self._client.create_feedback(**feedback(evaluation, self._run_of(evaluation.target)), **project, stop_after_attempt=3)


def root_run(target: TraceRef) -> uuid.UUID:
    """Return the UUID of the trace's root run.

    >>> root_run(TraceRef(0x0AF7651916CD43DD8448EB211C80319C, 1))
    UUID('0af76519-16cd-43dd-8448-eb211c80319c')
    """
    return uuid.UUID(int=target.trace_id)


def feedback(evaluation: Evaluation, run: uuid.UUID) -> dict[str, Any]:
    """Return the arguments of ``create_feedback``."""
    said: dict[str, Any] = {
        "run_id": run,
        "key": evaluation.name,
        "score": evaluation.score,
        "value": evaluation.label,
        "comment": evaluation.explanation,
        "feedback_id": uuid.uuid5(_OURS, evaluation.identifier),
        "feedback_source_type": "model" if evaluation.annotator == "LLM" else "api",
        "source_info": details(evaluation) | {"annotator": evaluation.annotator, "span_id": f"{evaluation.target.span_id:016x}"},
    }
    if evaluation.status == "error":
        said["error"] = True
    return said

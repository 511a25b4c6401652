"""What an application says itself: a prediction made elsewhere, a score, feedback, an escalation, and the reference to keep for them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, get_args

from opentelemetry import context, trace

from lstm_trace import upstream
from lstm_trace.attributes import exact
from lstm_trace.facts import Annotator, Component, Evaluation, Prediction, SequenceFacts, Status, TraceRef
from lstm_trace.guard import shield
from lstm_trace.recorder import SUPPRESS_KEY, default_recorder
from lstm_trace.upstream import live

_log = logging.getLogger("lstm_trace")

T = TypeVar("T", int, float)


def trace_ref(span: trace.Span | None = None) -> str:
    """Return the W3C traceparent of the outermost span that this process recorded of the current trace.

    Keep it beside the answer: ``record_evaluation`` takes it, now or a week later, in this process or another. Right after a chain
    returned, outside of any span, it names the chain that ended last in this context. Returns ``""`` where nothing was traced.
    Source: W3C Trace Context, traceparent header.
    """
    found = (span or trace.get_current_span()).get_span_context()
    found = live.outermost(found) if found.is_valid else upstream.last_outermost.get()
    return str(TraceRef(found.trace_id, found.span_id, found.trace_flags.sampled)) if found.is_valid else ""


def upstream_prediction() -> Prediction | None:
    """Return the prediction that a span which started here and now would have upstream of it."""
    current = trace.get_current_span().get_span_context()
    if upstream.settle is not None:
        upstream.settle(current.trace_id)
    seen = live.upstream(current)
    if seen is None and default_recorder().settings.baggage:
        seen = upstream.from_baggage(context.get_current())
    return seen.prediction if seen is not None else None


def record_prediction(
    component: str,
    *,
    label: str | None = None,
    confidence: float | None = None,
    sequence_length: int | None = None,
    duration: float | None = None,
    index: int | None = None,
    margin: float | None = None,
    entropy: float | None = None,
    version: str | None = None,
    preprocessing: str | None = None,
    cell: str | None = None,
    **facts: str | int | float | bool,
) -> None:
    """Write the span of a component that ran elsewhere (ONNX, Triton, sklearn …): it ends now and took ``duration`` seconds.

    It counts as an upstream prediction. ``sequence_length`` is in steps, ``confidence`` and ``margin`` are probabilities, ``entropy``
    is in nats. Further ``facts`` become attributes by their own names.
    """
    with shield:
        recorder = default_recorder()
        end = recorder.clock()
        seconds = _usable("duration", duration, float)
        length = _usable("sequence_length", sequence_length, int)
        confidence = _usable("confidence", confidence, float, high=1.0)
        margin, entropy = _usable("margin", margin, float, high=1.0), _usable("entropy", entropy, float)
        start = end - int((seconds or 0.0) * 1e9)
        what = Component(str(component), version, preprocessing, cell)
        opened = recorder.open_component(what, start_ns=start)
        if opened is None:
            return
        said = label is not None or index is not None or confidence is not None
        prediction = Prediction(label, index, confidence, margin, entropy)
        sequence = SequenceFacts((length,), "declared") if length is not None else None
        recorder.finish_component(opened, what, (prediction,) if said else (), sequence, extra=facts, end_ns=end)


def record_evaluation(
    ref: str | TraceRef,
    name: str,
    *,
    score: float | None = None,
    label: str | bool | None = None,
    explanation: str | None = None,
    error: str | BaseException | type[BaseException] | None = None,
    annotator: Annotator = "CODE",
    evaluator_version: str | None = None,
    metadata: Mapping[str, str | int | float | bool] | None = None,
) -> str:
    """Join a score to the span that ``ref`` names (from ``trace_ref()``) and return the evaluation's identifier.

    ``label`` is ``pass`` or ``fail`` (or True, False). With ``error`` (an exception, its class or its name) the evaluation has status
    ``error`` and no score, whatever else was given; with neither score nor label it is ``skipped``; a score that is NaN, infinite or no
    number is an error too. The latest of equal identifiers (target, name, evaluator version) counts. ``explanation`` is recorded as
    given, through the redaction hook. An unusable reference is logged in one line and returns ``""``: a telemetry call does not break a
    request.

    >>> import lstm_trace
    >>> lstm_trace.record_evaluation("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "groundedness", score=0.4, label="fail")
    'bf2f7003b200097a'
    """
    with shield:
        target = _target(ref)
        if target is None:
            return ""
        if not isinstance(name, str) or not name:
            _log.warning("record_evaluation: name %r is not recorded: accepted is what was judged, such as 'groundedness'", name)
            return ""
        if metadata is not None and not isinstance(metadata, Mapping):
            _log.warning("record_evaluation: metadata of type %s is left out: accepted is a mapping", type(metadata).__qualname__)
            metadata = None
        if annotator not in get_args(Annotator):
            _log.warning("record_evaluation: annotator %r is none of CODE, LLM, HUMAN: CODE stands", annotator)
            annotator = "CODE"
        evaluation = _evaluation(target, str(name), score, label, explanation, error, annotator, evaluator_version, metadata or {})
        default_recorder().evaluations.write(evaluation)
        return evaluation.identifier
    return ""


def _evaluation(
    target: TraceRef,
    name: str,
    score: Any,
    label: Any,
    explanation: str | None,
    error: Any,
    annotator: Annotator,
    evaluator_version: str | None,
    metadata: Mapping[str, Any],
) -> Evaluation:
    number, unusable = _number(score)
    error_type = _error_type(error) or unusable
    said = None if label is None else exact(label)
    label = {True: "pass", False: "fail"}[said] if isinstance(said, bool) else None if said is None else str(said) or None
    status: Status = "error" if error_type is not None else "skipped" if number is None and label is None else "ok"
    judged = status == "ok"
    text = None if explanation is None else default_recorder().text(str(explanation))
    return Evaluation(
        target,
        name,
        number if judged else None,
        label if judged else None,
        text,
        status,
        error_type,
        annotator,
        None if evaluator_version is None else str(evaluator_version),
        {str(key): exact(value) for key, value in metadata.items() if value is not None},
    )


def _usable(name: str, value: Any, kind: Callable[[Any], T], *, high: float = math.inf) -> T | None:
    """Return a value that can be recorded, else None and one line that names it: the other facts are kept."""
    if value is None:
        return None
    try:
        number = kind(value)
        if 0 <= number <= high and math.isfinite(number):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    limit = "0 to 1" if high == 1.0 else "0 or more"
    _log.warning("record_prediction: %s=%r is left out: accepted is a number, %s", name, value, limit)
    return None


def _number(score: Any) -> tuple[float | None, str | None]:
    """Return a finite score, or why there is none: an evaluator that answers NaN or a word did not judge."""
    if score is None:
        return None, None
    try:
        number = float(score)
    except (TypeError, ValueError, OverflowError):
        _log.warning("record_evaluation: score of type %s is no number: recorded as status=error", type(score).__qualname__)
        return None, "unusable_score"
    return (number, None) if math.isfinite(number) else (None, "nonfinite_score")


def record_feedback(ref: str | TraceRef, rating: str, *, comment: str | None = None) -> str:
    """Join a user's ``up`` or ``down`` to the answer that ``ref`` names and return the identifier."""
    if rating not in ("up", "down"):
        _log.warning("record_feedback: rating %r is neither up nor down: nothing recorded", rating)
        return ""
    return record_evaluation(ref, "feedback", label=rating, explanation=comment, annotator="HUMAN")


def record_escalation(ref: str | TraceRef, *, reason: str | None = None) -> str:
    """Note that a person had to take over the conversation that ``ref`` names; return the identifier. It counts as a failure."""
    return record_evaluation(ref, "escalation", label="escalated", explanation=reason, annotator="HUMAN")


@contextmanager
def suppress() -> Generator[None]:
    """Trace nothing of ours inside this block. OpenTelemetry's own suppression keys are honoured as well."""
    token = context.attach(context.set_value(SUPPRESS_KEY, True))
    try:
        yield
    finally:
        context.detach(token)


def _target(ref: str | TraceRef) -> TraceRef | None:
    if isinstance(ref, TraceRef):
        return ref
    if ref == "":
        return None  # trace_ref() where nothing was traced: there is nothing to judge
    try:
        return TraceRef.parse(ref if isinstance(ref, str) else repr(ref))
    except ValueError as error:
        _log.warning("evaluation not recorded: %s", error)
        return None


def _error_type(error: Any) -> str | None:
    """Name what broke; ``_OTHER`` (OpenTelemetry's word) where the caller only knows that something did."""
    if error is None or error is False:
        return None
    if isinstance(error, BaseException):
        return type(error).__qualname__
    if isinstance(error, type):
        return error.__qualname__
    return error if isinstance(error, str) and error else "_OTHER"


__all__ = [
    "record_escalation",
    "record_evaluation",
    "record_feedback",
    "record_prediction",
    "suppress",
    "trace_ref",
    "upstream_prediction",
]
